package edge

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// reload applies the bed's configuration as modified by change.
func (b *bed) reload(headers leg.Config, change func(*Config)) error {
	b.t.Helper()
	cfg := b.e.cfg
	cfg.Groups = slices.Clone(cfg.Groups)
	change(&cfg)
	rules := headers.Rules("test")
	apply, err := b.e.Reload(cfg, rules, []leg.Profile{testProfile{operatorconnect.Service, rules, nil},
		testProfile{zoom.Service, rules, nil}, testProfile{directrouting.Service, rules, nil}})
	if err == nil {
		apply()
	}
	return err
}

// TestReloadLeavesCallsAlone withdraws a source, sets a limit and renames the custom header during a call.
func TestReloadLeavesCallsAlone(t *testing.T) {
	const old, renamed = leg.DefaultCustomSIPHeader, "X-Account-Ref"
	b := setup(t, func(c *bedConfig) { c.core.AllowedSources = []string{"127.0.0.50/32"} })
	pbx := newAgentAt(t, "pbx", "127.0.0.50")
	pbx.edge = b.core.edge
	up, down := b.established(pbx, b.svc, outside, served)

	headers := leg.Default()
	headers.CustomSIPHeader = renamed
	if err := b.reload(headers, func(c *Config) {
		c.Groups[0].AllowedSources, c.Groups[1].MaxCalls = nil, 2
	}); err != nil {
		t.Fatal(err)
	}

	// The withdrawn source cannot start calls; its call in progress continues and ends normally.
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
		t.Errorf("the call in progress relays %q, want %q: it keeps the header rules it started with", got, renamed)
	}
	b.over(up, down)
	if r := b.record(); r.EndedBy != "near" || r.Status != 200 {
		t.Errorf("record of the call in progress: %+v", r)
	}

	// New calls follow the new limits and rules.
	one, far := b.established(b.core, b.svc, outside, served)
	if got := info(one, far); got != old {
		t.Errorf("a new call relays %q, want %q", got, old)
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

// TestReloadTakesCertificatesAtOnce checks that a new certificate is presented on the next connection, and that nothing
// changes, whatever else is new, if one cannot be read.
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
