package microsoft

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operation is a request to assign or unassign a number.
type operation struct {
	id, status, detail string
	location           string
	created            time.Time
}

func (s *State) numberView(n *Number) Object {
	status := "unassigned"
	switch {
	case n.Status != "":
		status = n.Status
	case n.VoiceApp:
		status = "voiceApplicationAssigned"
	case n.Target != "":
		if status = "userAssigned"; s.User(n.Target) != nil && s.User(n.Target).ResourceApp != "" {
			status = "voiceApplicationAssigned"
		}
	}
	capabilities := n.Capabilities
	if capabilities == nil {
		capabilities = []string{"userAssignment", "voiceApplicationAssignment", "conferenceAssignment"}
	}
	null := "00000000-0000-0000-0000-000000000000"

	return Object{"id": derived(s.t.ID, "number", n.Number), "telephoneNumber": n.Number, "operatorId": null,
		"numberType": cmp.Or(n.Type, "directRouting"), "activationState": "activated", "capabilities": capabilities,
		"locationId": cmp.Or(n.Location, null), "civicAddressId": null, "networkSiteId": cmp.Or(n.Site, null),
		"assignmentTargetId": orNull(n.Target), "assignmentCategory": cmp.Or(n.Category, "primary"),
		"assignmentStatus": status, "portInStatus": "completed", "isoCountryCode": orNull(n.Country), "city": nil,
		"numberSource": cmp.Or(n.Source, "online"), "supportedCustomerActions": []string{},
		"reverseNumberLookupOptions": append([]string{}, n.Lookup...)}
}

func (s *State) sortedNumbers() []*Number {
	return slices.SortedFunc(maps.Values(s.Numbers), func(a, b *Number) int { return cmp.Compare(a.Number, b.Number) })
}

// seenNumber returns how reads see a number; nil where they do not see it.
func (s *State) seenNumber(n *Number) Object {
	v, _ := s.seen("number/"+n.Number, s.numberView(n)).(Object)
	return v
}

func (k *call) changeNumber(n *Number, change func()) {
	var old any
	if k.s.Numbers[n.Number] == n {
		old = k.s.numberView(n)
	}
	k.s.changing("number/"+n.Number, k.t.settings.TeamsPropagation, old)
	change()
}

func listNumbers(k *call) error {
	keep, _, err := parseFilter(k.query.Get("$filter"), "teamsAdministration.numberAssignment")
	if err != nil {
		return err
	}
	if f := k.query.Get("$filter"); regexp.MustCompile(`(^|[ (])(id|city) `).MatchString(f) {
		return refuse("graph-filter", f)
	}
	skip, top, err := k.span(500, 1000)
	if err != nil {
		return err
	}
	var out []Object
	for _, n := range k.s.sortedNumbers() {
		if v := k.s.seenNumber(n); v != nil && keep(v) {
			out = append(out, v)
		}
	}
	more := len(out) > skip+top
	if err := k.list("admin/teams/telephoneNumberManagement/numberAssignments",
		out[min(skip, len(out)):min(skip+top, len(out))]); err != nil {
		return err
	}
	if more {
		q := k.query
		q.Set("$skip", strconv.Itoa(skip+top))
		k.out.(Object)["@odata.nextLink"] = k.cloud.urls[Graph] + k.r.URL.Path + "?" + q.Encode()
	}

	return nil
}

func getNumber(k *call) error {
	for _, n := range k.s.Numbers {
		if v := k.s.seenNumber(n); v != nil && v["id"] == k.vars["id"] {
			return k.answer(200, v)
		}
	}
	return refuse("graph-not-found", k.vars["id"])
}

var telephoneNumber = regexp.MustCompile(`^\+?[1-9]\d{2,17}(;ext=\d{1,15})?$`)

// number reads the number in a member of the body. It is the same number with and without "+".
func (k *call) number(member string) (string, error) {
	text := k.text(member)
	if !telephoneNumber.MatchString(text) {
		return "", refuse("number-format", text)
	}
	return "+" + strings.TrimPrefix(text, "+"), nil
}

var numberTypes = []string{"directRouting", "callingPlan", "operatorConnect"}

// assignNumber starts an operation. Its result is decided when it ends.
func assignNumber(k *call) error {
	text, err := k.number("telephoneNumber")
	if err != nil {
		return err
	}
	category := cmp.Or(k.text("assignmentCategory"), "primary")
	if !slices.Contains(numberTypes, k.text("numberType")) ||
		!slices.Contains([]string{"primary", "private", "alternate"}, category) {
		return refuse("graph-type", "numberType")
	}
	kind, location, target := k.text("numberType"), k.text("locationId"), k.text("assignmentTargetId")
	if k.s.live(target) == nil {
		return refuse("number-target", target)
	}

	return k.operation(text, func() string { return k.give(text, kind, category, location, target) })
}

// give gives an account a number, or returns why not.
func (k *call) give(text, kind, category, location, target string) string {
	u, n := k.s.live(target), k.s.Numbers[text]
	onPremises := "The number is set in on-premises Active Directory and can't be changed in the cloud."
	switch {
	case u == nil:
		return "The account does not exist."
	case !k.s.hasPlan(u, phoneSystem...) && k.t.settings.BlameOnPremises:
		return onPremises
	case !k.s.hasPlan(u, phoneSystem...):
		return "The account is not licensed for Phone System (MCOEV)."
	case u.UsageLocation == "":
		return "The usage location of the account is missing or invalid."
	case u.OnPremises && n != nil && n.Source == "onPremises":
		return onPremises
	case n == nil && kind != "directRouting":
		return "The number is not in the inventory of the tenant."
	case n != nil && cmp.Or(n.Type, "directRouting") != kind:
		return "The number is of type " + n.Type + "."
	case n != nil && n.Target != "" && n.Target != u.ID:
		return "The number is already assigned to another user."
	}
	if n == nil {
		n = &Number{Number: text, Type: kind}
	}
	for _, held := range k.s.numbersOf(u.ID) {
		if held != n && cmp.Or(held.Category, "primary") == category {
			k.changeNumber(held, func() { k.s.free(held) })
		}
	}
	k.changeNumber(n, func() { n.Target, n.Category, n.Location = u.ID, category, location })
	k.s.Numbers[text] = n
	return ""
}

// assigned returns a number of this type that can be taken from whoever has it.
func (k *call) assigned(text, kind string) (*Number, error) {
	n := k.s.Numbers[text]
	if n == nil || n.Target == "" || cmp.Or(n.Type, "directRouting") != kind {
		return nil, refuse("number-unassigned", text)
	}
	if u := k.s.live(n.Target); u != nil && !k.s.hasPlan(u, phoneSystem...) {
		return nil, refuse("number-unlicensed", u.UPN)
	} else if u != nil && n.Source == "onPremises" {
		return nil, refuse("number-on-premises")
	}
	return n, nil
}

// teamsAssignments answers like Get-CsPhoneNumberAssignment, but for the case of values.
func teamsAssignments(k *call) error {
	out := []Object{}
	for _, n := range k.s.sortedNumbers() {
		if v := k.s.seenNumber(n); v != nil {
			out = append(out, Object{"telephoneNumber": n.Number, "numberType": v["numberType"],
				"assignedPstnTargetId": v["assignmentTargetId"], "assignmentCategory": v["assignmentCategory"],
				"pstnAssignmentStatus": v["assignmentStatus"], "numberSource": v["numberSource"]})
		}
	}

	return k.answer(200, Object{"phoneNumberAssignments": out})
}

// phoneNumberCmdlet does Set-CsPhoneNumberAssignment and Remove-CsPhoneNumberAssignment, which end when the number is
// set (teams-tenant §3). A number is not taken from another account than the named one [I].
func phoneNumberCmdlet(k *call) error {
	text, err := k.number("PhoneNumber")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(numberTypes, func(t string) bool { return strings.EqualFold(t, k.text("PhoneNumberType")) })
	if i < 0 {
		return refuse("teams-value", "PhoneNumberType")
	}
	kind := numberTypes[i]
	u := k.s.live(k.text("Identity"))
	if u == nil {
		return refuse("teams-user", k.text("Identity"))
	}
	switch k.vars["cmdlet"] {
	case "Set-CsPhoneNumberAssignment":
		if why := k.give(text, kind, "primary", "", u.ID); why != "" {
			return refuse("number-refused", why)
		}
	case "Remove-CsPhoneNumberAssignment":
		n, err := k.assigned(text, kind)
		if err != nil {
			return err
		}
		if n.Target != u.ID {
			return refuse("number-unassigned", text)
		}
		k.changeNumber(n, func() { k.s.free(n) })
	default:
		return refuse("teams-path", k.vars["cmdlet"])
	}
	return k.answer(200, nil)
}

func unassignNumber(k *call) error {
	text, err := k.number("telephoneNumber")
	if err != nil {
		return err
	}
	n, err := k.assigned(text, k.text("numberType"))
	if err != nil {
		return err
	}

	return k.operation(text, func() string {
		if n.Target != "" {
			k.changeNumber(n, func() { k.s.free(n) })
		}
		return ""
	})
}

// operation starts a long running operation on a number. do returns why the number failed, or "".
func (k *call) operation(number string, do func() string) error {
	o := &operation{id: k.s.id(), status: "running", created: k.cloud.now(),
		location: k.cloud.urls[Graph] + "/v1.0/admin/teams/telephoneNumberManagement/numberAssignments/" +
			derived(k.t.ID, "number", number)}
	k.s.operations[o.id] = o
	outcome := ""
	if len(k.s.outcomes) > 0 {
		outcome, k.s.outcomes = k.s.outcomes[0], k.s.outcomes[1:]
	}
	k.s.later(k.t.settings.OperationDelay, func() {
		switch outcome {
		case "":
			if o.status, o.detail = "succeeded", do(); o.detail != "" {
				o.status = "failed"
			}
		case "entryFailed":
			o.status, o.detail = "succeeded", "The number could not be assigned."
		case "failed":
			o.status, o.detail = "failed", "Internal error."
		default:
			o.status = outcome
		}
	})
	k.header.Set("Location", k.cloud.urls[Graph]+"/v1.0/admin/teams/telephoneNumberManagement/operations('"+o.id+"')")

	return k.answer(202, nil)
}

func getOperation(k *call) error {
	o := k.s.operations[k.vars["id"]]
	if o == nil {
		return refuse("graph-not-found", k.vars["id"])
	}
	status := o.status
	if status == "skipped" && !strings.Contains(k.r.Header.Get("Prefer"), "include-unknown-enum-members") {
		status = "unknownFutureValue"
	}
	entry := status
	if o.detail != "" {
		entry = "failed"
	}

	return k.answer(200, Object{"id": o.id, "createdDateTime": stamp(o.created), "status": status,
		"numbers": []Object{{"resourceLocation": o.location, "status": entry, "statusDetail": orNull(o.detail)}}})
}

func updateNumber(k *call) error {
	text, err := k.number("telephoneNumber")
	if err != nil {
		return err
	}
	n := k.s.Numbers[text]
	if n == nil {
		return refuse("graph-not-found", text)
	}
	var lookup []string
	options, given := k.body["reverseNumberLookupOptions"].([]any)
	for _, v := range options {
		if v != "skipInternalVoip" {
			return refuse("graph-type", "reverseNumberLookupOptions")
		}
		lookup = append(lookup, "skipInternalVoip")
	}
	k.changeNumber(n, func() {
		if _, ok := k.body["locationId"]; ok {
			n.Location = k.text("locationId")
		}
		if _, ok := k.body["networkSiteId"]; ok {
			n.Site = k.text("networkSiteId")
		}
		if given {
			n.Lookup = lookup
		}
	})

	return k.answer(204, nil)
}

// The voice state of users.

// userPolicies are the kinds of configurations that are given to users.
var userPolicies = []string{"CallingLineIdentity", "OnlineVoiceRoutingPolicy", "TeamsEmergencyCallRoutingPolicy",
	"TeamsEmergencyCallingPolicy", "TenantDialPlan"}

// effective returns the policies of a user by type: those given directly, else by a group of which it is a direct
// member, by rank. Membership in a group within a group gives nothing.
func (s *State) effective(u *User) map[string]Object {
	out := map[string]Object{}
	grants := slices.SortedStableFunc(slices.Values(s.GroupGrants), func(a, b GroupGrant) int {
		return cmp.Compare(a.Rank, b.Rank)
	})
	for _, g := range grants {
		i := slices.IndexFunc(s.Groups, func(x *Group) bool { return x.ID == g.Group })
		if i >= 0 && slices.Contains(s.Groups[i].Members, u.ID) && out[g.Type] == nil {
			out[g.Type] = Object{"displayName": g.Policy, "assignmentType": "group", "groupId": g.Group,
				"policyId": policyID(g.Type, g.Policy)}
		}
	}
	for kind, name := range u.Policies {
		out[kind] = Object{"displayName": name, "assignmentType": "direct", "groupId": nil,
			"policyId": policyID(kind, name)}
	}

	return out
}

func policyID(kind, name string) string { return derived("policy", kind, strings.ToLower(name)) }

func (s *State) configurationView(u *User, numbers []*Number) Object {
	kind := "user"
	switch {
	case u.ResourceApp != "":
		kind = "resourceAccount"
	case u.Guest:
		kind = "guest"
	case len(s.plans(u)) == 0:
		kind = "ineligibleUser"
	}
	features, held, policies := []string{}, []Object{}, []Object{}
	if s.hasPlan(u, "TEAMS1", "MCOSTANDARD", "MCOIMP") {
		features = append(features, "Teams")
	}
	if s.hasPlan(u, phoneSystem...) {
		features = append(features, "PhoneSystem")
	}
	for _, n := range numbers {
		held = append(held, Object{"telephoneNumber": n.Number, "assignmentCategory": cmp.Or(n.Category, "primary")})
	}
	effective := s.effective(u)
	for _, kind := range slices.Sorted(maps.Keys(effective)) {
		policies = append(policies, Object{"policyType": kind, "policyAssignment": effective[kind]})
	}

	return Object{"id": u.ID, "tenantId": s.t.ID, "userPrincipalName": u.UPN, "accountType": kind,
		"isEnterpriseVoiceEnabled": len(numbers) > 0, "featureTypes": features, "telephoneNumbers": held,
		"effectivePolicyAssignments": policies, "createdDateTime": stamp(u.created),
		"modifiedDateTime": stamp(u.created)}
}

// listConfigurations answers a page. Pages have 500 rows unless $top says otherwise: their size is not published [I].
func listConfigurations(k *call) error {
	const kind = "teamsAdministration.teamsUserConfiguration"
	names, err := k.selected(kind, k.query.Get("$select"))
	if err != nil {
		return err
	}
	keep, _, err := parseFilter(k.query.Get("$filter"), kind)
	if err != nil {
		return err
	}
	p, err := k.page(500, 1000)
	if err != nil {
		return err
	}
	numbers := map[string][]*Number{}
	for _, n := range k.s.Numbers {
		if n.Target != "" {
			numbers[n.Target] = append(numbers[n.Target], n)
		}
	}

	return k.pageOf("admin/teams/userConfigurations", p, func(u *User) Object {
		if !u.Deleted.IsZero() {
			return nil
		}
		held := numbers[u.ID]
		slices.SortFunc(held, func(a, b *Number) int { return cmp.Compare(a.Number, b.Number) })
		if v := k.seenConfiguration(u, held); keep(v) {
			return pick(v, names)
		}
		return nil
	})
}

// seenConfiguration returns how reads see the voice state of a user.
func (k *call) seenConfiguration(u *User, held []*Number) Object {
	v := k.s.configurationView(u, held)
	if old, ok := k.s.seen("grants/"+u.ID, v).(Object); ok {
		v["effectivePolicyAssignments"] = old["effectivePolicyAssignments"]
	}
	stale := map[string]any{} // category by number
	for key := range k.s.old {
		if number, ok := strings.CutPrefix(key, "number/"); ok {
			old, _ := k.s.seen(key, nil).(Object)
			if old != nil && old["assignmentTargetId"] == u.ID {
				stale[number] = old["assignmentCategory"]
			}
		}
	}
	for _, n := range held {
		if o := k.s.seenNumber(n); o != nil && o["assignmentTargetId"] == u.ID {
			stale[n.Number] = o["assignmentCategory"]
		}
	}
	shown := []Object{}
	for _, number := range slices.Sorted(maps.Keys(stale)) {
		shown = append(shown, Object{"telephoneNumber": number, "assignmentCategory": stale[number]})
	}
	v["telephoneNumbers"], v["isEnterpriseVoiceEnabled"] = shown, len(shown) > 0

	return v
}

func getConfiguration(k *call, u *User) error {
	return k.answer(200, k.seenConfiguration(u, k.s.numbersOf(u.ID)))
}

// grantPolicy gives a user a policy, or takes it if the name is "".
func (k *call) grantPolicy(u *User, kind, name string) {
	k.s.changing("grants/"+u.ID, k.t.settings.TeamsPropagation, k.s.configurationView(u, nil))
	policies := maps.Clone(u.Policies)
	if policies == nil {
		policies = map[string]string{}
	}
	if policies[kind] = name; name == "" {
		delete(policies, kind)
	}
	u.Policies = policies
}

// policies assigns or removes the policies of the body. All members are checked before the first takes effect.
func (k *call) policies(assign bool) error {
	list, _ := k.body["value"].([]any)
	if len(list) == 0 {
		return refuse("graph-type", "value")
	}
	var do []func()
	for _, v := range list {
		o, _ := v.(Object)
		id, _ := o["userId"].(string)
		kind, _ := o["policyType"].(string)
		policy, _ := o["policyId"].(string)
		accepted := k.t.settings.GraphPolicyTypes
		if accepted == nil {
			accepted = userPolicies
		}
		if !slices.Contains(accepted, kind) {
			return refuse("policy-type", kind)
		}
		u, name := k.s.live(id), ""
		if u == nil {
			return refuse("graph-not-found", id)
		}
		if assign {
			for _, p := range k.s.Configurations[kind] {
				if n := plainName(p); policyID(kind, n) == policy && n != "Global" {
					name = n
				}
			}
			if name == "" {
				return refuse("policy-unknown", policy)
			}
		}
		do = append(do, func() { k.grantPolicy(u, kind, name) })
	}
	for _, f := range do {
		f()
	}

	return k.answer(204, nil)
}

func assignPolicies(k *call) error   { return k.policies(true) }
func unassignPolicies(k *call) error { return k.policies(false) }

func getPolicyID(k *call) error {
	kind := k.vars["type"]
	if !slices.Contains(userPolicies, kind) {
		return refuse("policy-type", kind)
	}
	p := k.s.Configurations[kind][configKey(k.vars["name"])]
	if p == nil {
		return refuse("graph-not-found", k.vars["name"])
	}
	name := plainName(p)

	return k.list("Collection(microsoft.graph.teamsAdministration.policyIdentifierDetail)", []Object{
		{"id": policyID(kind, name), "name": name, "policyId": policyID(kind, name)}})
}
