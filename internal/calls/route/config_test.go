package route_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// TestConfigProblems: all mistakes are reported at once, each at its place and with its remedy.
func TestConfigProblems(t *testing.T) {
	c := route.Config{
		BaseDomain: "this-name-is-longer-than-it-may.example.com",
		Regions:    []string{"1r1", "1r1", "no.label"},
		PeerGroupToService: map[string]string{
			"core-a":   "teamsDirectRouting", // cannot be a default
			"core-b":   "skype",              // no such service
			"nobody":   "teamsOperatorConnect",
			"teams-oc": "teamsOperatorConnect", // not a core group
			"core-c":   "teamsPhoneMobile",     // has no peer group
		},
		ServiceToPeerGroup:    map[string]string{"teamsOperatorConnect": "teams-dr", "fax": "core-a"},
		EmergencyDialStrings:  []string{"+911", "112"},
		EmergencyCountryCodes: []string{"44", "444"},
		VerificationNumbers: map[string][]string{
			"teamsOperatorConnect":       {"12", "+12025550100", "+12025550100"},
			"zoomPhoneCloudPeering":      {"+12025550101"}, // no peer group
			"azureCommunicationServices": {"+12025550102"},
		},
		MobileControlPoints: []string{"teams-oc", "nobody"},
	}
	_, problems := c.Compile(services.All().Services(), []route.Group{{Name: "core-a"}, {Name: "core-b"},
		{Name: "core-c"}, {Name: "core-a"},
		{Name: "teams-oc", Service: operatorconnect.Service}, {Name: "teams-dr", Service: directrouting.Service}})
	want := []string{"baseDomain", "regions", "regions[1]", "regions[2]", "peerGroups",
		"peerGroupToService.core-a", "peerGroupToService.core-b", "peerGroupToService.core-c",
		"peerGroupToService.nobody", "peerGroupToService.teams-oc",
		"serviceToPeerGroup.fax", "serviceToPeerGroup.teamsOperatorConnect", "serviceToPeerGroup",
		"mobileControlPoints[0]", "mobileControlPoints[1]",
		"emergencyDialStrings[0]", "emergencyCountryCodes[1]",
		"verificationNumbers.azureCommunicationServices", "verificationNumbers.teamsOperatorConnect[0]",
		"verificationNumbers.teamsOperatorConnect[2]",
		"verificationNumbers.zoomPhoneCloudPeering"}
	got := map[string]bool{}
	for _, err := range problems {
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Invalid || f.Message == "" {
			t.Errorf("problem %v is not an invalid-configuration fault with a text", err)
			continue
		}
		got[f.Target] = true
	}
	for _, path := range want {
		if !got[path] {
			t.Errorf("no problem reported at %s; got %v", path, problems)
		}
	}
	if len(problems) != len(want) {
		t.Errorf("%d problems, want %d: %v", len(problems), len(want), problems)
	}
}

func TestConfigDefaults(t *testing.T) {
	for name, c := range map[string]route.Config{"zero": {}, "default": route.Default()} {
		if problems := c.Validate(services.All().Services()); len(problems) > 0 {
			t.Errorf("%s: Validate = %v, want none", name, problems)
		}
		// One core group needs no mapping.
		p, problems := c.Compile(services.All().Services(),
			[]route.Group{{Name: "core"}, {Name: "zoom", Service: zoom.Service}})
		if len(problems) > 0 {
			t.Fatalf("%s: Compile = %v, want none", name, problems)
		}
		d := route.Decide(newWorld(), p, domain.CallFacts{PeerGroup: "zoom", Called: "933"})
		if d.Outcome != route.ToCore || !d.Emergency || d.Groups[0] != "core" {
			t.Errorf("%s: a Zoom call to 933 gives %+v, want an emergency call to the only core group", name, d)
		}
	}
}

func TestLabel(t *testing.T) {
	c := route.Config{BaseDomain: "GW.example.com.", Regions: []string{"1-r1"}}
	p, problems := c.Compile(services.All().Services(), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for host, want := range map[string]string{
		"contoso.1-r1.gw.example.com":                    "contoso",
		"CONTOSO.1-R1.gw.EXAMPLE.com":                    "contoso",
		"contoso.1r1.gw.example.com":                     "", // not a region of this deployment
		"1-r1.gw.example.com":                            "",
		"a.b.1-r1.gw.example.com":                        "",
		".1-r1.gw.example.com":                           "",
		"-a.1-r1.gw.example.com":                         "",
		"contoso.1-r1.xgw.example.com":                   "",
		"contoso.1-r1gw.example.com":                     "",
		"contoso_x.1-r1.gw.example.com":                  "",
		"":                                               "",
		"gw.example.com":                                 "",
		strings.Repeat("a", 64) + ".1-r1.gw.example.com": "",
	} {
		if got, ok := p.Label(host); got != want || ok != (want != "") {
			t.Errorf("Label(%q) = %q, %v, want %q", host, got, ok, want)
		}
	}
}

// TestServiceOfALaterVersion: a number whose only service is unknown here is refused, not sent to the default service
// of the peer group.
func TestServiceOfALaterVersion(t *testing.T) {
	w, p := newWorld(), policy(t)
	later := domain.NewService(domain.Traits{ID: domain.MaxServiceID, Name: "later"})
	w.account("ahead", domain.AccountRouting{}, later, operatorconnect.Service)
	w.number("+442079460800", "ahead", "", later)
	w.number("+442079460801", "ahead", "", later, operatorconnect.Service)
	facts := domain.CallFacts{PeerGroup: "core-fixed", Called: "+442079460899"}
	if d := route.Decide(w, p, facts); d.Rule != route.RuleDefault {
		t.Fatalf("an unknown number is decided by %s; this test needs a default service", d.Rule)
	}
	facts.Called = "+442079460800"
	if d := route.Decide(w, p, facts); d.Outcome != route.Rejected || d.Rule != route.RuleCarriesCalls {
		t.Errorf("the number is %v by %s: %+v", d.Outcome, d.Rule, d)
	}
	facts.Called = "+442079460801"
	if d := route.Decide(w, p, facts); d.Service != operatorconnect.Service {
		t.Errorf("the number with Operator Connect too goes to %s by %s", d.Service, d.Rule)
	}
}
