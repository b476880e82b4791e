package nameserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

const keyName = "transfer.operator.example"

var secret = []byte("0123456789abcdef0123456789abcdef")

func secondary(tb testing.TB, name string, at netip.AddrPort) nameserver.Secondary {
	return nameserver.Secondary{Name: name, Address: at.String(), Key: key(tb, keyName, secret)}
}

func key(tb testing.TB, name string, secret []byte) tsig.Config {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}

	return tsig.Config{Name: name, Algorithm: "hmac-sha256", SecretFile: file}
}

// customers returns the records of n customers.
func customers(n int) []zone.Record {
	var rs []zone.Record
	for i := range n {
		for _, region := range []string{".1r1", ".1r2"} {
			name := fmt.Sprint("c", i, region)
			rs = append(rs, address(name, "192.0.2.11"), zone.Text(name, 60, fmt.Sprint("MS=ms", 10000000+i)))
		}
	}

	return rs
}

// TestSecondaries lets nsd and knot transfer a zone of several messages, then follow a burst of changes.
func TestSecondaries(t *testing.T) {
	nsdAt, knotAt := dnspeer.Address(t), dnspeer.Address(t)
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "nsd", nsdAt), secondary(t,
		"knot", knotAt)}},
		append(records(), customers(3000)...))
	from := dnspeer.Primary{Zone: origin, Addr: b.addr, Key: keyName, Secret: secret}
	peers := []*dnspeer.Peer{dnspeer.NSD(t, nsdAt, from), dnspeer.Knot(t, knotAt, from)}
	equal := func(what string) {
		t.Helper()
		for _, p := range peers {
			p.Until(t, what, func(ctx context.Context) bool { return p.Serial(ctx, origin) == uint32(b.at) })
			for _, name := range []string{"c2999.1r2.", "_sips._tcp.r1.", "_acme-challenge.1r1.",
				"_acme-challenge.1r2."} {
				for _, kind := range []uint16{dns.TypeTXT, dns.TypeA, dns.TypeSRV} {
					got, err := p.Ask(t.Context(), "tcp", name+origin, kind)
					if err != nil {
						t.Fatal(err)
					}
					want := b.ask(t, "tcp", name+origin, kind)
					if diff := cmp.Diff(texts(want.Answer), texts(got.Answer)); diff != "" || got.Rcode != want.Rcode {
						t.Errorf("%s: %s at %s, type %d:\n%s", what, name, p.Name, kind, diff)
					}
				}
			}
		}
	}
	equal("the whole zone")

	// Challenges of certificates come and go quickly.
	for i := range 200 {
		r := zone.Text(fmt.Sprintf("_acme-challenge.1r%d", 1+i%2), 60, fmt.Sprint("challenge ", i))
		b.change(t, nil, []zone.Record{r})
		if i < 198 {
			b.change(t, []zone.Record{r}, nil)
		}
	}
	equal("after a burst of changes")
	if n := b.value(t, "tandem_zone_transfers_total", "IXFR", "sent"); n == 0 {
		t.Error("no incremental transfer")
	}
	if n := b.value(t, "tandem_zone_transfers_total", "IXFR", "sent"); n > 100 {
		t.Errorf("%v transfers for 398 changes: changes are to be notified together", n)
	}
	for _, p := range peers {
		p.Until(t, "it has acknowledged", func(context.Context) bool {
			return b.value(t, "tandem_zone_secondary_behind", p.Name) == 0
		})
	}
}

// value returns the value of a counter or gauge by its label values, in any order.
func (b *bed) value(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			slices.Sort(have)
			if want := slices.Sorted(slices.Values(labels)); f.GetName() == name && slices.Equal(have, want) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}

	return 0
}

// A transfer needs the key of the secondary whose address it comes from. What is wrong is said as RFC 8945 §5.2 has it,
// and nothing of the zone.
func TestTransferRefused(t *testing.T) {
	listed := netip.MustParseAddrPort("127.0.0.1:1")
	other, otherName := secondary(t, "other", netip.MustParseAddrPort("127.99.99.99:1")), "other.operator.example"
	otherSecret := []byte("another secret of the right size")
	other.Key = key(t, otherName, otherSecret)
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "listed", listed), other}},
		records())

	for name, x := range map[string]struct {
		key, algorithm string
		secret         []byte
		rcode, error   int
	}{
		"the key": {keyName, dns.HmacSHA256, secret, 0, 0},
		"a wrong secret": {keyName, dns.HmacSHA256, []byte("0123456789abcdef0123456789abcdeX"),
			dns.RcodeNotAuth, dns.RcodeBadSig},
		"an unknown key":       {"nobody.example", dns.HmacSHA256, secret, dns.RcodeNotAuth, dns.RcodeBadKey},
		"another algorithm":    {keyName, dns.HmacSHA512, secret, dns.RcodeNotAuth, dns.RcodeBadKey},
		"another's key":        {otherName, dns.HmacSHA256, otherSecret, dns.RcodeRefused, 0},
		"no key":               {"", "", nil, dns.RcodeRefused, 0},
		"the key in caps":      {"TRANSFER.Operator.example", dns.HmacSHA256, secret, 0, 0},
		"an unknown algorithm": {keyName, "hmac-md5.sig-alg.reg.int.", secret, dns.RcodeNotAuth, dns.RcodeBadKey},
	} {
		for _, kind := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
			m := new(dns.Msg).SetQuestion(origin, kind)
			if kind == dns.TypeIXFR {
				m.SetIxfr(origin, 1, "ns1."+origin, "dns."+origin)
			}
			data, err := m.Pack()
			if x.key != "" {
				m.SetTsig(dns.Fqdn(x.key), x.algorithm, 300, now())
				data, _, err = dns.TsigGenerate(m, base64.StdEncoding.EncodeToString(x.secret), "", false)
				if errors.Is(err, dns.ErrKeyAlg) { // the library does not sign with it
					m.SetTsig(dns.Fqdn(x.key), x.algorithm, 300, now())
					m.Extra[len(m.Extra)-1].(*dns.TSIG).MAC = "00112233445566778899aabbccddeeff"
					m.Extra[len(m.Extra)-1].(*dns.TSIG).MACSize = 16
					data, err = m.Pack()
				}
			}
			if err != nil {
				t.Fatal(name, err)
			}
			r := new(dns.Msg)
			if err := r.Unpack(exchange(t, "tcp", b.addr, data)); err != nil {
				t.Fatal(err)
			}
			code := 0
			if tsig := r.IsTsig(); tsig != nil {
				code = int(tsig.Error)
			}
			if r.Rcode != x.rcode || code != x.error || (len(r.Answer) > 0) != (x.rcode == 0) {
				t.Errorf("%s, %s: %v", name, dns.TypeToString[kind], r)
			}
		}
	}
}

func addrOf(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 1) }

func now() int64 { return time.Now().Unix() }
