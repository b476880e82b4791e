//go:build deep

package static

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sipAnswer is the final response to a request.
type sipAnswer struct {
	status int
	header textproto.MIMEHeader
	line   string
}

// request sends one SIP request from the core over UDP and returns the final response. It writes and parses messages by
// itself: the product's parser must not test itself.
func (s *site) request(t *testing.T, method, number string) (sipAnswer, error) {
	t.Helper()
	core := s.trunks["core"]
	a, err := net.ResolveUDPAddr("udp", core.bind)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(s.host)}, a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local := c.LocalAddr()
	uri := fmt.Sprintf("sip:%s@%s;user=phone", number, core.bind)
	if method == "OPTIONS" {
		uri = "sip:" + core.bind
	}
	id := fmt.Sprintf("%d", time.Now().UnixNano())
	send := func(method, to string) error {
		body, kind := "", ""
		if method == "INVITE" {
			kind = "Content-Type: application/sdp\r\n"
			body = fmt.Sprintf("v=0\r\no=core 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n"+
				"m=audio 16384 RTP/AVP 8\r\n", s.host, s.host)
		}
		_, err := fmt.Fprintf(c, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport\r\n"+
			"From: <sip:%s@%s>;tag=%s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: 1 %s\r\n"+
			"Contact: <sip:core@%s>\r\nMax-Forwards: 70\r\n%sContent-Length: %d\r\n\r\n%s",
			method, uri, local, id, outside, local, id, to, id, method, local, kind, len(body), body)
		return err
	}
	if err := send(method, "<"+uri+">"); err != nil {
		return sipAnswer{}, err
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return sipAnswer{}, fmt.Errorf("%s: no final response: %w", method, err)
		}
		r := textproto.NewReader(bufio.NewReader(strings.NewReader(string(buf[:n]))))
		line, err := r.ReadLine()
		if err != nil {
			return sipAnswer{}, err
		}
		h, err := r.ReadMIMEHeader()
		if err != nil {
			return sipAnswer{}, fmt.Errorf("%s: response %q: %w", method, buf[:n], err)
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return sipAnswer{}, fmt.Errorf("%s: response %q", method, buf[:n])
		}
		status, err := strconv.Atoi(f[1])
		if err != nil {
			return sipAnswer{}, err
		}
		if status < 200 {
			continue
		}
		if method == "INVITE" {
			if err := send("ACK", h.Get("To")); err != nil {
				return sipAnswer{}, err
			}
		}
		return sipAnswer{status, h, line}, nil
	}
}

// refusesCalls fails the test unless the edge, which has no index, refuses OPTIONS and calls to known and unknown
// numbers, and is not ready.
func (s *site) refusesCalls(t *testing.T) {
	t.Helper()
	for _, x := range [][2]string{{"OPTIONS", ""}, {"INVITE", nth(firstDR, 1)}, {"INVITE", outside},
		{"INVITE", "+12025550199"}} {
		var a sipAnswer
		eventually(t, 20*time.Second, "the edge answers "+x[0], func() (err error) {
			a, err = s.request(t, x[0], x[1])
			return err
		})
		if a.status != 503 {
			t.Errorf("%s %s without an index: %q, want 503", x[0], x[1], a.line)
		}
		if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("%s %s without an index: Retry-After %q, want whole seconds", x[0], x[1],
				a.header.Get("Retry-After"))
		}
		if w := a.header.Get("Warning"); !strings.HasPrefix(w, "399 ") || !strings.Contains(w, "index") {
			t.Errorf("%s %s without an index: Warning %q, want 399 and a text that names the index", x[0], x[1], w)
		}
	}
	for _, role := range []string{"", "edge"} {
		a, err := s.readyz(t.Context(), role)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != 503 || !strings.Contains(a.body, "index") {
			t.Errorf("/readyz?role=%s without an index: %v; want 503 that names the index", role, a)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.n.Ready(ended); err == nil {
		t.Error("it reports that it is ready without an index")
	}
	h, err := s.local.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Status != "notReady" || h.Replica == nil || h.Replica.Loaded {
		t.Errorf("health without an index: %+v, replica %+v", h, h.Replica)
	}
}

// TestEdgeWithoutIndexRefusesCalls starts a node that has never reached its database. It must refuse calls, although
// the trunk has a default service, and must become ready without a restart when the database becomes available.
func TestEdgeWithoutIndexRefusesCalls(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	pg.Kill(t)
	s := newSite(t, database)
	s.fallback = true
	s.launch(t)
	s.refusesCalls(t)
	a, err := ask(t.Context(), "GET", "http://"+s.listen["metrics"]+"/healthz", "", "")
	if err != nil || a.status != 200 {
		t.Errorf("/healthz: %v %v", a, err)
	}

	pg.Start(t)
	at := time.Now()
	s.waitReady(t)
	t.Logf("ready %v after the database became available", time.Since(at).Round(time.Millisecond))
	want := s.provision(t)
	few := map[string]route{}
	for n, r := range want {
		if few[n] = r; len(few) == 20 {
			break
		}
	}
	s.callThem(t, few)
}
