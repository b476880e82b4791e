package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// TestLoadCertificate checks the requirements for a certificate to present. Names are those of RFC 5922 §7.
func TestLoadCertificate(t *testing.T) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir, now := t.TempDir(), time.Now()
	issue := func(name string, from, until time.Duration, names ...string) (cert, key string) {
		c, err := authority.IssueFor(ca.ServerAndClient, now.Add(from), now.Add(until), names...)
		if err == nil {
			cert, key, err = ca.WriteFiles(dir, name, c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	const hour = time.Hour
	cert, key := issue("a", -hour, hour, "sbc.example.net", "*.customers.example.net", "192.0.2.1")
	_, other := issue("b", -hour, hour, "sbc.example.net")

	for _, c := range []struct {
		cert, key string
		names     []string
		at        time.Duration
		target    string // empty: good
		text      string
	}{
		{cert, key, nil, 0, "", ""},
		{cert, key, []string{"sbc.example.net", "SBC.example.NET.", "a.customers.example.net",
			"*.customers.example.net", "192.0.2.1"}, 0, "", ""},
		{cert, key, []string{"sbc.example.net", "sbc2.example.net"}, 0, "certificateFile",
			"does not cover sbc2.example.net"},
		{cert, key, []string{"a.b.customers.example.net"}, 0, "certificateFile", "does not cover a.b.customers"},
		{cert, key, []string{"*.example.com"}, 0, "certificateFile", "does not cover *.example.com"},
		{cert, key, []string{"192.0.2.2"}, 0, "certificateFile", "does not cover 192.0.2.2"},
		{cert, key, nil, 2 * hour, "certificateFile", "expired on"},
		{cert, key, nil, -2 * hour, "certificateFile", "not valid before"},
		{cert, other, nil, 0, "keyFile", "is not the private key"},
		{key, cert, nil, 0, "certificateFile", "holds no certificate"},
		{filepath.Join(dir, "none"), key, nil, 0, "certificateFile", "no such file"},
		{cert, filepath.Join(dir, "none"), nil, 0, "keyFile", "no such file"},
	} {
		pair, err := transport.LoadCertificate(c.cert, c.key, c.names, now.Add(c.at))
		if c.target == "" {
			if err != nil || pair.Leaf == nil {
				t.Errorf("LoadCertificate(%s, %v) = %v, want a pair", c.cert, c.names, err)
			}
			continue
		}
		if err == nil || fault.As(err).Target != c.target || !strings.Contains(err.Error(), c.text) {
			t.Errorf("LoadCertificate(%s, %s, %v) = %v, want one at %s with %q", c.cert, c.key, c.names, err,
				c.target, c.text)
		}
		// A certificate that peers refuse for its dates or names is usable; one that does not match its key is not.
		if usable := strings.Contains(c.text, "cover") || c.at != 0; (pair.Leaf != nil) != usable {
			t.Errorf("LoadCertificate(%s, %s, %v) returned a pair: %v, want %v", c.cert, c.key, c.names,
				pair.Leaf != nil, usable)
		}
	}
}

func TestLoadRoots(t *testing.T) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	for text, want := range map[string]string{
		string(authority.PEM()): "",
		"# comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + string(authority.PEM()): "",
		"": "holds no certificate",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "holds no certificate",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := transport.LoadRoots(file)
		if want == "" && (err != nil || !pool.Equal(authority.Pool())) || want != "" &&
			(err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("LoadRoots of %q = %v, want %q", text, err, want)
		}
	}
	if _, err := transport.LoadRoots(file + ".none"); err == nil || fault.As(err).Target != "rootsFile" ||
		!strings.Contains(err.Error(), "no such file") {
		t.Errorf("LoadRoots of a missing file = %v", err)
	}
}

// TestCertificateFiles: a renewal that peers would refuse is not used; each is logged once at ERROR, and one that
// becomes valid is used without another change of the files. A coming expiry is warned about once a day.
func TestCertificateFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := ca.New("test")
		if err != nil {
			t.Fatal(err)
		}
		const day = 24 * time.Hour
		dir, begin, minute := t.TempDir(), time.Now(), 0
		touch := func(file string) {
			minute++
			if err := os.Chtimes(file, begin, begin.Add(time.Duration(minute)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		write := func(name, text string) string {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			touch(filepath.Join(dir, name))
			return filepath.Join(dir, name)
		}
		install := func(from, until time.Duration, names ...string) (p transport.CertificatePaths) {
			c, err := authority.IssueFor(ca.ServerAndClient, begin.Add(from), begin.Add(until), names...)
			if err == nil {
				p.Certificate, p.Key, err = ca.WriteFiles(dir, "gw", c)
			}
			if err != nil {
				t.Fatal(err)
			}
			touch(p.Certificate)
			touch(p.Key)
			return p
		}
		paths := install(-day, 29*day, "gw.example.net")
		paths.Roots = write("roots.pem", string(authority.PEM()))

		log := &lockedBuilder{}
		c, err := transport.OpenCertificateFiles(paths, []string{"gw.example.net"}, nil,
			slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.Watch(ctx) }()
		logged := func(what string, after time.Duration, want int) {
			t.Helper()
			time.Sleep(after) // by the fake clock
			synctest.Wait()
			if n := strings.Count(log.String(), what); n != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", what, n, want, log.String())
			}
		}
		logged("certificate expires soon", 12*time.Hour, 1)
		logged("certificate expires soon", 13*time.Hour, 2)
		logged("days_left=28", 0, 1)

		first, roots := c.Certificate(), c.Roots()
		for i, bad := range []struct {
			install func()
			want    string
		}{
			{func() { install(-10*day, -day, "gw.example.net") }, "expired on"},
			{func() { install(-day, 90*day, "gw.elsewhere.net") }, "does not cover gw.example.net"},
			{func() { write("gw.key", "broken") }, "is not the private key"},
			{func() { write("gw.crt", "") }, "holds no certificate"},
			{func() { _ = os.Remove(filepath.Join(dir, "gw.crt")) }, "no such file"},
			{func() { install(-day, 90*day, "gw.example.net"); write("roots.pem", "") },
				"roots.pem holds no certificate"},
			{func() { write("roots.pem", string(authority.PEM())); install(30*time.Hour, 90*day, "gw.example.net") },
				"is not valid before"},
		} {
			bad.install()
			logged(bad.want, time.Minute, 1)
			logged("level=ERROR", time.Minute, i+1)
			if c.Certificate() != first || c.Roots() != roots {
				t.Errorf("renewal %d was used", i)
			}
		}
		if commit, err := c.Read(paths); commit != nil || err == nil {
			t.Error("Read returned a certificate that is not yet valid although one is in use")
		}
		logged("certificate renewed", 6*time.Hour, 1)
		if c.Certificate() == first || c.Roots() == roots {
			t.Error("the certificate was not used when it became valid")
		}
		logged("level=ERROR", time.Hour, 7)
		cancel()
		<-done
	})
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestObtainedCertificate: a certificate that is named may be obtained later, and replaced; then the next handshake has
// the new one.
func TestObtainedCertificate(t *testing.T) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		log := &lockedBuilder{}
		var now atomic.Pointer[tls.Certificate]
		obtained := func(name string) *tls.Certificate {
			if name != "1r1" {
				t.Errorf("asked for %q", name)
			}
			return now.Load()
		}
		issue := func() *tls.Certificate {
			c, err := authority.Issue(ca.ServerOnly, "*.1r1.example.net")
			if err != nil {
				t.Fatal(err)
			}
			return &c
		}
		c, err := transport.OpenCertificateFiles(transport.CertificatePaths{Name: "1r1"}, nil, obtained,
			slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.Watch(ctx) }()
		_, err = c.Present()
		if err == nil || !strings.Contains(err.Error(), "certificate 1r1 has not been obtained") {
			t.Errorf("Present before it was obtained = %v", err)
		}
		for i := range 2 {
			want := issue()
			now.Store(want)
			time.Sleep(11 * time.Second) // by the fake clock
			leaf, err := x509.ParseCertificate(want.Leaf.Raw)
			if err != nil {
				t.Fatal(err)
			}
			now.Store(&tls.Certificate{Certificate: want.Certificate, PrivateKey: want.PrivateKey,
				Leaf: leaf}) // the same, read from the database again
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := strings.Count(log.String(), "certificate renewed"); n != i+1 {
				t.Errorf("%d renewals are logged, want %d:\n%s", n, i+1, log.String())
			}
			if got, err := c.Present(); err != nil || got.Leaf.SerialNumber.Cmp(want.Leaf.SerialNumber) != 0 {
				t.Errorf("Present after it was obtained = %v, %v", got, err)
			}
		}
		now.Store(nil)
		commit, err := c.Read(transport.CertificatePaths{Name: "1r1"})
		if err != nil {
			t.Fatal(err)
		}
		commit()
		if c.Certificate() == nil {
			t.Error("one that is not obtained replaced the certificate in use")
		}
		cancel()
		<-done
	})
}
