package edge

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

// dropped returns the number of requests dropped because they belong to no group.
func (b *bed) dropped() float64 {
	b.t.Helper()
	var v dto.Metric
	if err := b.e.m.dropped.Write(&v); err != nil {
		b.t.Fatal(err)
	}
	return v.Counter.GetValue()
}

// events returns the sum of a counter's samples with a label of that value.
func (b *bed) events(name, value string) (n float64) {
	b.t.Helper()
	for _, m := range b.samples(name) {
		if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == value }) {
			n += m.GetCounter().GetValue()
		}
	}
	return n
}

// transactions returns the number of transactions that the edge holds.
func (b *bed) transactions() (n int) {
	b.t.Helper()
	for _, m := range b.samples("tandem_sip_transactions") {
		n += int(m.GetGauge().GetValue())
	}
	return n
}

// samples returns the samples of a metric, whichever layer it is of.
func (b *bed) samples(name string) []*dto.Metric {
	b.t.Helper()
	fs, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range fs {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	b.t.Fatalf("there is no metric %s", name)
	return nil
}

// Two groups share a listener; an address of one presents the certificate of the other.
func TestACertificateOfAnotherGroupGetsNothing(t *testing.T) {
	covers(t, "S10")
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, err := ca.WriteFiles(dir, "edge", issue(t, authority, "trunk.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(c *bedConfig) {
		c.peers = 0
		for g, name := range map[*Group]string{c.service: "sip.teams.test", c.zoom: "sip.zoom.test"} {
			g.Transport, g.Bind = "tls", Addresses{TLS: "127.0.0.2:0"}
			g.TLS = TLS{CertificateFile: cert, KeyFile: key, RootsFile: roots, PeerNames: []string{name}}
		}
		c.service.AllowedSources = []string{"127.0.0.77"} // 127.0.0.1 is Zoom's, by its peer
	})
	var at string
	for _, l := range b.e.Listening() {
		if l.Transport == "tls" {
			at = l.Address.String()
		}
	}
	dial := func(name string) net.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", at, authority.Client(issue(t, authority, name), "trunk.example.net"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	request := func(method string) string {
		return strings.Replace(b.zoom.newCall(outside, served).request(method, ""), "SIP/2.0/UDP", "SIP/2.0/TLS", 1)
	}

	wrong := dial("sip.teams.test")
	begun := time.Now()
	for range 3 {
		if _, err := wrong.Write([]byte(request("INVITE") + request("OPTIONS"))); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "six requests to be counted", func() bool { return b.dropped() == 6 })
	// The transaction layer sends 100 by itself after 200 ms.
	_ = wrong.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := wrong.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes and %v, want silence", n, err)
	}
	most := 2 + int(time.Since(begun)/time.Second) // one for each second that they were spread over
	if got := strings.Count(b.log.String(), "unknown peer dropped"); got < 1 || got > most {
		t.Errorf("%d log lines for six requests at once, want 1 for each second, at most %d", got, most)
	}
	if log := b.log.String(); !strings.Contains(log, "sip.teams.test") {
		t.Errorf("the log does not name the certificate:\n%s", log)
	}
	if n := b.transactions(); n != 0 {
		t.Errorf("%d transactions are left of requests that were dropped", n)
	}

	right := dial("sip.zoom.test")
	if _, err := right.Write([]byte(request("OPTIONS"))); err != nil {
		t.Fatal(err)
	}
	_ = right.SetReadDeadline(time.Now().Add(patience))
	if l, err := textproto.NewReader(bufio.NewReader(right)).ReadLine(); err != nil ||
		!strings.HasPrefix(l, "SIP/2.0 200") {
		t.Errorf("the group's own certificate got %q, %v", l, err)
	}
}
