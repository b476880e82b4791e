package microsoft

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind describes a type of configuration objects.
type kind struct {
	Tag      bool              // policies: their Identity is written "Tag:name"
	Only     bool              // there is Global and nothing else
	Global   Object            // as a new tenant has it; nil if the type has no such instance
	Members  map[string]string // type and largest size by name: "string 49", "int 65535", "bool", "strings", "objects"
	Required []string
	Defaults Object
}

//go:embed data/configurations.json
var configurationsFile []byte

var kinds = func() map[string]*kind {
	var m map[string]*kind
	if err := json.Unmarshal(configurationsFile, &m); err != nil {
		panic(err)
	}
	for _, k := range m {
		if k.Global != nil {
			k.Global["Identity"] = "Global"
			k.Global = k.complete(k.Global)
		}
	}
	return m
}()

// complete adds the defaults and the envelope of an object.
func (k *kind) complete(o Object) Object {
	for name, v := range clone(k.Defaults) {
		if _, ok := o[name]; !ok {
			o[name] = v
		}
	}
	class := "Tag"
	if o["Identity"] == "Global" {
		class = "Global"
	}
	o["Key"] = Object{"ScopeClass": class, "SchemaId": Object{"XName": ""}, "AuthorityId": Object{"Class": "Tenant"}}

	return o
}

// configKey returns the key of a name: without regard to case and to the prefix "Tag:".
func configKey(name string) string { return strings.TrimPrefix(strings.ToLower(name), "tag:") }

// plainName returns the name of an object without its prefix.
func plainName(o Object) string {
	name, _ := o["Identity"].(string)
	return strings.TrimPrefix(name, "Tag:")
}

// teamsRoutes are the operations of teams-tenant §4 [C]. What the sheet does not tell is marked [I]: the form of
// answers to writes, the modifiers of lists, the listing of group grants, and application instances.
func teamsRoutes() []*route {
	const (
		user           = "user_impersonation"
		configurations = "/Skype.Policy/configurations/{type}"
		one            = configurations + "/configuration/{id}"
	)

	return []*route{
		op("GET /Teams.Tenant/serviceDiscovery", serviceDiscovery, user, ""),
		op("GET /Teams.Tenant/tenants", tenantData, user, "teamsRead"),
		op("GET /Teams.Tenant/VerifiedSipDomains", sipDomains, user, "teamsRead"),
		op("GET /Teams.User/users", teamsUsers, user, "teamsRead"),
		op("GET "+configurations, listConfiguration, user, "teamsRead"),
		op("POST "+configurations, createConfiguration, user, "teams", "*"),
		op("GET "+one, readConfiguration, user, "teamsRead"),
		op("PUT "+one, changeConfiguration, user, "teams", "*"),
		op("DELETE "+one, deleteConfiguration, user, "teams"),
		op("PATCH /Skype.Policy/users/{user}/policies/{type}", grantUser, user, "teams", "{PolicyName"),
		op("GET /Skype.Policy/groupPolicyAssignments", listGroupGrants, user, "teamsRead"),
		op("PATCH /Skype.Policy/tenants/policies/{type}", grantTenant, user, "teams", "{PolicyName"),
		op("GET /Skype.TelephoneNumberMgmt/cmdlet/assignments", teamsAssignments, user, "teamsRead"),
		// For sim/pwsh only: how the module assigns numbers is in no sheet.
		op("POST /Simulator/{cmdlet}", phoneNumberCmdlet, user, "teams", "{Identity! PhoneNumber! PhoneNumberType!"),
		op("POST /Teams.PlatformService/v2/ApplicationInstances", createInstance, user, "teams",
			"{UserPrincipalName! DisplayName ApplicationId! AcsResourceId"),
	}
}

const forest = "sim1"

func serviceDiscovery(k *call) error {
	host := strings.TrimPrefix(k.cloud.urls[Teams], "https://")
	return k.answer(200, Object{"Endpoints": Object{"ConfigApiEndpoint": host, "AdminServiceEndpoint": host},
		"Headers": Object{"X-MS-Forest": forest}})
}

// routed refuses calls without what service discovery gave, and applications without the permission that the
// PowerShell module needs.
func (k *call) routed() error {
	target := strings.Trim(strings.TrimPrefix(k.r.Header.Get("X-MS-Target-Uri"), "https://"), "/")
	if "https://"+target != k.cloud.urls[Teams] && k.r.Header.Get("X-MS-Forest") != forest {
		return refuse("teams-target")
	}
	if k.who.user == nil {
		p := k.s.principal(k.who.app)
		if p == nil || !slices.ContainsFunc(p.Roles, func(r AppRole) bool {
			return r.Name == "Organization.Read.All"
		}) {
			return refuse("teams-permission")
		}
	}

	return nil
}

func tenantData(k *call) error {
	domains := []Object{}
	for _, d := range k.s.Domains {
		if d.Verified {
			domains = append(domains, Object{"name": d.Name, "status": "Verified"})
		}
	}
	return k.answer(200, Object{"tenantId": k.t.ID, "displayName": k.t.Name, "verifiedDomains": domains})
}

func sipDomains(k *call) error {
	out := []Object{}
	for _, d := range k.s.Domains {
		if d.Active {
			out = append(out, Object{"Name": d.Name, "Status": "Enabled"})
		}
	}
	return k.answer(200, out)
}

// teamsUsers answers like Get-CsOnlineUser: policies that come from a group are not in the user's own properties.
func teamsUsers(k *call) error {
	out := []Object{}
	for _, u := range k.s.Users {
		if !u.Deleted.IsZero() {
			continue
		}
		v := k.seenConfiguration(u, k.s.numbersOf(u.ID))
		o := Object{"objectId": u.ID, "userPrincipalName": u.UPN, "displayName": u.DisplayName, "lineUri": nil,
			"featureTypes": v["featureTypes"], "effectivePolicyAssignments": v["effectivePolicyAssignments"],
			"enterpriseVoiceEnabled": v["isEnterpriseVoiceEnabled"]}
		if held, _ := v["telephoneNumbers"].([]Object); len(held) > 0 {
			o["lineUri"] = "tel:" + held[0]["telephoneNumber"].(string)
		}
		for _, kind := range userPolicies {
			o[kind] = orNull(u.Policies[kind])
		}
		out = append(out, o)
	}

	return k.answer(200, Object{"users": out})
}

// Configurations.

// kind returns the type of the path.
func (k *call) kind() (string, *kind, error) {
	for name, x := range kinds {
		if strings.EqualFold(name, k.vars["type"]) {
			return name, x, nil
		}
	}
	return "", nil, refuse("teams-type", k.vars["type"])
}

// shown returns how reads see an object; nil where they do not see it.
func (k *call) shown(kind, key string) Object {
	o, _ := k.s.seen("config/"+kind+"/"+key, k.s.Configurations[kind][key]).(Object)
	if o == nil {
		return nil
	}
	o = clone(o)
	if !k.t.settings.OddReads {
		return o
	}
	if kinds[kind].Tag && o["Identity"] != "Global" {
		o["Identity"] = "Tag:" + strings.ToLower(plainName(o))
	}
	if gateways, ok := o["OnlinePstnGatewayList"].([]any); ok {
		slices.Reverse(gateways)
	}

	return o
}

// visible returns the objects of a type that reads see, among them those whose deletion has not propagated.
func (k *call) visible(kind string) []Object {
	keys := slices.Collect(maps.Keys(k.s.Configurations[kind]))
	for old := range k.s.old {
		if key, ok := strings.CutPrefix(old, "config/"+kind+"/"); ok && k.s.Configurations[kind][key] == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	out := []Object{}
	for _, key := range keys {
		if o := k.shown(kind, key); o != nil {
			out = append(out, o)
		}
	}

	return out
}

func listConfiguration(k *call) error {
	name, _, err := k.kind()
	if err != nil {
		return err
	}

	return k.answer(200, k.visible(name))
}

func readConfiguration(k *call) error {
	name, _, err := k.kind()
	if err != nil {
		return err
	}
	o := k.shown(name, configKey(k.vars["id"]))
	if o == nil {
		return refuse("teams-not-found", k.vars["id"])
	}

	return k.answer(200, o)
}

var objectName = regexp.MustCompile(`^[\pL\pN][\pL\pN .()_-]{0,48}$`)

func createConfiguration(k *call) error {
	name, x, err := k.kind()
	if err != nil {
		return err
	}
	given := k.text("Identity")
	plain := strings.TrimPrefix(given, "Tag:")
	if name == "OnlinePSTNGateway" || name == "OnlineVoiceRoute" || name == "TeamsTranslationRule" {
		other := map[string]string{"OnlinePSTNGateway": "Fqdn"}[name]
		plain = cmp.Or(plain, k.text(cmp.Or(other, "Name")))
	}
	if x.Only || plain == "" || configKey(plain) == "global" ||
		name != "OnlinePSTNGateway" && !objectName.MatchString(plain) {
		return refuse("teams-identity", given)
	}
	key := configKey(plain)
	if k.s.Configurations[name][key] != nil {
		return refuse("teams-exists", plain)
	}
	delete(k.body, "Identity")
	o, err := k.merged(name, x, Object{})
	if err != nil {
		return err
	}
	for _, r := range x.Required {
		if o[r] == nil {
			return refuse("teams-required", r, name)
		}
	}
	if o["Identity"] = plain; x.Tag {
		o["Identity"] = "Tag:" + plain
	}
	o = x.complete(o)
	if err := k.check(name, key, o); err != nil {
		return err
	}
	k.s.changing("config/"+name+"/"+key, k.t.settings.TeamsPropagation, nil)
	k.s.Configurations[name][key] = o

	return k.answer(200, clone(o))
}

func changeConfiguration(k *call) error {
	name, x, err := k.kind()
	if err != nil {
		return err
	}
	key := configKey(k.vars["id"])
	old := k.s.Configurations[name][key]
	if old == nil {
		return refuse("teams-not-found", k.vars["id"])
	}
	if _, ok := k.body["Identity"]; ok {
		return refuse("teams-identity-in-body")
	}
	if _, ok := k.body["Key"]; !ok {
		return refuse("teams-key")
	}
	o, err := k.merged(name, x, clone(old))
	if err != nil {
		return err
	}
	if err := k.check(name, key, o); err != nil {
		return err
	}
	k.s.changing("config/"+name+"/"+key, k.t.settings.TeamsPropagation, old)
	k.s.Configurations[name][key] = o

	return k.answer(200, clone(o))
}

// merged returns an object with the members of the body, whose types and sizes it checks.
func (k *call) merged(name string, x *kind, o Object) (Object, error) {
	creating := len(o) == 0
	for member, v := range k.body {
		if member == "Key" {
			continue
		}
		form, size, _ := strings.Cut(x.Members[member], " ")
		limit, _ := strconv.Atoi(size)
		ok := false
		switch form {
		case "string":
			s, is := v.(string)
			ok = v == nil || is && len(s) <= limit
		case "bool":
			_, ok = v.(bool)
		case "int":
			n, is := v.(float64)
			ok = v == nil || is && n == float64(int(n)) && n >= 0 && int(n) <= limit
		case "strings", "objects":
			start := o[member]
			if _, modifier := v.(Object); creating && name == "TeamsEmergencyCallRoutingPolicy" &&
				(modifier || k.t.settings.CopyGlobalNumbers) {
				start = clone(k.s.Configurations[name]["global"])[member]
				if !modifier {
					v = Object{"Add": v}
				}
			}
			var list []any
			list, ok = modify(start, v, form == "objects")
			v, ok = list, ok && (limit == 0 || len(list) <= limit)
		default:
			return nil, refuse("teams-member", member, name)
		}
		if !ok {
			return nil, refuse("teams-value", member)
		}
		o[member] = v
	}

	return o, nil
}

// modify applies a list, or a list modifier as of PowerShell ({"Add": …}, {"Remove": …}, {"Replace": …}) [I], to a
// list.
func modify(old, v any, objects bool) ([]any, bool) {
	list, _ := old.([]any)
	list = slices.Clone(list)
	if m, ok := v.(Object); ok && len(m) == 1 {
		for how, items := range m {
			one, is := items.([]any)
			if !is {
				one = []any{items}
			}
			switch how {
			case "Add":
				v = append(list, one...)
			case "Remove":
				v = slices.DeleteFunc(list, func(x any) bool {
					return slices.ContainsFunc(one, func(y any) bool { return fmt.Sprint(x) == fmt.Sprint(y) })
				})
			case "Replace":
				v = one
			}
		}
	}
	out, ok := v.([]any)
	for _, x := range out {
		_, isObject := x.(Object)
		_, isString := x.(string)
		ok = ok && (isObject && objects || isString && !objects)
	}
	if out == nil {
		out = []any{}
	}

	return out, ok
}

func strs(v any) (out []string) {
	list, _ := v.([]any)
	for _, x := range list {
		s, _ := x.(string)
		out = append(out, s)
	}
	return out
}

// usages returns the PSTN usages that reads see.
func (k *call) usages() []string { return strs(k.shown("OnlinePstnUsages", "global")["Usage"]) }

// check applies what is special for a type.
func (k *call) check(name, key string, o Object) error {
	usages := strs(o["OnlinePstnUsages"])
	text := func(member string) string { s, _ := o[member].(string); return s }
	switch name {
	case "OnlinePstnUsages":
		return k.checkUsages(strs(o["Usage"]))
	case "OnlinePSTNGateway":
		return k.checkGateway(key, o)
	case "TenantDialPlan":
		return k.checkDialPlan(key, o)
	case "TeamsEmergencyCallRoutingPolicy":
		numbers, _ := o["EmergencyNumbers"].([]any)
		for _, v := range numbers {
			n, _ := v.(Object)
			for member := range n {
				if !slices.Contains([]string{"EmergencyDialString", "EmergencyDialMask", "OnlinePSTNUsage"}, member) {
					return refuse("teams-member", member, name)
				}
			}
			if n["EmergencyDialString"] == nil {
				return refuse("teams-required", "EmergencyDialString", name)
			}
			if usage, _ := n["OnlinePSTNUsage"].(string); usage != "" {
				usages = append(usages, usage)
			}
		}
	case "OnlineVoiceRoute":
		if _, err := regexp.Compile(text("NumberPattern")); err != nil || text("NumberPattern") == "" {
			return refuse("teams-pattern", text("NumberPattern"))
		}
		gateways := strs(o["OnlinePstnGatewayList"])
		for _, g := range gateways {
			if !k.usableGateway(g) {
				return refuse("gateway-unknown", g)
			}
		}
		if text("BridgeSourcePhoneNumber") != "" && len(gateways) > 0 {
			return refuse("teams-value", "BridgeSourcePhoneNumber")
		}
		if o["Priority"] == nil { // one that was made without gets the last place
			last := -1.0
			for _, r := range k.s.Configurations[name] {
				p, _ := r["Priority"].(float64)
				last = max(last, p)
			}
			o["Priority"] = last + 1
		}
	case "TeamsTranslationRule":
		if _, err := regexp.Compile(text("Pattern")); err != nil {
			return refuse("teams-pattern", text("Pattern"))
		}
	}
	for _, u := range usages {
		if !slices.Contains(k.usages(), u) {
			return refuse("usage-unknown", u)
		}
	}

	return nil
}

func (k *call) checkUsages(usages []string) error {
	for i, u := range usages {
		if u == "" || slices.Contains(usages[:i], u) {
			return refuse("usage-twice", u)
		}
	}
	for _, old := range strs(k.s.Configurations["OnlinePstnUsages"]["global"]["Usage"]) {
		if slices.Contains(usages, old) {
			continue
		}
		for _, kind := range []string{"OnlineVoiceRoute", "OnlineVoiceRoutingPolicy",
			"TeamsEmergencyCallRoutingPolicy"} {
			for _, o := range k.visible(kind) {
				numbers, _ := o["EmergencyNumbers"].([]any)
				used := slices.Contains(strs(o["OnlinePstnUsages"]), old)
				for _, v := range numbers {
					n, _ := v.(Object)
					used = used || n["OnlinePSTNUsage"] == old
				}
				if used {
					return refuse("usage-used", old, plainName(o))
				}
			}
		}
	}

	return nil
}

// activeDomain reports whether a host name is, or is one label below, a domain that is activated for the tenant.
func (k *call) activeDomain(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(k.s.Domains, func(d *Domain) bool {
		return d.Active && !strings.HasSuffix(d.Name, ".onmicrosoft.com") && (d.Name == host || d.Name == parent)
	})
}

func (k *call) checkGateway(key string, o Object) error {
	fqdn, _ := o["Fqdn"].(string)
	if fqdn == "" {
		fqdn = plainName(o)
		o["Fqdn"] = fqdn
	}
	port, _ := o["SipSignalingPort"].(float64)
	switch {
	case !strings.EqualFold(fqdn, key):
		return refuse("gateway-name")
	case len(fqdn) > 63 || !domainName.MatchString(strings.ToLower(fqdn)):
		return refuse("teams-value", "Fqdn")
	case port < 1:
		return refuse("teams-value", "SipSignalingPort")
	case !k.activeDomain(strings.ToLower(fqdn)):
		_, domain, _ := strings.Cut(fqdn, ".")
		return refuse("gateway-domain", domain)
	case o["MediaBypass"] == true && o["IPAddressVersion"] == "IPv6":
		return refuse("teams-value", "IPAddressVersion")
	}
	for _, list := range []string{"InboundPstnNumberTranslationRules", "InboundTeamsNumberTranslationRules",
		"OutboundPstnNumberTranslationRules", "OutboundTeamsNumberTranslationRules"} {
		for _, rule := range strs(o[list]) {
			if k.shown("TeamsTranslationRule", configKey(rule)) == nil {
				return refuse("teams-not-found", rule)
			}
		}
	}

	return nil
}

// usableGateway reports whether a route can name a gateway: one of the tenant, or a name derived from the carrier
// trunk of another tenant, whose domain this tenant has activated (teams-tenant §6).
func (k *call) usableGateway(name string) bool {
	key := strings.ToLower(name)
	if k.shown("OnlinePSTNGateway", key) != nil {
		return true
	}
	_, trunk, _ := strings.Cut(key, ".")
	carrier := slices.ContainsFunc(k.cloud.tenants, func(t *Tenant) bool {
		return t.state.Configurations["OnlinePSTNGateway"][trunk] != nil
	})
	d := k.s.domain(key)

	return carrier && d != nil && d.Active
}

func (k *call) checkDialPlan(key string, o Object) error {
	name := plainName(o)
	if o["SimpleName"] == nil {
		o["SimpleName"] = name
	}
	for other, p := range k.s.Configurations["TenantDialPlan"] {
		if other != key && strings.EqualFold(fmt.Sprint(p["SimpleName"]), fmt.Sprint(o["SimpleName"])) {
			return refuse("teams-exists", o["SimpleName"])
		}
	}
	if o["NormalizationRules"] == nil { // teams-tenant §3
		o["NormalizationRules"] = []any{Object{"Name": "Prefix All", "Pattern": `^(\d+)$`, "Translation": "$1",
			"Description": "", "IsInternalExtension": false}}
	}
	rules, _ := o["NormalizationRules"].([]any)
	seen := map[string]bool{}
	for _, v := range rules {
		r, _ := v.(Object)
		for member := range r {
			if !slices.Contains([]string{"Name", "Pattern", "Translation", "Description", "IsInternalExtension",
				"Priority"}, member) {
				return refuse("teams-member", member, "VoiceNormalizationRule")
			}
		}
		rule, _ := r["Name"].(string)
		pattern, _ := r["Pattern"].(string)
		if _, err := regexp.Compile(pattern); err != nil || pattern == "" || r["Translation"] == nil {
			return refuse("teams-pattern", pattern)
		}
		if rule == "" || seen[strings.ToLower(rule)] {
			return refuse("teams-value", "NormalizationRules")
		}
		seen[strings.ToLower(rule)] = true
		if r["IsInternalExtension"] == nil {
			r["IsInternalExtension"] = false
		}
	}

	return nil
}

func deleteConfiguration(k *call) error {
	name, x, err := k.kind()
	if err != nil {
		return err
	}
	key := configKey(k.vars["id"])
	o := k.s.Configurations[name][key]
	if o == nil {
		return refuse("teams-not-found", k.vars["id"])
	}
	if key == "global" || x.Only {
		return refuse("teams-global")
	}
	if err := k.unused(name, key); err != nil {
		return err
	}
	k.s.changing("config/"+name+"/"+key, k.t.settings.TeamsPropagation, o)
	delete(k.s.Configurations[name], key)

	return k.answer(200, nil)
}

// unused refuses the deletion of what is used.
func (k *call) unused(name, key string) error {
	for _, u := range k.s.Users {
		if configKey(u.Policies[name]) == key && u.Policies[name] != "" {
			return refuse("policy-assigned", key)
		}
	}
	for old := range k.s.old { // grants whose removal has not propagated
		v, _ := k.s.seen(old, nil).(Object)
		policies, _ := v["effectivePolicyAssignments"].([]Object)
		for _, p := range policies {
			policy, _ := p["policyAssignment"].(Object)
			if given, _ := policy["displayName"].(string); p["policyType"] == name && configKey(given) == key {
				return refuse("policy-assigned", key)
			}
		}
	}
	if slices.ContainsFunc(k.s.GroupGrants, func(g GroupGrant) bool {
		return g.Type == name && configKey(g.Policy) == key
	}) || configKey(k.s.TenantGrants[name]) == key {
		return refuse("policy-assigned", key)
	}
	for _, r := range k.visible("OnlineVoiceRoute") {
		if name == "OnlinePSTNGateway" && slices.ContainsFunc(strs(r["OnlinePstnGatewayList"]), func(g string) bool {
			return strings.EqualFold(g, key)
		}) {
			return refuse("gateway-used", key, plainName(r))
		}
	}
	for _, g := range k.visible("OnlinePSTNGateway") {
		for member, v := range g {
			if name == "TeamsTranslationRule" && strings.HasSuffix(member, "TranslationRules") &&
				slices.ContainsFunc(strs(v), func(r string) bool { return configKey(r) == key }) {
				return refuse("rule-used", key, plainName(g))
			}
		}
	}

	return nil
}

// Grants.

// grantOf returns the type and the name of a grant's policy; the name is "" where the grant is to be removed.
func (k *call) grantOf(kind string) (string, string, error) {
	if !slices.Contains(userPolicies, kind) {
		return "", "", refuse("teams-type", kind)
	}
	name := k.text("PolicyName")
	if name == "" {
		return kind, "", nil
	}
	o := k.shown(kind, configKey(name))
	if o == nil || configKey(name) == "global" {
		return "", "", refuse("policy-name", name)
	}

	return kind, plainName(k.s.Configurations[kind][configKey(name)]), nil
}

func grantUser(k *call) error {
	kind, name, err := k.grantOf(k.vars["type"])
	if err != nil {
		return err
	}
	u := k.s.live(k.vars["user"])
	if u == nil {
		return refuse("teams-user", k.vars["user"])
	}
	k.grantPolicy(u, kind, name)

	return k.answer(200, nil)
}

func listGroupGrants(k *call) error {
	out := []Object{}
	for _, g := range k.s.GroupGrants {
		out = append(out, Object{"GroupId": g.Group, "PolicyType": g.Type, "PolicyName": g.Policy, "Rank": g.Rank})
	}
	return k.answer(200, out)
}

func grantTenant(k *call) error {
	if k.who.partner {
		return refuse("teams-partner")
	}
	kind, name, err := k.grantOf(k.vars["type"])
	if err != nil {
		return err
	}
	if k.s.TenantGrants[kind] = name; name == "" {
		delete(k.s.TenantGrants, kind)
	}

	return k.answer(200, nil)
}

// Applications of resource accounts: auto attendant and call queue [K].
var instanceApps = []string{"ce933385-9390-45d1-9512-c8d228074e07", "11cd3e2e-fccb-42ad-ad00-878b93575e07"}

func instanceView(s *State, u *User) Object {
	phone := any(nil)
	if held := s.numbersOf(u.ID); len(held) > 0 {
		phone = "tel:" + held[0].Number
	}
	return Object{"objectId": u.ID, "tenantId": s.t.ID, "userPrincipalName": u.UPN, "displayName": u.DisplayName,
		"applicationId": u.ResourceApp, "acsResourceId": orNull(u.ACSResource), "phoneNumber": phone}
}

func createInstance(k *call) error {
	upn := k.text("UserPrincipalName")
	local, host, _ := strings.Cut(upn, "@")
	d := k.s.domain(host)
	own := k.text("AcsResourceId") != "" && isGUID(k.text("ApplicationId"))
	switch {
	case !slices.Contains(instanceApps, k.text("ApplicationId")) && !own:
		return refuse("teams-value", "ApplicationId")
	case local == "" || d == nil || !d.Verified:
		return refuse("teams-value", "UserPrincipalName")
	case k.s.live(upn) != nil:
		return refuse("teams-exists", upn)
	}
	u := k.s.AddUser(&User{UPN: upn, DisplayName: cmp.Or(k.text("DisplayName"), local), Disabled: true,
		Department: "Microsoft Communication Application Instance", ResourceApp: k.text("ApplicationId"),
		ACSResource: k.text("AcsResourceId"), created: k.cloud.now()})

	return k.answer(200, instanceView(k.s, u))
}
