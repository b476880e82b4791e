package explain_test

import (
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/explain"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

// index is a view of one account with two numbers.
type index struct{ account domain.AccountRouting }

func (x *index) Number(n domain.E164) (route.Number, bool) {
	switch n {
	case "+442079460123", "+442079460124":
		return route.Number{Account: &x.account, Services: domain.ServiceSet(0).With(directrouting.Service)}, true
	}
	return route.Number{}, false
}

func (x *index) CustomHeader(n domain.E164) string {
	if n == "+442079460123" {
		return "site-7"
	}
	return ""
}

func (x *index) AccountByLabel(label string) *domain.AccountRouting {
	if label == "contoso" {
		return &x.account
	}
	return nil
}

func explainer(t *testing.T) *explain.Explainer {
	t.Helper()
	cfg := route.Default()
	cfg.BaseDomain, cfg.EmergencyDialStrings = "gw.example.com", []string{"911", "933"}
	policy, errs := cfg.Compile(services.All().Services(),
		[]route.Group{{Name: "core"}, {Name: "teams", Service: directrouting.Service}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	view := &index{domain.AccountRouting{Name: "contoso", Enabled: domain.ServiceSet(0).With(directrouting.Service),
		Subdomain: "contoso", CallScreening: true}}
	return &explain.Explainer{View: func() route.View { return view },
		Position: func() int64 { return 42 }, Policy: policy,
		Groups: map[string]string{"core": "core", "teams": "teams", "sip3": "teams"},
		Peers: func() []api.PeerGroup {
			return []api.PeerGroup{{Name: "core"}, {Name: "teams", Peers: []api.Peer{{Name: "sip3", State: "down"}}}}
		}}
}

func ask(t *testing.T, x *explain.Explainer, q api.Question) (api.ExplainCall200JSONResponse, error) {
	t.Helper()
	r, err := x.ExplainCall(t.Context(), api.ExplainCallRequestObject{Body: &q})
	if err != nil {
		return api.ExplainCall200JSONResponse{}, err
	}
	return r.(api.ExplainCall200JSONResponse), nil
}

func TestExplain(t *testing.T) {
	t.Parallel()
	x := explainer(t)
	for _, c := range []struct {
		name string
		q    api.Question
		want api.Explanation
	}{
		{"a number from the core goes to its service",
			api.Question{From: "+15550100", To: "+442079460123", Peer: "core"},
			api.Explanation{Outcome: "toService", Service: "teamsDirectRouting", Account: "contoso",
				Called: "+442079460123", Identity: "+15550100", Header: "site-7"}},
		{"a number that is not provisioned is rejected",
			api.Question{From: "+15550100", To: "tel:+15550199", Peer: "core"},
			api.Explanation{Outcome: "rejected", Called: "+15550199", Identity: "+15550100", SIPStatus: 404}},
		{"a peer stands for its group, and a URI for its number",
			api.Question{From: "sip:+442079460123@contoso.1r1.gw.example.com",
				To: "sip:+15550100@contoso.1r1.gw.example.com;user=phone", Peer: "sip3"},
			api.Explanation{Outcome: "toCore", Service: "teamsDirectRouting", Account: "contoso", Called: "+15550100",
				Identity: "+442079460123", Header: "site-7"}},
		{"a question without a host takes the caller's account",
			api.Question{From: "+442079460123", To: "+15550100", Peer: "teams"},
			api.Explanation{Outcome: "toCore", Service: "teamsDirectRouting", Account: "contoso", Called: "+15550100",
				Identity: "+442079460123", Header: "site-7"}},
		{"a forwarded call is identified by its history",
			api.Question{From: "+15550111", To: "+15550100", Peer: "teams", Host: "contoso.1r1.gw.example.com",
				History: []string{"+442079460124"}},
			api.Explanation{Outcome: "toCore", Service: "teamsDirectRouting", Account: "contoso", Called: "+15550100",
				Identity: "+442079460124"}},
		{"another caller is screened", api.Question{From: "+15550111", To: "+15550100", Peer: "teams",
			Host: "contoso.1r1.gw.example.com"},
			api.Explanation{Outcome: "rejected", Service: "teamsDirectRouting", Account: "contoso", Called: "+15550100",
				SIPStatus: 403}},
	} {
		got, err := ask(t, x, c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.Outcome != c.want.Outcome || got.Service != c.want.Service && c.want.Outcome != "rejected" ||
			got.Account != c.want.Account && c.want.Outcome != "rejected" ||
			got.Called != c.want.Called || got.Header != c.want.Header || got.SIPStatus != c.want.SIPStatus ||
			got.Identity != c.want.Identity && c.want.Identity != "" {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
		if len(got.Steps) == 0 || got.Position != 42 || got.Text == "" || got.Rule == "" {
			t.Errorf("%s: incomplete: %+v", c.name, got)
		}
	}
}

// TestNumbersMayHaveSeparators: people write numbers with spaces and the visual separators of RFC 3966 §5.1.1.
func TestNumbersMayHaveSeparators(t *testing.T) {
	t.Parallel()
	x := explainer(t)
	for _, to := range []string{"+44 20 7946-0123", "+44 (20) 7946.0123", " +44-20-7946-0123 ",
		"+44\u00a020\u00a079460123", "tel:+44-20-7946-0123"} {
		got, err := ask(t, x, api.Question{From: "+1 (555) 0100", To: to, Peer: "core"})
		if err != nil || got.Called != "+442079460123" || got.Identity != "+15550100" {
			t.Errorf("to %q: %+v, %v; want +442079460123 from +15550100", to, got, err)
		}
	}
}

// TestPeersOfTheChosenGroupsAreNamed: with their state; other groups are not.
func TestPeersOfTheChosenGroupsAreNamed(t *testing.T) {
	t.Parallel()
	got, err := ask(t, explainer(t), api.Question{From: "+15550100", To: "+442079460123", Peer: "core"})
	if err != nil || len(got.PeerGroups) != 1 || got.PeerGroups[0].Name != "teams" ||
		got.PeerGroups[0].Peers[0].State != api.PeerStateDown {
		t.Errorf("%+v, %v; want group teams with the peer sip3, which is down", got.PeerGroups, err)
	}
}

func TestExplainRefusesInvalidQuestions(t *testing.T) {
	t.Parallel()
	x := explainer(t)
	for _, c := range []struct {
		q      api.Question
		code   string
		target string
	}{
		{api.Question{From: "+1", To: "+2", Peer: "unknown"}, "UnknownPeer", "peer"},
		{api.Question{From: "+15550100", To: "a b", Peer: "core"}, "InvalidQuestion", "to"},
		{api.Question{From: "x\r\nVia: y", To: "+15550100", Peer: "core"}, "InvalidQuestion", "from"},
		{api.Question{From: "+15550100", To: "+15550100", Peer: "core", History: []string{"+15550100", "<"}},
			"InvalidQuestion", "history[1]"},
		{api.Question{From: "+15550100", To: "+15550100", Peer: "core", AnchoredBy: "MO\r\nX: y"},
			"InvalidQuestion", "anchoredBy"},
	} {
		_, err := ask(t, x, c.q)
		f := fault.As(err)
		if err == nil || f.Code != c.code || f.Target != c.target {
			t.Errorf("Explain(%+v): %v, want %s at %s", c.q, err, c.code, c.target)
		}
	}
	x.View = func() route.View { return nil }
	_, err := ask(t, x, api.Question{From: "+15550100", To: "+15550101", Peer: "core"})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "503") {
		t.Errorf("without an index: %v", err)
	}
	ex, err := ask(t, x, api.Question{From: "+15550100", To: "+911", Peer: "teams"})
	if err != nil || ex.Outcome != "toCore" || !ex.Emergency {
		t.Errorf("an emergency call without an index: %+v, %v, want one to the core", ex, err)
	}
	_, err = ask(t, x, api.Question{From: "+15550100", To: "911", Peer: "core"})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("911 from the core without an index: %v, want unavailable", err)
	}
}
