package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/listen"
)

func TestSocketIsPrivateAndReachableHoweverLongItsPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"short", strings.Repeat("long", 30)} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, SocketName)
		if err := os.WriteFile(path, nil, 0o600); err != nil { // left behind by a process that died
			t.Fatal(err)
		}
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got, want := localActor(r), localUser(uint32(os.Getuid())); got.Kind != "administrator" ||
				got.ID != want {
				t.Errorf("the request comes from %+v, want %s", got, want)
			}
			_, _ = io.WriteString(w, `{"status":"ready","node":"here"}`)
		})
		open := func(context.Context) (func(context.Context) error, error) {
			return openSocket(path, handler, quiet(), listen.NewMetrics(prometheus.NewRegistry()))
		}
		sup := newSupervisor(quiet(), prometheus.NewRegistry(), part{name: "socket", open: open})
		r, err := sup.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 || st.Mode()&os.ModeSocket == 0 {
			t.Errorf("socket: %v %v", st.Mode(), err)
		}
		c, err := client.NewSocket(path, client.Options{Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		if h, err := c.Health(t.Context()); err != nil || h.Node != "here" {
			t.Errorf("health over the socket: %+v %v", h, err)
		}
		if err := r.stop(nil, time.Second, time.Second); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			t.Errorf("left behind: %v %v", entries, err)
		}
	}
}

func TestHTTPServerServesTLSDrainsAndKeepsItsPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	if err := ensureLoopbackCertificate(cert, key, quiet()); err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	h := &httpServer{name: "x", log: quiet(), faults: manage.Problems,
		metrics: listen.NewMetrics(prometheus.NewRegistry()),
		cfg:     config.Listener{Listen: "127.0.0.1:0", CertificateFile: cert, KeyFile: key},
		handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(entered)
				<-release
			}
			_, _ = io.WriteString(w, "done")
		})}
	ctx, cancel := context.WithCancel(t.Context())
	run, err := h.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	got := make(chan string, 1)
	go func() {
		r, err := c.Get(h.url() + "/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		got <- string(b)
	}()
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- h.drain(t.Context()) }()
	close(release)
	if s := <-got; s != "done" {
		t.Errorf("the request in progress got %q", s)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("a drained server counts as failed: %v", err)
	default:
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	before := h.url()
	if _, err := h.open(t.Context()); err != nil || h.url() != before {
		t.Errorf("second open: %v, %s then %s", err, before, h.url())
	}
	_ = h.srv.Close()
}
