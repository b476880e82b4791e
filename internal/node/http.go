package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/config"
)

// httpServer is an HTTP server as a part.
type httpServer struct {
	name    string
	cfg     config.Listener
	handler http.Handler
	log     *slog.Logger
	// server makes the server; nil is one with the usual bounds around handler.
	server func() *http.Server

	cert atomic.Pointer[certificateFiles] // in use; nil without TLS and until it is opened

	addr net.Addr // where it listens, once opened; a restart takes the same port again
	srv  *http.Server
}

// url returns where the server is reached from this machine, once opened.
func (h *httpServer) url() string {
	scheme := "http"
	if h.cfg.CertificateFile != "" {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(h.addr.String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (h *httpServer) part() part { return part{name: h.name, open: h.open, drain: h.drain} }

func (h *httpServer) open(ctx context.Context) (func(context.Context) error, error) {
	listen := h.cfg.Listen
	if h.addr != nil {
		listen = h.addr.String()
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("%w (is another process using it? see %s.listen)", err, h.name)
	}
	h.addr = l.Addr()
	if h.server != nil {
		h.srv = h.server()
	} else {
		h.srv = newHTTPServer(h.handler, h.log)
	}
	if h.cfg.CertificateFile != "" {
		c := h.cert.Load()
		if c == nil {
			if c, err = openCertificate(h.cfg.CertificateFile, h.cfg.KeyFile, h.log); err != nil {
				_ = l.Close() // it was not used
				return nil, err
			}
			h.cert.Store(c)
		}
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}})
	}
	return serveHTTP(h.srv, l), nil
}

// drain lets requests in progress finish and takes no new ones.
func (h *httpServer) drain(ctx context.Context) error { return h.srv.Shutdown(ctx) }

func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
}

// serveHTTP returns a function that serves until its context ends. A server that was shut down before that is no failure.
func serveHTTP(srv *http.Server, l net.Listener) func(context.Context) error {
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
			_ = srv.Close() // whatever was still going on is cut
			<-failed
			return nil
		}
	}
}

// socketServer serves the Unix socket in the data directory as a part.
type socketServer struct {
	path    string
	handler http.Handler
	log     *slog.Logger
	srv     *http.Server
}

// SocketName is the name of the management socket in the data directory.
const SocketName = "manage.sock"

func (s *socketServer) part() part {
	return part{name: "socket", open: s.open, drain: func(ctx context.Context) error { return s.srv.Shutdown(ctx) }}
}

func (s *socketServer) open(context.Context) (func(context.Context) error, error) {
	l, err := listenSocket(s.path)
	if err != nil {
		return nil, err
	}
	s.srv = newHTTPServer(s.handler, s.log)
	s.srv.ConnContext = withPeer
	s.srv.WriteTimeout = 0 // checking a long audit log takes its time
	run := serveHTTP(s.srv, l)
	return func(ctx context.Context) error {
		defer func() { _ = os.Remove(s.path) }() // it is gone with the directory otherwise
		return run(ctx)
	}, nil
}

// listenSocket listens on a Unix socket that only its owner may open, from its first moment on: it is made in a directory
// of its own and moved to its place. The caller holds the data directory's lock, so that a socket there already is a dead
// process's.
func listenSocket(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// A socket's path is limited to 107 bytes, so the directory is named by a descriptor.
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
