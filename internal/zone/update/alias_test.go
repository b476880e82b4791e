package update_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// challengeZone is a second zone of the operator's server, and closedZone one that refuses the key.
const (
	challengeZone = `$TTL 3600
acme.example.     SOA ns1.operator.example. dns.operator.example. 1 3600 600 86400 60
acme.example.     NS  ns1.operator.example.
acme.example.     NS  ns2.acme.example.
ns2.acme.example. A   192.0.2.54
`
	closedZone = `$TTL 3600
closed.example. SOA ns1.operator.example. dns.operator.example. 1 3600 600 86400 60
closed.example. NS  ns1.operator.example.
`
)

// aliased starts BIND with the operator's zone, acme.example and closed.example, and more records of the first two.
func aliased(tb testing.TB, operatorsMore, challengesMore string) (*dnspeer.Peer, *update.Aliases) {
	tb.Helper()
	p := dnspeer.BINDUpdated(tb, primary(), operators+operatorsMore, "grant "+keyName+" subdomain "+base+". TXT;",
		dnspeer.Zone{Name: "acme.example.", Text: challengeZone + challengesMore,
			Options: dnspeer.Policy("grant " + keyName + " zonesub TXT;")},
		dnspeer.Zone{Name: "closed.example.", Text: closedZone,
			Options: dnspeer.Policy("grant " + keyName + " name other.closed.example. A;")})

	return p, aliases(tb, config(tb, p.Addr))
}

func aliases(tb testing.TB, cfg update.Config) *update.Aliases {
	tb.Helper()
	a, err := update.NewAliases(cfg)
	if err != nil {
		tb.Fatal(err)
	}

	return a
}

// challenge is the name of a challenge for a host.
func challenge(host string) string { return "_acme-challenge." + host + "." + base }

// A CNAME of a challenge's name is followed, one that a wildcard makes is not, also if both have the same target.
func TestPath(t *testing.T) {
	t.Parallel()
	var long strings.Builder
	for i := range 10 {
		fmt.Fprintf(&long, "long%d.acme.example. CNAME long%d.acme.example.\n", i, i+1)
	}
	p, a := aliased(t, `$ORIGIN gw.operator.example.
_acme-challenge.real    CNAME real.acme.example.
_acme-challenge.case    CNAME Real.ACME.example.
_acme-challenge.within  CNAME _acme-challenge.other
_acme-challenge.apex    CNAME acme.example.
*.wild                  CNAME foreign.example.net.
*.ours                  CNAME real.acme.example.
_acme-challenge.ours    CNAME real.acme.example.
*.writable              CNAME real.acme.example.
_acme-challenge.chain   CNAME hop.acme.example.
_acme-challenge.half    CNAME x.wild.acme.example.
_acme-challenge.loop    CNAME loop.acme.example.
_acme-challenge.self    CNAME _acme-challenge.self
_acme-challenge.long    CNAME long0.acme.example.
_acme-challenge.foreign CNAME foreign.example.net.
_acme-challenge.closed  CNAME closed.closed.example.
_acme-challenge.beyond  CNAME www.operator.example.
`, `hop.acme.example. CNAME end.acme.example.
*.wild.acme.example. CNAME foreign.example.net.
loop.acme.example. CNAME `+challenge("loop")+`.
`+long.String())

	for host, want := range map[string][]string{
		"none":      nil,
		"real":      {"real.acme.example"},
		"case":      {"real.acme.example"},
		"within":    {challenge("other")},
		"apex":      {"acme.example"},
		"wild":      nil,
		"deep.wild": nil,
		"ours":      {"real.acme.example"},
		"writable":  nil,
		"chain":     {"hop.acme.example", "end.acme.example"},
		"half":      {"x.wild.acme.example"},
	} {
		got, err := a.Path(t.Context(), challenge(host))
		if want = append([]string{challenge(host)}, want...); err != nil || !slices.Equal(got, want) {
			t.Errorf("Path(%s) = %q, %v; want %q", challenge(host), got, err, want)
		}
	}

	for host, want := range map[string][]string{
		"loop":    {"loop.acme.example to " + challenge("loop"), "are a loop"},
		"self":    {challenge("self") + " to " + challenge("self") + " are a loop"},
		"long":    {"more than 8"},
		"foreign": {challenge("foreign") + " is a CNAME to foreign.example.net,", "or remove it"},
		"closed":  {"is a CNAME to closed.closed.example", "REFUSED", "the key " + keyName + " may change TXT"},
		"beyond":  {"is a CNAME to www.operator.example", "REFUSED", "update-policy"},
	} {
		got, err := a.Path(t.Context(), challenge(host))
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("Path(%s) = %q, %v; want an error with %q", challenge(host), got, err, text)
			}
		}
	}

	// Nothing of this changed a zone.
	for _, zone := range []string{parent, "acme.example.", "closed.example."} {
		if got := p.Serial(t.Context(), zone); got != 1 {
			t.Errorf("serial of %s = %d, want 1", zone, got)
		}
	}
	// A path may begin at a CNAME of another server's.
	got, err := a.Path(t.Context(), "x.example.com", "hop.acme.example")
	want := []string{"x.example.com", "hop.acme.example", "end.acme.example"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Path = %q, %v; want %q", got, err, want)
	}
	if _, err = a.Path(t.Context(), "x.example.com", "y.example.com"); !errors.Is(err, update.ErrNotServed) ||
		!strings.Contains(err.Error(), "x.example.com is a CNAME to y.example.com") {
		t.Errorf("Path to a name of another server: %v", err)
	}
}

// Knot tells the CNAME of a wildcard from one of the name like BIND.
func TestPathKnot(t *testing.T) {
	t.Parallel()
	p := dnspeer.KnotUpdated(t, primary(), operators+`$ORIGIN gw.operator.example.
_acme-challenge.real CNAME _acme-challenge.other
*.wild CNAME _acme-challenge.other
`)
	a := aliases(t, config(t, p.Addr))
	for host, want := range map[string]int{"none": 1, "real": 2, "wild": 1} {
		if got, err := a.Path(t.Context(), challenge(host)); err != nil || len(got) != want {
			t.Errorf("Path(%s) = %q, %v; want %d names", challenge(host), got, err, want)
		}
	}
	if err := a.Add(t.Context(), challenge("other"), "value"); err != nil {
		t.Fatal(err)
	}
	expect(t, p, "_acme-challenge.other", "TXT", `60 "value"`)
}

// Values are in one set with others, whose TTL stays, and go alone.
func TestAliasValues(t *testing.T) {
	t.Parallel()
	const place = "real.acme.example"
	p, a := aliased(t, "", place+`. 120 TXT "foreign"`+"\n")
	ask := func() []string {
		r, err := p.Ask(t.Context(), "tcp", place+".", dns.TypeTXT)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, rr := range r.Answer {
			texts = append(texts, fmt.Sprint(rr.Header().Ttl, rr.(*dns.TXT).Txt))
		}
		slices.Sort(texts)

		return texts
	}
	for _, step := range []struct {
		do    func(context.Context, string, string) error
		value string
		want  []string
	}{
		{a.Add, "one", []string{"120 [foreign]", "120 [one]"}},
		{a.Add, "one", []string{"120 [foreign]", "120 [one]"}},
		{a.Add, "two", []string{"120 [foreign]", "120 [one]", "120 [two]"}},
		{a.Remove, "one", []string{"120 [foreign]", "120 [two]"}},
		{a.Remove, "one", []string{"120 [foreign]", "120 [two]"}},
	} {
		if err := step.do(t.Context(), place, step.value); err != nil {
			t.Fatal(err)
		}
		if got := ask(); !slices.Equal(got, step.want) {
			t.Errorf("the server has %q, want %q", got, step.want)
		}
	}

	for value, want := range map[string]bool{"one": false, "two": true} {
		has, servers, err := a.Find(t.Context(), place, value)
		slices.Sort(servers)
		if err != nil || has != want || !slices.Equal(servers, []string{"ns1.operator.example", "ns2.acme.example"}) {
			t.Errorf("Find(%s) = %v, %q, %v; want %v", value, has, servers, err, want)
		}
	}
	if err := a.Remove(t.Context(), "x.example.net", "one"); !errors.Is(err, update.ErrNotServed) {
		t.Errorf("Remove in a zone that the server does not have: %v", err)
	}
}

// What a server answers to the update that requires the CNAME is never taken for one or the other unless it says so.
func TestPathAnswers(t *testing.T) {
	t.Parallel()
	name := challenge("real")
	for what, c := range map[string]struct {
		code     int
		unsigned bool
		want     string
	}{
		"REFUSED":              {dns.RcodeRefused, false, "REFUSED"},
		"NOTIMP":               {dns.RcodeNotImplemented, false, "NOTIMP"},
		"an unsigned success":  {dns.RcodeSuccess, true, "not signed"},
		"an unsigned NXRRSET":  {dns.RcodeNXRrset, true, "NXRRSET"},
		"NXDOMAIN for NXRRSET": {dns.RcodeNameError, false, "NXDOMAIN"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server := impostor(t, func(w dns.ResponseWriter, r *dns.Msg) {
				m := new(dns.Msg).SetReply(r)
				m.Authoritative = true
				q := r.Question[0]
				text := ""
				switch {
				case w.TsigStatus() != nil:
					m.Rcode = dns.RcodeNotAuth
				case r.Opcode == dns.OpcodeUpdate:
					// It must require the CNAME in this zone and change nothing.
					x := r.Answer[0].Header()
					m.Rcode = c.code
					if q.Name != parent || q.Qtype != dns.TypeSOA || len(r.Ns) > 0 || len(r.Answer) != 1 ||
						x.Class != dns.ClassANY || x.Rrtype != dns.TypeCNAME || x.Name != name+"." ||
						x.Rdlength > 0 {
						m.Rcode = dns.RcodeFormatError
					}
				case q.Qtype == dns.TypeCNAME || q.Name != parent:
					text = q.Name + " 60 CNAME real.acme.example."
				case q.Qtype == dns.TypeSOA:
					text = parent + " 60 SOA a. b. 1 60 60 60 60"
				}
				if rr, err := dns.NewRR(text); err == nil && rr != nil {
					m.Answer = append(m.Answer, rr)
				}
				if !c.unsigned || r.Opcode != dns.OpcodeUpdate {
					m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
				}
				_ = w.WriteMsg(m)
			})
			a := aliases(t, config(t, server))
			got, err := a.Path(t.Context(), name)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Path = %q, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}
