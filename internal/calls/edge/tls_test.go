package edge

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

// tlsAgent returns an agent that listens on TLS and sends over the first connection whose handshake succeeds.
func tlsAgent(t *testing.T, name string, settings *tls.Config) *agent {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", settings)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, name: name, in: make(chan msg, 64), listener: ln}
	var first sync.Once
	var conn net.Conn // set before ready is closed
	ready := make(chan struct{})
	a.stream = func() net.Conn {
		<-ready
		return conn
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if c.(*tls.Conn).Handshake() != nil {
					_ = c.Close()
					return
				}
				first.Do(func() { conn = c; close(ready) })
				a.read(c)
			}()
		}
	}()
	return a
}

// read reads messages from a stream.
func (a *agent) read(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		tp := textproto.NewReader(r)
		start, err := tp.ReadLine()
		if err != nil {
			return
		}
		if start == "" {
			continue // keep-alive
		}
		lines := []string{start}
		size := 0
		for {
			l, err := tp.ReadLine()
			if err != nil {
				return
			}
			if l == "" {
				break
			}
			lines = append(lines, l)
			if n, v, _ := strings.Cut(l, ":"); strings.EqualFold(n, "Content-Length") {
				size, _ = strconv.Atoi(strings.TrimSpace(v))
			}
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		raw := strings.Join(lines, "\r\n") + "\r\n\r\n" + string(body)
		if a.repeated(raw) {
			continue
		}
		m := parseMsg(raw)
		if status := a.options.Load(); status != nil && m.is("OPTIONS") {
			a.probes.Add(1)
			_, _ = c.Write([]byte((&talk{a: a, localTag: "o"}).reply(m, *status, "")))
			continue
		}
		a.in <- m
	}
}

func issue(t *testing.T, authority *ca.Authority, names ...string) tls.Certificate {
	t.Helper()
	c, err := authority.Issue(ca.ServerOnly, names...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tlsBed returns a bed whose Operator Connect is one TLS peer, sip.teams.test, and the directory and certificate file
// of the edge. Peers that connect must have the given name.
func tlsBed(t *testing.T, authority *ca.Authority, connecting string) (b *bed, teams *agent, dir, cert string) {
	t.Helper()
	dir = t.TempDir()
	cert, key, err := ca.WriteFiles(dir, "edge", issue(t, authority, "trunk.example.net", "127.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	// no address: few certificates carry one
	teams = tlsAgent(t, "teams", authority.Server(issue(t, authority, "sip.teams.test")))
	b = setup(t, func(c *bedConfig) {
		c.peers = 0
		c.service.Transport = "tls"
		c.service.Bind = Addresses{TLS: "127.0.0.2:0"}
		c.service.Advertised = Addresses{TLS: "trunk.example.net"}
		c.service.TLS = TLS{CertificateFile: cert, KeyFile: key, RootsFile: roots, PeerNames: []string{connecting}}
		c.service.Peers = []Peer{{Name: "teams", Address: teams.addr(), CertificateName: "sip.teams.test"}}
	})
	for _, l := range b.e.Listening() {
		if l.Transport == "tls" {
			teams.edge = l.Address
		}
	}
	return b, teams, dir, cert
}

func TestRequestsByAConnectionOfOurs(t *testing.T) {
	covers(t, "S11")
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b, teams, _, _ := tlsBed(t, authority, "client.teams.test")
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := teams.expect("INVITE")
	down := teams.called(inv)
	down.contact = "<sip:teams@" + teams.addr() + ";transport=tls>"
	teams.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	teams.expect("ACK")
	b.over(down, up)
	b.idle()
}

func TestTLS(t *testing.T) {
	covers(t, "S3", "D18")
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b, teams, dir, cert := tlsBed(t, authority, "sip.teams.test")
	at := teams.edge.String()

	// A peer with another name, or another authority, is refused although its address is allowed.
	other, err := ca.New("other")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]tls.Certificate{"another name": issue(t, authority, "sip.elsewhere.test"),
		"another authority": issue(t, other, "sip.teams.test")} {
		conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c}})
		if err == nil {
			_, _ = conn.Write([]byte("OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n"))
			_, err = conn.Read(make([]byte, 1)) // TLS 1.3: the refusal comes with the first read
			_ = conn.Close()
		}
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}

	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := teams.expect("INVITE")
	if c := inv.contact(); !strings.HasSuffix(c, "@trunk.example.net:"+strings.Split(at, ":")[1]+";transport=tls") {
		t.Errorf("Contact = %s, want the advertised name with TLS", c)
	}
	if v := inv.get("Via"); !strings.HasPrefix(v, "SIP/2.0/TLS trunk.example.net:") {
		t.Errorf("Via = %s", v)
	}
	down := teams.called(inv)
	down.contact = "<sip:teams@" + teams.addr() + ";transport=tls>"
	teams.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	teams.expect("ACK") // by the same connection: the agent reads others too, but sends by the first
	b.over(down, up)
	b.idle()

	// A call from there over that connection; requests back use it.
	down = teams.newCall(served, outside)
	down.contact = "<sip:teams@" + teams.addr() + ";transport=tls>"
	teams.send(down.request("INVITE", sdp))
	teams.expect("100")
	inv = b.core.expect("INVITE")
	callee := b.core.called(inv)
	b.core.send(callee.reply(inv, "200 OK", sdp))
	down.answered(teams.expect("200"))
	teams.send(down.ack(1, ""))
	b.core.expect("ACK")
	b.over(callee, down)
	b.idle()

	// A renewed certificate is loaded.
	k := b.e.keys[0]
	if _, _, err := ca.WriteFiles(dir, "edge", issue(t, authority, "trunk.example.net", "renewed.example.net",
		"127.0.0.2")); err != nil {
		t.Fatal(err)
	}
	k.Check(time.Now())
	if _, c := k.Keys.ForName("renewed.example.net"); c == nil {
		t.Errorf("the renewed certificate is not in use")
	}
	if err := os.WriteFile(cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Check(time.Now())
	if _, c := k.Keys.ForName("renewed.example.net"); c == nil {
		t.Errorf("a broken file has replaced the certificate that works")
	}
}
