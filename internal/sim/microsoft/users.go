package microsoft

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stamp writes a time as Graph does; nil for the zero time.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// userView returns properties of a user; all if none is named.
func (s *State) userView(u *User, names ...string) Object {
	if len(names) == 0 {
		names = known["user"]
	}
	v := make(Object, len(names))
	for _, name := range names {
		v[name] = s.property(u, name)
	}
	return v
}

func (s *State) property(u *User, name string) any {
	switch name {
	case "id":
		return u.ID
	case "userPrincipalName":
		return u.UPN
	case "displayName":
		return u.DisplayName
	case "givenName":
		return orNull(u.GivenName)
	case "surname":
		return orNull(u.Surname)
	case "mail":
		return orNull(u.Mail)
	case "department":
		return orNull(u.Department)
	case "usageLocation":
		return orNull(u.UsageLocation)
	case "accountEnabled":
		return !u.Disabled
	case "mailNickname":
		return orNull(u.Nickname)
	case "onPremisesSyncEnabled":
		return orNull(u.OnPremises)
	case "createdDateTime":
		return stamp(u.created)
	case "deletedDateTime":
		return stamp(u.Deleted)
	case "businessPhones":
		return append([]string{}, u.Phones...)
	case "assignedLicenses":
		return u.licenses()
	case "assignedPlans":
		return s.assignedPlans(u)
	case "licenseAssignmentStates":
		return u.states()
	case "userType":
		if u.Guest {
			return "Guest"
		}
		return "Member"
	case "proxyAddresses":
		if u.Mail != "" {
			return []string{"SMTP:" + u.Mail}
		}
		return []string{}
	case "provisionedPlans", "serviceProvisioningErrors", "imAddresses":
		return []string{}
	}

	return u.other[name]
}

func (u *User) licenses() []Object {
	out := []Object{}
	for _, l := range u.Licenses {
		if l.Error == "" {
			out = append(out, Object{"skuId": l.SKU, "disabledPlans": append([]string{}, l.Disabled...)})
		}
	}
	return out
}

func (u *User) states() []Object {
	out := []Object{}
	for _, l := range u.Licenses {
		state := Object{"skuId": l.SKU, "state": "Active", "error": "None", "assignedByGroup": nil,
			"disabledPlans": append([]string{}, l.Disabled...), "lastUpdatedDateTime": stamp(u.created)}
		if l.Error != "" {
			state["state"], state["error"] = "Error", l.Error
		}
		out = append(out, state)
	}

	return out
}

func (s *State) assignedPlans(u *User) []Object {
	out, has := []Object{}, s.plans(u)
	for _, p := range has {
		out = append(out, Object{"servicePlanId": p.ID, "capabilityStatus": "Enabled", "service": serviceOf(p.Name),
			"assignedDateTime": stamp(u.created)})
	}
	for _, id := range u.LostPlans {
		if !slices.ContainsFunc(has, func(p Plan) bool { return p.ID == id }) {
			out = append(out, Object{"servicePlanId": id, "capabilityStatus": "Deleted", "service": serviceOf(""),
				"assignedDateTime": stamp(u.created)})
		}
	}

	return out
}

func serviceOf(plan string) string {
	if strings.HasPrefix(plan, "EXCHANGE") {
		return "exchange"
	} else if plan == "TEAMS1" {
		return "TeamspaceAPI"
	}
	return "MicrosoftCommunicationsOnline"
}

// changeUser runs a change of a user. Reads see the old state until the change has propagated.
func (k *call) changeUser(u *User, change func()) {
	k.s.changing("user/"+u.ID, k.t.settings.Propagation, k.s.userView(u))
	change()
	k.s.Changed(u)
}

// seenUser returns properties of a user as reads see them, all if none is named; nil where they do not see it.
func (k *call) seenUser(u *User, names ...string) Object {
	if len(k.s.old) > 0 {
		if o, ok := k.s.old["user/"+u.ID]; ok {
			v, _ := o.view.(Object)
			return v
		}
	}
	return k.s.userView(u, names...)
}

// findUser returns the user of the path.
func (k *call) findUser() (*User, error) {
	u := k.s.live(k.vars["id"])
	if u == nil || k.seenUser(u) == nil {
		return nil, refuse("graph-not-found", k.vars["id"])
	}
	return u, nil
}

// listUsers answers a page of the users whom $filter selects.
func listUsers(k *call) error { return k.pageUsers("users", false) }

func (k *call) pageUsers(context string, deleted bool) error {
	names, err := k.selected("user", k.query.Get("$select"))
	if err != nil {
		return err
	}
	keep, filter, err := parseFilter(k.query.Get("$filter"), "user")
	if err != nil {
		return err
	}
	eventual := strings.EqualFold(k.r.Header.Get("ConsistencyLevel"), "eventual")
	counted := k.query.Get("$count") == "true"
	switch {
	case k.query.Get("$search") != "" || k.query.Get("$expand") != "":
		return refuse("graph-unsupported")
	case counted && !eventual, filter.advanced && (!eventual || !counted):
		return refuse("users-eventual")
	}
	p, err := k.page(100, 999)
	if err != nil {
		return err
	}

	needed := append(filter.names, names...)
	view := func(u *User) Object {
		if u.Deleted.IsZero() == deleted {
			return nil
		}
		v := k.seenUser(u, needed...)
		if v == nil || !keep(v) {
			return nil
		}
		return pick(v, names)
	}
	if err := k.pageOf(context, p, view); err != nil || !counted || p.Page > 1 {
		return err
	}
	total := 0
	for _, u := range k.s.Users {
		if view(u) != nil {
			total++
		}
	}
	k.out.(Object)["@odata.count"] = total

	return nil
}

// pageOf answers a page of what view returns for users, nil for those to leave out.
func (k *call) pageOf(context string, p pageToken, view func(*User) Object) error {
	values, next := []Object{}, -1
	for i := p.Position; i < len(k.s.Users) && next < 0; i++ {
		switch v := view(k.s.Users[i]); {
		case v == nil:
		case len(values) == p.Size:
			next = i
		default:
			values = append(values, v)
		}
	}
	if err := k.list(context, values); err != nil {
		return err
	}
	if next >= 0 {
		k.out.(Object)["@odata.nextLink"] = k.next(p, next)
	}

	return nil
}

const deltaPage = 200

const deltaLife = 7 * 24 * time.Hour

// deltaUsers answers a page of the change feed: all users, then the changes since a token.
func deltaUsers(k *call) error {
	set, now := k.t.settings, k.cloud.now()
	token, names := k.query.Get("$deltatoken"), k.query.Get("$select")
	p := pageToken{Issued: now.UnixNano(), Query: url.Values{"$select": {names}}, Start: k.s.seq, Initial: true}
	var err error
	switch {
	case k.query.Get("$filter") != "":
		return refuse("graph-unsupported")
	case k.query.Get("$skiptoken") != "":
		token = ""
		p, err = decodeToken("skip", k.query.Get("$skiptoken"))
	case token == "latest":
		token, p.Initial, p.Position = "", false, k.s.seq
	case token != "":
		p, err = decodeToken("delta", token)
	}
	if err != nil {
		return err
	}
	issued := time.Unix(0, p.Issued)
	if token != "" && (!issued.After(k.t.deltasFrom) || now.After(issued.Add(deltaLife))) {
		r := refuse("delta-lost")
		if set.DeltaLostStatus == 400 {
			return refuse("delta-lost-400")
		}
		r.header = http.Header{"Location": {k.cloud.urls[Graph] + "/v1.0/users/delta?$deltatoken="}}
		return r
	}
	selected, err := k.selected("user", p.Query.Get("$select"))
	if err != nil {
		return err
	}
	selected = append(selected, "id")

	type change struct {
		seq    int
		id     string
		user   *User // nil for one that is gone
		reason string
	}
	hidden := math.MaxInt // the first change that has not propagated
	for key := range k.s.old {
		if id, ok := strings.CutPrefix(key, "user/"); ok && k.s.users[id] != nil {
			hidden = min(hidden, k.s.users[id].seq)
		}
	}
	var changes []change
	next := func(keep int) {
		slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.seq, b.seq) })
		changes = changes[:min(len(changes), keep)]
	}
	add := func(c change) {
		if c.seq > p.Position && c.seq < hidden && (c.reason == "" || !p.Initial || c.seq > p.Start) {
			changes = append(changes, c)
		}
		if len(changes) > 4*deltaPage {
			next(deltaPage + 1)
		}
	}
	for _, u := range k.s.Users {
		if u.Deleted.IsZero() {
			add(change{u.seq, u.ID, u, ""})
		} else {
			add(change{u.seq, u.ID, nil, "changed"})
		}
	}
	for _, g := range k.s.purged {
		add(change{g.seq, g.id, nil, "deleted"})
	}
	next(deltaPage + 1)

	values := []Object{}
	for _, c := range changes[:min(len(changes), deltaPage)] {
		p.Position = c.seq
		if c.user == nil {
			values = append(values, Object{"id": c.id, "@removed": Object{"reason": c.reason}})
		} else {
			values = append(values, k.s.userView(c.user, selected...))
		}
	}
	if err := k.list("users", values); err != nil {
		return err
	}
	out, _ := k.out.(Object)
	link := k.cloud.urls[Graph] + "/v1.0/users/delta?"
	p.Issued = now.UnixNano()
	if len(changes) > deltaPage {
		out["@odata.nextLink"] = link + "$skiptoken=" + p.encode("skip")
	} else {
		p.Initial = false
		out["@odata.deltaLink"] = link + "$deltatoken=" + p.encode("delta")
	}

	return nil
}

func getUser(k *call) error {
	names, err := k.selected("user", k.query.Get("$select")) // checked before the user is looked for
	if err != nil {
		return err
	}
	u, err := k.findUser()
	if err != nil {
		return err
	}

	return k.answer(200, pick(k.seenUser(u, names...), names))
}

// answerUser answers with the properties that users have without $select, and others.
func (k *call) answerUser(status int, u *User, more ...string) error {
	names, _ := k.selected("user", "")
	out := k.s.userView(u, append(names, more...)...)
	out["@odata.context"] = k.cloud.urls[Graph] + "/v1.0/$metadata#users/$entity"
	return k.answer(status, out)
}

var country = regexp.MustCompile(`^[A-Z]{2}$`)

// userBody checks the members of a body and sets them.
func (k *call) userBody(u *User) (func(), error) {
	names := known["user"]
	for name, v := range k.body {
		switch _, isText := v.(string); name {
		case "id", "deletedDateTime", "assignedLicenses", "assignedPlans", "licenseAssignmentStates", "createdDateTime",
			"provisionedPlans", "serviceProvisioningErrors", "imAddresses", "onPremisesSyncEnabled", "proxyAddresses":
			return nil, refuse("user-read-only", name)
		case "accountEnabled", "passwordProfile", "businessPhones":
		default:
			if !isText && v != nil {
				return nil, refuse("graph-type", name)
			}
		}
		if !slices.Contains(names, name) {
			return nil, refuse("graph-member", name, "user")
		}
	}
	if v := k.text("usageLocation"); v != "" && !country.MatchString(v) {
		return nil, refuse("user-usage-location")
	}
	upn := k.text("userPrincipalName")
	if upn != "" && !strings.EqualFold(upn, u.UPN) {
		local, host, _ := strings.Cut(upn, "@")
		if d := k.s.domain(host); local == "" || d == nil || !d.Verified || d.Deleting {
			return nil, refuse("user-domain")
		}
		if k.s.live(upn) != nil {
			return nil, refuse("user-exists")
		}
	}
	profile, _ := k.body["passwordProfile"].(Object)
	password, _ := profile["password"].(string)
	if _, given := k.body["passwordProfile"]; given && len(password) < 8 {
		return nil, refuse("user-password")
	}

	return func() {
		for name, field := range map[string]*string{"displayName": &u.DisplayName, "givenName": &u.GivenName,
			"surname": &u.Surname, "mail": &u.Mail, "department": &u.Department, "usageLocation": &u.UsageLocation,
			"mailNickname": &u.Nickname} {
			if _, ok := k.body[name]; ok {
				*field = k.text(name)
			}
		}
		for _, name := range []string{"city", "companyName", "country", "employeeId", "jobTitle", "mobilePhone",
			"officeLocation", "postalCode", "preferredLanguage", "state", "streetAddress", "passwordPolicies"} {
			if v, ok := k.body[name]; ok {
				if u.other == nil {
					u.other = Object{}
				}
				u.other[name] = v
			}
		}
		if on, ok := k.body["accountEnabled"].(bool); ok {
			u.Disabled = !on
		}
		if phones, ok := k.body["businessPhones"].([]any); ok {
			u.Phones = nil
			for _, p := range phones {
				u.Phones = append(u.Phones, fmt.Sprint(p))
			}
		}
		if password != "" {
			if u.Password != "" || u.UPN != "" {
				u.revoked = k.cloud.now()
			}
			u.Password = password
		}
	}, nil
}

func createUser(k *call) error {
	for _, name := range []string{"accountEnabled", "displayName", "mailNickname", "userPrincipalName",
		"passwordProfile"} {
		if v, ok := k.body[name]; !ok || v == nil || v == "" {
			return refuse("graph-required", name, "user")
		}
	}
	u := &User{created: k.cloud.now()}
	set, err := k.userBody(u)
	if err != nil {
		return err
	}
	u.ID, u.UPN = k.s.id(), k.text("userPrincipalName")
	k.s.changing("user/"+u.ID, k.t.settings.Propagation, nil)
	set()
	u.revoked = time.Time{}
	k.s.AddUser(u)

	return k.answerUser(201, u)
}

func updateUser(k *call, u *User) error {
	set, err := k.userBody(u)
	if err != nil {
		return err
	}
	k.changeUser(u, func() {
		set()
		if upn := k.text("userPrincipalName"); upn != "" {
			k.s.Rename(u, upn)
		}
	})

	return k.answer(204, nil)
}

func deleteUser(k *call, u *User) error {
	k.s.DeleteUser(u)
	return k.answer(204, nil)
}

func licenseDetails(k *call, u *User) error {
	var out []Object
	for _, l := range u.Licenses {
		sku := k.s.sku(l.SKU)
		if l.Error != "" || sku == nil {
			continue
		}
		plans := []Object{}
		for _, p := range sku.Plans {
			v := planView(p)
			if slices.Contains(l.Disabled, p.ID) {
				v["provisioningStatus"] = "Disabled"
			}
			plans = append(plans, v)
		}
		out = append(out, Object{"id": derived(u.ID, l.SKU), "skuId": sku.ID, "skuPartNumber": sku.Part,
			"servicePlans": plans})
	}

	return k.list("users('"+u.ID+"')/licenseDetails", out)
}

// assignLicense checks everything before the first change.
func assignLicense(k *call, u *User) error {
	adds, ok := k.body["addLicenses"].([]any)
	removes, ok2 := k.body["removeLicenses"].([]any)
	if !ok || !ok2 {
		return refuse("graph-type", "addLicenses")
	}
	held := func(id string) bool {
		return slices.ContainsFunc(u.Licenses, func(l License) bool { return strings.EqualFold(l.SKU, id) })
	}
	for _, v := range removes {
		if id, _ := v.(string); !held(id) {
			return refuse("licence-not-held")
		}
	}
	var added []License
	for _, v := range adds {
		l, err := k.newLicense(u, v)
		if err != nil {
			return err
		}
		added = append(added, l)
	}

	k.changeUser(u, func() {
		for _, v := range removes {
			k.s.Unlicense(u, v.(string))
		}
		for _, l := range added {
			if held(l.SKU) {
				k.s.Unlicense(u, l.SKU)
			}
			k.s.License(u, l)
		}
	})

	return k.answerUser(200, u, "assignedLicenses")
}

// newLicense checks one member of addLicenses.
func (k *call) newLicense(u *User, v any) (l License, err error) {
	o, _ := v.(Object)
	id, _ := o["skuId"].(string)
	sku := k.s.sku(id)
	for name := range o {
		if name != "skuId" && name != "disabledPlans" {
			return l, refuse("graph-member", name, "assignedLicense")
		}
	}
	if sku == nil || sku.AppliesTo == "Company" {
		return l, refuse("licence-unknown", id)
	}
	if u.UsageLocation == "" {
		return l, refuse("licence-usage-location")
	}
	l.SKU = sku.ID
	plans, _ := o["disabledPlans"].([]any)
	for _, p := range plans {
		id, _ := p.(string)
		if !slices.ContainsFunc(sku.Plans, func(p Plan) bool { return p.ID == id }) {
			return l, refuse("licence-plan", id)
		}
		l.Disabled = append(l.Disabled, id)
	}
	if slices.ContainsFunc(u.Licenses, func(h License) bool { return h.SKU == sku.ID }) {
		return l, nil // it has the seat already
	}
	used := sku.consumed + sku.Extra
	if used >= sku.Enabled+sku.Warning || sku.Status == "Suspended" || sku.Status == "LockedOut" {
		return l, refuse("licence-none", sku.ID)
	}
	if used >= sku.Enabled && k.t.settings.WarningSeatsFail {
		l.Error = "CountViolation"
	}

	return l, nil
}

// Operations on the user of the token.
func getMe(k *call) error {
	if k.who.partner {
		return refuse("graph-not-found", k.who.user.ID)
	}
	return k.answerUser(200, k.who.user)
}

func myRoles(k *call) error {
	var out []Object
	for _, id := range k.who.wids {
		for name, role := range roles {
			if role == id {
				out = append(out, Object{"@odata.type": "#microsoft.graph.directoryRole", "id": derived(k.t.ID, role),
					"displayName": name, "roleTemplateId": role, "description": nil, "deletedDateTime": nil})
			}
		}
	}

	return k.list("directoryObjects", out)
}

// The bin.

func listBin(k *call) error { return k.pageUsers("directoryObjects", true) }

func (k *call) findBin() (*User, error) {
	u := k.s.User(k.vars["id"])
	if u == nil || u.Deleted.IsZero() {
		return nil, refuse("graph-not-found", k.vars["id"])
	}
	return u, nil
}

func getBin(k *call, u *User) error {
	names, err := k.selected("user", k.query.Get("$select"))
	if err != nil {
		return err
	}
	out := k.s.userView(u, append(names, "deletedDateTime")...)
	out["@odata.type"] = "#microsoft.graph.user"
	return k.answer(200, out)
}

func purgeUser(k *call, u *User) error {
	k.s.PurgeUser(u)
	return k.answer(204, nil)
}

func restoreUser(k *call, u *User) error {
	_, host, _ := strings.Cut(u.UPN, "@")
	if d := k.s.domain(host); d == nil || !d.Verified {
		return refuse("user-domain")
	}
	if k.s.live(u.UPN) != nil {
		return refuse("user-exists")
	}
	k.s.RestoreUser(u)

	return k.answerUser(200, u)
}

func listResourceAccounts(k *call) error {
	filter, value := k.query.Get("$filter"), ""
	byApp := strings.HasPrefix(filter, "appId eq ")
	if filter != "" {
		value = strings.Trim(filter[strings.LastIndex(filter, " ")+1:], "'")
		if !byApp && !strings.HasPrefix(filter, "acsResourceId eq ") {
			return refuse("graph-filter", filter)
		}
	}
	p, err := k.page(100, 999)
	if err != nil {
		return err
	}

	return k.pageOf("admin/teams/resourceAccounts", p, func(u *User) Object {
		if u.ResourceApp == "" || !u.Deleted.IsZero() || filter != "" && (byApp && u.ResourceApp != value ||
			!byApp && u.ACSResource != value) {
			return nil
		}
		v := instanceView(k.s, u)
		return Object{"id": u.ID, "userPrincipalName": u.UPN, "appId": u.ResourceApp, "displayName": u.DisplayName,
			"phoneNumber": v["phoneNumber"], "acsResourceId": v["acsResourceId"]}
	})
}

// Principals, roles and registrations.

func listRoles(k *call) error {
	if k.query.Get("$expand") != "" {
		return refuse("graph-unsupported")
	}
	var out []Object
	for _, r := range k.s.Roles {
		out = append(out, r.view())
	}
	return k.filtered("unifiedRoleAssignment", "roleManagement/directory/roleAssignments", out)
}

func (r RoleAssignment) view() Object {
	return Object{"id": r.ID, "principalId": r.Principal, "roleDefinitionId": r.Role, "directoryScopeId": "/"}
}

func assignRole(k *call) error {
	known := false
	for _, id := range roles {
		known = known || id == k.text("roleDefinitionId")
	}
	principal := k.text("principalId")
	if k.s.live(principal) == nil && k.s.principal(principal) == nil || !known {
		return refuse("graph-not-found", principal)
	}
	r := RoleAssignment{k.s.id(), principal, k.text("roleDefinitionId")}
	if slices.ContainsFunc(k.s.Roles, func(o RoleAssignment) bool {
		return o.Principal == r.Principal && o.Role == r.Role
	}) {
		return refuse("role-exists")
	}
	k.s.Roles = append(k.s.Roles, r)

	return k.answer(201, r.view())
}

func listPrincipals(k *call) error {
	var out []Object
	for _, p := range k.s.Principals {
		appRoles, scopes := []Object{}, []Object{}
		for name, ids := range permissions {
			if p.App != GraphID && p.App != TeamsID || (name == "user_impersonation") != (p.App == TeamsID) {
				continue
			}
			if ids[0] != "-" {
				appRoles = append(appRoles, Object{"id": ids[0], "value": name, "displayName": name, "isEnabled": true,
					"allowedMemberTypes": []string{"Application"}})
			}
			if ids[1] != "-" {
				scopes = append(scopes, Object{"id": ids[1], "value": name, "type": "Admin", "isEnabled": true})
			}
		}
		byID := func(a, b Object) int { return cmp.Compare(a["id"].(string), b["id"].(string)) }
		slices.SortFunc(appRoles, byID)
		slices.SortFunc(scopes, byID)
		o := Object{"id": p.ID, "appId": p.App, "displayName": p.Name, "accountEnabled": true, "tags": []string{},
			"servicePrincipalType": "Application", "appRoles": appRoles, "oauth2PermissionScopes": scopes,
			"appOwnerOrganizationId": orNull(p.Home)}
		out = append(out, o)
	}

	return k.filtered("servicePrincipal", "servicePrincipals", out)
}

func (k *call) findPrincipal() (*Principal, error) {
	for _, p := range k.s.Principals {
		if strings.EqualFold(p.ID, k.vars["id"]) {
			return p, nil
		}
	}
	return nil, refuse("graph-not-found", k.vars["id"])
}

func deletePrincipal(k *call, p *Principal) error {
	owner := k.who.app == p.App // of the permission OwnedBy [K]
	if k.who.user == nil && !slices.Contains(k.who.permissions, "Application.ReadWrite.All") && !owner {
		return refuse("graph-permission")
	}
	if p.App == GraphID || p.App == TeamsID {
		return refuse("principal-microsoft")
	}
	k.s.Principals = slices.DeleteFunc(k.s.Principals, func(o *Principal) bool { return o == p })
	k.s.Roles = slices.DeleteFunc(k.s.Roles, func(r RoleAssignment) bool { return r.Principal == p.ID })

	return k.answer(204, nil)
}

func listAppRoles(k *call, p *Principal) error {
	var out []Object
	for _, r := range p.Roles {
		out = append(out, Object{"id": r.ID, "appRoleId": permissions[r.Name][0], "principalId": p.ID,
			"principalType": "ServicePrincipal", "principalDisplayName": p.Name, "deletedDateTime": nil,
			"createdDateTime": stamp(p.consented), "resourceDisplayName": resourceNames[r.Resource],
			"resourceId": k.s.principal(r.Resource).ID})
	}
	return k.list("appRoleAssignments", out)
}

func deleteAppRole(k *call, p *Principal) error {
	before := len(p.Roles)
	p.Roles = slices.DeleteFunc(p.Roles, func(r AppRole) bool { return r.ID == k.vars["role"] })
	if len(p.Roles) == before {
		return refuse("graph-not-found", k.vars["role"])
	}
	return k.answer(204, nil)
}

func listGrants(k *call) error {
	var out []Object
	for _, p := range k.s.Principals {
		for _, g := range p.Grants {
			kind := "AllPrincipals"
			if g.User != "" {
				kind = "Principal"
			}
			out = append(out, Object{"id": g.ID, "clientId": p.ID, "consentType": kind, "principalId": orNull(g.User),
				"resourceId": k.s.principal(g.Resource).ID, "scope": strings.Join(g.Scopes, " ")})
		}
	}

	return k.filtered("oAuth2PermissionGrant", "oauth2PermissionGrants", out)
}

func deleteGrant(k *call) error {
	for _, p := range k.s.Principals {
		before := len(p.Grants)
		p.Grants = slices.DeleteFunc(p.Grants, func(g Grant) bool { return g.ID == k.vars["id"] })
		if len(p.Grants) < before {
			return k.answer(204, nil)
		}
	}
	return refuse("graph-not-found", k.vars["id"])
}

// span reads $skip and $top of a collection without page tokens.
func (k *call) span(size, largest int) (skip, top int, err error) {
	top = size
	if s := k.query.Get("$top"); s != "" {
		if top, err = strconv.Atoi(s); err != nil || top < 1 || top > largest {
			return 0, 0, refuse("graph-top", s, largest)
		}
	}
	if s := k.query.Get("$skip"); s != "" {
		if skip, err = strconv.Atoi(s); err != nil || skip < 0 {
			return 0, 0, refuse("graph-top", s, largest)
		}
	}

	return skip, top, nil
}
