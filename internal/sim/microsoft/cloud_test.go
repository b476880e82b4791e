package microsoft_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

const (
	configurations = "/Skype.Policy/configurations/"
	numberPath     = "/admin/teams/telephoneNumberManagement"
)

func claims(t *testing.T, token any) jwt.MapClaims {
	t.Helper()
	c := jwt.MapClaims{}
	text, _ := token.(string)
	if _, _, err := jwt.NewParser().ParseUnverified(text, c); err != nil {
		t.Fatalf("token %v: %v", token, err)
	}
	return c
}

// active returns the names of the activated domains.
func (b *bed) active() []string {
	b.t.Helper()
	return names(list(b.teams("app", "GET", "/Teams.Tenant/VerifiedSipDomains", nil, 200)), "Name")
}

func (b *bed) set(f func(*microsoft.Settings)) { b.tenant.Set(f) }

// TestSignIn signs a person in with a code, redeems the refresh token for the other resource, and verifies the id
// token with the published keys.
func TestSignIn(t *testing.T) {
	b := newBed(t)
	_, o := b.redeem(b.code(b.tenant.Admin, graph+" openid offline_access"), nil)
	id := claims(t, o["id_token"])
	wids, _ := id["wids"].([]any)
	if id["tid"] != b.tenant.ID || id["nonce"] != "n" || id["aud"] != clientID || len(wids) != 1 ||
		id["preferred_username"] != b.tenant.Admin {
		t.Errorf("id token = %v", id)
	}
	first, _ := o["refresh_token"].(string)
	_, o = b.refresh(first, map[string]string{"scope": teams})
	access := claims(t, o["access_token"])
	if access["aud"] != microsoft.TeamsID || access["scp"] != "user_impersonation" || o["refresh_token"] == first {
		t.Errorf("token for Teams = %v, refresh token rotated: %v", access, o["refresh_token"] != first)
	}

	res, metadata := b.do(b.cloud.URL(microsoft.Login), "GET", "/"+b.tenant.ID+
		"/v2.0/.well-known/openid-configuration", "", nil, nil)
	if res.StatusCode != 200 || metadata["issuer"] != id["iss"] {
		t.Errorf("issuer %v, in the token %v", metadata["issuer"], id["iss"])
	}
	keys, _ := metadata["jwks_uri"].(string)
	if _, o := b.do("", "GET", keys, "", nil, nil); o["keys"] == nil {
		t.Errorf("keys = %v", o)
	}
}

func TestClientAssertion(t *testing.T) {
	b := newBed(t)
	status, o := b.form("/"+b.tenant.ID+tokenPath, map[string]string{"grant_type": "client_credentials", "scope": graph,
		"client_id": clientID, "client_assertion_type": jwtBearer, "client_assertion": b.assertion("")})
	if status != 200 || o["refresh_token"] != nil {
		t.Fatalf("token = %d %v", status, o)
	}
	if roles, _ := claims(t, o["access_token"])["roles"].([]any); len(roles) != len(everything) {
		t.Errorf("roles = %v", roles)
	}
}

func TestDeviceCode(t *testing.T) {
	b := newBed(t)
	b.enter(b.deviceCode(), "accept")
	status, o := b.form("/organizations"+tokenPath, map[string]string{"client_id": microsoft.CommandLineApp,
		"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": b.vars["device"]})
	if status != 200 || claims(t, o["access_token"])["scp"] != "User.Read" {
		t.Errorf("token = %d %v", status, o)
	}
}

// TestAdminConsent consents in the other tenant and finds the permissions there.
func TestAdminConsent(t *testing.T) {
	b := newBed(t)
	to, err := b.cloud.Walk(t.Context(), b.cloud.URL(microsoft.Login)+"/organizations/v2.0/adminconsent?client_id="+
		clientID+"&redirect_uri="+callback+"&state=x&scope="+graph, b.other.Admin, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	if q.Get("admin_consent") != "True" || q.Get("tenant") != b.other.ID || q.Get("state") != "x" {
		t.Errorf("redirected to %s", to)
	}
	status, o := b.form("/"+b.other.ID+tokenPath, map[string]string{"grant_type": "client_credentials",
		"client_id": clientID, "client_secret": secret, "scope": graph})
	if status != 200 || len(claims(t, o["access_token"])["roles"].([]any)) != len(everything) {
		t.Errorf("token = %d %v", status, o)
	}
}

// TestLateConsent is tenant-cases 1, and 2 for a partial consent.
func TestLateConsent(t *testing.T) {
	b := newBed(t)
	form := map[string]string{"grant_type": "client_credentials", "client_id": bareID, "client_secret": secret,
		"scope": graph}
	b.set(func(s *microsoft.Settings) {
		s.ConsentRefusals, s.ConsentMissing, s.ConsentLag = 2, []string{"Domain.ReadWrite.All"}, 30*time.Second
	})
	b.tenant.Consent(bareID, []string{"Domain.ReadWrite.All", "User.Read.All"}, nil)
	roles := func() int {
		status, o := b.form("/"+b.tenant.ID+tokenPath, form)
		if status == 400 && o["error_codes"].([]any)[0] == 65001.0 {
			return -1
		}
		list, _ := claims(t, o["access_token"])["roles"].([]any)
		return len(list)
	}
	got := []int{roles(), roles(), roles()}
	b.cloud.Advance(31 * time.Second)
	if got = append(got, roles()); !slices.Equal(got, []int{-1, -1, 1, 2}) {
		t.Errorf("roles in four tokens: %v (-1: AADSTS65001)", got)
	}
}

// TestClaimsChallenge is tenant-cases 4: with the capability a challenge whose claims can be decoded, and refreshing
// helps.
func TestClaimsChallenge(t *testing.T) {
	b := newBed(t)
	_, o := b.redeem(b.code(b.tenant.Admin, graph+" offline_access"), map[string]string{
		"claims": `{"access_token":{"xms_cc":{"values":["cp1"]}}}`})
	b.tokens["admin"], _ = o["access_token"].(string)
	b.tenant.Outdate(b.tenant.Admin)
	res, e := b.send(microsoft.Graph, "admin", "GET", "/v1.0/me", nil, 401, nil)
	header := res.Header.Get("WWW-Authenticate")
	_, text, _ := strings.Cut(header, `claims="`)
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, `"`))
	if err != nil || !strings.Contains(string(decoded), `"nbf"`) ||
		!strings.Contains(header, `error="insufficient_claims"`) ||
		!strings.Contains(header, "authorization_uri=https") {
		t.Errorf("header %s, claims %s, %v", header, decoded, e)
	}
	status, o := b.refresh(o["refresh_token"].(string), map[string]string{"claims": string(decoded)})
	if b.tokens["admin"], _ = o["access_token"].(string); status != 200 {
		t.Fatalf("refresh = %v", o)
	}
	b.graph("admin", "GET", "/me", nil, 200)
}

// TestDomainLife verifies a domain by DNS, activates it by a licensed user, and deletes it.
func TestDomainLife(t *testing.T) {
	b := newBed(t)
	b.set(func(s *microsoft.Settings) { s.ActivationDelay = time.Hour })
	b.graph("app", "POST", "/domains", object{"id": "new.example"}, 201)
	b.publish("new.example")
	if o := b.graph("app", "POST", "/domains/new.example/verify", nil, 200); o["isVerified"] != true {
		t.Fatalf("verified domain = %v", o)
	}
	gateway := object{"Identity": "sbc1.new.example", "SipSignalingPort": 5061, "Enabled": true}
	b.teams("app", "POST", configurations+"OnlinePSTNGateway", gateway, 400)
	id, _ := b.graph("app", "POST", "/users", object{"accountEnabled": true, "displayName": "Teams Gateway",
		"mailNickname": "tandem.teams", "userPrincipalName": "tandem.teams@new.example", "usageLocation": "GB",
		"passwordProfile": object{"password": "0123456789abcdef"}}, 201)["id"].(string)
	b.cloud.Advance(2 * time.Hour)
	clear(b.tokens)
	b.teams("app", "POST", configurations+"OnlinePSTNGateway", gateway, 400) // nobody is licensed
	b.graph("app", "POST", "/users/"+id+"/assignLicense", object{"addLicenses": []object{{"skuId": b.vars["sku"]}},
		"removeLicenses": []string{}}, 200)
	b.teams("app", "POST", configurations+"OnlinePSTNGateway", gateway, 400) // not yet
	b.cloud.Advance(61 * time.Minute)
	if got := b.active(); !slices.Contains(got, "new.example") {
		t.Errorf("activated domains = %v", got)
	}
	o := b.teams("app", "POST", configurations+"OnlinePSTNGateway", gateway, 200)
	if o["SendSipOptions"] != true || o["ForwardPai"] != false || o["FailoverTimeSeconds"] != 10.0 {
		t.Errorf("defaults of a gateway: %v", o)
	}

	b.graph("app", "DELETE", "/domains/new.example", nil, 400)
	b.graph("app", "DELETE", "/users/"+id, nil, 204)
	b.set(func(s *microsoft.Settings) { s.BinBlocksDomain = true })
	b.graph("app", "DELETE", "/domains/new.example", nil, 400)
	b.graph("app", "DELETE", "/directory/deletedItems/"+id, nil, 403) // tenant-cases 6
	b.graph("admin", "DELETE", "/directory/deletedItems/"+id, nil, 204)
	b.graph("app", "DELETE", "/domains/new.example", nil, 204)
	b.graph("app", "GET", "/domains/new.example", nil, 404)
}

// TestPaging is tenant-cases 8, and follows pages to the end.
func TestPaging(t *testing.T) {
	b := newBed(t)
	next := func(o object) string {
		link, _ := o["@odata.nextLink"].(string)
		return strings.TrimPrefix(link, b.cloud.URL(microsoft.Graph)+"/v1.0")
	}
	seen, pages := map[string]bool{}, 0
	for path := "/users?$top=5&$select=id"; path != ""; pages++ {
		o := b.graph("app", "GET", path, nil, 200)
		for _, u := range list(o) {
			seen[u["id"].(string)] = true
		}
		path = next(o)
	}
	if len(seen) != 33 || pages != 7 {
		t.Errorf("%d users on %d pages, want 33 on 7", len(seen), pages)
	}

	b.set(func(s *microsoft.Settings) { s.ExpireAtPage = 3 })
	second := next(b.graph("app", "GET", "/users?$top=5", nil, 200))
	third := next(b.graph("app", "GET", second, nil, 200))
	for _, path := range []string{third, third, second} {
		e, _ := b.graph("app", "GET", path, nil, 400)["error"].(object)
		if e["code"] != "Directory_ExpiredPageToken" {
			t.Errorf("expired page = %v", e)
		}
	}
	b.graph("app", "GET", next(b.graph("app", "GET", "/users?$top=5", nil, 200)), nil, 200)
}

func TestFilters(t *testing.T) {
	b := newBed(t)
	var unlicensed int
	b.tenant.Edit(func(s *microsoft.State) {
		s.User(b.vars["user"]).Department = "O'Neill & Co"
		for _, u := range s.Users {
			if len(u.Licenses) == 0 { // beside two resource accounts, which have no Phone System either
				unlicensed++
			}
		}
	})
	eventual := map[string]string{"ConsistencyLevel": "eventual"}
	phone := "assignedPlans/any(p:p/servicePlanId eq 4828c8ec-dc2e-4779-b502-87ac9ce28ab7 and p/capabilityStatus eq " +
		"'Enabled')"
	for filter, want := range map[string]int{
		phone:                                    31 - unlicensed,
		"not (" + phone + ")":                    unlicensed + 2,
		"department eq 'O''Neill %26 Co'":        1,
		"startsWith(userPrincipalName,'user00')": 30,
		"accountEnabled eq true and (usageLocation eq 'DE' or usageLocation eq 'GB')": 31,
		"id in ('" + b.vars["user"] + "','x')":                                        1,
		"usageLocation ne 'GB'":                                                       0,
	} {
		_, o := b.send(microsoft.Graph, "app", "GET", "/v1.0/users?$count=true&$top=999&$filter="+filter, nil, 200,
			eventual)
		if got := len(list(o)); got != want || o["@odata.count"] != float64(want) {
			t.Errorf("$filter=%s: %d users, count %v, want %d", filter, got, o["@odata.count"], want)
		}
	}
}

// TestDelta is tenant-cases 9.
func TestDelta(t *testing.T) {
	b := newBed(t)
	link := func(o object) string {
		s, _ := o["@odata.deltaLink"].(string)
		return strings.TrimPrefix(s, b.cloud.URL(microsoft.Graph)+"/v1.0")
	}
	o := b.graph("app", "GET", "/users/delta?$select=displayName,department", nil, 200)
	if len(list(o)) != 33 {
		t.Fatalf("%d users in the first round", len(list(o)))
	}
	user := b.vars["user"]
	round := func() (changes []object) {
		o = b.graph("app", "GET", link(o), nil, 200)
		return list(o)
	}
	if got := round(); len(got) != 0 {
		t.Errorf("changes without a change: %v", got)
	}
	b.graph("app", "PATCH", "/users/"+user, object{"department": "New"}, 204)
	if got := round(); len(got) != 1 || got[0]["department"] != "New" || got[0]["mail"] != nil {
		t.Errorf("changes = %v", got)
	}
	for _, step := range []struct{ method, path, reason string }{
		{"DELETE", "/users/" + user, "changed"},
		{"POST", "/directory/deletedItems/" + user + "/restore", ""},
		{"DELETE", "/users/" + user, "changed"},
		{"DELETE", "/directory/deletedItems/" + user, "deleted"},
	} {
		want := 204
		if step.method == "POST" {
			want = 200
		}
		b.graph("admin", step.method, step.path, nil, want)
		got := round()
		removed, _ := got[0]["@removed"].(object)
		reason, _ := removed["reason"].(string)
		if len(got) != 1 || got[0]["id"] != user || reason != step.reason {
			t.Errorf("after %s %s: %v, want reason %q", step.method, step.path, got, step.reason)
		}
	}
	b.tenant.LoseDelta()
	res, _ := b.send(microsoft.Graph, "app", "GET", "/v1.0"+link(o), nil, 410, nil)
	if !strings.HasSuffix(res.Header.Get("Location"), "/users/delta?$deltatoken=") {
		t.Errorf("Location %q", res.Header.Get("Location"))
	}
}

// TestBatch is tenant-cases 10.
func TestBatch(t *testing.T) {
	b := newBed(t)
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Refuse, Status: 429, RetryAfter: "7", Path: "organization"})
	o := b.graph("app", "POST", "/$batch", object{"requests": []object{
		{"id": "1", "method": "GET", "url": "/users?$top=1"}, {"id": "2", "method": "GET", "url": "/organization"},
		{"id": "3", "method": "GET", "url": "/subscribedSkus"},
		{"id": "4", "method": "GET", "url": "/domains", "dependsOn": []string{"2"}}}}, 200)
	responses, _ := o["responses"].([]any)
	status, order := map[string]any{}, ""
	for _, r := range responses {
		part, _ := r.(object)
		id, _ := part["id"].(string)
		status[id] = part["status"]
		order += id
		if headers, _ := part["headers"].(object); id == "2" && headers["retry-after"] != "7" {
			t.Errorf("headers of part 2: %v", headers)
		}
	}
	if order != "4321" || status["1"] != 200.0 || status["2"] != 429.0 || status["4"] != 424.0 {
		t.Errorf("order %s, %v", order, status)
	}
}

func TestThrottling(t *testing.T) {
	b := newBed(t)
	var parts []object
	for i := range 20 {
		parts = append(parts, object{"id": strconv.Itoa(i), "method": "GET",
			"url": "/domains/" + b.tenant.Initial + "/domainNameReferences"})
	}
	var refused object
	for range 400 { // 3,500 units in 10 s for a small tenant, 4 a request: the 44th batch, unless it is in another 10 s
		o := b.graph("app", "POST", "/$batch", object{"requests": parts}, 200)
		for _, p := range o["responses"].([]any) {
			if p.(object)["status"] == 429.0 {
				refused, _ = p.(object)["headers"].(object)
			}
		}
		if refused != nil {
			break
		}
	}
	if refused["retry-after"] == nil || refused["x-ms-resource-unit"] != "4" ||
		refused["x-ms-throttle-limit-percentage"] != "1.0" || refused["x-ms-throttle-scope"] == nil {
		t.Errorf("headers of the refused part: %v", refused)
	}
	b.cloud.Advance(10 * time.Second)
	b.graph("app", "GET", "/domains", nil, 200)
}

func TestLicences(t *testing.T) {
	b := newBed(t)
	sku, user := microsoft.NewSKU("MCOEV", 0).ID, b.vars["unlicensed"]
	b.tenant.Edit(func(s *microsoft.State) {
		k := microsoft.NewSKU("MCOEV", 0)
		k.Warning = 1
		s.SKUs = append(s.SKUs, k)
	})
	add := object{"addLicenses": []object{{"skuId": sku}}, "removeLicenses": []string{}}
	remove := object{"addLicenses": []object{}, "removeLicenses": []string{sku}}
	states := func() (string, []object) {
		o := b.graph("app", "GET", "/users/"+user+"?$select=licenseAssignmentStates,assignedPlans", nil, 200)
		state, _ := o["licenseAssignmentStates"].([]any)
		var plans []object
		for _, p := range o["assignedPlans"].([]any) {
			plans = append(plans, p.(object))
		}
		if len(state) == 0 {
			return "", plans
		}
		text, _ := state[0].(object)["error"].(string)
		return text, plans
	}
	b.set(func(s *microsoft.Settings) { s.WarningSeatsFail = true }) // tenant-cases 7
	b.graph("app", "POST", "/users/"+user+"/assignLicense", add, 200)
	if e, plans := states(); e != "CountViolation" || len(plans) != 0 {
		t.Errorf("error %q, plans %v", e, plans)
	}
	b.graph("app", "POST", "/users/"+user+"/assignLicense", remove, 200)
	b.set(func(s *microsoft.Settings) { s.WarningSeatsFail = false })
	b.graph("app", "POST", "/users/"+user+"/assignLicense", add, 200)
	if e, plans := states(); e != "None" || len(plans) != 1 || plans[0]["capabilityStatus"] != "Enabled" {
		t.Errorf("error %q, plans %v", e, plans)
	}
	b.graph("app", "POST", "/users/"+user+"/assignLicense", remove, 200)
	if _, plans := states(); len(plans) != 1 || plans[0]["capabilityStatus"] != "Deleted" { // tenant-cases 12
		t.Errorf("plans %v", plans)
	}
}

// operation assigns a number and returns the operation's answer when the clock has moved on.
func (b *bed) operation(number, target string, header map[string]string) object {
	b.t.Helper()
	res, _ := b.send(microsoft.Graph, "app", "POST", "/v1.0"+numberPath+"/numberAssignments/assignNumber", object{
		"telephoneNumber": number, "assignmentTargetId": target, "numberType": "directRouting"}, 202, nil)
	path, _ := strings.CutPrefix(res.Header.Get("Location"), b.cloud.URL(microsoft.Graph))
	_, o := b.send(microsoft.Graph, "app", "GET", path, nil, 200, header)
	if o["status"] != "running" {
		b.t.Errorf("operation = %v", o)
	}
	b.cloud.Advance(time.Minute)
	_, o = b.send(microsoft.Graph, "app", "GET", path, nil, 200, header)

	return o
}

// TestNumbers is tenant-cases 11 to 15.
func TestNumbers(t *testing.T) {
	b := newBed(t)
	b.set(func(s *microsoft.Settings) { s.OperationDelay = time.Minute })
	user, unlicensed := b.vars["user"], b.vars["unlicensed"]
	if o := b.operation("3221231212;ext=1234", user, nil); o["status"] != "succeeded" {
		t.Fatalf("operation = %v", o)
	}
	o := b.graph("app", "GET", "/admin/teams/userConfigurations/"+user, nil, 200)
	held, _ := o["telephoneNumbers"].([]any)
	if o["isEnterpriseVoiceEnabled"] != true || held[0].(object)["telephoneNumber"] != "+3221231212;ext=1234" {
		t.Errorf("configuration = %v", o)
	}
	if o := b.operation("+3221231212;ext=1235", b.vars["admin id"], nil); o["status"] != "failed" {
		t.Errorf("operation for an account without a licence = %v", o)
	}

	b.tenant.EndOperations("skipped", "skipped", "entryFailed")
	if o := b.operation("+3221231213", user, nil); o["status"] != "unknownFutureValue" {
		t.Errorf("without Prefer: %v", o)
	}
	prefer := map[string]string{"Prefer": "include-unknown-enum-members"}
	if o := b.operation("+3221231213", user, prefer); o["status"] != "skipped" {
		t.Errorf("with Prefer: %v", o)
	}
	if o := b.operation("+3221231213", user, nil); o["status"] != "succeeded" ||
		o["numbers"].([]any)[0].(object)["status"] != "failed" {
		t.Errorf("entry failed: %v", o)
	}
	b.set(func(s *microsoft.Settings) { s.BlameOnPremises = true })
	o = b.operation("+3221231213", unlicensed, nil)
	detail, _ := o["numbers"].([]any)[0].(object)["statusDetail"].(string)
	if o["status"] != "failed" || !strings.Contains(detail, "on-premises") {
		t.Errorf("operation = %v", o)
	}

	b.tenant.Edit(func(s *microsoft.State) {
		s.Numbers["+3221231299"] = &microsoft.Number{Number: "+3221231299", VoiceApp: true,
			Target: "11111111-1111-1111-1111-111111111111"}
	})
	find := numberPath + "/numberAssignments?$filter="
	listed := list(b.graph("app", "GET", find+"telephoneNumber eq '%2B3221231299'", nil, 200))
	if len(listed) != 1 || listed[0]["assignmentStatus"] != "voiceApplicationAssigned" {
		t.Errorf("orphan = %v", listed)
	}
	b.graph("app", "DELETE", "/users/"+user, nil, 204)
	listed = list(b.graph("app", "GET", find+"assignmentTargetId eq '"+user+"'", nil, 200))
	if len(listed) != 1 {
		t.Errorf("numbers of a user in the bin = %v", listed)
	}
}

// TestPoliciesByGroup is tenant-cases 16.
func TestPoliciesByGroup(t *testing.T) {
	b := newBed(t)
	b.tenant.Edit(func(s *microsoft.State) {
		s.User(b.vars["user"]).Policies = nil
		s.Groups[0].Members = []string{b.vars["user"], s.Groups[1].ID}
		s.Groups[1].Members = []string{b.vars["unlicensed"]}
		s.User(b.vars["unlicensed"]).Policies = nil
		s.GroupGrants = []microsoft.GroupGrant{{Group: s.Groups[0].ID, Type: "OnlineVoiceRoutingPolicy",
			Policy: "Foreign-1", Rank: 1}}
	})
	policy := func(id string) object {
		o := b.graph("app", "GET", "/admin/teams/userConfigurations/"+id, nil, 200)
		for _, p := range o["effectivePolicyAssignments"].([]any) {
			if p.(object)["policyType"] == "OnlineVoiceRoutingPolicy" {
				return p.(object)["policyAssignment"].(object)
			}
		}
		return nil
	}
	if p := policy(b.vars["user"]); p["assignmentType"] != "group" || p["displayName"] != "Foreign-1" {
		t.Errorf("by group: %v", p)
	}
	if p := policy(b.vars["unlicensed"]); p != nil {
		t.Errorf("by a group in a group: %v", p)
	}
	users, _ := b.teams("app", "GET", "/Teams.User/users", nil, 200)["users"].([]any)
	for _, v := range users {
		if u := v.(object); u["objectId"] == b.vars["user"] && u["OnlineVoiceRoutingPolicy"] != nil {
			t.Errorf("the user shows %v", u["OnlineVoiceRoutingPolicy"])
		}
	}
	grant := func(name any) {
		b.teams("app", "PATCH", "/Skype.Policy/users/"+b.vars["user"]+"/policies/OnlineVoiceRoutingPolicy",
			object{"PolicyName": name}, 200)
	}
	grant("Foreign-2")
	if p := policy(b.vars["user"]); p["assignmentType"] != "direct" || p["displayName"] != "Foreign-2" {
		t.Errorf("direct: %v", p)
	}
	grant(nil)
	if p := policy(b.vars["user"]); p["assignmentType"] != "group" {
		t.Errorf("after the direct grant was removed: %v", p)
	}
}

// TestVoiceObjects makes the objects of an onboarding in their order, and is tenant-cases 17 and 18.
func TestVoiceObjects(t *testing.T) {
	b := newBed(t)
	one := func(kind, name string) string { return configurations + kind + "/configuration/" + name }
	usages := b.teams("app", "GET", one("OnlinePstnUsages", "Global"), nil, 200)
	b.teams("app", "PUT", one("OnlinePstnUsages", "Global"), object{"Key": usages["Key"],
		"Usage": object{"Add": []string{"Tandem-E164"}}}, 200)
	b.teams("app", "POST", configurations+"OnlineVoiceRoutingPolicy", object{"Identity": "Tandem-E164",
		"OnlinePstnUsages": []string{"Tandem-E164", "Foreign-1"}}, 200)
	b.other.Edit(func(s *microsoft.State) { // a carrier with a trunk
		s.Configurations["OnlinePSTNGateway"]["1r1.carrier.example"] = object{"Identity": "1r1.carrier.example"}
	})
	b.tenant.Edit(func(s *microsoft.State) {
		s.Domains = append(s.Domains, &microsoft.Domain{Name: "c1.1r1.carrier.example", Verified: true, Active: true})
	})
	route := b.teams("app", "POST", configurations+"OnlineVoiceRoute", object{"Identity": "Tandem-E164",
		"NumberPattern": `^\+?\d+$`, "OnlinePstnUsages": []string{"Tandem-E164"},
		"OnlinePstnGatewayList": []string{"c1.1r1.carrier.example", "sbc.contoso.example"}}, 200)
	if route["Priority"] != 2.0 {
		t.Errorf("priority of a third route: %v", route["Priority"])
	}
	plan := b.teams("app", "POST", configurations+"TenantDialPlan", object{"Identity": "Tandem-E164"}, 200)
	rules, _ := plan["NormalizationRules"].([]any)
	if len(rules) != 1 || rules[0].(object)["Name"] != "Prefix All" || plan["SimpleName"] != "Tandem-E164" {
		t.Errorf("dial plan = %v", plan)
	}

	b.set(func(s *microsoft.Settings) { s.OddReads = true })
	o := b.teams("app", "GET", one("OnlineVoiceRoute", "tandem-e164"), nil, 200)
	if gateways, _ := o["OnlinePstnGatewayList"].([]any); gateways[0] != "sbc.contoso.example" {
		t.Errorf("gateways = %v", gateways)
	}
	o = b.teams("app", "GET", one("OnlineVoiceRoutingPolicy", "Tag:Tandem-E164"), nil, 200)
	if o["Identity"] != "Tag:tandem-e164" {
		t.Errorf("Identity = %v", o["Identity"])
	}

	b.tenant.Edit(func(s *microsoft.State) {
		s.Configurations["TeamsEmergencyCallRoutingPolicy"]["global"]["EmergencyNumbers"] = []any{
			object{"EmergencyDialString": "911", "EmergencyDialMask": "933", "OnlinePSTNUsage": "Foreign-1"}}
	})
	own := object{"EmergencyDialString": "112", "OnlinePSTNUsage": "Tandem-E164"}
	for name, c := range map[string]struct {
		numbers any
		want    int
	}{"added": {object{"Add": own}, 2}, "plain": {[]object{own}, 1}} {
		o := b.teams("app", "POST", configurations+"TeamsEmergencyCallRoutingPolicy", object{"Identity": name,
			"EmergencyNumbers": c.numbers}, 200)
		if n, _ := o["EmergencyNumbers"].([]any); len(n) != c.want {
			t.Errorf("%s: numbers %v", name, n)
		}
	}

	b.teams("app", "DELETE", one("OnlineVoiceRoutingPolicy", "Tandem-E164"), nil, 200)
	b.teams("app", "DELETE", one("TenantDialPlan", "tandem-e164"), nil, 200)
	b.teams("app", "DELETE", one("TenantDialPlan", "tandem-e164"), nil, 404)
}

// TestStaleReads reads the old state until it has propagated.
func TestStaleReads(t *testing.T) {
	b := newBed(t)
	b.set(func(s *microsoft.Settings) { s.Propagation, s.TeamsPropagation = time.Minute, time.Minute })
	user := "/users/" + b.vars["user"] + "?$select=department"
	before := b.graph("app", "GET", user, nil, 200)["department"]
	b.graph("app", "PATCH", "/users/"+b.vars["user"], object{"department": "New"}, 204)
	b.teams("app", "POST", configurations+"TenantDialPlan", object{"Identity": "Late"}, 200)
	late := configurations + "TenantDialPlan/configuration/Late"
	if got := b.graph("app", "GET", user, nil, 200)["department"]; got != before {
		t.Errorf("department = %v at once, want %v", got, before)
	}
	b.teams("app", "GET", late, nil, 404)
	delta := func(path string) object {
		return b.graph("app", "GET", strings.TrimPrefix(path, b.cloud.URL(microsoft.Graph)+"/v1.0"), nil, 200)
	}
	changes := delta("/users/delta?$select=department")
	if got := names(list(changes), "department"); slices.Contains(got, "New") {
		t.Error("the change feed shows what has not propagated")
	}
	b.cloud.Advance(time.Minute)
	changes = delta(changes["@odata.deltaLink"].(string))
	if got := names(list(changes), "department"); !slices.Equal(got, []string{"New"}) {
		t.Errorf("changes after a minute: %v", got)
	}
	if got := b.graph("app", "GET", user, nil, 200)["department"]; got != "New" {
		t.Errorf("department = %v after a minute", got)
	}
	b.teams("app", "GET", late, nil, 200)

	grant := func(name any) {
		b.teams("app", "PATCH", "/Skype.Policy/users/"+b.vars["user"]+"/policies/TenantDialPlan",
			object{"PolicyName": name}, 200)
	}
	grant("Late")
	b.cloud.Advance(time.Minute)
	grant(nil)
	b.teams("app", "DELETE", late, nil, 400) // still assigned, until that has propagated
	b.cloud.Advance(time.Minute)
	b.teams("app", "DELETE", late, nil, 200)
	b.teams("app", "GET", late, nil, 200) // still visible
	b.cloud.Advance(time.Minute)
	b.teams("app", "GET", late, nil, 404)
}

// TestFaults loses answers before and after the effect.
func TestFaults(t *testing.T) {
	b := newBed(t)
	b.token("app")
	post := func(id string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.mu.Lock()
		if b.leave = cancel; strings.HasPrefix(id, string(microsoft.Lost)) {
			b.leave = nil
		}
		b.mu.Unlock()
		r, err := http.NewRequestWithContext(ctx, "POST", b.cloud.URL(microsoft.Graph)+"/v1.0/domains",
			strings.NewReader(`{"id":"`+id+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+b.token("app"))
		r.Header.Set("Content-Type", "application/json")
		res, err := b.client.Do(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		return err
	}
	for kind, want := range map[microsoft.FaultKind]int{microsoft.Lost: 200, microsoft.HangAfter: 200,
		microsoft.Hang: 404} {
		b.cloud.Inject(microsoft.Fault{Kind: kind, Method: "POST", Path: "/domains$", Times: 1})
		err := post(string(kind) + ".example")
		if err == nil || kind != microsoft.Lost && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", kind, err)
		}
		b.graph("app", "GET", "/domains/"+string(kind)+".example", nil, want)
		b.cloud.ClearFaults()
	}

	b.cloud.Inject(microsoft.Fault{Kind: microsoft.HalfDone, Path: "/assign$", Times: 1})
	id := list(b.graph("app", "GET", "/admin/teams/policy/getPolicyId(type='TenantDialPlan',name='Foreign-2')", nil,
		200))[0]["policyId"]
	b.graph("app", "POST", "/admin/teams/policy/userAssignments/assign", object{"value": []object{
		{"userId": b.vars["user"], "policyType": "TenantDialPlan", "policyId": id},
		{"userId": b.vars["admin id"], "policyType": "TenantDialPlan", "policyId": id}}}, 500)
	b.tenant.Edit(func(s *microsoft.State) {
		first, second := s.User(b.vars["user"]).Policies, s.User(b.vars["admin id"]).Policies
		if first["TenantDialPlan"] != "Foreign-2" || len(second) > 0 {
			t.Error("not the first half was done")
		}
	})
	for _, after := range []string{"0.249", "0,120", ""} {
		b.cloud.Inject(microsoft.Fault{Kind: microsoft.Refuse, Status: 429, RetryAfter: after, Path: "/me$", Times: 1})
		res, _ := b.send(microsoft.Graph, "admin", "GET", "/v1.0/me", nil, 429, nil)
		if res.Header.Get("Retry-After") != after {
			t.Errorf("Retry-After %q, want %q", res.Header.Get("Retry-After"), after)
		}
		b.cloud.ClearFaults()
	}
}

// TestSameSeed makes a tenant twice, changes nothing by reading, and counts.
func TestSameSeed(t *testing.T) {
	a, b := newBed(t), newBed(t)
	dump := string(a.tenant.Dump())
	if dump != string(b.tenant.Dump()) {
		t.Error("the same seed gives two tenants")
	}
	a.graph("app", "GET", "/users", nil, 200)
	a.teams("app", "GET", configurations+"OnlineVoiceRoute", nil, 200)
	if n := a.cloud.Mutations(); n != 0 || string(a.tenant.Dump()) != dump {
		t.Errorf("%d mutations by reading", n)
	}
	a.graph("app", "PATCH", "/users/"+a.vars["user"], object{"department": "New"}, 204)
	kind := microsoft.Count{Service: microsoft.Graph, Tenant: a.tenant.ID, Method: "PATCH", Path: "/v1.0/users/{id}"}
	if a.cloud.Mutations() != 1 || a.cloud.Requests()[kind] != 1 || string(a.tenant.Dump()) == dump {
		t.Errorf("requests = %v", a.cloud.Requests())
	}
}

// TestWhoSignsIn shows in tokens who is a guest, a partner or has a personal account, and what they cannot do.
func TestWhoSignsIn(t *testing.T) {
	b := newBed(t)
	b.tenant.Edit(func(s *microsoft.State) {
		s.AddUser(&microsoft.User{UPN: "guest_other.example#EXT#@" + b.tenant.Initial, Guest: true,
			Home: "guest@other.example"})
	})
	_, o := b.redeem(b.code("guest@other.example", "User.Read openid"), nil)
	if id := claims(t, o["id_token"]); id["acct"] != 1.0 || id["preferred_username"] != "guest@other.example" ||
		id["tid"] != b.tenant.ID {
		t.Errorf("guest: %v", id)
	}
	_, o = b.redeem(b.code(b.other.Admin, "User.Read openid"), nil)
	id := claims(t, o["id_token"])
	if id["idp"] != "https://sts.windows.net/"+b.other.ID+"/" || id["tid"] != b.tenant.ID {
		t.Errorf("partner: %v", id)
	}
	b.teams("partner", "GET", configurations+"OnlineVoiceRoute", nil, 200)
	b.teams("partner", "PATCH", "/Skype.Policy/tenants/policies/TenantDialPlan", object{"PolicyName": "Foreign-1"}, 403)
	b.teams("admin", "PATCH", "/Skype.Policy/tenants/policies/TenantDialPlan", object{"PolicyName": "Foreign-1"}, 200)
}

// TestExpiredSignIn ends a sign-in in the middle: the token is refused, and so is the refresh token.
func TestExpiredSignIn(t *testing.T) {
	b := newBed(t)
	b.signIn()
	b.token("admin")
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Expired})
	b.graph("admin", "GET", "/me", nil, 401)
	if status, o := b.refresh(b.vars["refresh"], nil); status != 400 || o["error_codes"].([]any)[0] != 700082.0 {
		t.Errorf("refresh = %d %v", status, o)
	}
}

// TestResourceAccount makes a resource account, with which a domain is activated where the settings allow that.
func TestResourceAccount(t *testing.T) {
	b := newBed(t)
	b.set(func(s *microsoft.Settings) { s.ResourceAccountsActivate = true })
	b.tenant.Edit(func(s *microsoft.State) {
		s.Domains = append(s.Domains, &microsoft.Domain{Name: "new.example", Verified: true, Root: true})
	})
	o := b.teams("app", "POST", "/Teams.PlatformService/v2/ApplicationInstances", object{
		"UserPrincipalName": "queue@new.example", "DisplayName": "Queue",
		"ApplicationId": "11cd3e2e-fccb-42ad-ad00-878b93575e07"}, 200)
	id, _ := o["objectId"].(string)
	b.graph("app", "PATCH", "/users/"+id, object{"usageLocation": "GB"}, 204)
	b.graph("app", "POST", "/users/"+id+"/assignLicense", object{"removeLicenses": []string{},
		"addLicenses": []object{{"skuId": microsoft.NewSKU("PHONESYSTEM_VIRTUALUSER", 0).ID}}}, 200)
	if got := b.active(); !slices.Contains(got, "new.example") {
		t.Errorf("activated domains = %v", got)
	}
	b.graph("app", "POST", numberPath+"/numberAssignments/assignNumber", object{"telephoneNumber": "+3221231212",
		"assignmentTargetId": id, "numberType": "directRouting"}, 202)
	_, o = b.send(microsoft.Graph, "admin", "GET", "/beta/admin/teams/resourceAccounts?$top=5", nil, 200, nil)
	if accounts := list(o); len(accounts) != 3 || accounts[2]["phoneNumber"] != "tel:+3221231212" {
		t.Errorf("resource accounts = %v", accounts)
	}
	o = b.graph("app", "GET", "/admin/teams/userConfigurations/"+id, nil, 200)
	if o["accountType"] != "resourceAccount" {
		t.Errorf("configuration = %v", o)
	}
}

// TestManyClients reads and writes one tenant from several clients at once, for the race detector.
func TestManyClients(t *testing.T) {
	b := newBed(t)
	b.set(func(s *microsoft.Settings) { s.Propagation, s.TeamsPropagation = time.Minute, time.Minute })
	b.token("app")
	b.token("app for teams")
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for j := range 10 {
				b.graph("app", "PATCH", "/users/"+b.vars["user"], object{"department": strconv.Itoa(i*10 + j)}, 204)
				b.graph("app", "GET", "/users?$select=id,department,assignedPlans", nil, 200)
				b.graph("app", "GET", "/admin/teams/userConfigurations", nil, 200)
				plan := object{"Identity": fmt.Sprintf("p%d-%d", i, j)}
				b.teams("app", "POST", configurations+"TenantDialPlan", plan, 200)
				b.teams("app", "GET", configurations+"TenantDialPlan", nil, 200)
				b.tenant.Dump()
			}
		})
	}
	clients.Wait()
	if n := b.cloud.Mutations(); n != 80 {
		t.Errorf("%d mutations, want 80", n)
	}
}

// Calls of a user leave by the routes of its policy, in its order, once Teams has activated the gateway's domain.
func TestPhone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	number, gateway := "+442079460123", "sbc.contoso.example" // that of the foreign objects
	b.tenant.Edit(func(s *microsoft.State) {
		u := s.User(licensed + "@" + b.tenant.Initial)
		s.Numbers[number] = &microsoft.Number{Number: number, Target: u.ID}
		u.Policies = map[string]string{"OnlineVoiceRoutingPolicy": "Foreign-1"}
		for _, r := range s.Configurations["OnlineVoiceRoute"] {
			r["NumberPattern"] = `^\+44`
		}
	})
	for to, want := range map[string][]string{"+442890180001": {gateway}, "": {gateway}, "+12025550100": nil} {
		tenant, got := b.cloud.Phone(number, to)
		if tenant != b.tenant.ID || !slices.Equal(got, want) {
			t.Errorf("a call to %q: tenant %s, gateways %q, want %q", to, tenant, got, want)
		}
	}
	b.tenant.Edit(func(s *microsoft.State) {
		for _, d := range s.Domains {
			d.Active = d.Active && d.Name != gateway
		}
	})
	if _, got := b.cloud.Phone(number, ""); len(got) > 0 {
		t.Errorf("gateways %q without a SIP domain", got)
	}
	if tenant, _ := b.cloud.Phone("+442079460999", ""); tenant != "" {
		t.Errorf("a number that no user has is one of tenant %s", tenant)
	}
}
