package readiness_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/licence"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/readiness"
)

// ready returns the facts of a tenant in which nothing is to be remarked.
func ready() *readiness.Facts {
	base := []string{"contoso.1r1.gw.example", "contoso.1r2.gw.example"}
	f := &readiness.Facts{Unread: map[string]string{}, Granted: permission.All(), InToken: permission.All(),
		Tenant: readiness.Tenant{ID: "t", Name: "Contoso", Type: "AAD", Country: "GB",
			Initial: "contoso.onmicrosoft.com",
			Domains: []readiness.Domain{{Name: "contoso.onmicrosoft.com", Verified: true}}},
		SKUs: []licence.SKU{seats("MCOSTANDARD", 5, 0)}, Phone: 10,
		Settings: &plan.Settings{Prefix: "Tandem-E164", Regions: []string{"1r1.gw.example", "1r2.gw.example"},
			Labels: []plan.Label{{Name: "contoso", Trunk: plan.Derived}},
			Rules:  []plan.Rule{{Name: "national", Pattern: `^0(\d{10})$`, Translation: "+44$1"}}},
		Teams: readiness.Implementation{Name: "the PowerShell worker"}, Mode: readiness.AsPerson,
		Person: readiness.Person{Name: "anna", Roles: []string{"62E90394-69f5-4237-9190-012177145e10"}},
		State:  plan.State{}}
	for _, n := range base {
		f.Names = append(f.Names, readiness.Name{FQDN: n, Checks: map[string]error{"dns": nil, "certificate": nil,
			"reachable": nil}})
	}
	return f
}

func seats(plan string, enabled, consumed int) licence.SKU {
	return licence.SKU{ID: plan, Name: "SKU_" + plan, AppliesTo: "User", Enabled: enabled, Consumed: consumed,
		Plans: []licence.Plan{{ID: plan, Name: plan, AppliesTo: "User"}}}
}

// object is one of a tenant.
func object(t plan.Type, name string, f plan.Fields) plan.Object {
	return plan.Object{Ref: plan.Ref{Type: t, Name: name}, Fields: f}
}

// TestCheck changes one fact each: the only findings that do not pass are those named.
func TestCheck(t *testing.T) {
	t.Parallel()
	const prefix = "Tandem-E164"
	for _, c := range []struct {
		name   string
		change func(*readiness.Facts)
		want   []string // level, id, subject
	}{
		{"ready", func(*readiness.Facts) {}, nil},
		{"no way to configure Teams", func(f *readiness.Facts) {
			f.Teams = readiness.Implementation{Missing: "install pwsh and the module MicrosoftTeams"}
		}, []string{"fail teams"}},
		{"a way that is not supported", func(f *readiness.Facts) { f.Teams.Remark = "not supported by Microsoft" },
			[]string{"warn teams the PowerShell worker"}},
		{"no label", func(f *readiness.Facts) { f.Undecided, f.Settings = "no label is free", nil },
			[]string{"fail settings"}},
		{"a long name", func(f *readiness.Facts) { f.Names[0].FQDN = strings.Repeat("a", 49) },
			[]string{"fail name " + strings.Repeat("a", 49)}},
		{"an expired certificate", func(f *readiness.Facts) {
			f.Names[1].Checks["certificate"] = fault.New(fault.Conflict, "Certificate", "it has expired")
		}, []string{"fail certificate contoso.1r2.gw.example"}},
		{"a name that nobody can look at", func(f *readiness.Facts) {
			f.Names[1].Checks["dns"] = fault.New(fault.Unavailable, "NoZone", "no name servers")
		}, []string{"warn dns contoso.1r2.gw.example"}},
		{"nothing authorised", func(f *readiness.Facts) { f.Denied = "the app is not in the tenant" },
			[]string{"fail consent"}},
		{"a permission withdrawn", func(f *readiness.Facts) { f.Granted = f.Granted[1:] },
			[]string{"fail permission Application.Read.All (application)"}},
		{"a permission that tokens lack", func(f *readiness.Facts) { f.InToken = f.InToken[1:] },
			[]string{"warn permission Application.Read.All (application)"}},
		{"grants that cannot be read: tokens decide", func(f *readiness.Facts) {
			f.Granted, f.InToken, f.Unread["grants"] = nil, f.InToken[1:], "forbidden"
		}, []string{"warn unread grants", "fail permission Application.Read.All (application)"}},
		{"no licences read", func(f *readiness.Facts) { f.SKUs, f.Unread["licences"] = nil, "forbidden" },
			[]string{"warn unread licences"}},
		{"suspended seats", func(f *readiness.Facts) {
			f.SKUs = []licence.SKU{seats("MCOSTANDARD", 0, 0)}
			f.SKUs[0].Suspended = 50
		}, []string{"fail licence"}},
		{"a product for the company", func(f *readiness.Facts) { f.SKUs[0].AppliesTo = "Company" },
			[]string{"fail licence"}},
		{"all names active: no licence needed", func(f *readiness.Facts) {
			f.SKUs = []licence.SKU{seats("MCOSTANDARD", 2, 2)}
			for _, n := range f.Names {
				d := readiness.Domain{Name: n.FQDN, Verified: true, Active: true}
				f.Tenant.Domains = append(f.Tenant.Domains, d)
			}
		}, nil},
		{"a partner", func(f *readiness.Facts) { f.Person.Partner = true }, []string{"warn partner anna"}},
		{"a role that does not do", func(f *readiness.Facts) {
			f.Person.Roles = []string{"f2ef992c-3afb-46b9-b7cf-a126ee74c451"} // Global Reader
		}, []string{"fail role teams", "warn role purge"}},
		{"the app", func(f *readiness.Facts) {
			f.Mode, f.Person = readiness.AsApplication, readiness.Person{Name: "the app",
				Roles: []string{"69091246-20e8-4a56-aa4d-066075b2a7a8"}}
			f.InToken = f.InToken[:11]
		}, []string{"warn role purge"}},
		{"a country without emergency numbers", func(f *readiness.Facts) { f.Tenant.Country = "" },
			[]string{"warn dialPlan"}},
		{"a rule that rewrites the deployment's test number", func(f *readiness.Facts) {
			f.Emergency = []string{"933"}
			f.Settings.Rules = append(f.Settings.Rules, plan.Rule{Name: "nine", Pattern: `^(9\d{2})$`,
				Translation: "+44207946$1"})
		}, []string{"fail dialPlan rules[1]", "fail dialPlan rules[1]"}}, // 933 and 999

		{"our own objects, read oddly", func(f *readiness.Facts) {
			made := f.Settings.Objects(nil, nil)
			f.Ledger = plan.Ledger{}
			for _, o := range made {
				f.Ledger.Set(plan.Made{Object: o})
				if o.Type == plan.Route {
					o.Name = "Tag:tandem-e164"
					o.Fields = plan.Fields{"gateways": []string{"contoso.1r2.gw.example", "contoso.1r1.gw.example"},
						"usages": []string{prefix}, "priority": 1, "pattern": ".*"}
				}
				f.State = plan.NewState(append(objects(f.State), o))
			}
		}, nil},
		{"an emergency policy with our name and another's numbers", func(f *readiness.Facts) {
			f.Settings.Emergency = []plan.EmergencyNumber{{DialString: "112"}}
			f.State = plan.NewState([]plan.Object{object(plan.EmergencyPolicy, prefix, plan.Fields{
				"numbers": []plan.EmergencyNumber{{DialString: "911", Mask: "933", Usage: "Foreign911"}}})})
		}, []string{"fail collision emergencyPolicy " + prefix}},
		{"numbers that Tandem has assigned, and others", func(f *readiness.Facts) {
			f.Ledger = plan.NewLedger([]plan.Made{{Object: object(plan.User, "u1", nil)}})
			f.Holders = []readiness.Holder{{Number: "+441", Type: "directRouting", ID: "u1"},
				{Number: "+442", Type: "directRouting", ID: "u2"}}
		}, []string{"warn number +442"}},
		{"a route of others with our usage, after ours", func(f *readiness.Facts) {
			f.Ledger = plan.NewLedger([]plan.Made{{Object: object(plan.Route, prefix, plan.Fields{"priority": 1})}})
			f.State = plan.NewState([]plan.Object{object(plan.Route, "other", plan.Fields{"pattern": "^9",
				"usages": []string{prefix}, "gateways": []string{"sbc.example"}, "priority": 2})})
		}, nil},
		{"before ours", func(f *readiness.Facts) {
			f.State = plan.NewState([]plan.Object{object(plan.Route, "other", plan.Fields{"pattern": "^9",
				"usages": []string{strings.ToLower(prefix)}, "gateways": []string{"sbc.example"}, "priority": 0})})
		}, []string{"fail shadow other"}},
		{"an emergency usage that leads here", func(f *readiness.Facts) {
			f.State = plan.NewState([]plan.Object{object(plan.EmergencyPolicy, "Global", plan.Fields{
				"numbers": []plan.EmergencyNumber{{DialString: "112", Usage: prefix}}})})
		}, nil},
		{"a policy of some users that leads elsewhere", func(f *readiness.Facts) {
			f.Policies = []readiness.PolicyUse{{Name: "branch", Users: 3}}
			f.State = plan.NewState([]plan.Object{object(plan.EmergencyPolicy, "branch", plan.Fields{
				"numbers": []plan.EmergencyNumber{{DialString: "112", Usage: "branch"}}}),
				object(plan.Route, "branch", plan.Fields{"pattern": "^112$", "usages": []string{"branch"},
					"gateways": []string{"sbc.example"}, "priority": 0})})
		}, []string{"warn emergency branch 112"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := ready()
			c.change(f)
			var got []string
			for _, x := range readiness.Check(f) {
				if x.Reason == "" || x.Level == readiness.Fail && x.Remedy == "" {
					t.Errorf("%s %s has no reason or remedy", x.ID, x.Subject)
				}
				if x.Level != readiness.Pass {
					got = append(got, strings.TrimSpace(string(x.Level)+" "+x.ID+" "+x.Subject))
				}
			}
			if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func objects(s plan.State) (all []plan.Object) {
	for _, o := range s {
		all = append(all, o)
	}
	return all
}

// TestSeats: which way activation users get their licences.
func TestSeats(t *testing.T) {
	t.Parallel()
	grace := seats("MCOSTANDARD", 0, 20)
	grace.Warning = 25
	for _, c := range []struct {
		name  string
		skus  []licence.SKU
		way   readiness.Way
		plan  string
		level readiness.Level
	}{
		{"enough", []licence.SKU{seats("MCOSTANDARD", 2, 0)}, readiness.EachOwn, "MCOSTANDARD", readiness.Pass},
		{"of two products", []licence.SKU{seats("MCOEV", 1, 0), seats("MCOSTANDARD", 1, 0)}, readiness.EachOwn,
			"MCOSTANDARD", readiness.Pass},
		{"one", []licence.SKU{seats("MCOSTANDARD", 6, 5)}, readiness.Reused, "MCOSTANDARD", readiness.Warn},
		{"in the grace period", []licence.SKU{grace}, readiness.EachOwn, "MCOSTANDARD", readiness.Warn},
		{"free licence only", []licence.SKU{seats("MCOEV_VIRTUALUSER", 25, 0)}, readiness.ResourceAccount,
			"MCOEV_VIRTUALUSER", readiness.Warn},
		{"one more than paid for", []licence.SKU{seats("MCOSTANDARD", 5, 6)}, "", "", readiness.Fail},
	} {
		s := readiness.Seats(c.skus, 2)
		if s.Way != c.way || s.Plan != c.plan || s.Level != c.level {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
}

// source gives facts without a tenant.
type source struct {
	facts readiness.Facts
	err   error
}

func (s source) Consented(_ context.Context, f *readiness.Facts) error {
	unread := f.Unread
	*f = s.facts
	f.Unread = unread
	return s.err
}

func (s source) SignedIn(_ context.Context, f *readiness.Facts, named []plan.Ref) error {
	if !slices.Contains(named, plan.Ref{Type: plan.Domain, Name: "contoso.1r1.gw.example"}) {
		return fmt.Errorf("named %v", named)
	}
	f.State = s.facts.State
	return nil
}

// TestChecker: what was never authorised is a finding, what does not answer is an error, and settings that cannot be
// decided are a finding.
func TestChecker(t *testing.T) {
	t.Parallel()
	f := ready()
	settings := f.Settings
	f.Names, f.Settings = nil, nil
	s, settingsErr, sourceErr := source{facts: *f}, error(nil), error(nil)
	c := &readiness.Checker{Source: func(context.Context, string) (readiness.Source, error) { return s, sourceErr },
		Settings: func(context.Context, string, readiness.Tenant) (*plan.Settings, error) {
			return settings, settingsErr
		},
		Ledger: func(context.Context, string) (plan.Ledger, error) { return nil, nil },
		DNS:    func(context.Context, string) error { return nil },
		Teams:  func() readiness.Implementation { return readiness.Implementation{Name: "x"} }}
	check := func(stage readiness.Stage, fails string) {
		t.Helper()
		r, err := c.Check(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range r.Findings {
			if x.Level == readiness.Fail {
				got = append(got, x.ID)
			}
		}
		if r.Stage != stage || strings.Join(got, " ") != fails || r.Count(readiness.Fail) != len(got) {
			t.Errorf("stage %s, failed %q; want %s, %q", r.Stage, got, stage, fails)
		}
	}
	check(readiness.SignedIn, "")
	findings, err := c.Findings(t.Context(), "acme")
	if err != nil || len(findings) < 12 {
		t.Errorf("%d findings for the pages, %v", len(findings), err)
	}
	for _, x := range findings {
		if x.Title == "" || x.Group == "" || x.Result == invite.Fail {
			t.Errorf("%+v", x)
		}
	}

	c.DNS = func(context.Context, string) error {
		return fault.New(fault.Conflict, "NotDelegated", "ns2.internal.example does not delegate")
	}
	if findings, err = c.Findings(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, x := range findings {
		if strings.Contains(x.Title+x.Reason+x.Remedy, "ns2.internal") || x.Result == invite.Fail {
			t.Errorf("the customer sees a detail of the operator: %+v", x)
		}
		if strings.Contains(x.Title, "Your provider has to finish") &&
			strings.Contains(x.Reason, "publish the names of your organisation in its DNS. You need to do nothing") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the customer is told %d times that the provider has to finish", told)
	}
	c.DNS = func(context.Context, string) error { return nil }

	s.facts.Phone = 1
	r, err := c.Check(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, x := range r.Findings {
		texts = append(texts, x.Reason)
	}
	for _, text := range []string{"1 user can get a number", "1 verified domain"} {
		if !slices.Contains(texts, text) {
			t.Errorf("no finding says %q: %q", text, texts)
		}
	}

	undisturbed := s.facts.State
	s.facts.State = plan.NewState([]plan.Object{
		object(plan.DialPlan, "Tandem-E164", plan.Fields{"rules": []plan.Rule{}}),
		object(plan.EmergencyPolicy, "Global", plan.Fields{
			"numbers": []plan.EmergencyNumber{{DialString: "112", Usage: "none"}}})})
	if findings, err = c.Findings(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, x := range findings {
		if strings.Contains(x.Remedy, "template") || strings.Contains(x.Remedy, "prefix") {
			t.Errorf("the customer reads what is for the operator: %+v", x)
		}
		if strings.Contains(x.Remedy, "ask your provider") {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("%d remedies ask the provider, want 2: %+v", asked, findings)
	}
	s.facts.State = undisturbed

	answer, err := readiness.Operations{Checker: c}.CheckReadiness(t.Context(),
		api.CheckReadinessRequestObject{Account: "acme"})
	if a, ok := answer.(api.CheckReadiness200JSONResponse); err != nil || !ok || a.Failed != 0 || a.Passed < 20 ||
		a.Licence == nil || a.Licence.Way != "each" || len(a.Names) != 2 || a.Note != "" {
		t.Errorf("%+v, %v", answer, err)
	}

	settingsErr = fault.New(fault.Conflict, "NoFreeLabel", "choose one")
	settings = nil
	s.facts.Mode = ""
	check(readiness.Consented, "settings")
	sourceErr = fault.New(fault.Conflict, "NotAuthorised", "invite its administrator")
	check(readiness.Consented, "consent")
	sourceErr, s.err = nil, fault.New(fault.Unavailable, "GraphUnavailable", "retry")
	if _, err := c.Check(t.Context(), "acme"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Microsoft does not answer: %v", err)
	}
}
