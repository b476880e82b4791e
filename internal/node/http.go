package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/listen"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
)

// httpServer is a part that runs an HTTP server.
type httpServer struct {
	name    string
	cfg     config.Listener
	handler http.Handler
	write   time.Duration // time limit for handling a request and sending the answer
	faults  web.Faults    // of the API
	log     *slog.Logger
	sources *auth.Sources                           // nil permits every address
	limiter interface{ SetRequests(perMinute int) } // set if sources is
	metrics *listen.Metrics
	// obtained returns the certificates that the configuration names instead of files.
	obtained transport.Obtained

	cert atomic.Pointer[transport.CertificateFiles] // in use; nil without TLS and until it is opened

	addr *net.TCPAddr // where it listens, once opened; a restart uses the same port again
	srv  *http.Server
}

// url returns the URL of the server on this machine, once opened.
func (h *httpServer) url() string {
	scheme := "http"
	if !h.cfg.Plain() {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(h.addr.String())
	if h.addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (h *httpServer) open(ctx context.Context) (func(context.Context) error, error) {
	at := h.cfg.Listen
	if h.addr != nil {
		at = h.addr.String()
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return nil, fault.CannotListen(h.name+".listen", at, err)
	}
	h.addr = l.Addr().(*net.TCPAddr)
	h.srv = web.NewServer(h.handler, h.write, h.log)
	bounds := listen.Config{Name: h.name, Total: h.cfg.MaxConnections, PerSource: h.cfg.MaxConnectionsPerSource,
		Expectation: h.faults.Expectation(), Log: h.log, Metrics: h.metrics}
	if h.sources != nil {
		bounds.Sources = h.sources
	}
	if h.cfg.Plain() {
		return serveHTTP(h.srv, listen.New(l, bounds)), nil
	}
	c := h.cert.Load()
	if c == nil {
		if c, err = transport.OpenCertificateFiles(h.cfg.CertificatePaths(), nil, h.obtained, h.log); err != nil {
			_ = l.Close() // it was not used
			return nil, err
		}
		h.cert.Store(c)
	}
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Present() }
	bounds.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate,
		NextProtos: []string{"http/1.1"}}
	run := serveHTTP(h.srv, listen.New(l, bounds))
	return func(ctx context.Context) error {
		ctx, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { c.Watch(ctx) })
		defer watch.Wait()
		defer stop()
		return run(ctx)
	}, nil
}

// watchCertificate shows the certificate of a server in the management API, and the expiry of one in a file as a
// metric.
func (n *node) watchCertificate(h *httpServer) {
	if h.cfg.Plain() {
		return
	}
	n.secured = append(n.secured, h)
	n.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "tandem_http_certificate_expiry_timestamp_seconds",
		Help:        "When the certificate of an HTTP listener expires, in Unix time.",
		ConstLabels: prometheus.Labels{"listener": h.name},
	}, func() float64 {
		if c := h.cert.Load(); c != nil && c.Certificate() != nil && c.Paths().Name == "" {
			return float64(c.Certificate().Leaf.NotAfter.Unix())
		}
		return math.NaN() // not opened, or obtained: whoever obtains it shows when it expires
	}))
}

// started logs where the server listens, and returns its URL.
func (h *httpServer) started() string {
	h.log.Info("listening", "for", h.name, "url", h.url())
	if h.cfg.Insecure && h.cfg.Plain() && !h.addr.IP.IsLoopback() {
		h.log.Warn("insecure: plain HTTP is reachable from other machines; anyone on the network can read tokens "+
			"and phone numbers", "setting", h.name+".insecure", "address", h.addr.String())
	}
	return h.url()
}

// reload checks the settings that can change while the server runs, and returns the function that applies them. It does
// nothing for a server that is off.
func (h *httpServer) reload(cfg *config.Listener, access *auth.SourcesConfig, perMinute int) (func(), error) {
	if h == nil {
		return func() {}, nil
	}
	renew := func() {}
	if c := h.cert.Load(); c != nil {
		var err error
		if renew, err = c.Read(cfg.CertificatePaths()); err != nil {
			return nil, err
		}
	}
	if h.sources == nil {
		return renew, nil
	}
	sources, errs := access.Parse()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return func() {
		renew()
		h.sources.Replace(sources)
		h.limiter.SetRequests(perMinute)
	}, nil
}

// drain accepts no new requests and waits until those in progress have finished.
func (h *httpServer) drain(ctx context.Context) error { return h.srv.Shutdown(ctx) }

// serveHTTP returns a function that serves until its context ends. A server that was shut down before that has not
// failed.
func serveHTTP(srv *http.Server, l *listen.Listener) func(context.Context) error {
	l.Prepare(srv)
	return func(ctx context.Context) error {
		failed := make(chan error, 1)
		go func() { failed <- srv.Serve(l) }()
		select {
		case err := <-failed:
			if !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			<-ctx.Done() // drained
			return nil
		case <-ctx.Done():
			_ = srv.Close() // cuts requests in progress
			<-failed
			return nil
		}
	}
}

// SocketName is the name of the management socket in the data directory.
const SocketName = "manage.sock"

// openSocket listens on the Unix socket in the data directory and returns the function that serves it.
func openSocket(path string, handler http.Handler, log *slog.Logger,
	metrics *listen.Metrics) (func(context.Context) error, error) {
	l, err := listenSocket(path)
	if err != nil {
		return nil, err
	}
	srv := web.NewServer(handler, 0, log) // no limit: verifying a long audit log takes a long time
	srv.ConnContext = withPeer
	bounds := listen.Config{Name: "socket", Total: socketConnections, Log: log, Metrics: metrics,
		Expectation: provapi.Faults.Expectation()}
	run := serveHTTP(srv, listen.New(l, bounds))
	return func(ctx context.Context) error {
		defer func() { _ = os.Remove(path) }() // fails if the directory was removed
		return run(ctx)
	}, nil
}

// listenSocket listens on a Unix socket that only its owner may open from the moment it exists: it is created in a
// temporary directory and moved into place. The caller holds the data directory's lock, so an existing socket belongs
// to a process that died.
func listenSocket(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// A socket's path is limited to 107 bytes, so a long directory is named by a descriptor.
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	made := filepath.Join(dir, "s")
	at := made
	if len(at) > 100 {
		at = "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/s"
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close() // it was not used
		return nil, err
	}
	return l, nil
}
