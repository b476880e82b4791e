package graph_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const (
	userID = "44444444-aaaa-4bbb-8ccc-000000000004"
	spID   = "55555555-aaaa-4bbb-8ccc-000000000005"
	name   = "cust1.1r1.sbc.example.net"
	mcoev  = "4828c8ec-dc2e-4779-b502-87ac9ce28ab7"
	skuID  = "e43b5b99-8dfb-405f-9987-dc307f34bcbd"
)

func do[T any](call *graph.Call[T]) func(context.Context, *graph.Client) (any, error) {
	return func(ctx context.Context, c *graph.Client) (any, error) { return call.Do(ctx, c) }
}

func all[T any](l graph.List[T]) func(context.Context, *graph.Client) (any, error) {
	return func(ctx context.Context, c *graph.Client) (any, error) { return l.All(ctx, c) }
}

// Each operation sends what teams-tenant §2 or §5 says, and reads the answer of the contract.
func TestOperations(t *testing.T) {
	domain := object{"id": name, "isVerified": true, "isRoot": true, "isDefault": false, "isInitial": false,
		"authenticationType": "Managed", "isAdminManaged": true, "supportedServices": []string{"Email"}}
	wantDomain := graph.Domain{ID: name, IsVerified: true, SupportedServices: []string{"Email"}}
	user := object{"id": userID, "userPrincipalName": "tandem.teams@" + name, "accountEnabled": true,
		"onPremisesSyncEnabled": nil, "usageLocation": "GB"}
	wantUser := graph.User{ID: userID, UserPrincipalName: "tandem.teams@" + name, AccountEnabled: true,
		UsageLocation: "GB"}
	at := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	accepted := answer{status: 202, header: map[string]string{"Location": base +
		"/admin/teams/telephoneNumberManagement/operations('b3f8c1d2-0000-4000-8000-000000000001')"}}

	for _, c := range []struct {
		call    func(context.Context, *graph.Client) (any, error)
		request string
		body    string // JSON; empty for none
		answer  answer
		want    any
	}{
		{all(graph.Domains()), "GET /domains", "", answer{status: 200, body: list(domain)}, []graph.Domain{wantDomain}},
		{do(graph.GetDomain(name)), "GET /domains/" + name, "", answer{status: 200, body: domain}, wantDomain},
		{do(graph.AddDomain(name)), "POST /domains", `{"id":"` + name + `"}`,
			answer{status: 201, body: merged(domain, object{"isVerified": false})},
			graph.Domain{ID: name, SupportedServices: []string{"Email"}}},
		{all(graph.VerificationRecords(name)), "GET /domains/" + name + "/verificationDnsRecords", "",
			answer{status: 200, body: list(object{"@odata.type": "#microsoft.graph.domainDnsTxtRecord", "id": "1",
				"isOptional": false, "label": name, "recordType": "Txt", "supportedService": "Email", "ttl": 3600,
				"text": "MS=ms12345678"}, object{"@odata.type": "#microsoft.graph.domainDnsMxRecord", "id": "2",
				"isOptional": false, "label": name, "recordType": "Mx", "supportedService": "Email", "ttl": 3600,
				"mailExchange": "ms12345678.msv1.invalid", "preference": 32767})},
			[]graph.DNSRecord{{RecordType: "Txt", Text: "MS=ms12345678"}, {RecordType: "Mx"}}},
		{do(graph.VerifyDomain(name)), "POST /domains/" + name + "/verify", "", answer{status: 200, body: domain},
			wantDomain},
		{all(graph.DomainReferences(name)), "GET /domains/" + name + "/domainNameReferences", "",
			answer{status: 200, body: list(object{"@odata.type": "#microsoft.graph.user", "id": userID,
				"displayName": "Teams Gateway", "userPrincipalName": "x@" + name})},
			[]graph.Object{{ID: userID, Type: "#microsoft.graph.user", DisplayName: "Teams Gateway",
				UserPrincipalName: "x@" + name}}},
		{do(graph.DeleteDomain(name)), "DELETE /domains/" + name, "", answer{status: 204}, graph.None{}},

		{do(graph.GetUser("o'neil@x.example", "id", "usageLocation")),
			"GET /users/o%27neil@x.example?$select=id,usageLocation", "", answer{status: 200, body: user}, wantUser},
		{do(graph.CreateUser(graph.NewUser{DisplayName: "Teams Gateway", MailNickname: "tandem.teams",
			UserPrincipalName: "tandem.teams@" + name, UsageLocation: "GB", Password: secret.New("p4ss")})),
			"POST /users",
			`{"accountEnabled":true,"displayName":"Teams Gateway","mailNickname":"tandem.teams",
				"userPrincipalName":"tandem.teams@` + name + `","usageLocation":"GB",
				"passwordProfile":{"password":"p4ss","forceChangePasswordNextSignIn":false}}`,
			answer{status: 201, body: user}, wantUser},
		{do(graph.UpdateUser(userID, object{"usageLocation": "GB"})), "PATCH /users/" + userID,
			`{"usageLocation":"GB"}`,
			answer{status: 204}, graph.None{}},
		{do(graph.DeleteUser(userID)), "DELETE /users/" + userID, "", answer{status: 204}, graph.None{}},
		{do(graph.GetDeleted(userID)), "GET /directory/deletedItems/" + userID, "",
			answer{status: 200, body: object{"id": userID, "@odata.type": "#microsoft.graph.user",
				"deletedDateTime": "2026-11-01T08:00:00Z"}},
			graph.Object{ID: userID, Type: "#microsoft.graph.user", DeletedDateTime: &at}},
		{do(graph.Purge(userID)), "DELETE /directory/deletedItems/" + userID, "", answer{status: 204}, graph.None{}},
		{do(graph.AssignLicences(userID, []graph.Licence{{SkuID: skuID}}, nil)),
			"POST /users/" + userID + "/assignLicense",
			`{"addLicenses":[{"skuId":"` + skuID + `","disabledPlans":[]}],"removeLicenses":[]}`,
			answer{status: 200, body: user}, wantUser},
		{do(graph.AssignLicences(userID, nil, []string{skuID})), "POST /users/" + userID + "/assignLicense",
			`{"addLicenses":[],"removeLicenses":["` + skuID + `"]}`, answer{status: 200, body: user}, wantUser},
		{all(graph.SubscribedSKUs()), "GET /subscribedSkus", "", answer{status: 200, body: list(object{"id": "x",
			"skuId": skuID, "skuPartNumber": "MCOEV", "appliesTo": "User", "capabilityStatus": "Warning",
			"consumedUnits": 20, "prepaidUnits": object{"enabled": 0, "warning": 25, "suspended": 0, "lockedOut": 0},
			"servicePlans": []object{{"servicePlanId": mcoev, "servicePlanName": "MCOEV", "appliesTo": "User",
				"provisioningStatus": "Success"}}})}, []graph.SKU{sku()}},
		{all(graph.Organization()), "GET /organization", "", answer{status: 200, body: list(object{"id": tenantID,
			"displayName": "Contoso", "tenantType": "AAD", "countryLetterCode": "GB", "onPremisesSyncEnabled": true})},
			[]graph.Tenant{{ID: tenantID, DisplayName: "Contoso", TenantType: "AAD", CountryLetterCode: "GB",
				OnPremisesSyncEnabled: true}}},

		{all(graph.MyRoles()), "GET /me/transitiveMemberOf/microsoft.graph.directoryRole", "",
			answer{status: 200, body: list(object{"id": "r1", "displayName": "Teams Administrator",
				"roleTemplateId": "69091246-20e8-4a56-aa4d-066075b2a7a8"})},
			[]graph.Role{{RoleTemplateID: "69091246-20e8-4a56-aa4d-066075b2a7a8"}}},
		{all(graph.RoleAssignments(spID)),
			"GET /roleManagement/directory/roleAssignments?$filter=principalId%20eq%20%27" +
				spID + "%27", "", answer{status: 200, body: list()}, []graph.RoleAssignment(nil)},
		{all(graph.ServicePrincipals(tenantID)),
			"GET /servicePrincipals?$filter=appId%20eq%20%27" + tenantID + "%27", "",
			answer{status: 200, body: list(object{"id": spID, "appId": tenantID, "accountEnabled": true})},
			[]graph.ServicePrincipal{{ID: spID, AccountEnabled: true}}},
		{do(graph.DeleteServicePrincipal(spID)), "DELETE /servicePrincipals/" + spID, "", answer{status: 204},
			graph.None{}},
		{all(graph.AppRoleAssignments(spID)), "GET /servicePrincipals/" + spID + "/appRoleAssignments", "",
			answer{status: 200, body: list(object{"id": "g1", "appRoleId": "7e05723c-0bb0-42da-be95-ae9f08a6e53c",
				"resourceId": userID})},
			[]graph.AppRoleAssignment{{AppRoleID: "7e05723c-0bb0-42da-be95-ae9f08a6e53c", ResourceID: userID}}},
		{all(graph.PermissionGrants(spID)),
			"GET /oauth2PermissionGrants?$filter=clientId%20eq%20%27" + spID + "%27", "",
			answer{status: 200, body: list(object{"id": "g2", "clientId": spID, "consentType": "AllPrincipals",
				"resourceId": userID, "scope": "User.Read.All Domain.ReadWrite.All"})},
			[]graph.PermissionGrant{{ConsentType: "AllPrincipals", ResourceID: userID,
				Scope: "User.Read.All Domain.ReadWrite.All"}}},

		{all(graph.NumberAssignments(graph.Query{Filter: "telephoneNumber eq " + graph.Quote("+441632960123"),
			Top: 1000})),
			"GET /admin/teams/telephoneNumberManagement/numberAssignments?$filter=" +
				"telephoneNumber%20eq%20%27%2B441632960123%27&$top=1000", "",
			answer{status: 200, body: list(object{"id": "n1", "telephoneNumber": "+441632960123", "operatorId": userID,
				"numberType": "directRouting", "numberSource": "online", "activationState": "activated",
				"assignmentStatus": "voiceApplicationAssigned", "assignmentTargetId": userID,
				"capabilities": []string{"userAssignment"}})},
			[]graph.NumberAssignment{{TelephoneNumber: "+441632960123", NumberType: "directRouting",
				NumberSource: "online", AssignmentStatus: "voiceApplicationAssigned", AssignmentTargetID: userID}}},
		{do(graph.AssignNumber("+3221231212;ext=1234", userID)),
			"POST /admin/teams/telephoneNumberManagement/numberAssignments/assignNumber",
			`{"telephoneNumber":"+3221231212;ext=1234","assignmentTargetId":"` + userID + `",
				"numberType":"directRouting","assignmentCategory":"primary"}`,
			accepted, graph.OperationID("b3f8c1d2-0000-4000-8000-000000000001")},
		{do(graph.UnassignNumber("+3221231212;ext=1234")),
			"POST /admin/teams/telephoneNumberManagement/numberAssignments/unassignNumber",
			`{"telephoneNumber":"+3221231212;ext=1234","numberType":"directRouting"}`,
			accepted, graph.OperationID("b3f8c1d2-0000-4000-8000-000000000001")},
		{do(graph.GetUserConfiguration(userID)), "GET /admin/teams/userConfigurations/" + userID, "",
			answer{status: 200, body: configuration()}, wantConfiguration()},
		{all(graph.UserConfigurations(graph.Query{Top: 999})), "GET /admin/teams/userConfigurations?$top=999", "",
			answer{status: 200, body: list(configuration())}, []graph.UserConfiguration{wantConfiguration()}},
		{do(graph.AssignPolicies(graph.PolicyAssignment{UserID: userID, PolicyType: "TenantDialPlan", PolicyID: "p1"})),
			"POST /admin/teams/policy/userAssignments/assign",
			`{"value":[{"userId":"` + userID + `","policyType":"TenantDialPlan","policyId":"p1"}]}`,
			answer{status: 204}, graph.None{}},
		{do(graph.UnassignPolicies(graph.PolicyAssignment{UserID: userID, PolicyType: "TenantDialPlan"})),
			"POST /admin/teams/policy/userAssignments/unassign",
			`{"value":[{"userId":"` + userID + `","policyType":"TenantDialPlan"}]}`, answer{status: 204}, graph.None{}},
		{do(graph.GetPolicyID("TenantDialPlan", "Tandem-E164")),
			"GET /admin/teams/policy/getPolicyId(type='TenantDialPlan',name='Tandem-E164')", "",
			answer{status: 200, body: list(object{"id": "x", "name": "tandem-e164", "policyId": "p1"})}, "p1"},
	} {
		a := newAPI(t, step{c.request, c.answer})
		got, err := c.call(t.Context(), a.client(nil))
		if err != nil {
			t.Errorf("%s: %v", c.request, err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.request, diff)
		}
		var want, sent any
		_ = json.Unmarshal([]byte(c.body), &want)
		_ = json.Unmarshal([]byte(a.bodies()[0]), &sent)
		if diff := cmp.Diff(want, sent); diff != "" {
			t.Errorf("body of %s (-want +got):\n%s", c.request, diff)
		}
		teams := len(c.request) > 20 && cmp.Equal(a.saw[0].URL.Path[:12], "/v1.0/admin/")
		if prefer := a.saw[0].Header.Get("Prefer"); (prefer == "include-unknown-enum-members") != teams {
			t.Errorf("%s has Prefer %q", c.request, prefer)
		}
	}
}

func sku() graph.SKU {
	s := graph.SKU{SkuID: skuID, SkuPartNumber: "MCOEV", AppliesTo: "User", ConsumedUnits: 20}
	s.PrepaidUnits.Warning = 25
	s.ServicePlans = []graph.ServicePlan{{ServicePlanID: mcoev, ServicePlanName: "MCOEV", AppliesTo: "User"}}
	return s
}

// configuration is a user whose policy comes from a group (tenant-cases 16).
func configuration() object {
	return object{"id": userID, "tenantId": tenantID, "userPrincipalName": "u@contoso.example", "accountType": "user",
		"isEnterpriseVoiceEnabled": true, "featureTypes": []string{"Teams", "PhoneSystem"},
		"createdDateTime": "2026-11-01T08:00:00Z", "modifiedDateTime": "2026-11-01T08:00:00Z",
		"telephoneNumbers": []object{{"telephoneNumber": "+441632960123", "assignmentCategory": "primary"}},
		"effectivePolicyAssignments": []object{{"policyType": "OnlineVoiceRoutingPolicy", "policyAssignment": object{
			"displayName": "Tandem-E164", "assignmentType": "group", "policyId": "p1", "groupId": "g1"}}}}
}

func wantConfiguration() graph.UserConfiguration {
	c := graph.UserConfiguration{ID: userID, UserPrincipalName: "u@contoso.example",
		AccountType: "user", FeatureTypes: []string{"Teams", "PhoneSystem"},
		TelephoneNumbers: []graph.AssignedNumber{{TelephoneNumber: "+441632960123", AssignmentCategory: "primary"}}}
	p := graph.EffectivePolicy{PolicyType: "OnlineVoiceRoutingPolicy"}
	p.Assignment.DisplayName, p.Assignment.AssignmentType, p.Assignment.GroupID = "Tandem-E164", "group", "g1"
	c.EffectivePolicyAssignments = []graph.EffectivePolicy{p}
	return c
}

// The properties of a synchronisation, and an escaped filter.
func TestUserQueries(t *testing.T) {
	a := newAPI(t, step{"GET /users?$filter=department%20eq%20%27R%26D%27&$select=id,userPrincipalName,displayName," +
		"department,usageLocation,accountEnabled,assignedPlans,onPremisesSyncEnabled&$top=999", answer{status: 200,
		body: list(object{"id": userID, "assignedPlans": []object{{"servicePlanId": mcoev, "service": "x",
			"capabilityStatus": "Deleted", "assignedDateTime": "2026-11-01T08:00:00Z"}}})}})
	users, err := graph.Users(graph.Query{Select: graph.UserFields, Top: 999,
		Filter: "department eq " + graph.Quote("R&D")}).All(t.Context(), a.client(nil))
	if err != nil || len(users) != 1 || users[0].AssignedPlans[0].CapabilityStatus != "Deleted" {
		t.Errorf("Users = %+v, %v", users, err)
	}
}
