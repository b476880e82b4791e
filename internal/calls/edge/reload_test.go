package edge

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// reload takes over what change makes of the bed's configuration.
func (b *bed) reload(headers leg.Config, change func(*Config)) error {
	b.t.Helper()
	cfg := b.e.cfg
	cfg.Groups = slices.Clone(cfg.Groups)
	change(&cfg)
	rules, errs := headers.Rules("test")
	if len(errs) > 0 {
		b.t.Fatal(errs)
	}
	return b.e.Reload(cfg, rules, []leg.Profile{testProfile{domain.OperatorConnect, rules, nil}, testProfile{domain.Zoom, rules, nil}, testProfile{domain.DirectRouting, rules, nil}})
}

// TestReloadLeavesCallsAlone: a source is withdrawn, a limit set and the custom header renamed while a call is up.
func TestReloadLeavesCallsAlone(t *testing.T) {
	const old, renamed = leg.DefaultCustomSIPHeader, "X-Account-Ref"
	b := setup(t, func(c *bedConfig) { c.core.AllowedSources = []string{"127.0.0.50/32"} })
	pbx := newAgentAt(t, "pbx", "127.0.0.50", false)
	pbx.edge = b.core.edge
	up, down := b.established(pbx, b.svc, outside, served)

	headers := leg.Default()
	headers.CustomSIPHeader = renamed
	if err := b.reload(headers, func(c *Config) { c.Groups[0].AllowedSources, c.Groups[1].MaxCalls = nil, 2 }); err != nil {
		t.Fatal(err)
	}

	// The source that was withdrawn begins no more calls; its call goes on and ends well.
	before := b.dropped()
	pbx.send(pbx.newCall(outside, served).request("INVITE", sdp))
	await(t, "the INVITE of a withdrawn source to be dropped", func() bool { return b.dropped() == before+1 })
	info := func(from, to *talk) (seen string) {
		t.Helper()
		from.a.send(from.request("INFO", "", old+": forged", renamed+": forged"))
		m := to.a.expect("INFO")
		for _, name := range []string{old, renamed} {
			if m.get(name) != "" {
				seen += name
			}
		}
		to.a.send(to.reply(m, "200 OK", ""))
		from.a.expect("200")
		return seen
	}
	if got := info(up, down); got != renamed {
		t.Errorf("the call that was up lets %q through, want %q: it keeps the header rules it began with", got, renamed)
	}
	b.over(up, down)
	if r := b.record(); r.EndedBy != "near" || r.Status != 200 {
		t.Errorf("record of the call that was up: %+v", r)
	}

	// New calls follow the new limits and rules.
	one, far := b.established(b.core, b.svc, outside, served)
	if got := info(one, far); got != old {
		t.Errorf("a new call lets %q through, want %q", got, old)
	}
	two, farTwo := b.established(b.core, b.svc, outside, served)
	three := b.core.newCall(outside, served)
	b.core.send(three.request("INVITE", sdp))
	b.core.expect("100")
	b.core.send(three.ackFailure(b.core.expect("503")))
	b.record()
	b.over(two, farTwo)
	b.over(one, far)
}

// TestReloadTakesCertificatesAtOnce: a new certificate is shown on the next connection; with one that cannot be read
// nothing changes, whatever else is new.
func TestReloadTakesCertificatesAtOnce(t *testing.T) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, err := ca.WriteFiles(dir, "edge", issue(t, authority, "trunk.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	renewed, renewedKey, err := ca.WriteFiles(dir, "renewed", issue(t, authority, "trunk.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(c *bedConfig) {
		c.peers = 0
		c.service.Transport, c.service.Bind = "tls", Addresses{TLS: "127.0.0.2:0"}
		c.service.TLS = TLS{CertificateFile: cert, KeyFile: key, RootsFile: roots}
		c.service.AllowedSources = []string{"127.0.0.1"}
	})
	shown := func() string {
		t.Helper()
		ls := b.e.Listening()
		at := ls[slices.IndexFunc(ls, func(l Listening) bool { return l.Transport == "tls" })].Address.String()
		c, err := tls.Dial("tcp", at, authority.Client(issue(t, authority, "peer.example.net"), "trunk.example.net"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := shown()
	err = b.reload(leg.Default(), func(c *Config) {
		c.Limits.MaxCalls = 1
		c.Groups[1].TLS.CertificateFile = "/nonexistent"
	})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("Reload: %v, want an error that names the file", err)
	}
	if n := b.e.limits.Load().MaxCalls; n != Default().Limits.MaxCalls || shown() != first {
		t.Errorf("maxCalls is %d after a reload that failed, the certificate %s and before %s", n, shown(), first)
	}
	if err := b.reload(leg.Default(), func(c *Config) {
		c.Groups[1].TLS.CertificateFile, c.Groups[1].TLS.KeyFile = renewed, renewedKey
	}); err != nil {
		t.Fatal(err)
	}
	if shown() == first {
		t.Error("the old certificate is shown after the reload")
	}
}
