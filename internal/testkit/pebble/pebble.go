// Package pebble starts Pebble, the ACME authority that tests use. Its version is in tools/pebble.
package pebble

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

const patience = time.Minute // until it answers

// binary returns the path of the program, which it builds.
var binary = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.Command("go", "tool", "-C", filepath.Join(filepath.Dir(file), "../../../tools/pebble"), "-n", "pebble")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build pebble: %w", err)
	}

	return strings.TrimSpace(string(out)), nil
})

// Authority is a running Pebble.
type Authority struct {
	Address    string // of its web server
	Management string // URL of its own interface
	// Web is the certificate of its web server, for 127.0.0.1. RootsPEM has the authority that issued it.
	Web      tls.Certificate
	RootsPEM []byte
	Client   *http.Client // trusts it
	Stop     func()
}

// Directory returns the URL of its directory.
func (a *Authority) Directory() string { return "https://" + a.Address + "/dir" }

// Start starts an authority until the test ends, strict, which asks the name server at an address. extra are settings
// of Pebble.
func Start(tb testing.TB, nameServer string, extra ...map[string]any) *Authority {
	tb.Helper()
	bin, err := binary()
	if err != nil {
		tb.Fatal(err)
	}
	root, err := ca.New("authority's web server")
	if err != nil {
		tb.Fatal(err)
	}
	a := &Authority{Address: freePort(tb), RootsPEM: root.PEM(), Client: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: root.Pool(), MinVersion: tls.VersionTLS12}}}}
	if a.Web, err = root.Issue(ca.ServerOnly, "127.0.0.1"); err != nil {
		tb.Fatal(err)
	}
	dir, management := tb.TempDir(), freePort(tb)
	a.Management = "https://" + management
	certFile, keyFile, err := ca.WriteFiles(dir, "web", a.Web)
	if err != nil {
		tb.Fatal(err)
	}
	settings := map[string]any{"listenAddress": a.Address,
		"managementListenAddress": management, "certificate": certFile, "privateKey": keyFile, "httpPort": 5002,
		"tlsPort": 5001, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 7776000}}}
	for _, x := range extra {
		maps.Copy(settings, x)
	}
	raw, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		tb.Fatal(err)
	}

	cmd := exec.Command(bin, "-config", file, "-strict", "-dnsserver", nameServer)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	a.Stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it has ended otherwise
		_ = cmd.Wait()
	})
	tb.Cleanup(a.Stop)
	for end := time.Now().Add(patience); ; {
		resp, err := a.Client.Get(a.Directory())
		if err == nil {
			_ = resp.Body.Close()
			return a
		}
		if time.Now().After(end) {
			tb.Fatalf("pebble does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // between attempts to connect
	}
}

// Roots returns the authority that issues certificates.
func (a *Authority) Roots(tb testing.TB) *x509.CertPool {
	tb.Helper()
	resp, err := a.Client.Get(a.Management + "/roots/0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	pem, err := io.ReadAll(resp.Body)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		tb.Fatalf("no root certificate: %v", err)
	}

	return pool
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()

	return l.Addr().String()
}
