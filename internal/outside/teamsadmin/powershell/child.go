package powershell

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/outside/wire"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const (
	maxLine   = 4 << 20  // bytes of a line of the child
	maxAnswer = 64 << 20 // bytes of the items of a command
	maxNoise  = 1000     // lines of a command that are not of the protocol
	maxLogged = 500      // bytes of a line in the log
)

// inherited are the variables that a child gets from this process. Others can hold secrets.
var inherited = []string{"PATH", "PSModulePath", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// request is a line to the child.
type request struct {
	ID         int            `json:"id"`
	Protocol   int            `json:"protocol,omitempty"`
	Module     string         `json:"module,omitempty"`
	Cmdlet     string         `json:"cmdlet,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Select     []string       `json:"select,omitempty"` // properties of what is returned; none: nothing is
}

// answer is a line of the child.
type answer struct {
	ID       int             `json:"id"`
	Item     json.RawMessage `json:"item"`
	Done     bool            `json:"done"`
	Protocol int             `json:"protocol"`
	Version  string          `json:"version"`
	Warnings []string        `json:"warnings"`
	Error    *cmdletError    `json:"error"`
}

// cmdletError is an error that a cmdlet reported.
type cmdletError struct{ Text, Code string }

// Error returns both.
func (e *cmdletError) Error() string { return e.Code + ": " + e.Text }

// child is a PowerShell process. It is used by one goroutine at a time; kill may be called by others.
type child struct {
	log    *slog.Logger
	limit  *rate.Limiter // of lines in the log
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Scanner
	ended  chan struct{} // closed when the process has ended
	lastID int

	tokens  [2]secret.Text // that it is signed in with, for Graph and Teams
	signed  bool
	checked time.Time // when it was last asked which tenant it reaches
}

// spawn starts a process in home, a directory of its own.
func spawn(command, script, home string, log *slog.Logger) (*child, error) {
	c := &child{log: log, limit: rate.NewLimiter(1, 50), ended: make(chan struct{})}
	c.cmd = exec.Command(command, "-NoLogo", "-NoProfile", "-NonInteractive", "-File", script)
	c.cmd.Dir = home
	c.cmd.Env = []string{"HOME=" + home, "POWERSHELL_TELEMETRY_OPTOUT=1", "POWERSHELL_UPDATECHECK=Off", "NO_COLOR=1"}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			c.cmd.Env = append(c.cmd.Env, name+"="+v)
		}
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	stderr, err3 := c.cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, c.cmd.Start()); err != nil {
		return nil, err
	}
	c.in, c.out = in, bufio.NewScanner(out)
	c.out.Buffer(nil, maxLine)

	go c.readErrors(bufio.NewReaderSize(stderr, maxLogged))
	go func() {
		err := c.cmd.Wait() // closes the pipes
		log.Debug("PowerShell ended", "status", err)
		close(c.ended)
	}()
	return c, nil
}

// readErrors logs what the child writes to stderr: the beginning of each line, and some lines a second.
func (c *child) readErrors(r *bufio.Reader) {
	for {
		line, prefix, err := r.ReadLine()
		if err != nil {
			return
		}
		if len(line) > 0 && c.limit.Allow() {
			c.log.Warn("PowerShell reports", "line", clean(string(line)))
		}
		for prefix && err == nil { // the rest of a long line
			_, prefix, err = r.ReadLine()
		}
	}
}

// kill ends the process group, and returns when the process has ended.
func (c *child) kill() {
	select {
	case <-c.ended:
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // it may end now
		<-c.ended
	}
}

// jwt matches what access tokens look like.
var jwt = regexp.MustCompile(`eyJ[\w-]+(\.[\w-]*)+`)

// clean prepares text of the child for logs and errors.
func clean(s string) string {
	return wire.Clip(jwt.ReplaceAllString(strings.ToValidUTF8(s, "?"), "[token]"), maxLogged)
}

// call sends a request and returns what came of it: the items, or a *cmdletError. After any other error, the child is
// killed: whether it did the request is unknown. If ctx ends, it is killed.
func (c *child) call(ctx context.Context, r request) (items []json.RawMessage, last answer, err error) {
	c.lastID++
	r.ID = c.lastID
	line, err := json.Marshal(r)
	if err != nil {
		return nil, last, &cmdletError{"the parameters are no JSON: " + err.Error(), "BadRequest"}
	}
	stop := context.AfterFunc(ctx, c.kill)
	defer func() {
		stop()
		if _, reported := errors.AsType[*cmdletError](err); err != nil && !reported {
			c.kill()
			err = errors.Join(err, ctx.Err())
		}
	}()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return nil, last, err
	}

	size, noise := 0, 0
	for c.out.Scan() {
		line := bytes.TrimPrefix(c.out.Bytes(), []byte("\ufeff"))
		last = answer{}
		if json.Unmarshal(line, &last) != nil || last.ID == 0 {
			if noise++; noise > maxNoise {
				return nil, last, errors.New("too many lines that are not of the protocol")
			}
			if c.limit.Allow() {
				c.log.Debug("PowerShell prints", "line", clean(string(line)))
			}
			continue
		}
		size += len(last.Item)
		switch {
		case last.ID != r.ID:
			return nil, last, fmt.Errorf("answer %d to request %d", last.ID, r.ID)
		case size > maxAnswer:
			return nil, last, errors.New("the answer is too large")
		case last.Error != nil:
			return nil, last, &cmdletError{clean(last.Error.Text), wire.Clip(clean(last.Error.Code), 100)}
		case last.Done:
			for _, w := range last.Warnings {
				c.log.Info("cmdlet warns", "cmdlet", r.Cmdlet, "warning", clean(w))
			}
			return items, last, nil
		}
		items = append(items, last.Item)
	}
	if err := c.out.Err(); err != nil && !errors.Is(err, os.ErrClosed) {
		return nil, last, err
	}
	return nil, last, errors.New("PowerShell ended")
}
