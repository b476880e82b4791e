package process

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/test/rig"
)

// file is a configuration file that a server was started with.
type file struct{ name, text string }

func newFile(t *testing.T, text string) *file {
	t.Helper()
	f := &file{name: filepath.Join(t.TempDir(), "tandem.yaml")}
	f.write(t, text)
	return f
}

func (f *file) write(t *testing.T, text string) {
	t.Helper()
	f.text = text
	if err := os.WriteFile(f.name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace replaces text in the file.
func (f *file) replace(t *testing.T, old, text string) {
	t.Helper()
	if !strings.Contains(f.text, old) {
		t.Fatalf("no %q in the file", old)
	}
	f.write(t, strings.Replace(f.text, old, text, 1))
}

// run runs another command on the server's data directory.
func (s *server) run(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e strings.Builder
	cmd := exec.CommandContext(t.Context(), rig.Binary(t), append(args, "--data", s.data)...)
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// metric reads one sample.
func (s *server) metric(t *testing.T, name string) string {
	t.Helper()
	res, err := http.Get(s.ready.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestHangUpReloads checks that SIGHUP, as sent by a closed terminal, ends nothing. It applies a valid configuration
// and lists what needs a restart, and reports each mistake of an invalid one.
func TestHangUpReloads(t *testing.T) {
	t.Parallel()
	f := newFile(t, "log: {format: json}\nprovisioning: {requestsPerMinute: 100}\n")
	s := start(t, "--config", f.name)
	hangUp := func() {
		t.Helper()
		if err := s.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	if line := s.readLog(t, "configuration reloaded")[0]; !strings.Contains(line, `"applied":[],"needs_restart":[]`) {
		t.Errorf("a reload of the same file logs %s", line)
	}
	f.replace(t, "100}", "1000}\nshutdown: {lost: 1}\ncalls: {limits: {maxCalls: -1}}")
	hangUp()
	s.readLog(t, "shutdown.lost", "calls.limits.maxCalls")
	if v := s.metric(t, "tandem_config_last_reload_successful"); v != "0" {
		t.Errorf("tandem_config_last_reload_successful is %q after a reload that failed", v)
	}
	f.write(t, "log: {format: text, levels: {provisioning: error}}\nprovisioning: {requestsPerMinute: 1000}\n")
	hangUp()
	const want = `"applied":["log.levels","provisioning.requestsPerMinute"],"needs_restart":["log.format"]`
	if line := s.readLog(t, "configuration reloaded")[0]; !strings.Contains(line, want) {
		t.Errorf("the log line is %s, want it to contain %s", line, want)
	}
	if v := s.metric(t, "tandem_config_last_reload_successful"); v != "1" {
		t.Errorf("tandem_config_last_reload_successful is %q after a successful reload", v)
	}
	s.end(t)
}

// TestReloadCommand checks that tandem reload shows what it did, and that with a mistake in the configuration it
// changes nothing and says what is wrong.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issue := func() {
		t.Helper()
		cert, err := authority.Issue(ca.ServerAndClient, "localhost", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ca.WriteFiles(dir, "http", cert); err != nil {
			t.Fatal(err)
		}
	}
	issue()
	files := fmt.Sprintf("certificateFile: %[1]s/http.crt, keyFile: %[1]s/http.key", dir)
	f := newFile(t, "provisioning: {requestsPerMinute: 100, "+files+"}\ncalls: {timers: {ringTimeout: 3m}}\n")
	s := start(t, "--config", f.name)
	serial := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.ready.Provisioning, "https://"),
			authority.Client(tls.Certificate{}, "localhost"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()

	f.replace(t, "3m}", "-3m}")
	if _, errs, code := s.run(t, "reload"); code != 2 || !strings.Contains(errs, "calls.timers.ringTimeout") ||
		!strings.Contains(errs, f.name+":2:") {
		t.Errorf("reload with a mistake: exit code %d, %s", code, errs)
	}
	if _, err := s.local.Reload(t.Context()); !client.HasCode(err, "InvalidConfiguration") {
		t.Errorf("the API returned %v", err)
	}
	issue()
	f.replace(t, "-3m}", "4m}")
	f.replace(t, "requestsPerMinute: 100", "requestsPerMinute: 1")
	out, errs, code := s.run(t, "reload")
	if code != 0 || !strings.Contains(out, "provisioning.requestsPerMinute") || !strings.Contains(out, "applied") ||
		!strings.Contains(out, "calls.timers.ringTimeout") {
		t.Errorf("reload: exit code %d\n%s%s", code, out, errs)
	}
	if serial() == first {
		t.Error("the certificate is the old one after a reload")
	}

	// Concurrent reloads wait for each other.
	const concurrent = 8
	var wg sync.WaitGroup
	for range concurrent {
		wg.Go(func() {
			if r, err := s.local.Reload(t.Context()); err != nil || len(r.Applied) != 0 || len(r.Restart) != 1 {
				t.Errorf("one of several reloads: %+v %v", r, err)
			}
		})
	}
	wg.Wait()

	// The new limit applies.
	token, _, _ := s.run(t, "token", "--role", "Read")
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: authority.Client(tls.Certificate{}, "localhost")},
		Timeout: patience}
	limited := false
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			s.ready.Provisioning+"/accounts?api-version=2024-02-29-preview", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
		res, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		limited = limited || res.StatusCode == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("three requests pass a limit of one a minute")
	}
	s.end(t)

	// The audit log has each reload once, and none of the two that were refused. Its other rows are not counted: the
	// issuer creates its signing key at any time after the start.
	c := db.Default()
	c.File = filepath.Join(s.data, "tandem.db")
	d, err := db.Open(t.Context(), c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, applied := 0, 0
	for _, r := range testkit.AuditLog(t, d) {
		if r.Action == "config.reload" {
			rows++
			applied += int(r.Items)
		}
	}
	if rows != 1+concurrent || applied != 1 {
		t.Errorf("the audit log has %d reloads that applied %d settings, want %d and 1", rows, applied, 1+concurrent)
	}
}
