package microsoft

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"
)

// graphRoutes are the operations of the contract (specs/graph-subset.json), with its permissions, and those that it
// lacks, marked so. The units are those of the sheet where it names them.
func graphRoutes() []*route {
	const (
		domainRead, domainWrite = "Domain.Read.All", "Domain.ReadWrite.All"
		userRead, userWrite     = "User.Read.All", "User.ReadWrite.All"
		appRead, appWrite       = "Application.Read.All", "Application.ReadWrite.All"
		numberRead, numberWrite = "TeamsTelephoneNumber.Read.All", "TeamsTelephoneNumber.ReadWrite.All"
		policy, config          = "TeamsPolicyUserAssign.ReadWrite.All", "TeamsUserConfiguration.Read.All"
		licence, unlock         = "LicenseAssignment.Read.All", "User.ReadWrite.All User.DeleteRestore.All"
		roleRead, roleWrite     = "RoleManagement.Read.Directory", "RoleManagement.ReadWrite.Directory"
		find                    = "?$select $filter $top $count $expand $search $skiptoken"

		domain, user, bin   = "/v1.0/domains/{id}", "/v1.0/users/{id}", "/v1.0/directory/deletedItems"
		principal, assigned = "/v1.0/servicePrincipals/{id}", "/v1.0/roleManagement/directory/roleAssignments"
		numbers             = "/v1.0/admin/teams/telephoneNumberManagement"
		assignment          = numbers + "/numberAssignments"
		users, policies     = "/v1.0/admin/teams/userConfigurations", "/v1.0/admin/teams/policy"
	)

	return []*route{
		op("GET /v1.0/domains", listDomains, domainRead, "domainsRead"),
		op("POST /v1.0/domains", createDomain, domainWrite, "domains", "{id!"),
		op("GET "+domain, onDomain(getDomain), domainRead, ""),
		op("PATCH "+domain, onDomain(updateDomain), domainWrite, "domains", "{isDefault supportedServices "+
			"passwordValidityPeriodInDays passwordNotificationWindowInDays"),
		op("DELETE "+domain, onDomain(deleteDomain), domainWrite, "domains"),
		op("POST "+domain+"/verify", onDomain(verifyDomain), domainWrite, "domains"),
		op("POST "+domain+"/forceDelete", onDomain(forceDelete), domainWrite, "domains", "{disableUserAccounts"),
		op("POST "+domain+"/promote", onDomain(promoteDomain), domainWrite, "domains"),
		op("GET "+domain+"/verificationDnsRecords", onDomain(verificationRecords), domainRead, ""),
		op("GET "+domain+"/serviceConfigurationRecords", onDomain(serviceRecords), domainRead, ""),
		op("GET "+domain+"/domainNameReferences", onDomain(nameReferences), domainRead, "", "#4"),
		op("GET /v1.0/organization", getOrganization, "Organization.Read.All|User.Read Organization.Read.All", ""),
		op("GET /v1.0/subscribedSkus", listSKUs, licence+" Organization.Read.All", "", "#3"),

		op("GET /v1.0/users", listUsers, userRead, "", "#2", find),
		op("POST /v1.0/users", createUser, userWrite, "users", "*"),
		op("GET /v1.0/users/delta", deltaUsers, userRead, "", "#2", "?$deltatoken $skiptoken $select $filter"),
		op("GET "+user, getUser, userRead, "", "?$select"),
		op("PATCH "+user, onUser(updateUser), userWrite, "users", "*"),
		op("DELETE "+user, onUser(deleteUser), userWrite, "users"),
		op("GET "+user+"/licenseDetails", onUser(licenseDetails), licence, ""),
		op("POST "+user+"/assignLicense", onUser(assignLicense), "LicenseAssignment.ReadWrite.All", "licences",
			"{addLicenses! removeLicenses!"),
		op("GET /v1.0/me", getMe, "|User.Read", ""),
		op("GET /v1.0/me/transitiveMemberOf/microsoft.graph.directoryRole", myRoles,
			"|Directory.Read.All "+roleRead, ""),

		// Not in the contract: the bin. Purging is for delegated callers only.
		op("GET "+bin+"/microsoft.graph.user", listBin, userRead, "", "#2", find),
		op("GET "+bin+"/{id}", onBin(getBin), userRead, "", "?$select"),
		op("DELETE "+bin+"/{id}", onBin(purgeUser), "|"+unlock, "users"),
		op("POST "+bin+"/{id}/restore", onBin(restoreUser), unlock, "users"),

		op("GET "+assigned, listRoles, roleRead, "", "?$filter $expand"),
		op("POST "+assigned, assignRole, roleWrite, "roles",
			"{principalId! roleDefinitionId! directoryScopeId! @odata.type"),
		op("GET /v1.0/servicePrincipals", listPrincipals, appRead, "", "?$filter"),
		op("DELETE "+principal, onPrincipal(deletePrincipal),
			"Application.ReadWrite.OwnedBy "+appWrite+"|"+appWrite, "applications"),
		op("GET "+principal+"/appRoleAssignments", onPrincipal(listAppRoles), appRead, ""),
		op("GET /v1.0/oauth2PermissionGrants", listGrants, "Directory.Read.All", "", "?$filter"),

		// Not in the contract: removal of consents, and registrations.
		op("DELETE "+principal+"/appRoleAssignments/{role}", onPrincipal(deleteAppRole),
			"AppRoleAssignment.ReadWrite.All", "applications"),
		op("DELETE /v1.0/oauth2PermissionGrants/{id}", deleteGrant, "DelegatedPermissionGrant.ReadWrite.All",
			"applications"),
		op("GET /v1.0/applications", listApplications, appRead, "", "?$filter"),
		op("POST /v1.0/applications", createApplication, appWrite, "applications", "*"),
		op("GET /v1.0/applications/{id}", onApp(getApplication), appRead, ""),
		op("PATCH /v1.0/applications/{id}", onApp(updateApplication), appWrite, "applications", "*"),
		op("DELETE /v1.0/applications/{id}", onApp(deleteApplication), appWrite, "applications"),

		op("GET "+assignment, listNumbers, numberRead, "teamsRead", "?$filter $top $skip"),
		op("GET "+assignment+"/{id}", getNumber, numberRead, "teamsRead"),
		op("POST "+assignment+"/assignNumber", assignNumber, numberWrite, "teams",
			"{telephoneNumber! assignmentTargetId! numberType! assignmentCategory locationId"),
		op("POST "+assignment+"/unassignNumber", unassignNumber, numberWrite, "teams", "{telephoneNumber! numberType!"),
		op("POST "+assignment+"/updateNumber", updateNumber, numberWrite, "teams",
			"{telephoneNumber! locationId networkSiteId reverseNumberLookupOptions"),
		op("GET "+numbers+"/operations/{id}", getOperation, numberRead, "teamsRead"),
		op("GET "+numbers+"/operations('{id}')", getOperation, numberRead, "teamsRead"),
		op("GET "+users, listConfigurations, config, "teamsRead", "?$filter $select $top $skiptoken"),
		op("GET "+users+"/{id}", onUser(getConfiguration), config, "teamsRead"),
		op("POST "+policies+"/userAssignments/assign", assignPolicies, policy, "teams", "{value!"),
		op("POST "+policies+"/userAssignments/unassign", unassignPolicies, policy, "teams", "{value!"),
		op("GET "+policies+"/getPolicyId(type='{type}',name='{name}')", getPolicyID, policy, "teamsRead"),
		// Not in the contract: delegated only.
		op("GET /beta/admin/teams/resourceAccounts", listResourceAccounts, "|TeamsResourceAccount.Read.All",
			"teamsRead", "?$filter $top $skiptoken"),

		op("POST "+batchPath, (*call).batch, "", "", "#0", "{requests"),
	}
}

// on makes a handler of one that gets the object of the path.
func on[T any](get func(*call) (T, error), do func(*call, T) error) func(*call) error {
	return func(k *call) error {
		v, err := get(k)
		if err != nil {
			return err
		}
		return do(k, v)
	}
}

func onDomain(do func(*call, *Domain) error) func(*call) error { return on((*call).findDomain, do) }
func onUser(do func(*call, *User) error) func(*call) error     { return on((*call).findUser, do) }
func onBin(do func(*call, *User) error) func(*call) error      { return on((*call).findBin, do) }
func onPrincipal(do func(*call, *Principal) error) func(*call) error {
	return on((*call).findPrincipal, do)
}
func onApp(do func(*call, *App) error) func(*call) error { return on((*call).findApplication, do) }

// text returns a string member of the body, or "".
func (k *call) text(name string) string { s, _ := k.body[name].(string); return s }

// Domains.

func (d *Domain) view() Object {
	services := []string{}
	if d.Active {
		services = append(services, "OfficeCommunicationsOnline")
	}

	return Object{"id": d.Name, "authenticationType": "Managed", "availabilityStatus": nil, "isAdminManaged": true,
		"isDefault": d.Default, "isInitial": d.Initial, "isRoot": d.Root, "isVerified": d.Verified,
		"manufacturer": nil, "model": nil, "supportedServices": services,
		"passwordValidityPeriodInDays": cmp.Or(d.ValidityDays, 90), "passwordNotificationWindowInDays": cmp.Or(
			d.NoticeDays, 14)}
}

// findDomain returns the domain of the path; reading sees old states.
func (k *call) findDomain() (*Domain, error) {
	d := k.s.domain(k.vars["id"])
	if d == nil {
		return nil, refuse("graph-not-found", k.vars["id"])
	}
	return d, nil
}

func listDomains(k *call) error {
	var out []Object
	for _, d := range k.s.Domains {
		if v, ok := k.s.seen("domain/"+d.Name, d.view()).(Object); ok {
			out = append(out, v)
		}
	}
	return k.list("domains", out)
}

var domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$`)

func createDomain(k *call) error {
	name := strings.ToLower(k.text("id"))
	switch {
	case !domainName.MatchString(name) || len(name) > 253 || strings.HasSuffix(name, ".onmicrosoft.com"):
		return refuse("domain-name", name)
	case k.s.domain(name) != nil:
		return refuse("domain-exists", name)
	case len(k.s.Domains) >= 5000:
		return refuse("quota")
	}
	d := &Domain{Name: name, Root: true}
	for _, other := range k.s.Domains {
		if other.Verified && strings.HasSuffix(name, "."+other.Name) { // needs no verification of its own
			d.Root, d.Verified = false, true
		}
	}
	k.s.changing("domain/"+name, k.t.settings.Propagation, nil)
	k.s.Domains = append(k.s.Domains, d)
	v := d.view()
	v["@odata.context"] = k.cloud.urls[Graph] + "/v1.0/$metadata#domains/$entity"

	return k.answer(201, v)
}

func getDomain(k *call, d *Domain) error {
	v, ok := k.s.seen("domain/"+d.Name, d.view()).(Object)
	if !ok {
		return refuse("graph-not-found", k.vars["id"])
	}
	return k.answer(200, v)
}

func updateDomain(k *call, d *Domain) error {
	if !d.Verified {
		return refuse("domain-unverified", d.Name)
	}
	if k.body["supportedServices"] != nil {
		return refuse("graph-unsupported")
	}
	if k.body["isDefault"] == true {
		for _, other := range k.s.Domains {
			other.Default = other == d
		}
	}
	if days, ok := k.body["passwordValidityPeriodInDays"].(float64); ok {
		d.ValidityDays = int(days)
	}
	if days, ok := k.body["passwordNotificationWindowInDays"].(float64); ok {
		d.NoticeDays = int(days)
	}

	return k.answer(204, nil)
}

func (k *call) removeDomain(d *Domain) {
	k.s.changing("domain/"+d.Name, k.t.settings.Propagation, d.view())
	k.s.Domains = slices.DeleteFunc(k.s.Domains, func(o *Domain) bool { return o == d })
}

// references returns the users that name a domain; those in the bin where they block it.
func (k *call) references(d *Domain) []*User {
	var users []*User
	for _, u := range k.s.Users {
		if u.Deleted.IsZero() || k.t.settings.BinBlocksDomain {
			if strings.HasSuffix(strings.ToLower(u.UPN), "@"+d.Name) || strings.HasSuffix(u.Mail, "@"+d.Name) {
				users = append(users, u)
			}
		}
	}

	return users
}

func deleteDomain(k *call, d *Domain) error {
	if d.Default || d.Initial {
		return refuse("domain-default", d.Name)
	}
	if len(k.references(d)) > 0 {
		return refuse("domain-referenced", d.Name)
	}
	k.removeDomain(d)
	return k.answer(204, nil)
}

func forceDelete(k *call, d *Domain) error {
	users := k.references(d)
	switch {
	case d.Default || d.Initial:
		return refuse("domain-default", d.Name)
	case d.Deleting:
		return refuse("domain-deleting", d.Name)
	case len(users) > 1000:
		return refuse("domain-too-many", len(users))
	}
	d.Deleting = true
	disable := k.body["disableUserAccounts"] == true
	k.s.later(k.t.settings.ForceDeleteDelay, func() {
		for _, u := range users {
			local, _, _ := strings.Cut(u.UPN, "@")
			if u.Disabled = u.Disabled || disable; u.Deleted.IsZero() {
				k.s.Rename(u, local+"@"+k.t.Initial)
			}
			u.Mail = strings.Replace(u.Mail, "@"+d.Name, "@"+k.t.Initial, 1)
		}
		k.removeDomain(d)
	})

	return k.answer(204, nil)
}

func promoteDomain(k *call, d *Domain) error {
	if !d.Verified || d.Root {
		return refuse("domain-promote", d.Name)
	}
	d.Root = true
	return k.answer(200, Object{"value": true})
}

// VerificationText returns the text of the record that proves a domain for a tenant.
func (t *Tenant) VerificationText(domain string) string {
	return fmt.Sprintf("MS=ms%08d", crc32.ChecksumIEEE([]byte(t.ID+strings.ToLower(domain)))%100_000_000)
}

func verificationRecords(k *call, d *Domain) error {
	text := k.t.VerificationText(d.Name)
	return k.list("domains('"+d.Name+"')/verificationDnsRecords", []Object{
		{"@odata.type": "#microsoft.graph.domainDnsTxtRecord", "id": derived("txt", d.Name), "isOptional": false,
			"label": d.Name, "recordType": "Txt", "supportedService": "Email", "ttl": 3600, "text": text},
		{"@odata.type": "#microsoft.graph.domainDnsMxRecord", "id": derived("mx", d.Name), "isOptional": false,
			"label": d.Name, "recordType": "Mx", "supportedService": "Email", "ttl": 3600, "preference": 32767,
			"mailExchange": strings.TrimPrefix(text, "MS=") + ".msv1.invalid"}})
}

func serviceRecords(k *call, d *Domain) error {
	return k.list("domains('"+d.Name+"')/serviceConfigurationRecords", []Object{
		{"@odata.type": "#microsoft.graph.domainDnsCnameRecord", "id": derived("cname", d.Name), "isOptional": true,
			"label": "autodiscover." + d.Name, "recordType": "CName", "supportedService": "Email", "ttl": 3600,
			"canonicalName": "autodiscover.outlook.invalid"}})
}

func nameReferences(k *call, d *Domain) error {
	var out []Object
	for _, u := range k.references(d) {
		out = append(out, Object{"@odata.type": "#microsoft.graph.user", "id": u.ID, "displayName": u.DisplayName,
			"userPrincipalName": u.UPN})
	}
	return k.list("directoryObjects", out)
}

// verifyDomain asks the name server for the record.
func verifyDomain(k *call, d *Domain) error {
	if d.Verified {
		return refuse("domain-verified", d.Name)
	}
	want := k.t.VerificationText(d.Name)
	k.cloud.mu.Unlock()
	found := k.cloud.hasTXT(k.r.Context(), d.Name, want)
	k.cloud.mu.Lock()
	for _, t := range k.cloud.tenants { // after the look-up: two tenants may verify at once
		if other := t.state.domain(d.Name); other != nil && other.Verified {
			return refuse("domain-elsewhere", d.Name)
		}
	}
	if !found {
		return refuse("domain-record", d.Name)
	}
	k.s.changing("domain/"+d.Name, k.t.settings.Propagation, d.view())
	d.Verified = true
	k.s.watchActivation(d)

	return k.answer(200, d.view())
}

// hasTXT reports whether the configured name server has a record with the text.
func (c *Cloud) hasTXT(ctx context.Context, name, text string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.cfg.DNS)
	}}
	records, err := resolver.LookupTXT(ctx, name+".")
	return err == nil && slices.Contains(records, text)
}

// Subscriptions and the organisation.

func getOrganization(k *call) error {
	var domains []Object
	for _, d := range k.s.Domains {
		if d.Verified {
			domains = append(domains, Object{"name": d.Name, "isDefault": d.Default, "isInitial": d.Initial,
				"type": "Managed", "capabilities": ""})
		}
	}
	o := clone(k.s.Organization)
	o["verifiedDomains"] = domains

	return k.list("organization", []Object{o})
}

func planView(p Plan) Object {
	return Object{"servicePlanId": p.ID, "servicePlanName": p.Name, "provisioningStatus": "Success",
		"appliesTo": "User"}
}

func (s *State) skuView(k *SKU) Object {
	plans := []Object{}
	for _, p := range k.Plans {
		plans = append(plans, planView(p))
	}

	return Object{"id": s.t.ID + "_" + k.ID, "skuId": k.ID, "skuPartNumber": k.Part, "appliesTo": k.AppliesTo,
		"accountId": s.t.ID, "accountName": s.t.Name, "capabilityStatus": k.Status,
		"consumedUnits": k.consumed + k.Extra, "servicePlans": plans,
		"subscriptionIds": []string{derived(s.t.ID, k.ID)},
		"prepaidUnits": Object{"enabled": k.Enabled, "warning": k.Warning, "suspended": k.Suspended,
			"lockedOut": k.LockedOut}}
}

func listSKUs(k *call) error {
	var out []Object
	for _, x := range k.s.SKUs {
		out = append(out, k.s.skuView(x))
	}
	return k.list("subscribedSkus", out)
}
