package route_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
)

// The rules of a peer group convert its numbers to E.164, and explanations say so.
func TestNumbersOfAPeerGroup(t *testing.T) {
	gs := groups()
	rules := route.Numbers{PhoneContext: true, Prefixes: []route.Prefix{{Prefix: "00", Replace: "+"},
		{Prefix: "0", Replace: "+44"}, {Digits: 3, Replace: "+4420"}}}
	for i := range gs {
		if gs[i].Name == "core-fixed" || gs[i].Name == "teams-dr" {
			gs[i].Numbers = rules
		}
	}
	c := config()
	p, problems := c.Compile(services.All().Services(), gs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	w := newWorld()
	for _, x := range []struct {
		called, context string
		want            domain.E164
	}{
		{"02079460100", "", "+442079460100"}, {"00442079460100", "", "+442079460100"},
		{"2079460100", "+44", "+442079460100"}, {"460100", "+442079", "+442079460100"},
		{"+442079460100", "+1", "+442079460100"}, {"2079460100", "", ""}, {"0", "", ""}, {"1*0", "", ""},
		{"2079460100", "+441234567", ""},
	} {
		f := domain.CallFacts{PeerGroup: "core-fixed", Called: x.called, CalledContext: x.context}
		ex := route.Explain(w, p, f)
		if ex.Decision.Called != x.want {
			t.Errorf("called %s in %q: %q, want %q", x.called, x.context, ex.Decision.Called, x.want)
		}
		noted := len(ex.Steps) > 1 && ex.Steps[1].Rule == route.RuleNumbers
		if changed := x.want != "" && x.called[0] != '+'; noted != changed {
			t.Errorf("called %s in %q: explained %v, want %v", x.called, x.context, noted, changed)
		}
		if d := route.Decide(w, p, f); d.Called != ex.Decision.Called || d.Outcome != ex.Decision.Outcome {
			t.Errorf("called %s: Decide and Explain differ", x.called)
		}
	}

	// Screening uses the caller's E.164 number; the facts passed to Decide do not change.
	asserted := []domain.Party{{Text: "02079460100"}}
	f := domain.CallFacts{PeerGroup: "teams-dr", Called: "+33140205050", Host: "contoso.1r1.gw.example.com",
		From: domain.Party{Text: "2079460101", Context: "+44"}, Asserted: asserted}
	if d := route.Decide(w, p, f); d.Outcome != route.ToCore || d.Identity != "+442079460100" {
		t.Errorf("outcome %v, identity %q: want the asserted number as E.164", d.Outcome, d.Identity)
	}
	if asserted[0].Number != "" {
		t.Errorf("the facts were changed")
	}
	// An emergency number stays, although a rule matches it.
	f.Called = "999"
	if d := route.Decide(w, p, f); !d.Emergency || d.Called != "" {
		t.Errorf("999: emergency %v, called %q", d.Emergency, d.Called)
	}
}
