package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone/check"
)

const frontHost = "onboard.gw.example.com"

// frontAt returns the address of the public front of a node that runs.
func (n *node) frontAt(t *testing.T) string {
	t.Helper()
	n.logStart()
	_, at, ok := strings.Cut(n.at.Front, "://")
	if !ok {
		t.Fatalf("the front listens at %q", n.at.Front)
	}
	return at
}

// stranger is a connection to the front.
type stranger struct {
	net.Conn
	in *bufio.Reader
}

// dialFront connects from an address of this machine; the kernel chooses one if from is empty.
func dialFront(t *testing.T, at, from string) *stranger {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &stranger{c, bufio.NewReader(c)}
}

// read returns the status of the next answer, 0 if the connection was closed, and the header.
func (s *stranger) read() (int, http.Header) {
	res, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return 0, nil
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header
}

// Malformed, oversized and misdirected requests of strangers are refused, each by a status or a closed connection, and
// the next one is served.
func TestFrontRefusesMalformedRequests(t *testing.T) {
	t.Parallel()
	n := runNode(t, "front.listen=127.0.0.1:0", "calls.routing.baseDomain=gw.example.com")
	at := n.frontAt(t)
	get := "GET /status HTTP/1.1\r\n"
	long := strings.Repeat("x", 40<<10)
	for name, x := range map[string]struct {
		request string
		status  int
	}{
		"a good one":             {get + "Host: " + frontHost + "\r\n\r\n", 200},
		"HTTP/1.0":               {"GET /status HTTP/1.0\r\nHost: " + frontHost + "\r\n\r\n", 200},
		"HTTP/1.0 without Host":  {"GET /status HTTP/1.0\r\n\r\n", 421},
		"HTTP/1.1 without Host":  {get + "\r\n", 400},
		"an empty Host":          {get + "Host:\r\n\r\n", 421},
		"two Hosts":              {get + "Host: " + frontHost + "\r\nHost: x\r\n\r\n", 400},
		"a Host with a space":    {get + "Host: a b\r\n\r\n", 400},
		"a Host with a slash":    {get + "Host: " + frontHost + "/x\r\n\r\n", 400},
		"an address":             {get + "Host: 127.0.0.1\r\n\r\n", 421},
		"a target with its host": {"GET http://evil.example/status HTTP/1.1\r\nHost: " + frontHost + "\r\n\r\n", 421},
		"CONNECT":                {"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		"OPTIONS *":              {"OPTIONS * HTTP/1.1\r\nHost: " + frontHost + "\r\n\r\n", 404},
		"TRACE":                  {"TRACE /status HTTP/1.1\r\nHost: " + frontHost + "\r\n\r\n", 405},
		"a huge header":          {get + "Host: " + frontHost + "\r\nX: " + long + "\r\n\r\n", 431},
		"many headers": {get + "Host: " + frontHost + "\r\n" + strings.Repeat("X: y\r\n", 10_000) + "\r\n",
			431},
		"a huge target": {"GET /" + long + " HTTP/1.1\r\nHost: " + frontHost + "\r\n\r\n", 431},
		"a body": {"POST /status HTTP/1.1\r\nHost: " + frontHost + "\r\nContent-Length: 1000000000\r\n\r\n",
			413},
		"two lengths": {"POST / HTTP/1.1\r\nHost: " + frontHost +
			"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400},
		"an expectation": {get + "Host: " + frontHost + "\r\nExpect: payment\r\n\r\n", 417},
		"HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421},
		"something else": {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	} {
		c := dialFront(t, at, "")
		_, _ = io.WriteString(c, x.request) // the server may close before it has all of it
		status, h := c.read()
		if status != x.status {
			t.Errorf("%s: %d, want %d", name, status, x.status)
		}
		if status == 200 && h.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s: HSTS without TLS: %v", name, h)
		}
		_ = c.Close()
	}
}

// A source has its share of the connections and requests, also if it sends many requests at once on one connection, and
// others have theirs.
func TestFrontLimitsEachSource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs several addresses of 127.0.0.0/8")
	}
	t.Parallel()
	n := runNode(t, "front.listen=127.0.0.1:0", "calls.routing.baseDomain=gw.example.com", "front.maxConnections=20",
		"front.maxConnectionsPerSource=5", "front.requestsPerMinutePerSource=10")
	at := n.frontAt(t)
	get := "GET /status HTTP/1.1\r\nHost: " + frontHost + "\r\n\r\n"

	var first []*stranger
	for range 6 {
		first = append(first, dialFront(t, at, "127.0.0.2"))
	}
	if status, _ := first[0].read(); status != 0 { // evicted by the sixth
		t.Errorf("a connection above the share of its source: %d, want closed", status)
	}
	c := dialFront(t, at, "127.0.0.3")
	_, _ = io.WriteString(c, strings.Repeat(get, 30))
	var got []int
	for range 30 {
		status, _ := c.read()
		got = append(got, status)
	}
	if want := append(slices.Repeat([]int{200}, 10), slices.Repeat([]int{429}, 20)...); !slices.Equal(got, want) {
		t.Errorf("30 requests at once: %v, want %v", got, want)
	}
	for i := range 100 { // of 20 sources
		dialFront(t, at, fmt.Sprintf("127.0.1.%d", i/5))
	}
	d := dialFront(t, at, "127.0.0.4")
	_, _ = io.WriteString(d, get)
	if status, _ := d.read(); status != 200 {
		t.Errorf("another source: %d, want 200", status)
	}
}

// Over TLS the front speaks versions 1.2 and 1.3 and HTTP/1.1 only: there are no streams to open and reset. Browsers
// are told to use TLS only.
func TestFrontOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	if err := ensureLoopbackCertificate(cert, key, quiet()); err != nil {
		t.Fatal(err)
	}
	n := runNode(t, "front.listen=127.0.0.1:0", "calls.routing.baseDomain=gw.example.com",
		"front.certificateFile="+cert, "front.keyFile="+key)
	at := n.frontAt(t)
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true,
		tls.VersionTLS13: true} {
		c := tls.Client(dialFront(t, at, ""), &tls.Config{InsecureSkipVerify: true, MinVersion: version,
			MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}, ServerName: frontHost})
		err := c.HandshakeContext(t.Context())
		if (err == nil) != ok {
			t.Errorf("%s: %v, want success %v", tls.VersionName(version), err, ok)
		}
		if err != nil {
			continue
		}
		if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("%s: %q was negotiated", tls.VersionName(version), p)
		}
		s := &stranger{c, bufio.NewReader(c)}
		_, _ = io.WriteString(s, "GET /status HTTP/1.1\r\nHost: "+frontHost+"\r\n\r\n")
		if status, h := s.read(); status != 200 || h.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %d %v", tls.VersionName(version), status, h)
		}
	}
	plain := dialFront(t, at, "")
	_, _ = io.WriteString(plain, "GET /status HTTP/1.1\r\nHost: "+frontHost+"\r\n\r\n")
	if status, h := plain.read(); status != 400 || h.Get("Location") != "" {
		t.Errorf("plain HTTP: %d %v, want 400", status, h)
	}
}

// The front serves without the database, says so, and stays ready for load balancers.
func TestFrontWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	n := runNode(t, "front.listen=127.0.0.1:0", "calls.routing.baseDomain=gw.example.com")
	at := n.frontAt(t)
	status := func() string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = frontHost
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	if body := status(); !strings.Contains(body, "<h1>Operating normally</h1>") {
		t.Errorf("the page at start:\n%s", body)
	}
	if code, body := n.ask(t, "GET", "/readyz?role=front", ""); code != 200 {
		t.Errorf("/readyz?role=front: %d %s", code, body)
	}
	file := n.cfg.Database.File
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the role api is not ready", func() bool {
		code, _ := n.ask(t, "GET", "/readyz?role=api", "")
		return code == 503
	})
	if body := status(); !strings.Contains(body, "<h1>Limited</h1>") || strings.Contains(body, file) {
		t.Errorf("the page without the database:\n%s", body)
	}
	if code, body := n.ask(t, "GET", "/readyz?role=front", ""); code != 200 || !strings.Contains(body, "removed") {
		t.Errorf("/readyz?role=front without the database: %d %s", code, body)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
}

// The zone has the names of the front in every region that has one.
func TestFrontInTheZone(t *testing.T) {
	t.Parallel()
	at := dnspeer.Address(t)
	n := runNode(t, "calls.routing.baseDomain=gw.example.com", fmt.Sprintf(`zone={
		nameServers: [{name: ns1.example.net}], contact: hostmaster@example.net, listen: [%q], regions: [
		{edges: [{name: e1, addresses: [192.0.2.1], tls: 5061}], front: [192.0.2.80, "2001:db8::80"]},
		{edges: [{name: e1, addresses: [198.51.100.1], tls: 5061}], front: [198.51.100.80]}]}`, at))
	if code, body := n.ask(t, "GET", "/readyz?role=front", ""); code != 200 {
		t.Errorf("/readyz?role=front of a node whose front is off: %d %s", code, body)
	}
	var got []string
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		eventually(t, "the zone has the front", func() bool {
			r, err := check.Ask(context.WithoutCancel(t.Context()), at, frontHost, kind)
			if err != nil || len(r.Answer) == 0 {
				return false
			}
			for _, rr := range r.Answer {
				got = append(got, strings.Join(strings.Fields(rr.String()), " "))
			}
			return true
		})
	}
	slices.Sort(got)
	want := []string{frontHost + ". 60 IN A 192.0.2.80", frontHost + ". 60 IN A 198.51.100.80",
		frontHost + ". 60 IN AAAA 2001:db8::80"}
	if !slices.Equal(got, want) {
		t.Errorf("the zone has %q, want %q", got, want)
	}
}

// A reload changes the limit and the sources of the front.
func TestFrontReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	write := func(front string) {
		t.Helper()
		text := "calls: {routing: {baseDomain: gw.example.com}}\nfront: {listen: \"127.0.0.1:0\", " + front + "}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("requestsPerMinutePerSource: 1")
	cfg, err := config.Load(config.Source{Data: t.TempDir(), File: file, FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	write("requestsPerMinutePerSource: 2, allowedSources: [192.0.2.0/24]")
	ch, err := reload(t.Context(), n)
	if err != nil || len(ch.Restart) > 0 ||
		strings.Join(ch.Applied, " ") != "front.allowedSources front.requestsPerMinutePerSource" {
		t.Errorf("reload: %+v, %v", ch, err)
	}
}
