package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// process is "tandem serve" in this process.
type process struct {
	t     *testing.T
	data  string
	ready struct {
		Ready                             bool
		Provisioning, Management, Metrics string
		SIP                               map[string]string
	}
	line string // as printed
	log  *syncBuffer
	stop context.CancelFunc
	code chan int
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// serve starts a server and waits until it reports that it is ready.
func serve(t *testing.T, data string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{t: t, data: data, log: &syncBuffer{}, stop: cancel, code: make(chan int, 1)}
	out, in := io.Pipe()
	go func() {
		p.code <- run(ctx, nil, append([]string{"serve", "--data", data, "--free-ports", "--output", "json"}, args...),
			os.Environ(), in, p.log)
		_ = in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("serve ended with %d: %v\n%s", <-p.code, err, p.log)
	}
	p.line = line
	if err := json.Unmarshal([]byte(line), &p.ready); err != nil || !p.ready.Ready {
		t.Fatalf("serve printed %q (%v)", line, err)
	}
	rest := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(out)
		rest <- b
	}()
	t.Cleanup(func() {
		cancel()
		if code := p.wait(); code != 0 {
			t.Errorf("serve ended with %d\n%s", code, p.log)
		}
		if b := <-rest; len(b) > 0 {
			t.Errorf("serve printed more than one line: %q", b)
		}
	})
	return p
}

// serveNotReady starts a server that will not become ready.
func serveNotReady(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{t: t, data: t.TempDir(), log: &syncBuffer{}, stop: cancel, code: make(chan int, 1)}
	var out syncBuffer
	go func() {
		p.code <- run(ctx, nil, append([]string{"serve", "--data", p.data, "--free-ports", "--output", "json"},
			args...), os.Environ(), &out, p.log)
	}()
	t.Cleanup(func() {
		if code := p.wait(); code != 0 || out.String() != "" {
			t.Errorf("serve ended with %d and printed %q\n%s", code, out.String(), p.log)
		}
	})
	return p
}

// wait ends the server and returns its exit code. It may be called several times.
func (p *process) wait() int {
	p.stop()
	code := <-p.code
	p.code <- code
	return code
}

// command runs another command and returns its output and its exit code.
func command(t *testing.T, data string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), nil, append(args, "--data", data), []string{"HOME=" + data}, &out, &errs)
	return out.String(), errs.String(), code
}

// must runs a command that must succeed, and returns its standard output.
func must(t *testing.T, data string, args ...string) string {
	t.Helper()
	out, errs, code := command(t, data, args...)
	if code != 0 {
		t.Fatalf("tandem %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func token(t *testing.T, data, role string) string {
	t.Helper()
	out := must(t, data, "token", "--role", role)
	if strings.Count(out, "\n") != 1 || strings.Count(out, ".") != 2 {
		t.Fatalf("tandem token printed %q, want a token and nothing else", out)
	}
	return strings.TrimSpace(out)
}

// group adds a Direct Routing group, so that calls have a destination.
var group = []string{"--set", "calls.routing.baseDomain=gw.example.com", "--set", "calls.routing.countries=[GB]",
	"--set", `calls.groups[0]={name: core, transport: udp, allowedSources: [127.0.0.1], ` +
		`bind: {udp: "127.0.0.1:5060", tcp: "127.0.0.1:5060", tls: "127.0.0.1:5061"}}`,
	"--set", `calls.groups[1]={name: teams, service: teamsDirectRouting, transport: udp, ` +
		`bind: {udp: "127.0.0.1:5070"}, peers: [{address: "127.0.0.1:9"}], options: {off: true}}`}

func TestCustomerIsProvisionedAndItsCallsAreExplained(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, group...)
	for name, url := range map[string]string{"provisioning": p.ready.Provisioning, "management": p.ready.Management,
		"metrics": p.ready.Metrics} {
		if !strings.HasPrefix(url, "http://127.0.0.1:") {
			t.Errorf("%s URL is %q", name, url)
		}
	}
	if len(p.ready.SIP) != 3 || p.ready.SIP["udp"] == "" || p.ready.SIP["tcp"] == "" || p.ready.SIP["tls"] == "" {
		t.Errorf("SIP addresses %v", p.ready.SIP)
	}
	if st, err := os.Stat(data); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("data directory %v %v", st.Mode(), err)
	}

	c, err := client.New(p.ready.Provisioning,
		client.Options{Tokens: client.StaticToken(token(t, data, "ProvisioningAPI.Admin")), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	account, err := c.PutAccount(t.Context(), &client.Account{Name: "contoso", ServiceDetails: &client.AccountServices{
		TeamsTenantID: "3f8a0d2c-5b1e-4c7a-9d60-1a2b3c4d5e01",
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true,
			Configuration: &client.DirectRoutingConfig{Subdomain: "contoso",
				SubdomainTokens: client.SubdomainTokens{Region1Token: "MS=ms1", Region2Token: "MS=ms2"}}}}},
		client.Condition{IfNoneMatch: new("*")})
	if err != nil {
		t.Fatal(err)
	}
	if account.ETag == "" {
		t.Error("no ETag")
	}
	if _, err := c.PutAccount(t.Context(), account, client.Condition{IfMatch: new(`"0"`)}); err == nil {
		t.Error("a PUT with a stale ETag went through")
	}
	const number = "+442079460123"
	if _, err := c.PutNumber(t.Context(), &client.Number{TelephoneNumber: number, AccountName: "contoso",
		ServiceDetails: client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true}},
		Configuration:  &client.NumberConfiguration{CustomSIPHeader: "site-7"}}, client.Condition{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "calls to the number go to Direct Routing", func() bool {
		var e api.Explanation
		if err := json.Unmarshal([]byte(must(t, data, "explain", "--from", "+15550100", "--to", number, "--peer",
			"core", "--output", "json")), &e); err != nil {
			t.Fatal(err)
		}
		return e.Outcome == "toService" && e.Service == "teamsDirectRouting" && e.Account == "contoso" &&
			e.Header == "site-7"
	})
	unknown := must(t, data, "explain", "--from", "+15550100", "--to", "+15550199", "--peer", "core")
	if !strings.Contains(unknown, "rejected with 404: +15550199 is not provisioned") {
		t.Errorf("explain of an unknown number:\n%s", unknown)
	}

	// A reader cannot write.
	r, err := client.New(p.ready.Provisioning,
		client.Options{Tokens: client.StaticToken(token(t, data, "Read")), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Account(t.Context(), "contoso"); err != nil {
		t.Errorf("a reader cannot read: %v", err)
	}
	var e *client.Error
	if err := r.DeleteNumber(t.Context(), "contoso", number, client.Condition{}); !errors.As(err, &e) ||
		e.Status != http.StatusForbidden {
		t.Errorf("a reader deletes: %v", err)
	}

	// The management URL needs its own role.
	m, err := client.New(p.ready.Management,
		client.Options{Tokens: client.StaticToken(token(t, data, "Management.Read")), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := m.Health(t.Context()); err != nil || h.Status != api.HealthStatusReady {
		t.Errorf("health over the URL: %+v %v", h, err)
	}
	if err := m.SetDrain(t.Context(), true); !errors.As(err, &e) || e.Status != http.StatusForbidden {
		t.Errorf("a management reader drains: %v", err)
	}
	n, err := client.New(p.ready.Management,
		client.Options{Tokens: client.StaticToken(token(t, data, "ProvisioningAPI.Admin")), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Health(t.Context()); !errors.As(err, &e) || e.Status != http.StatusForbidden {
		t.Errorf("a provisioning token opens the management API: %v", err)
	}

	// The same over the socket.
	list := must(t, data, "number", "list", "--account", "contoso", "--output", "json")
	if !strings.Contains(list, number) {
		t.Errorf("number list: %s", list)
	}
	labels := func(want string, args ...string) {
		t.Helper()
		out := must(t, data, append([]string{"account", "label"}, args...)...)
		if got := strings.Join(strings.Fields(out), " "); !strings.Contains(got, want) {
			t.Errorf("account label %v:\n%s\nwant %s", args, out, want)
		}
	}
	labels("contoso active MS=ms1 MS=ms2 moving pending x1 x2", "put", "contoso", "moving", "--region1-token", "x1",
		"--region2-token", "x2")
	must(t, data, "number", "label", "contoso", number, "--label", "moving")
	labels(number, "numbers", "contoso", "moving")
	eventually(t, "calls to the number use the label recorded for it", func() bool {
		out := must(t, data, "explain", "--from", "+15550100", "--to", number, "--peer", "core")
		return strings.Contains(out, "label          moving\n") && strings.Contains(out, "the label recorded for")
	})
	if _, errs, code := command(t, data, "account", "label", "remove", "contoso", "moving"); code != 5 ||
		!strings.Contains(errs, "numbers of the account record the label") {
		t.Errorf("removal of a label in use: exit code %d, %s", code, errs)
	}
	labels("moving active x1 x2 contoso pending MS=ms1 MS=ms2", "activate", "contoso", "moving")
	labels("contoso active MS=ms1 MS=ms2 moving pending x1 x2", "activate", "contoso", "contoso")
	must(t, data, "number", "label", "contoso", number)
	labels("contoso active MS=ms1 MS=ms2", "remove", "contoso", "moving")
	labels("contoso active MS=ms1 MS=ms2", "show", "contoso")

	out := must(t, data, "audit", "verify")
	if !strings.HasPrefix(out, "the hash chain is intact: ") {
		t.Errorf("audit verify: %s", out)
	}
	head := strings.TrimSpace(out[strings.LastIndex(out, " ")+1:])
	must(t, data, "account", "list")
	must(t, data, "audit", "verify", "--head", head)
	forged := head[:len(head)-1] +
		string("0123456789abcdef"[(strings.IndexByte("0123456789abcdef", head[len(head)-1])+1)%16])
	if _, errs, code := command(t, data, "audit", "verify", "--head", forged); code != 1 ||
		!strings.Contains(errs, "broken at row") {
		t.Errorf("audit verify with a forged head: %d %s", code, errs)
	}
	if out := must(t, data, "status"); !strings.HasPrefix(out, "ready ") || !strings.Contains(out, "edge") {
		t.Errorf("status:\n%s", out)
	}
	status := strings.Join(strings.Fields(must(t, data, "status")), " ")
	for _, want := range []string{"domain gw.example.com", "API " + p.ready.Provisioning + ", api-version " +
		client.APIVersion + ", allowed sources: all", "scope api://tandem-provisioning/.default, from " +
		p.ready.Provisioning + "/oauth2/v2.0/token"} {
		if !strings.Contains(status, want) {
			t.Errorf("status does not show %q:\n%s", want, status)
		}
	}
	out = must(t, data, "explain", "--from", "+1 (555) 0100", "--to", "+44 20 7946-0123", "--peer", "core")
	if !strings.Contains(out, "of teams at 127.0.0.1:9: unknown") || !strings.Contains(out, "called         "+number) {
		t.Errorf("explain does not name the peers of the group:\n%s", out)
	}
	tok := token(t, data, "Read")
	if out := must(t, data, "auth", "try", "--token", tok); !strings.Contains(out, "ProvisioningAPI.Read") {
		t.Errorf("auth try of a valid token:\n%s", out)
	}
	forgedToken := tok[:len(tok)-10] + "AAAAAAAAA" + tok[len(tok)-1:]
	out, errs, code := command(t, data, "auth", "try", "--token", forgedToken)
	if code != 4 || !strings.Contains(out, "signature   failed") || !strings.Contains(out, "remedy: ") ||
		strings.Contains(out+errs+p.log.String(), forgedToken) {
		t.Errorf("auth try of a forged token: exit code %d, %s\n%s", code, errs, out)
	}
	if out := must(t, data, "peers"); !strings.Contains(out, "teamsDirectRouting") {
		t.Errorf("peers:\n%s", out)
	}

	for path, want := range map[string]string{"/healthz": `"alive"`, "/readyz": `"ready":true`,
		"/readyz?role=edge": `"ready":true`, "/metrics": "tandem_part_up{part=\"edge\"} 1"} {
		if status, body := get(t, strings.TrimSuffix(p.ready.Metrics, "/metrics")+path); status != 200 ||
			!strings.Contains(body, want) {
			t.Errorf("%s = %d, without %s", path, status, want)
		}
	}
	if strings.Contains(p.log.String(), number) {
		t.Error("the log holds a whole phone number")
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(data, "manage.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left behind: %v", err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// eventually waits until ok returns true, and fails the test with what if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// Commands leave no connections to the management socket, which has 32. When all are in use, a command says so.
func TestManagementSocketIsShared(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	serve(t, data)
	for range 40 {
		must(t, data, "status")
	}
	dialer := net.Dialer{}
	eventually(t, "a command finds all connections in use", func() bool {
		for range 32 { // some are refused while the server has not noticed that a command closed its connection
			c, err := dialer.DialContext(t.Context(), "unix", filepath.Join(data, "manage.sock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
		_, errs, code := command(t, data, "status")
		if code != 0 && (code != 6 || !strings.Contains(errs, "too many commands")) {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		return code == 6
	})
}

// A server that closes the connection is running, whether the command finds that out while it writes or while it reads.
func TestSocketIsClosedAtOnce(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(data, "manage.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for range 200 {
		if _, errs, code := command(t, data, "peers"); code != 6 || !strings.Contains(errs, "closed the connection") {
			t.Fatalf("exit code %d: %s", code, errs)
		}
	}
}

func TestDataDirectoryHasOneOwner(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	serve(t, data)
	var out, errs bytes.Buffer
	code := run(t.Context(), nil, []string{"serve", "--data", data, "--free-ports"}, os.Environ(), &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "another process") && !strings.Contains(errs.String(), "in use") {
		t.Errorf("a second server on the same data: exit code %d, %s", code, &errs)
	}
}

func TestCommandsWorkWithoutAServerUnderTheLock(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data, "--lab")
	tok := token(t, data, "ProvisioningAPI.Read")
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if out := must(t, data, "account", "list", "--output", "json"); strings.Count(out, `"name"`) != 4 {
		t.Errorf("account list: %s", out)
	}
	// The examples that --help gives.
	for list, want := range map[string]string{"account": "northwind", "number": "+4420"} {
		help := must(t, data, list, "list", "--help")
		_, rest, _ := strings.Cut(help, "such as \"")
		example, _, ok := strings.Cut(rest, "\"")
		if out := must(t, data, list, "list", "--filter", example); !ok || !strings.Contains(out, want) {
			t.Errorf("%s list --filter %s, the example of its help, lists %s", list, example, out)
		}
	}
	if out := must(t, data, "audit", "verify"); !strings.HasPrefix(out, "the hash chain is intact: ") {
		t.Errorf("audit verify: %s", out)
	}
	var created api.CreatedClient
	if err := json.Unmarshal([]byte(must(t, data, "client", "create", "bss", "--role", "Admin", "--output", "json")),
		&created); err != nil || created.Secret == "" {
		t.Fatalf("client create: %+v %v", created, err)
	}
	if out := must(t, data, "client", "list"); !strings.Contains(out, created.Client.ID) ||
		strings.Contains(out, created.Secret) {
		t.Errorf("client list: %s", out)
	}
	offlineToken := token(t, data, "Read")
	if _, errs, code := command(t, data, "explain", "--from", "+1", "--to", "+2", "--peer", "core"); code != 6 ||
		!strings.Contains(errs, "is not running on "+data) {
		t.Errorf("explain without a server: %d %s", code, errs)
	}

	// Tokens issued earlier, with and without the server, are valid after a restart; the client's too, until it is
	// revoked.
	p = serve(t, data, "--lab")
	for _, tok := range []string{tok, offlineToken} {
		c, err := client.New(p.ready.Provisioning, client.Options{Tokens: client.StaticToken(tok), Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Account(t.Context(), "contoso"); err != nil {
			t.Errorf("token issued earlier: %v", err)
		}
	}
	credentials := &client.Credentials{TokenURL: p.ready.Provisioning + "/oauth2/v2.0/token",
		ClientID: created.Client.ID, ClientSecret: created.Secret, Scope: "api://tandem-provisioning/.default"}
	c, err := client.New(p.ready.Provisioning, client.Options{Tokens: credentials, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Account(t.Context(), "contoso"); err != nil {
		t.Errorf("the client cannot work: %v", err)
	}
	must(t, data, "client", "revoke", created.Client.ID)
	fresh := &client.Credentials{TokenURL: credentials.TokenURL, ClientID: created.Client.ID,
		ClientSecret: created.Secret, Scope: credentials.Scope}
	if _, err := fresh.Token(t.Context(), ""); err == nil {
		t.Error("a revoked client gets a token")
	}
}

func TestLabSeedsOnlyAnEmptyDirectory(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data, "--lab")
	if _, errs, code := command(t, data, "serve", "--lab", "--free-ports"); code != 5 ||
		!strings.Contains(errs, "tandem serve is running on") {
		t.Errorf("a second lab on the same data: exit code %d, %s", code, errs)
	}
	must(t, data, "lab", "call", "--from", "+442890180001", "--to", "+441632960101")
	must(t, data, "account", "delete", "contoso", "--delete-numbers")
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	p = serve(t, data, "--lab")
	if _, _, code := command(t, data, "account", "show", "contoso"); code != 3 {
		t.Errorf("a deleted lab customer was added again (exit code %d)", code)
	}
	c, err := client.New(p.ready.Provisioning,
		client.Options{Tokens: client.StaticToken(token(t, data, "Admin")), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	requests, addresses := 0, 0
	for r, err := range c.Requests(t.Context(), client.List{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.TenantID != "" {
			requests++
		}
	}
	for a, err := range c.CivicAddresses(t.Context(), "fabrikam", client.List{}) {
		if err != nil {
			t.Fatal(err)
		}
		if a.CityOrTown != "" {
			addresses++
		}
	}
	plans, err := c.CapabilityPlans(t.Context(), "fabrikam")
	if err != nil || requests != 2 || addresses != 2 || len(plans) != 2 {
		t.Errorf("lab: %d requests, %d addresses, %d plans, %v", requests, addresses, len(plans), err)
	}
}

func TestExitCodesAndMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "data")).wait() // commands without a server need its database
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("log:\n  levle: info\nshutdown:\n  drain: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		code   int
		stderr string // part of it
	}{
		{[]string{"version"}, 0, ""},
		{[]string{"config", "check", "--config", bad}, 2,
			bad + ":2:3: log.levle: unknown key; did you mean \"level\"?\n" + bad +
				":4:10: shutdown.drain: want a duration"},
		{[]string{"serve", "--config", bad}, 2, "unknown key"},
		{[]string{"config", "check", "--set", "log.level=loud"}, 2, "--set: log.level: \"loud\" is not valid"},
		{[]string{"serve", "--roles", "edge"}, 2, "on SQLite one process runs all roles"},
		{[]string{"serve", "--lab", "--config", bad}, 2, "a configuration of its own"},
		{[]string{"lab", "call", "--from", "+1", "--to", "+2"}, 6, "no lab is running on"},
		{[]string{"nonsense"}, 2, "unknown command \"nonsense\" for \"tandem\"; see tandem --help"},
		{[]string{"accout", "list"}, 2, "for \"tandem\"; did you mean account?"},
		{[]string{"account", "lst"}, 2, "for \"tandem account\"; see tandem account --help"},
		{[]string{"status", "--bogus"}, 2, "unknown flag: --bogus; see tandem status --help"},
		{[]string{"status", "--output"}, 2, "needs an argument: --output; see tandem status --help"},
		{[]string{"status", "--output", "xml"}, 2, "use text or json"},
		{[]string{"client", "create"}, 2, "needs NAME"},
		{[]string{"token"}, 2, "\"role\" not set; see tandem token --help"},
		{[]string{"status"}, 6, "tandem serve is not running on"},
		{[]string{"status", "--url", "http://127.0.0.1:1"}, 6, "refused"},
		{[]string{"status", "--url", "nonsense"}, 2, "want http://host:port"},
		{[]string{"status", "--url", "http://192.0.2.1", "--token", "x"}, 2, "--insecure"},
		{[]string{"status", "--token", "x"}, 2, "--token (or TANDEM_TOKEN) needs --url"},
		{[]string{"account", "list", "--token", "x"}, 2, "needs --url"},
		{[]string{"account", "show", "unknown"}, 3, "unknown"},
		{[]string{"token", "--role", "Chief"}, 2, "InvalidRole"},
		{[]string{"serve", "--data", bad}, 1, "is a file"},
	} {
		var out, errs bytes.Buffer
		args := append([]string{"--data", filepath.Join(dir, "data")}, c.args...)
		if code := run(t.Context(), nil, args, []string{}, &out, &errs); code != c.code ||
			!strings.Contains(errs.String(), c.stderr) {
			t.Errorf("tandem %s: exit code %d, want %d\n%s\nwant …%s…", strings.Join(c.args, " "), code, c.code,
				&errs, c.stderr)
		}
	}
}

// TestServeRefusesWhatConfigCheckRefuses: both exit with code 2 and print the line of the file, the key and the remedy.
func TestServeRefusesWhatConfigCheckRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text    string
		want    []string
		machine bool // passes with --offline
	}{
		"certificate": {"manage:\n  listen: 192.0.2.1:443\n" +
			"  certificateFile: /nonexistent/a.pem\n  keyFile: /nonexistent/a.key\n",
			[]string{":3:3: manage.certificateFile: ", "correct the path"}, true},
		"variable": {"secrets:\n  keyEnvironment: TANDEM_KEYS\n",
			[]string{":2:3: secrets.keyEnvironment: ", "set it to"}, true},
		"listeners": {"manage:\n  listen: 127.0.0.1:8080\n",
			[]string{": provisioning.listen: 127.0.0.1:8080 for HTTP conflicts with 127.0.0.1:8080 for HTTP " +
				"(manage.listen)", "give each"}, false},
		"database": {"database:\n  driver: postgres\n  url: postgres://u@db.example/t\n",
			[]string{":3:3: database.url: ", "insecure: true"}, false},
		"IPv6": {"metrics:\n  listen: 2001:db8::1:9464\n",
			[]string{":2:3: metrics.listen: ", "[2001:db8::1]:9464"}, false},
		"mapped range": {"provisioning:\n  allowedSources: ['::ffff:192.0.2.0/64']\n",
			[]string{":2:20: provisioning.allowedSources[0]: ", "IPv4 range"}, false},
		"emergency": {"calls:\n  routing: {baseDomain: gw.example.com}\n  groups:\n" +
			"    - {name: core, transport: udp, bind: {udp: '127.0.0.1:5060'}}\n" +
			"    - {name: dr, service: teamsDirectRouting, transport: udp, bind: {udp: '127.0.0.1:5070'}}\n",
			[]string{":2:3: calls.routing.emergencyDialStrings: ", "countries: [GB]"}, false},
		"country": {"calls:\n  routing: {countries: [GB, UK]}\n",
			[]string{":2:29: calls.routing.countries[1]: ", "ISO 3166"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, name+".yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(dir, name)
			for _, args := range [][]string{{"config", "check"}, {"serve"}} {
				_, errs, code := command(t, data, append(args, "--config", file)...)
				if code != 2 {
					t.Errorf("%v: exit code %d, want 2\n%s", args, code, errs)
				}
				for _, w := range c.want {
					if !strings.Contains(errs, w) {
						t.Errorf("%v prints\n%swant %q in it", args, errs, w)
					}
				}
			}
			if _, err := os.Stat(data); err == nil {
				t.Error("the data directory was created")
			}
			_, errs, code := command(t, data, "config", "check", "--offline", "--config", file)
			if (code == 0) != c.machine {
				t.Errorf("config check --offline: exit code %d\n%s", code, errs)
			}
		})
	}
}

func TestConfigCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	example := must(t, dir, "config", "example")
	file := filepath.Join(dir, "example.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	checked := must(t, dir, "config", "check", "--offline", "--config", file)
	if !strings.HasPrefix(checked, "the configuration is valid\nemergency calls: 112 911 933 999 (") {
		t.Errorf("config check: %q", checked)
	}
	shown := must(t, dir, "config", "show", "--config", file, "--set", "log.level=warn")
	if !strings.Contains(shown, "level: warn") || strings.Contains(shown, "#") {
		t.Errorf("config show:\n%s", shown)
	}
	out, errs, code := command(t, dir, "config", "check", "--set", "log.level=x", "--set", "a=b", "--output", "json")
	if code != 2 || !strings.Contains(out, `"valid": false`) || !strings.Contains(out, `"path": "a"`) ||
		strings.HasPrefix(errs, "tandem:") {
		t.Errorf("config check as JSON: %d\n%s%s", code, out, errs)
	}
	var tree map[string]any
	if err := json.Unmarshal([]byte(must(t, dir, "config", "show", "--output", "json")), &tree); err != nil ||
		tree["data"] == nil {
		t.Errorf("config show as JSON: %v", err)
	}
}

// TestConfigCheckWarns: what a peer may refuse is a warning on standard output, in both forms, and no mistake.
func TestConfigCheckWarns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := ca.New("public")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.Issue(ca.ServerOnly, "gw.example.com")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.WriteFiles(dir, "core", leaf)
	if err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf(`calls.groups[0]={name: core, bind: {tls: "192.0.2.1:5061"},
		tls: {certificateFile: %q, keyFile: %q}}`, cert, key)
	want := "--set: calls.groups[0].tls.certificateFile: the certificate in " + cert +
		" does not allow client authentication"
	if out := must(t, dir, "config", "check", "--set", group); !strings.HasPrefix(out, "warning: "+want) ||
		!strings.Contains(out, "\nthe configuration is valid\n") {
		t.Errorf("config check: %q, want a warning %q", out, want)
	}
	var report struct {
		Valid    bool
		Warnings []struct{ Path, Message string }
	}
	out := must(t, dir, "config", "check", "--output", "json", "--set", group)
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Valid || len(report.Warnings) != 1 ||
		report.Warnings[0].Path != "calls.groups[0].tls.certificateFile" {
		t.Errorf("config check as JSON: %v\n%s", err, out)
	}
}

// TestRunbookNamesMetricsThatExist checks that the metrics in the alerts of the runbook exist.
func TestRunbookNamesMetricsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.New("runbook")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(ca.ServerAndClient, "trunk.example.net")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := ca.WriteFiles(t.TempDir(), "edge", cert)
	if err != nil {
		t.Fatal(err)
	}
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte("c2VjcmV0LXNlY3JldC1zZWNyZXQ="), 0o600); err != nil {
		t.Fatal(err)
	}
	// Some metrics exist only together with their subject: peers, certificates, secondaries, the public front.
	p := serve(t, t.TempDir(), "--set", "manage.certificateFile="+certFile, "--set", "manage.keyFile="+keyFile,
		"--set", `calls.groups[0]={name: core, bind: {tls: "127.0.0.1:0"},
		tls: {certificateFile: "`+certFile+`", keyFile: "`+keyFile+`"},
		peers: [{address: "127.0.0.1:9", type: ip}], options: {every: 1s, timeout: 500ms, downAfter: 1}}`,
		"--set", "front.listen=127.0.0.1:0",
		"--set", `onboarding.app={id: aaaaaaaa-0000-4000-8000-000000000001, secretFile: "`+secretFile+`"}`,
		"--set", "calls.routing.baseDomain=gw.example.com", "--set", `zone={listen: ["127.0.0.1:0"],
		contact: dns@operator.example, nameServers: [{name: ns1.gw.example.com, addresses: [127.0.0.1]}],
		regions: [{edges: [{name: e1, addresses: [127.0.0.1], tls: 5061}]}],
		secondaries: [{name: ns2, address: "127.0.0.1:9", key: {name: transfer, secretFile: "`+secretFile+`"}}]}`)
	var exposed string
	eventually(t, "the peer is known to be down, and the name servers were asked", func() bool {
		_, exposed = get(t, p.ready.Metrics)
		return strings.Contains(exposed, "# TYPE tandem_peer_up ") &&
			strings.Contains(exposed, "# TYPE tandem_zone_server_up ") &&
			strings.Contains(exposed, "# TYPE tandem_zone_accounts ") &&
			strings.Contains(exposed, "# TYPE tandem_tenant_sign_ins_lost ")
	})
	// These exist while the database fails, or from the first call, event stream, kind of work or certificate on; their
	// packages test that.
	for _, name := range []string{"tandem_db_failing_since_timestamp_seconds", "tandem_calls_total",
		"tandem_manage_event_streams_ended_total", "tandem_work_keys", "tandem_work_overdue_seconds",
		"tandem_work_runs_total", "tandem_zone_update_success_timestamp_seconds",
		"tandem_certificate_expiry_timestamp_seconds", "tandem_certificate_renewal_timestamp_seconds",
		"tandem_certificate_failed_attempts", "tandem_tenant_app_credential_expiry_timestamp_seconds",
		"tandem_tenant_oldest_wait_timestamp_seconds"} {
		exposed += "# TYPE " + name + " "
	}
	names := regexp.MustCompile(`tandem_[a-z_]+(\{event="[a-z_]+"\})?`).FindAllString(string(text), -1)
	if len(names) < 5 {
		t.Fatalf("the runbook names only %d metrics", len(names))
	}
	for _, name := range names {
		series, label, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		if series == "tandem_http_connection_events_total" {
			label = "" // a sample is created by the first event of its kind
		}
		sample := regexp.MustCompile(`\n` + series + `\{[^}]*` + label + `[^}]*\} `)
		if !strings.Contains(exposed, "# TYPE "+series+" ") || label != "" && !sample.MatchString(exposed) {
			t.Errorf("the runbook names %s, which is not exposed", name)
		}
	}
}
