package teamsadmin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

func TestOffUnlessEnabled(t *testing.T) {
	_, err := teamsadmin.New(teamsadmin.Config{})
	want(t, "New", err, fault.Invalid, "TeamsServiceOff", "not supported by Microsoft")
	_, err = teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: "http://teams.example"})
	want(t, "New", err, fault.Invalid, "InvalidBaseURL", "https")
}

// teams-tenant §3: each type is created with the parameters of its cmdlet, changed and deleted; the tenant is then as
// it was.
func TestObjects(t *testing.T) { eachAdmin(t, testObjects) }

func testObjects(t *testing.T, b *bed) {
	b.tenant.Set(func(s *microsoft.Settings) { s.OddReads = true })
	before := string(b.tenant.Dump())
	if err := b.client.AddUsages(t.Context(), "Tandem-E164"); err != nil {
		t.Fatal(err)
	}

	const sbc = "sbc.contoso.example" // the other operator's, in whose domain a gateway can be made
	rule := map[string]any{"Name": "all", "Pattern": `^(\d+)$`, "Translation": "+$1"}
	for _, c := range []struct {
		kind          teamsadmin.Type
		name          string
		first, second settings
	}{
		{teamsadmin.VoiceRoutingPolicy, "Tandem-E164", settings{"OnlinePstnUsages": []string{"Tandem-E164"}},
			settings{"Description": "two"}},
		{teamsadmin.Gateway, "tandem." + sbc, settings{"Fqdn": "tandem." + sbc, "SipSignalingPort": 5061},
			settings{"Enabled": true}},
		{teamsadmin.VoiceRoute, "Tandem-E164", settings{"NumberPattern": ".*", "OnlinePstnGatewayList": []string{sbc},
			"OnlinePstnUsages": []string{"Tandem-E164"}, "Priority": 7}, settings{"Priority": 8}},
		{teamsadmin.DialPlan, "Tandem-E164", settings{"NormalizationRules": []any{rule}},
			settings{"Description": "two"}},
		{teamsadmin.CallerID, "Tandem-E164", settings{"CallingIDSubstitute": "Anonymous"},
			settings{"CallingIDSubstitute": "LineUri"}},
		{teamsadmin.EmergencyPolicy, "Tandem-E164", settings{"EmergencyNumbers": []any{map[string]any{
			"EmergencyDialString": "112", "OnlinePSTNUsage": "Tandem-E164"}}}, settings{"Description": "two"}},
	} {
		b.object(c.kind, c.name, c.first)
		o, err := b.client.Read(t.Context(), c.kind, "tag:"+strings.ToUpper(c.name))
		b.must("Read "+string(c.kind), err)
		if !strings.EqualFold(o.Identity, c.name) || o.Type != c.kind || o.Settings["Key"] != nil ||
			o.Settings["Identity"] != nil {
			t.Errorf("Read %s = %+v", c.kind, o)
		}
		same(t, o.Settings, c.first)

		b.must("Change "+string(c.kind), b.client.Change(t.Context(),
			teamsadmin.Object{Type: c.kind, Identity: c.name, Settings: c.second}))
		all, err := b.client.List(t.Context(), c.kind)
		b.must("List "+string(c.kind), err)
		at := slices.IndexFunc(all, func(o teamsadmin.Object) bool { return strings.EqualFold(o.Identity, c.name) })
		if at < 0 {
			t.Fatalf("List %s = %+v, without %s", c.kind, all, c.name)
		}
		same(t, all[at].Settings, c.second)
		for name, v := range c.first {
			if _, changed := c.second[name]; !changed {
				same(t, all[at].Settings, settings{name: v})
			}
		}
	}

	for _, k := range []teamsadmin.Type{teamsadmin.EmergencyPolicy, teamsadmin.CallerID, teamsadmin.DialPlan,
		teamsadmin.VoiceRoute, teamsadmin.VoiceRoutingPolicy} {
		b.must("Delete "+string(k), b.client.Delete(t.Context(), k, "Tandem-E164"))
		_, err := b.client.Read(t.Context(), k, "Tandem-E164")
		want(t, "Read of a deleted object", err, fault.NotFound, "NotFound", "")
	}
	b.must("Delete gateway", b.client.Delete(t.Context(), teamsadmin.Gateway, "tandem."+sbc))
	b.must("RemoveUsages", b.client.RemoveUsages(t.Context(), "Tandem-E164"))
	if after := string(b.tenant.Dump()); after != before {
		t.Errorf("the tenant is not as it was:\n%s\nwant\n%s", after, before)
	}
}

// same compares settings as JSON.
func same(t *testing.T, got, want settings) {
	t.Helper()
	for name, v := range want {
		g, _ := json.Marshal(got[name])
		w, _ := json.Marshal(v)
		if name == "NormalizationRules" || name == "EmergencyNumbers" { // members are added to theirs
			w = w[2:20]
		}
		if !strings.Contains(string(g), string(w)) {
			t.Errorf("%s = %s, want %s", name, g, w)
		}
	}
}

// Usages are added and removed; those of others stay, and nothing is sent where nothing is to be changed.
func TestUsages(t *testing.T) { eachAdmin(t, testUsages) }

func testUsages(t *testing.T, b *bed) {
	ctx := t.Context()
	check := func(want ...string) {
		t.Helper()
		if got, err := b.client.Usages(ctx); err != nil || !slices.Equal(got, want) {
			t.Errorf("Usages = %q, %v; want %q", got, err, want)
		}
	}
	check("Foreign-1", "Foreign-2", "Foreign-3")
	b.must("add", b.client.AddUsages(ctx, "Tandem", "foreign-2", "tandem", "Tandem-2"))
	check("Foreign-1", "Foreign-2", "Foreign-3", "Tandem", "Tandem-2")
	b.must("add again", b.client.AddUsages(ctx, "TANDEM", "Tandem-2"))
	b.must("remove", b.client.RemoveUsages(ctx, "TANDEM-2", "never was"))
	b.must("remove again", b.client.RemoveUsages(ctx, "Tandem-2"))
	check("Foreign-1", "Foreign-2", "Foreign-3", "Tandem")
	if sent := b.sent(); sent != "PUT Global 200, PUT Global 200" {
		t.Errorf("sent %s", sent)
	}

	b.object(teamsadmin.VoiceRoutingPolicy, "Tandem", settings{"OnlinePstnUsages": []string{"Tandem"}})
	want(t, "removing a usage in use", b.client.RemoveUsages(ctx, "Tandem"), fault.Unavailable, teamsadmin.CodeInUse,
		"remove what refers to it")
}

// Reads show the old list for a while: AddUsages returns when they show the new one, and sends once.
func TestUsagesBecomeVisible(t *testing.T) { eachAdmin(t, testUsagesBecomeVisible) }

func testUsagesBecomeVisible(t *testing.T, b *bed) {
	b.tenant.Set(func(s *microsoft.Settings) { s.TeamsPropagation = time.Minute })
	stale := 0
	b.after = func(e microsoft.Exchange) {
		if e.Request.Method != http.MethodGet {
			stale = 1
		} else if stale > 0 {
			if stale++; stale == 4 {
				b.cloud.Advance(time.Hour)
			}
		}
	}
	b.must("AddUsages", b.client.AddUsages(t.Context(), "Tandem"))
	if got, err := b.client.Usages(t.Context()); err != nil || !slices.Contains(got, "Tandem") || stale < 4 {
		t.Errorf("Usages = %q, %v after %d reads", got, err, stale)
	}
	if sent := b.sent(); sent != "PUT Global 200" {
		t.Errorf("sent %s", sent)
	}
}

func TestGrants(t *testing.T) { eachAdmin(t, testGrants) }

func testGrants(t *testing.T, b *bed) {
	ctx := t.Context()
	var user, group string
	b.tenant.Edit(func(s *microsoft.State) {
		u := s.User("user000001@" + b.tenant.Initial)
		user, u.Policies = u.ID, nil
		group = "99999999-0000-4000-8000-000000000001"
		s.Groups = []*microsoft.Group{{ID: group, Name: "staff", Members: []string{user}}}
		s.GroupGrants = []microsoft.GroupGrant{{Group: group, Type: "TenantDialPlan", Policy: "Foreign-1"}}
	})
	// policies returns the user's dial plan and routing policy, with the group in front.
	policies := func() (out string) {
		t.Helper()
		users, err := b.client.Users(ctx)
		b.must("Users", err)
		for _, u := range users {
			for _, p := range u.Policies {
				if u.ID == user {
					out += p.Assignment.GroupID + ":" + string(p.Type) + "=" + p.Assignment.Policy + " "
				}
			}
		}
		return out
	}
	if got := policies(); got != group+":TenantDialPlan=Foreign-1 " {
		t.Errorf("policies = %s", got)
	}
	b.object(teamsadmin.DialPlan, "Tandem", nil)
	b.must("Grant", b.client.Grant(ctx, user, teamsadmin.DialPlan, "Tandem"))
	b.must("Grant", b.client.Grant(ctx, "user000001@"+b.tenant.Initial, teamsadmin.VoiceRoutingPolicy, "Foreign-2"))
	if got := policies(); got != ":OnlineVoiceRoutingPolicy=Foreign-2 :TenantDialPlan=Tandem " {
		t.Errorf("policies = %s", got)
	}
	want(t, "deleting a granted plan", b.client.Delete(ctx, teamsadmin.DialPlan, "Tandem"), fault.Unavailable,
		teamsadmin.CodeInUse, "in use")
	b.must("Grant", b.client.Grant(ctx, user, teamsadmin.DialPlan, ""))
	if got := policies(); got != ":OnlineVoiceRoutingPolicy=Foreign-2 "+group+":TenantDialPlan=Foreign-1 " {
		t.Errorf("policies after the direct one is removed = %s", got)
	}

	grants, err := b.client.GroupGrants(ctx)
	if err != nil || len(grants) != 1 || grants[0] != (teamsadmin.GroupGrant{GroupID: group, Type: teamsadmin.DialPlan,
		Policy: "Foreign-1"}) {
		t.Errorf("GroupGrants = %+v, %v", grants, err)
	}
	want(t, "granting to nobody", b.client.Grant(ctx, "nobody@contoso.example", teamsadmin.DialPlan, "Tandem"),
		fault.NotFound, "NotFound", "nobody@contoso.example")
	want(t, "granting what is not there", b.client.Grant(ctx, user, teamsadmin.DialPlan, "None"), fault.Invalid, "",
		"None")
}

// teams-tenant §3: a number is given to a user and taken back, with an extension too; the cmdlets refuse what their
// pages say.
func TestNumbers(t *testing.T) {
	for name, unroll := range map[string]bool{"powershell": false, "powershell that unrolls lists": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.client = b.worker(unroll)
			testNumbers(t, b)
		})
	}
	t.Run("https", func(t *testing.T) {
		b := newBed(t)
		const text = "no documented route"
		want(t, "AssignNumber", b.client.AssignNumber(t.Context(), "user", "+3221231212"), fault.Forbidden,
			teamsadmin.CodeNoNumbers, text)
		want(t, "UnassignNumber", b.client.UnassignNumber(t.Context(), "user", "+3221231212"), fault.Forbidden,
			teamsadmin.CodeNoNumbers, text)
		_, err := b.client.Numbers(t.Context(), teamsadmin.ByHolder, "user")
		want(t, "Numbers", err, fault.Forbidden, teamsadmin.CodeNoNumbers, "onboarding.teams to powershell")
		if len(b.seen) > 0 {
			t.Errorf("sent %d requests", len(b.seen))
		}
	})
}

func testNumbers(t *testing.T, b *bed) {
	ctx := t.Context()
	const number = "+3221231212;ext=12"
	var holder, other, unlicensed string
	b.tenant.Edit(func(s *microsoft.State) {
		s.Numbers = map[string]*microsoft.Number{"+3221230000": {Number: "+3221230000", Uploaded: true,
			Type: "callingPlan"}}
		s.SKUs[0].Enabled += 2
		for i, id := range []*string{&holder, &other, &unlicensed} {
			u := s.AddUser(&microsoft.User{UPN: fmt.Sprintf("number%d@%s", i, b.tenant.Initial), UsageLocation: "BE"})
			if *id = u.ID; i < 2 {
				s.License(u, microsoft.License{SKU: s.SKUs[0].ID})
			}
		}
	})
	check := func(by teamsadmin.NumberFilter, value string, wanted ...teamsadmin.Number) {
		t.Helper()
		if got, err := b.client.Numbers(ctx, by, value); err != nil || !slices.Equal(got, wanted) {
			t.Errorf("Numbers by %s %s = %+v, %v; want %+v", by, value, got, err, wanted)
		}
	}
	check(teamsadmin.ByNumber, number)
	b.must("AssignNumber", b.client.AssignNumber(ctx, holder, number))
	b.must("AssignNumber again", b.client.AssignNumber(ctx, "number0@"+b.tenant.Initial, number))
	held := teamsadmin.Number{Number: number, Type: "directRouting", Source: "online", Status: "userAssigned",
		Target: holder}
	check(teamsadmin.ByNumber, number, held)
	check(teamsadmin.ByHolder, holder, held)
	check(teamsadmin.ByHolder, other)

	for text, err := range map[string]error{
		"another user":                b.client.AssignNumber(ctx, other, number),
		"MCOEV":                       b.client.AssignNumber(ctx, unlicensed, "+3221231213"),
		"callingPlan":                 b.client.AssignNumber(ctx, other, "+3221230000"),
		"without tel:":                b.client.AssignNumber(ctx, other, "tel:+3221231213"),
		"not assigned":                b.client.UnassignNumber(ctx, other, number), // it is another's
		"'+3221231213' is not assign": b.client.UnassignNumber(ctx, holder, "+3221231213"),
	} {
		want(t, text, err, fault.Invalid, "TeamsRefused", text)
	}
	want(t, "a number for nobody", b.client.AssignNumber(ctx, "nobody@contoso.example", number), fault.NotFound,
		"NotFound", "nobody@contoso.example")
	check(teamsadmin.ByNumber, number, held)

	b.must("UnassignNumber", b.client.UnassignNumber(ctx, holder, number))
	check(teamsadmin.ByHolder, holder)
}

func TestAccountsAndDomains(t *testing.T) { eachAdmin(t, testAccountsAndDomains) }

func testAccountsAndDomains(t *testing.T, b *bed) {
	const application = "ce933385-9390-45d1-9512-c8d228074e07"
	b.must("CreateResourceAccount", b.client.CreateResourceAccount(t.Context(), "tandem@"+b.tenant.Initial, "Tandem",
		application))
	users, err := b.client.Users(t.Context())
	if !slices.ContainsFunc(users, func(u teamsadmin.User) bool {
		return u.UserPrincipalName == "tandem@"+b.tenant.Initial
	}) {
		t.Errorf("Users = %+v, %v", users, err)
	}

	b.tenant.Edit(func(s *microsoft.State) {
		s.Domains = append(s.Domains, &microsoft.Domain{Name: "c1.sbc.example", Verified: true})
	})
	domains, err := b.client.SIPDomains(t.Context())
	if err != nil || !slices.Equal(domains, []string{b.tenant.Initial, "sbc.contoso.example"}) {
		t.Errorf("SIPDomains = %q, %v; want those that are activated", domains, err)
	}
}

// teams-tenant §8: what a refusal means to the caller.
func TestRefusals(t *testing.T) { eachAdmin(t, testRefusals) }

func testRefusals(t *testing.T, b *bed) {
	create := func(k teamsadmin.Type, name string, s settings) func(context.Context) error {
		return func(ctx context.Context) error {
			return b.client.Create(ctx, teamsadmin.Object{Type: k, Identity: name, Settings: s})
		}
	}
	for _, c := range []struct {
		what       string
		do         func(context.Context) error
		kind       fault.Kind
		code, text string
	}{
		{"a gateway in a domain that is not activated", create(teamsadmin.Gateway, "c1.sbc.example.net",
			settings{"SipSignalingPort": 5061}), fault.Unavailable, teamsadmin.CodeNotReady, "24 hours"},
		{"a policy with a usage that is not there", create(teamsadmin.VoiceRoutingPolicy, "Tandem",
			settings{"OnlinePstnUsages": []string{"Tandem"}}), fault.Unavailable, teamsadmin.CodeNotReady, "retry"},
		{"a route with a gateway that is not there", create(teamsadmin.VoiceRoute, "Tandem",
			settings{"NumberPattern": ".*", "OnlinePstnGatewayList": []string{"c1.sbc.example.net"}}),
			fault.Unavailable, teamsadmin.CodeNotReady, "c1.sbc.example.net"},
		{"a plan that is there", create(teamsadmin.DialPlan, "Foreign-1", nil), fault.Conflict, teamsadmin.CodeExists,
			"already exists"},
		{"a parameter that does not exist", create(teamsadmin.DialPlan, "Tandem", settings{"Colour": "red"}),
			fault.Invalid, "TeamsRefused", "Colour"},
		{"deleting a gateway in use", func(ctx context.Context) error {
			return b.client.Delete(ctx, teamsadmin.Gateway, "sbc.contoso.example")
		}, fault.Unavailable, teamsadmin.CodeInUse, "Foreign-1"},
		{"changing what is not there", func(ctx context.Context) error {
			return b.client.Change(ctx, teamsadmin.Object{Type: teamsadmin.DialPlan, Identity: "Tandem"})
		}, fault.NotFound, "NotFound", "Tandem"},
		{"changing Global", func(ctx context.Context) error {
			return b.client.Change(ctx, teamsadmin.Object{Type: teamsadmin.DialPlan, Identity: "Tag:global",
				Settings: settings{"Description": "ours"}})
		}, fault.Invalid, "GlobalObject", "Global"},
		{"deleting Global", func(ctx context.Context) error {
			return b.client.Delete(ctx, teamsadmin.VoiceRoutingPolicy, "Global")
		}, fault.Invalid, "GlobalObject", "Global"},
	} {
		want(t, c.what, c.do(t.Context()), c.kind, c.code, c.text)
	}
}

// The HTTPS service answers 404 for a list only if it has changed.
func TestUnknownType(t *testing.T) {
	_, err := newBed(t).client.Read(t.Context(), "TenantDailPlan", "Tandem")
	want(t, "a type that the service does not have", err, fault.Unavailable, teamsadmin.CodeUnreadable,
		"not supported by Microsoft")
}

func TestRoleMissing(t *testing.T) { eachAdmin(t, testRoleMissing) }

func testRoleMissing(t *testing.T, b *bed) {
	b.role("")
	_, err := b.client.Usages(t.Context())
	want(t, "reading without a role", err, fault.Forbidden, teamsadmin.CodeRoleMissing, "Teams Administrator")
	b.role("Global Reader")
	b.cloud.Advance(2 * time.Hour) // the next token has it
	_, err = b.client.Usages(t.Context())
	b.must("reading with a reader's role", err)
	want(t, "changing with a reader's role", b.client.AddUsages(t.Context(), "Tandem"), fault.Forbidden,
		teamsadmin.CodeRoleMissing, "Teams Administrator")
}
