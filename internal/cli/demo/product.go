package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// apiVersion is the version of the Provisioning API that the demonstration uses.
const apiVersion = "2024-02-29-preview"

// Product is a running Tandem: a child process. Its methods are safe for concurrent use.
type Product struct {
	Executable string
	Dir        string // data directory
	Config     string // configuration file
	Ready      Ready
	LogFile    string // log of the process

	cmd    *exec.Cmd
	exited chan struct{}

	mu    sync.Mutex // guards the fields below
	err   error      // how the process ended
	token string
}

// Ready is the line that Tandem prints for scripts when it is ready.
type Ready struct {
	Ready        bool              `json:"ready"`
	Provisioning string            `json:"provisioning"`
	Management   string            `json:"management"`
	Metrics      string            `json:"metrics"`
	SIP          map[string]string `json:"sip"`
}

// startLimit is how long Tandem may take to become ready.
const startLimit = 60 * time.Second

// StartProduct starts executable with the configuration file and data directory, and returns when it is ready.
func StartProduct(ctx context.Context, executable, config, dir string, more ...string) (*Product, error) {
	p := &Product{Executable: executable, Dir: dir, Config: config, LogFile: filepath.Join(dir, "tandem.log"),
		exited: make(chan struct{})}
	logFile, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	p.cmd = exec.Command(executable,
		append([]string{"serve", "--data", dir, "--config", config, "--output", "json"}, more...)...)
	p.cmd.Stderr = logFile
	p.cmd.SysProcAttr = childAttributes()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", executable, err)
	}
	ready := make(chan error, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &p.Ready)
		}
		if err == nil && !p.Ready.Ready {
			err = fmt.Errorf("it printed %s", bytes.TrimSpace(line))
		}
		ready <- err
		_, _ = io.Copy(io.Discard, out) // no more output is expected, but the pipe must not fill up
	}()
	go func() {
		<-read // the pipe must be read to its end before Wait
		err := p.cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.exited)
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case err = <-ready:
	case <-limit.C:
		err = fmt.Errorf("not ready after %v", startLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start %s serve: %w\n%s", filepath.Base(executable), err, p.tail(30))
	}
	return p, nil
}

// tail returns the last lines of the log.
func (p *Product) tail(n int) string {
	b, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// Exited is closed when the process has ended.
func (p *Product) Exited() <-chan struct{} { return p.exited }

// PID returns the process id.
func (p *Product) PID() int { return p.cmd.Process.Pid }

// Stop asks Tandem to shut down, and kills it if that takes longer than 20 s. It returns how the process ended.
func (p *Product) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have exited already
	t := time.NewTimer(20 * time.Second)
	defer t.Stop()
	select {
	case <-p.exited:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-t.C:
		p.Kill()
		return errors.New("tandem did not stop within 20 s of SIGTERM")
	}
}

// Kill ends Tandem at once, as a crash would.
func (p *Product) Kill() {
	_ = p.cmd.Process.Kill() // it may have exited already
	<-p.exited
}

// Run runs another command of the same program and returns its output.
func (p *Product) Run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.Executable, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("tandem %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Token returns a bearer token of the embedded issuer with the role ProvisioningAPI.Admin.
func (p *Product) Token(ctx context.Context) (string, error) {
	p.mu.Lock()
	t := p.token
	p.mu.Unlock()
	if t != "" {
		return t, nil
	}
	out, err := p.Run(ctx, "token", "--data", p.Dir, "--role", "ProvisioningAPI.Admin")
	if err != nil {
		return "", err
	}
	t = strings.TrimSpace(string(out))
	p.mu.Lock()
	p.token = t
	p.mu.Unlock()
	return t, nil
}

// Do sends a request to the Provisioning API and decodes the answer into out, unless that is nil. It returns the HTTP
// status, and an error too if the status is 400 or more.
func (p *Product) Do(ctx context.Context, method, path string, in, out any) (int, error) {
	token, err := p.Token(ctx)
	if err != nil {
		return 0, err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(p.Ready.Provisioning, "/")+path+sep+
		"api-version="+apiVersion, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return res.StatusCode, err
	}
	if res.StatusCode >= 400 {
		return res.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(b))
	}
	if out != nil {
		return res.StatusCode, json.Unmarshal(b, out)
	}
	return res.StatusCode, nil
}

// Provisioned counts the customers and numbers that Provision created, and the requests that it sent.
type Provisioned struct{ Customers, Numbers, Requests int }

// Provision creates the customers for which pick returns true, with their numbers, as a BSS does: one PUT per account,
// batches of 100 numbers.
func (p *Product) Provision(ctx context.Context, w *fixtures.World,
	pick func(fixtures.Customer) bool) (Provisioned, error) {
	var n Provisioned
	for _, c := range w.Customers {
		if !pick(c) {
			continue
		}
		n.Customers++
		n.Requests++
		if _, err := p.Do(ctx, "PUT", "/accounts/"+c.Account, Account(c), nil); err != nil {
			return n, err
		}
		var batch []any
		flush := func() error {
			if len(batch) == 0 {
				return nil
			}
			n.Requests++
			n.Numbers += len(batch)
			_, err := p.Do(ctx, "POST", "/accounts/"+c.Account+":createOrUpdateNumbers",
				map[string]any{"numbers": batch}, nil)
			batch = nil
			return err
		}
		for _, b := range c.Numbers {
			if b.Known {
				continue
			}
			for _, number := range b.List() {
				batch = append(batch, Number(c.Account, b, number))
				if len(batch) == 100 { // the contract's limit (provisioning-api §4)
					if err := flush(); err != nil {
						return n, err
					}
				}
			}
		}
		if err := flush(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Account returns the body of PUT /accounts/{name} (provisioning-api §5).
func Account(c fixtures.Customer) map[string]any {
	details := map[string]any{}
	if c.TenantID != "" {
		details["teamsTenantId"] = c.TenantID
	}
	for _, b := range c.Numbers {
		s := map[string]any{"enabled": true, "syncEnabled": false}
		if b.Service == "teamsDirectRouting" {
			s["configuration"] = map[string]any{"callScreening": c.CallScreening, "subdomain": c.Subdomain,
				"subdomainTokens": map[string]any{"region1Token": "MS=ms10000001", "region2Token": "MS=ms10000002"}}
		}
		details[b.Service] = s
	}
	return map[string]any{"name": c.Account, "serviceDetails": details}
}

// Number returns one item of a batch (provisioning-api §6).
func Number(account string, b fixtures.Block, number string) map[string]any {
	service := map[string]any{"enabled": true}
	if b.Service == "teamsOperatorConnect" || b.Service == "teamsPhoneMobile" {
		service["configuration"] = map[string]any{"usage": "CallingUserAssignment",
			"choosableCapabilities": []string{"InboundCalling", "OutboundCalling"}, "allowTenantAddressUpdate": true}
	}
	n := map[string]any{"telephoneNumber": number, "accountName": account,
		"serviceDetails": map[string]any{b.Service: service}}
	if v := b.Value(number); v != "" {
		n["configuration"] = map[string]any{"customSipHeader": v}
	}
	return n
}

// WaitRouted waits until calls from peer to the number go to service: until the change has reached the edge, and a
// Direct Routing name has been provisioned.
func (p *Product) WaitRouted(ctx context.Context, peer, number, service string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	var last []byte
	for {
		out, err := p.Run(ctx, "explain", "--data", p.Dir, "--from", "+442890180001", "--to", number, "--peer", peer,
			"--output", "json")
		if err == nil && bytes.Contains(out, []byte(`"`+service+`"`)) {
			return nil
		}
		if ctx.Err() == nil {
			last = out
			if err != nil {
				last = []byte(err.Error())
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("calls to %s do not go to %s yet: %s", number, service, last)
		}
	}
}

// WaitKnown waits until every Teams edge has received OPTIONS from the gateway and the gateway has answered theirs:
// before that they accept no calls.
func WaitKnown(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		heard, answered := l.Known()
		if heard && answered {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if !heard {
				return errors.New("the gateway sent no OPTIONS that the Teams edges accept; without it, Teams " +
					"accepts no calls (direct-routing-sip §3)")
			}
			return errors.New("the gateway did not answer the OPTIONS of the Teams edges with 200 " +
				"(direct-routing-sip §3)")
		}
	}
}

// bindError reports whether a start failed because an address was in use.
func bindError(err error) bool { return strings.Contains(err.Error(), "address already in use") }
