// Package rig starts the real program for end-to-end tests: it builds cmd/tandem once per test process, runs it as a
// child process between simulated neighbours, and reads its metrics. If the test runs under the race detector, so does
// the program, and a race that it reports fails the test.
package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

var built struct {
	once sync.Once
	dir  string
	file string
	err  error
}

// Root returns the module's directory.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Binary builds the program once and returns its file name. Main removes the file.
func Binary(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		root, err := Root()
		if err != nil {
			built.err = err
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "tandem-rig-"); built.err != nil {
			return
		}
		built.file = filepath.Join(built.dir, "tandem")
		args := []string{"build", "-o", built.file}
		if Race {
			args = append(args, "-race", "-gcflags=modernc.org/...=-race=false") // as make test
		}
		cmd := exec.Command("go", append(args, "./cmd/tandem")...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build cmd/tandem: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return built.file
}

// Main runs a package's tests and removes the program that Binary built.
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // leftovers in the temporary directory are harmless
	}
	os.Exit(code)
}

// Start starts the neighbours and the program between them, with the settings in set ("path=value"), and provisions
// every customer of the world. At the end of the test it stops both and checks that the program's log contains no data
// race and no panic.
func Start(tb testing.TB, lo lab.Options, set ...string) (*lab.Lab, *demo.Product) {
	tb.Helper()
	world, _, err := fixtures.Load()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l, p, err := demo.Start(ctx, tb.TempDir(), Binary(tb), world, lo, set...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		Stop(tb, p)
		if err := l.Close(); err != nil {
			tb.Errorf("stop the neighbours: %v", err)
		}
	})
	if _, err := p.Provision(ctx, world, func(fixtures.Customer) bool { return true }); err != nil {
		tb.Fatal(err)
	}
	if err := p.WaitReady(ctx, l); err != nil {
		tb.Fatal(err)
	}
	return l, p
}

// Stop shuts the program down and checks its log.
func Stop(tb testing.TB, p *demo.Product) {
	tb.Helper()
	if err := p.Stop(); err != nil {
		tb.Errorf("stop tandem: %v", err)
	}
	CheckLog(tb, p.LogFile)
}

// CheckLog fails the test if the program's log, a file, contains a data race or a panic, recovered or not.
func CheckLog(tb testing.TB, log string) {
	tb.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		tb.Error(err)
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", `"panic":`, " panic="} {
		if i := strings.Index(string(b), bad); i >= 0 {
			tb.Errorf("tandem's log contains %q:\n%s", bad, b[i:min(len(b), i+4000)])
		}
	}
}

// Metrics is one reading of the program's metrics: values by full sample name, including labels.
type Metrics map[string]float64

// ReadMetrics reads the program's metrics.
func ReadMetrics(ctx context.Context, p *demo.Product) (Metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Ready.Metrics, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body) // only for the error text
		return nil, fmt.Errorf("read metrics: %s: %s", res.Status, b)
	}
	m := Metrics{}
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		l := sc.Text()
		if strings.HasPrefix(l, "#") {
			continue
		}
		i := strings.LastIndexByte(l, ' ')
		if i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(l[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metrics: line %q: %w", l, err)
		}
		m[l[:i]] = v
	}
	return m, sc.Err()
}

// Sum returns the sum and the number of the samples of a metric whose labels contain all the given fragments, such as
// `state="pending"`. The number distinguishes a metric that does not exist from one that is 0.
func (m Metrics) Sum(name string, labels ...string) (float64, int) {
	sum, n := 0.0, 0
	for k, v := range m {
		base, rest, _ := strings.Cut(k, "{")
		if base != name {
			continue
		}
		ok := true
		for _, l := range labels {
			ok = ok && strings.Contains(rest, l)
		}
		if ok {
			sum += v
			n++
		}
	}
	return sum, n
}

// WaitMetrics reads the metrics until ok returns true, and returns the last reading. After limit the test fails.
func WaitMetrics(tb testing.TB, p *demo.Product, limit time.Duration, what string, ok func(Metrics) bool) Metrics {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	var last Metrics
	for {
		m, err := ReadMetrics(ctx, p)
		if err == nil {
			last = m
			if ok(m) {
				return m
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			tb.Errorf("after %v: %s; last reading: calls active %v, transactions pending %v, goroutines %v (%v)",
				limit, what, last["tandem_calls_active"], last[`tandem_sip_transactions{state="pending"}`],
				last["go_goroutines"], err)
			return last
		}
	}
}

// Quiet waits until no call is up and no transaction is pending.
func Quiet(tb testing.TB, p *demo.Product, limit time.Duration) Metrics {
	tb.Helper()
	return WaitMetrics(tb, p, limit, "calls or transactions are left", func(m Metrics) bool {
		calls, a := m.Sum("tandem_calls_active")
		pending, b := m.Sum("tandem_sip_transactions", `state="pending"`)
		return a > 0 && b > 0 && calls == 0 && pending == 0
	})
}

// Bound reports whether a socket of "udp", or a listener of "tcp", has the IPv4 address. It reads the kernel's table:
// trying to bind the address could take it from the program that is about to.
func Bound(tb testing.TB, network, addr string) bool {
	tb.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/" + network)
	if err != nil {
		tb.Fatal(err)
	}
	a := ap.Addr().As4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", a[3], a[2], a[1], a[0], ap.Port())
	for line := range strings.Lines(string(table)) {
		const listening = "0A" // TCP_LISTEN
		if f := strings.Fields(line); len(f) > 3 && f[1] == local && (network == "udp" || f[3] == listening) {
			return true
		}
	}
	return false
}

// Loopback chooses a loopback address of the test's own, so that its ports stay free while no process has them.
func Loopback() string {
	for range 20 {
		host := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
		if c, err := net.ListenPacket("udp", host+":0"); err == nil {
			_ = c.Close()
			return host
		}
	}
	return "127.0.0.1" // this system has no others
}
