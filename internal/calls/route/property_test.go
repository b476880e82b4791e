package route_test

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
)

// odd are texts that should not occur and do.
var odd = []string{"", "+", "999", "+44999", "+911", "911", "112", "anonymous", "reception", "02079460100", "+0",
	"\"\r\nX: y", "+44207946010012345", "ü"}

// drawNumber draws numbers of the world, neighbouring numbers, and texts that are not numbers.
func drawNumber(w *world) *rapid.Generator[string] {
	var known []string
	for n := range w.numbers {
		known = append(known, string(n))
	}
	known = append(known, "+442079460900", "+12025550111", "+12025550199", "+442079469999")
	return rapid.OneOf(rapid.SampledFrom(sorted(known)), rapid.SampledFrom(odd),
		rapid.StringMatching(`\+[1-9][0-9]{1,14}`))
}

func sorted(s []string) []string {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s
}

func drawParty(w *world) *rapid.Generator[domain.Party] {
	return rapid.Map(drawNumber(w), func(s string) domain.Party {
		n, _ := domain.ParseE164(s)
		return domain.Party{Number: n, Text: s}
	})
}

func drawFacts(t *rapid.T, w *world) domain.CallFacts {
	var names []string
	for _, g := range groups() {
		names = append(names, g.Name)
	}
	party := drawParty(w)
	return domain.CallFacts{
		PeerGroup: rapid.SampledFrom(append(names, "nobody", "")).Draw(t, "group"),
		Called:    drawNumber(w).Draw(t, "called"),
		Host: rapid.SampledFrom([]string{"contoso.1r1.gw.example.com", "fab.1r2.gw.example.com",
			"moving.1r1.gw.example.com", "newco.1r1.gw.example.com", "exco.1r1.gw.example.com",
			"nobody.1r1.gw.example.com", "1r1.gw.example.com", "gw.example.com", "a.contoso.1r1.gw.example.com",
			".1r1.gw.example.com", "127.0.0.1", ""}).Draw(t, "host"),
		HostUnknown: rapid.Bool().Draw(t, "hostUnknown"),
		Asserted:    rapid.SliceOfN(party, 0, 3).Draw(t, "asserted"),
		From:        party.Draw(t, "from"),
		History:     rapid.SliceOfN(party, 0, 4).Draw(t, "history"),
		ReferredBy:  party.Draw(t, "referredBy"),
		Anchored:    rapid.Bool().Draw(t, "anchored"),
		AnchoredBy:  rapid.SampledFrom([]string{"", "APP", "MO", "MT"}).Draw(t, "anchoredBy"),
	}
}

// drawWorld makes a directory with the same numbers and labels, with random services and switches.
func drawWorld(t *rapid.T) *world {
	w := newWorld()
	sets := rapid.Map(rapid.Uint8(), func(b uint8) domain.ServiceSet { return domain.ServiceSet(b) & 0x7e })
	for _, name := range []string{"contoso", "fabrikam", "newco", "oldco", "exco"} {
		a := *w.accounts[name]
		a.Enabled = sets.Draw(t, name+" enabled")
		a.SubdomainStatus = rapid.SampledFrom([]domain.SubdomainStatus{0, domain.SubdomainNotProvisioned,
			domain.SubdomainInconsistent}).Draw(t, name+" in DNS")
		a.CallScreening = rapid.Bool().Draw(t, name+" screening")
		w.accounts[name] = &a
	}
	for _, n := range []domain.E164{"+442079460100", "+442079460200", "+442079460102"} {
		r := w.numbers[n]
		r.Services = sets.Draw(t, string(n)+" services")
		w.numbers[n] = r
	}
	return w
}

// TestEveryCall checks what must hold for every call, whatever its facts and the provisioned numbers.
func TestEveryCall(t *testing.T) {
	p := policy(t)
	serviceOf := map[string]domain.Service{}
	for _, g := range groups() {
		serviceOf[g.Name] = g.Service
	}
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		f := drawFacts(t, w)
		d := route.Decide(w, p, f)
		near, known := serviceOf[f.PeerGroup]
		fail := func(what string) { t.Fatalf("%s\nfacts:    %+v\ndecision: %+v", what, f, d) }

		if d.Rule == "" {
			fail("no rule is given")
		}
		switch d.Outcome {
		case route.Rejected:
			if d.Status < 400 || d.Status > 699 || d.Warning == "" || len(d.Groups) != 0 || d.Header != "" {
				fail("a rejection needs a status and a reason, and nothing else")
			}
			if i := strings.IndexFunc(d.Warning, func(r rune) bool {
				return r < ' ' || r > '~' || r == '"' || r == '\\'
			}); i >= 0 {
				fail("the reason does not fit a SIP quoted-string")
			}
			if d.Emergency && known && near != domain.NoService {
				fail("an emergency call of a service was refused")
			}
			return
		case route.ToService:
			if near != domain.NoService || !known {
				fail("only the core reaches a service")
			}
			if d.Emergency {
				fail("an emergency call must not reach a service")
			}
			if f.Anchored && d.Service.Traits().PhoneSystem && f.PeerGroup != "mcp" {
				fail("a call anchored in Phone System must not go there again")
			}
			if !d.Service.Traits().CarriesCalls {
				fail("a service that carries no calls got one")
			}
			if a := d.Account; a != nil && d.Rule == route.RuleProvisioned &&
				(!a.Enabled.Has(d.Service) || d.Service.Traits().Labelled && a.Subdomain == "") {
				fail("the account cannot take this call")
			}
			if d.Header != "" && d.Header != w.numbers[d.Called].CustomHeader {
				fail("the header of a call from the core is the called number's")
			}
		case route.ToCore:
			if near == domain.NoService || d.Service != near {
				fail("only a service's call goes to the core, as that service's")
			}
			if d.Header != "" && d.Header != w.numbers[d.Identity].CustomHeader {
				fail("the header of a call to the core is that of the identity in the record")
			}
			if near.Traits().Screening && !d.Emergency {
				label, _, _ := strings.Cut(f.Host, ".")
				own := w.AccountByLabel(label)
				if !f.HostUnknown && d.Account != own {
					fail("the account is not the one the Request-URI names")
				}
				n, provisioned := w.Number(d.Identity)
				if d.Account.CallScreening && (!provisioned || n.Account != d.Account || !n.Services.Has(near)) {
					fail("screening let a number pass that is not the customer's")
				}
			}
			if d.Header != "" && d.Account != nil && w.numbers[d.Identity].Account != d.Account.Name {
				fail("one customer's header on another's call")
			}
		}
		if d.Header != "" && !d.Service.Traits().CustomHeader {
			fail("this service has no custom header")
		}
		if len(d.Groups) == 0 {
			fail("no target")
		}
		for _, g := range d.Groups {
			far, ok := serviceOf[g]
			if !ok || (far == domain.NoService) == (near == domain.NoService) {
				fail("the call must cross between core and service: " + g)
			}
			if far != domain.NoService && far != d.Service {
				fail("the target group belongs to another service: " + g)
			}
		}
	})
}

// TestExplainIsDecide: Explain and Decide agree on every call, and a second decision equals the first.
func TestExplainIsDecide(t *testing.T) {
	p := policy(t)
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		f := drawFacts(t, w)
		d, x := route.Decide(w, p, f), route.Explain(w, p, f)
		if !reflect.DeepEqual(d, x.Decision) {
			t.Fatalf("Decide = %+v, Explain = %+v", d, x.Decision)
		}
		if again := route.Decide(w, p, f); !reflect.DeepEqual(d, again) {
			t.Fatalf("the second decision differs: %+v, then %+v", d, again)
		}
		last := x.Steps[len(x.Steps)-1]
		if (d.Outcome == route.Rejected) != (last.Result == route.Rejects) {
			t.Fatalf("outcome %v ends with step %+v", d.Outcome, last)
		}
		named := false
		for _, s := range x.Steps {
			named = named || s.Rule == d.Rule
			if s.Rule == "" || s.Text == "" || s.Result == "" {
				t.Fatalf("empty step %+v", s)
			}
		}
		if !named {
			t.Fatalf("rule %s decides but is not in the steps %+v", d.Rule, x.Steps)
		}
	})
}

// TestDecideAllocations keeps the live call's decision off the heap: it runs for every INVITE.
func TestDecideAllocations(t *testing.T) {
	p, w := policy(t), newWorld()
	caller := domain.Party{Number: "+442079460100"}
	for name, f := range map[string]domain.CallFacts{
		"from core": {PeerGroup: "core-a", Called: "+442079460100", Host: "gw",
			From: domain.Party{Number: "+12025550199"}},
		"from service": {PeerGroup: "teams-dr", Called: "+12025550199",
			Host: "contoso.1r1.gw.example.com", From: caller},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if d := route.Decide(w, p, f); d.Outcome == route.Rejected {
				t.Fatalf("%s: rejected: %s", name, d.Warning)
			}
		}); n > 2 {
			t.Errorf("%s: %v allocations, want at most 2 (decision and facts)", name, n)
		}
	}
}

func BenchmarkDecideFromCore(b *testing.B) {
	p, w := policy(b), newWorld()
	f := domain.CallFacts{PeerGroup: "core-a", Called: "+442079460100", From: domain.Party{Number: "+12025550199"}}
	for b.Loop() {
		route.Decide(w, p, f)
	}
}
