//go:build deep

package static

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// trunk is a peer group of the edge.
type trunk struct {
	name, service      string
	bind, peer, caller string // addresses of the edge, the peer that accepts calls, and the peer that places calls
}

// site is one node and its surroundings. Addresses and data stay the same however often it is started.
type site struct {
	host     string // a loopback address of its own
	dir      string
	config   string // file
	trunks   map[string]*trunk
	listen   map[string]string // of provisioning, manage, metrics
	database string            // YAML, without indentation
	roles    string            // YAML list; all if empty
	id       string            // of the node; the default if empty
	fallback bool              // the core group has a default service

	stderr *os.File // where the program logs; the test's log file if nil

	n     *child.Process
	local *client.Client // management API and Provisioning API over the socket
}

const baseDomain = "gw.example.com"

// newSite lays out a node. database is the YAML of the database settings; SQLite if empty.
func newSite(t *testing.T, database string) *site {
	t.Helper()
	if _, err := exec.LookPath("sipp"); err != nil {
		if os.Getenv("TANDEM_REQUIRE_SIPP") != "" {
			t.Fatal("sipp is missing; `make setup` installs it")
		}
		t.Skip("sipp is missing; `make setup` installs it")
	}
	s := &site{host: rig.Loopback(), dir: t.TempDir(), database: database, trunks: map[string]*trunk{},
		listen: map[string]string{}}
	var held []io.Closer
	free := func() string {
		for range 50 {
			u, err := net.ListenPacket("udp", s.host+":0")
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", u.LocalAddr().String())
			if err != nil {
				_ = u.Close() // in use for TCP: try the next
				continue
			}
			held = append(held, u, l)
			return u.LocalAddr().String()
		}
		t.Fatal("no free port")
		return ""
	}
	for _, x := range []trunk{{name: "core"}, {name: "direct-routing", service: "teamsDirectRouting"},
		{name: "operator-connect", service: "teamsOperatorConnect"},
		{name: "zoom", service: "zoomPhoneCloudPeering"}} {
		x.bind, x.peer, x.caller = free(), free(), free()
		s.trunks[x.name] = &x
	}
	for _, n := range []string{"provisioning", "manage", "metrics"} {
		s.listen[n] = free()
	}
	for _, c := range held {
		_ = c.Close()
	}
	s.config = filepath.Join(t.TempDir(), "tandem.yaml")
	var err error
	if s.local, err = client.NewSocket(filepath.Join(s.dir, "manage.sock"), client.Options{Attempts: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.n != nil {
			s.kill()
		}
		s.checkLog(t)
	})
	return s
}

func (s *site) logFile() string { return filepath.Join(filepath.Dir(s.config), "tandem.log") }

// checkLog fails the test if the program's log contains a panic or a data race.
func (s *site) checkLog(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(s.logFile()); errors.Is(err, os.ErrNotExist) {
		return // it was never started
	}
	rig.CheckLog(t, s.logFile())
	if t.Failed() {
		b, _ := os.ReadFile(s.logFile()) // CheckLog has reported an error
		t.Logf("the end of tandem's log:\n%s", tail(string(b), 6000))
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (s *site) writeConfig(t *testing.T) {
	t.Helper()
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("metrics: {listen: %q}\nmanage: {listen: %q}", s.listen["metrics"], s.listen["manage"])
	w("provisioning: {listen: %q, requestsPerMinute: 100000}", s.listen["provisioning"])
	w("shutdown: {drain: 1s, cut: 5s}")
	if s.roles != "" {
		w("roles: %s", s.roles)
	}
	if s.database != "" {
		w("database: {%s}", s.database)
	}
	w("calls:")
	if s.id != "" {
		w("  node: %s", s.id)
	}
	w("  routing:\n    baseDomain: %s\n    countries: [GB]", baseDomain)
	if s.fallback {
		w("    peerGroupToService: {core: teamsOperatorConnect}")
	}
	w("  groups:")
	for _, name := range []string{"core", "direct-routing", "operator-connect", "zoom"} {
		x := s.trunks[name]
		w("    - name: %s\n      transport: udp", x.name)
		if x.service != "" {
			w("      service: %s", x.service)
		}
		w("      bind: {udp: %q}\n      allowedSources: [%s/32]\n      options: {off: true}", x.bind, s.host)
		w("      peers: [{name: %s-1, address: %q}]", x.name, x.peer)
	}
	if err := os.WriteFile(s.config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// launch starts the process and does not wait for it to be ready.
func (s *site) launch(t *testing.T) {
	t.Helper()
	s.writeConfig(t)
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var to io.Writer = log
	if s.stderr != nil {
		to = s.stderr
	}
	s.n, err = child.Start(to, hurried(t.Context(), rig.Binary(t)).Args, "--data", s.dir, "--config", s.config)
	if err != nil {
		t.Fatal(err)
	}
}

// start starts the process and waits until it reports that it is ready.
func (s *site) start(t *testing.T) time.Duration {
	t.Helper()
	at := time.Now()
	s.launch(t)
	s.waitReady(t)
	return time.Since(at)
}

func (s *site) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.n.Ready(ctx); err != nil {
		s.kill() // the next subtest needs its data directory
		t.Fatal(err)
	}
}

// kill ends the process as a crash would (SIGKILL, by its id).
func (s *site) kill() {
	s.n.Kill()
	s.n = nil
}

// stop shuts the process down with SIGTERM.
func (s *site) stop(t *testing.T) {
	t.Helper()
	if err := s.n.Stop(time.Minute); err != nil {
		t.Errorf("tandem ended with %v", err)
	}
	s.n = nil
}

// eventually waits until ok returns nil, and fails the test with what if it does not.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
	}
}

// pause lets time pass where the test is about time itself.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// answer is the response to a request.
type answer struct {
	status     int
	retryAfter string
	code       string
	body       string
	took       time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s (Retry-After %q, after %v) %s", a.status, a.code, a.retryAfter,
		a.took.Round(time.Millisecond), tail(a.body, 300))
}

// ask sends one HTTP request and never retries it.
func ask(ctx context.Context, method, url, token, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	at := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{took: time.Since(at)}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get("Retry-After"), res.Header.Get("x-ms-error-code"), string(b),
		time.Since(at)}, err
}

// url returns a URL of the Provisioning API.
func (s *site) url(path string) string {
	return "http://" + s.listen["provisioning"] + path + "?api-version=" + client.APIVersion
}

// readyz returns the readiness of a role, of all if it is empty.
func (s *site) readyz(ctx context.Context, role string) (answer, error) {
	q := ""
	if role != "" {
		q = "?role=" + role
	}
	return ask(ctx, "GET", "http://"+s.listen["metrics"]+"/readyz"+q, "", "")
}

// token creates a bearer token with the role Admin.
func (s *site) token(t *testing.T) string {
	t.Helper()
	tok, err := s.local.CreateToken(t.Context(), api.TokenRequest{Roles: []string{"ProvisioningAPI.Admin"}})
	if err != nil {
		t.Fatal(err)
	}
	return tok.AccessToken
}

// api returns a client of the Provisioning API that never retries a request.
func (s *site) api(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New("http://"+s.listen["provisioning"],
		client.Options{Tokens: client.StaticToken(s.token(t)), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// metric reads one unlabelled metric.
func (s *site) metric(t *testing.T, name string) float64 {
	t.Helper()
	a, err := ask(t.Context(), "GET", "http://"+s.listen["metrics"]+"/metrics", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(a.body, "\n") {
		var v float64
		if rest, ok := strings.CutPrefix(l, name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatalf("metric %q: %v", l, err)
			}
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// cluster starts a durable PostgreSQL for the test, and returns it with the YAML of the database settings.
func cluster(t *testing.T) (*testkit.Cluster, string) {
	t.Helper()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	return c, fmt.Sprintf("driver: postgres, url: %q", c.URL("tandem"))
}
