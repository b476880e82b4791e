package microsoft_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/testkit/graphspec"
)

// TestGraphContract validates requests and answers of every operation of the contract. Those that it lacks are listed
// in docs/verification.md, and no others.
func TestGraphContract(t *testing.T) {
	c := graphspec.Load(t)
	if c == nil {
		t.Skip("requests are not compared with the contract")
	}
	b := newBed(t)
	everyOperation(b)

	seen, lacking := map[string]bool{}, map[string]bool{}
	for _, e := range b.exchanges {
		if e.Service == microsoft.Graph {
			id := c.Check(t, graphspec.Exchange{Request: e.Request, Body: e.Body, Status: e.Status, Header: e.Header,
				Answer: e.Answer})
			if seen[id] = true; id == "" {
				lacking[graphspec.Call(e.Request)] = true
			}
		}
	}
	listed := graphspec.Listed(t)
	for call := range lacking {
		if !listed[call] {
			t.Errorf("%s is neither in the contract nor listed", call)
		}
	}
	for call := range listed {
		if !lacking[call] {
			t.Errorf("%s is listed, but in the contract, or no request of it", call)
		}
	}
	for _, id := range c.Operations() {
		if !seen[id] {
			t.Errorf("no request of %s", id)
		}
	}
}

// everyOperation sends a request that succeeds to every operation of Graph.
func everyOperation(b *bed) {
	user := "/users/" + b.vars["user"]
	b.publish("new.example")
	b.graph("admin", "GET", "/domains", nil, 200)
	b.graph("admin", "POST", "/domains", object{"id": "new.example"}, 201)
	b.graph("app", "GET", "/domains/new.example/verificationDnsRecords", nil, 200)
	b.graph("app", "GET", "/domains/new.example/serviceConfigurationRecords", nil, 200)
	b.graph("app", "POST", "/domains/new.example/verify", nil, 200)
	b.graph("app", "POST", "/domains", object{"id": "sub.new.example"}, 201)
	b.graph("app", "POST", "/domains/sub.new.example/promote", nil, 200)
	b.graph("app", "GET", "/domains/new.example", nil, 200)
	b.graph("app", "PATCH", "/domains/new.example", object{"isDefault": false}, 204)
	b.graph("app", "GET", "/organization", nil, 200)
	b.graph("app", "GET", "/subscribedSkus", nil, 200)
	made := b.graph("app", "POST", "/users", object{"accountEnabled": true, "displayName": "Teams Gateway",
		"mailNickname": "tandem.teams", "userPrincipalName": "tandem.teams@new.example", "usageLocation": "GB",
		"passwordProfile": object{"password": "0123456789abcdef"}}, 201)
	id, _ := made["id"].(string)
	b.graph("app", "POST", "/users/"+id+"/assignLicense", object{"addLicenses": []object{{"skuId": b.vars["sku"],
		"disabledPlans": []string{}}}, "removeLicenses": []string{}}, 200)
	b.graph("app", "GET", "/users/"+id+"/licenseDetails", nil, 200)
	b.graph("app", "GET", "/domains/new.example/domainNameReferences", nil, 200)
	b.graph("app", "PATCH", "/users/"+id, object{"department": "Telephony"}, 204)
	all := "id,userPrincipalName,displayName,assignedLicenses,assignedPlans,licenseAssignmentStates,businessPhones," +
		"onPremisesSyncEnabled,userType,accountEnabled,usageLocation,createdDateTime"
	b.graph("app", "GET", user+"?$select="+all, nil, 200)
	b.graph("app", "GET", "/users?$top=7&$select="+all, nil, 200)
	b.graph("app", "GET", "/users/delta?$select="+all, nil, 200)
	b.graph("admin", "GET", "/me", nil, 200)
	b.graph("admin", "GET", "/me/transitiveMemberOf/microsoft.graph.directoryRole", nil, 200)
	b.graph("app", "GET", "/roleManagement/directory/roleAssignments?$filter=principalId eq '"+b.vars["admin id"]+"'",
		nil, 200)
	b.graph("admin", "POST", "/roleManagement/directory/roleAssignments", object{"principalId": id,
		"directoryScopeId": "/",
		"roleDefinitionId": microsoft.Role("User Administrator")}, 201)

	principals := list(b.graph("app", "GET", "/servicePrincipals?$filter=appId eq '"+bareID+"'", nil, 200))
	bare, _ := principals[0]["id"].(string)
	own := list(b.graph("app", "GET", "/servicePrincipals?$filter=appId eq '"+clientID+"'", nil, 200))[0]["id"].(string)
	given := list(b.graph("app", "GET", "/servicePrincipals/"+own+"/appRoleAssignments", nil, 200))
	b.graph("app", "DELETE", "/servicePrincipals/"+own+"/appRoleAssignments/"+given[0]["id"].(string), nil, 204)
	grants := list(b.graph("app", "GET", "/oauth2PermissionGrants?$filter=clientId eq '"+own+"'", nil, 200))
	b.graph("admin", "DELETE", "/oauth2PermissionGrants/"+grants[0]["id"].(string), nil, 204)
	b.graph("admin", "DELETE", "/servicePrincipals/"+bare, nil, 204)

	numbers := "/admin/teams/telephoneNumberManagement"
	res, _ := b.send(microsoft.Graph, "app", "POST", "/v1.0"+numbers+"/numberAssignments/assignNumber", object{
		"telephoneNumber": "+3221231212", "assignmentTargetId": id, "numberType": "directRouting"}, 202, nil)
	operation, _ := strings.CutPrefix(res.Header.Get("Location"), b.cloud.URL(microsoft.Graph)+"/v1.0")
	b.graph("app", "GET", operation, nil, 200)
	listed := list(b.graph("app", "GET", numbers+"/numberAssignments?$filter=assignmentStatus eq 'userAssigned'", nil,
		200))
	b.graph("app", "GET", numbers+"/numberAssignments/"+listed[0]["id"].(string), nil, 200)
	b.graph("app", "POST", numbers+"/numberAssignments/updateNumber", object{"telephoneNumber": "+3221231212",
		"locationId": "", "reverseNumberLookupOptions": []string{"skipInternalVoip"}}, 204)
	policy := list(b.graph("app", "GET", "/admin/teams/policy/getPolicyId(type='TenantDialPlan',name='Foreign-1')", nil,
		200))[0]["policyId"]
	grant := object{"value": []object{{"userId": id, "policyType": "TenantDialPlan", "policyId": policy}}}
	b.graph("app", "POST", "/admin/teams/policy/userAssignments/assign", grant, 204)
	b.graph("app", "GET", "/admin/teams/userConfigurations?$top=5", nil, 200)
	b.graph("app", "GET", "/admin/teams/userConfigurations/"+id, nil, 200)
	b.graph("app", "POST", "/admin/teams/policy/userAssignments/unassign", grant, 204)
	b.graph("app", "POST", numbers+"/numberAssignments/unassignNumber", object{"telephoneNumber": "+3221231212",
		"numberType": "directRouting"}, 202)
	b.send(microsoft.Graph, "admin", "GET", "/beta/admin/teams/resourceAccounts", nil, 200, nil)
	b.graph("app", "POST", "/$batch", object{"requests": []object{{"id": "1", "method": "GET",
		"url": "/users?$top=1"}}}, 200)

	b.graph("app", "DELETE", "/users/"+id, nil, 204)
	b.graph("app", "GET", "/directory/deletedItems/microsoft.graph.user", nil, 200)
	b.graph("app", "GET", "/directory/deletedItems/"+id, nil, 200)
	b.graph("app", "POST", "/directory/deletedItems/"+id+"/restore", nil, 200)
	b.graph("app", "DELETE", "/users/"+id, nil, 204)
	b.graph("admin", "DELETE", "/directory/deletedItems/"+id, nil, 204)
	b.graph("app", "DELETE", "/domains/sub.new.example", nil, 204)
	b.graph("app", "POST", "/domains/new.example/forceDelete", object{"disableUserAccounts": true}, 204)
	registration(b)
}

// registration makes, reads, changes and deletes the registration of an application.
func registration(b *bed) {
	key := base64.StdEncoding.EncodeToString(b.cert.Leaf.Raw)
	made := b.graph("admin", "POST", "/applications", object{"displayName": "Tandem",
		"signInAudience": "AzureADMultipleOrgs",
		"web":            object{"redirectUris": []string{callback}}, "requiredResourceAccess": []object{{
			"resourceAppId": microsoft.TeamsID, "resourceAccess": []object{{"type": "Scope",
				"id": "e60370c1-e451-437e-aa6e-d76df38e5f15"}}}}}, 201)
	id, _ := made["id"].(string)
	b.graph("admin", "PATCH", "/applications/"+id, object{"keyCredentials": []object{{"type": "AsymmetricX509Cert",
		"usage": "Verify", "key": key}}}, 204)
	o := b.graph("admin", "GET", "/applications/"+id, nil, 200)
	keys, _ := o["keyCredentials"].([]any)
	if len(keys) != 1 || o["appId"] != made["appId"] || o["signInAudience"] != "AzureADMultipleOrgs" {
		b.t.Errorf("registration = %v", o)
	}
	b.graph("admin", "GET", "/applications?$filter=appId eq '"+made["appId"].(string)+"'", nil, 200)
	b.graph("admin", "DELETE", "/applications/"+id, nil, 204)
	b.graph("admin", "GET", "/applications/"+id, nil, http.StatusNotFound)
}
