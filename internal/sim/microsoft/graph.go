package microsoft

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// identity is what a token says.
type identity struct {
	app         string
	user        *User // nil for an application of its own
	partner     bool
	permissions []string
	wids        []string
	cae         bool // the client handles claims challenges
}

// authenticate checks the token of a request to Graph or to the Teams service, and finds its tenant.
func (k *call) authenticate() error {
	raw, ok := strings.CutPrefix(k.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return k.unauthorised("token-missing")
	}
	claims := k.cloud.verified[raw]
	if claims == nil {
		claims = jwt.MapClaims{}
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
		if _, err := parser.ParseWithClaims(raw, claims, func(*jwt.Token) (any, error) {
			return k.cloud.key.Public(), nil
		}); err != nil {
			return k.unauthorised("token-invalid")
		}
		if len(k.cloud.verified) > 1000 {
			clear(k.cloud.verified)
		}
		k.cloud.verified[raw] = claims
	}
	audience, want := claims["aud"], graphName
	if k.service == Teams {
		want = TeamsID
	}
	if audience != want {
		return k.unauthorised("token-audience")
	}
	if expires, _ := claims.GetExpirationTime(); expires.Before(k.cloud.now()) {
		return k.unauthorised("token-expired")
	}

	text := func(name string) string { s, _ := claims[name].(string); return s }
	list := func(name string) (l []string) {
		values, _ := claims[name].([]any)
		for _, v := range values {
			s, _ := v.(string)
			l = append(l, s)
		}
		return l
	}
	if k.t = k.cloud.tenant(text("tid")); k.t == nil { // of another cloud of this process
		return k.unauthorised("token-invalid")
	}
	k.s = k.t.state
	k.who = &identity{app: text("azp"), wids: list("wids"), permissions: list("roles"), cae: len(list("xms_cc")) > 0}
	if text("idtyp") == "app" {
		return nil
	}
	k.who.permissions = strings.Fields(text("scp"))
	k.who.partner = strings.HasPrefix(text("idp"), stsName)
	nanos, _ := strconv.ParseInt(text("uti"), 36, 64)
	issued := time.Unix(0, nanos)
	for _, t := range k.cloud.tenants {
		if u := t.state.User(text("oid")); u != nil {
			k.who.user, k.who.partner = u, t != k.t
		}
	}
	switch u := k.who.user; {
	case u == nil || !u.Deleted.IsZero() || u.Disabled:
		return k.unauthorised("token-user")
	case issued.Before(u.revoked):
		return challenge(k, "TokenIssuedBeforeRevocationTimestamp", u.revoked)
	case issued.Before(u.outdated):
		return challenge(k, "TokenCreatedWithOutdatedPolicies", u.outdated)
	}

	return nil
}

func (k *call) unauthorised(name string) error {
	r := refuse(name)
	r.header = http.Header{"Www-Authenticate": {`Bearer realm="", authorization_uri="` + k.cloud.urls[Login] +
		`/common/oauth2/authorize", client_id="` + GraphID + `"`}}
	return r
}

// challenge refuses a token that must be replaced by one issued after a time. Clients that did not declare the
// capability get a plain 401. The first value of the header is not quoted, as read in threads.
func challenge(k *call, code string, after time.Time) *Refusal {
	r := refuse("token-challenge", code)
	if k.who != nil && !k.who.cae {
		return r
	}
	claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, after.Unix())
	r.header = http.Header{"Www-Authenticate": {`Bearer realm="", authorization_uri=` + k.cloud.urls[Login] +
		`/common/oauth2/authorize, client_id="` + GraphID + `", error="insufficient_claims", claims="` +
		base64.StdEncoding.EncodeToString([]byte(claims)) + `"`}}

	return r
}

// roleSets are the directory roles of which a delegated caller needs one. teams-tenant §1 [K]; least roles of the
// contract's x-least-role.
var roleSets = map[string][]string{
	"domains":      {"Global Administrator", "Domain Name Administrator"},
	"domainsRead":  {"Global Administrator", "Domain Name Administrator", "Global Reader"},
	"users":        {"Global Administrator", "User Administrator"},
	"licences":     {"Global Administrator", "License Administrator", "User Administrator"},
	"roles":        {"Global Administrator", "Privileged Role Administrator"},
	"applications": {"Global Administrator", "Cloud Application Administrator"},
	"teams":        {"Global Administrator", "Teams Administrator", "Teams Telephony Administrator"},
	"teamsRead": {"Global Administrator", "Teams Administrator", "Teams Telephony Administrator", "Global Reader",
		"Teams Reader"},
}

// authorise checks the permissions of the token and the directory roles of the caller.
func (k *call) authorise() error {
	needed := k.route.delegated
	if k.who.user == nil {
		needed = k.route.application
	}
	if k.route.open {
		return nil // a batch, whose parts are checked
	}
	ok := slices.ContainsFunc(needed, func(name string) bool {
		wider := strings.Replace(name, ".Read.", ".ReadWrite.", 1)
		return slices.Contains(k.who.permissions, name) || slices.Contains(k.who.permissions, wider)
	})
	if k.service == Teams && k.who.user == nil {
		ok = true // the role of the service principal decides
	}
	if !ok {
		return refuse(string(k.service) + "-permission")
	}
	byRole := k.route.role != "" && (k.who.user != nil || k.service == Teams)
	if byRole && !hasAny(k.who.wids, roleSets[k.route.role]...) {
		return refuse(string(k.service) + "-role")
	}
	if k.service == Teams && k.route.role != "" {
		return k.routed()
	}

	return nil
}

// window counts what was used of a limit.
type window struct {
	from time.Time
	used int
}

// throttle applies the limits of the identity service (teams-tenant §2) and writes their headers.
func (k *call) throttle() error {
	if k.service != Graph || k.route.units == 0 {
		return nil
	}
	units := k.route.units
	if k.query.Get("$select") != "" {
		units--
	}
	if k.query.Get("$expand") != "" {
		units++
	}
	if top, err := strconv.Atoi(k.query.Get("$top")); err == nil && top < 20 {
		units--
	}
	units = max(units, 1)
	perTenant := 3500
	if n := len(k.s.Users); n > 500 {
		perTenant = 8000
	} else if n >= 50 {
		perTenant = 5000
	}
	write, app, tenant := k.route.method != "GET", k.who.app, k.t.ID
	limits := []struct {
		scope, key   string
		limit, units int
		length       time.Duration
		applies      bool
	}{
		{"Application_Tenant", app + tenant, perTenant, units, 10 * time.Second, true},
		{"Application_Tenant", "w" + app + tenant, 3000, 1, 150 * time.Second, write},
		{"Application", app, 150_000, units, 20 * time.Second, true},
		{"Application", "w" + app, 70_000, 1, 5 * time.Minute, write},
		{"Tenant", "w" + tenant, 18_000, 1, 5 * time.Minute, write},
	}
	k.header.Set("x-ms-resource-unit", strconv.Itoa(units))
	now := k.cloud.now()
	for _, l := range limits {
		if !l.applies {
			continue
		}
		w := k.cloud.windows[l.key]
		if w == nil || !now.Before(w.from.Add(l.length)) {
			w = &window{from: now}
			k.cloud.windows[l.key] = w
		}
		w.used += l.units
		share := float64(w.used) / float64(l.limit)
		if share >= 0.8 {
			k.header.Set("x-ms-throttle-limit-percentage", fmt.Sprintf("%.1f", min(share, 1.8)))
			k.header.Set("x-ms-throttle-scope", l.scope+"/ReadWrite/"+app+"/"+tenant)
			k.header.Set("x-ms-throttle-information", "ResourceUnitLimitExceeded")
		}
		if share > 1 {
			r := refuse("fault-429")
			seconds := math.Ceil(w.from.Add(l.length).Sub(now).Seconds())
			r.header = http.Header{"Retry-After": {strconv.Itoa(int(seconds))}}
			return r
		}
	}

	return nil
}

// Answers.

// properties are the names that $select and $filter know, by type; those before "|" are answered without $select.
var properties = map[string]string{
	"user": "id businessPhones displayName givenName jobTitle mail mobilePhone officeLocation preferredLanguage " +
		"surname userPrincipalName | deletedDateTime accountEnabled assignedLicenses assignedPlans city companyName " +
		"country createdDateTime department employeeId imAddresses licenseAssignmentStates mailNickname " +
		"onPremisesLastSyncDateTime onPremisesSyncEnabled passwordPolicies passwordProfile postalCode " +
		"provisionedPlans proxyAddresses serviceProvisioningErrors state streetAddress usageLocation userType",
	"teamsAdministration.teamsUserConfiguration": "id tenantId userPrincipalName accountType createdDateTime " +
		"modifiedDateTime isEnterpriseVoiceEnabled featureTypes telephoneNumbers effectivePolicyAssignments",
	"teamsAdministration.numberAssignment": "id telephoneNumber operatorId numberType activationState capabilities " +
		"locationId civicAddressId networkSiteId assignmentTargetId assignmentCategory assignmentStatus portInStatus " +
		"isoCountryCode city numberSource supportedCustomerActions reverseNumberLookupOptions",
	"servicePrincipal":      "id appId displayName accountEnabled servicePrincipalType appOwnerOrganizationId",
	"application":           "id appId displayName",
	"unifiedRoleAssignment": "id principalId roleDefinitionId directoryScopeId",
	"oAuth2PermissionGrant": "id clientId consentType principalId resourceId scope",
}

// known are the properties of each type, and usual those that are answered without $select.
var known, usual = func() (known, usual map[string][]string) {
	known, usual = map[string][]string{}, map[string][]string{}
	for kind, text := range properties {
		before, after, _ := strings.Cut(text, "|")
		usual[kind], known[kind] = strings.Fields(before), strings.Fields(before+after)
	}
	return known, usual
}()

// selected returns the names of $select, or of the default; checked against the type.
func (k *call) selected(kind, list string) ([]string, error) {
	if list == "" {
		return slices.Clone(usual[kind]), nil
	}
	names := strings.Split(list, ",")
	for i := range names {
		if names[i] = strings.TrimSpace(names[i]); !slices.Contains(known[kind], names[i]) {
			return nil, refuse("graph-property", names[i], kind)
		}
	}

	return names, nil
}

func pick(o Object, names []string) Object {
	out := Object{}
	for _, n := range names {
		if v, ok := o[n]; ok {
			out[n] = v
		}
	}
	return out
}

// list answers with a collection.
func (k *call) list(context string, values []Object) error {
	if values == nil {
		values = []Object{}
	}
	return k.answer(200, Object{"@odata.context": k.cloud.urls[Graph] + "/v1.0/$metadata#" + context, "value": values})
}

// filtered answers with the objects of a collection that $filter selects; it has one page.
func (k *call) filtered(kind, context string, values []Object) error {
	keep, _, err := parseFilter(k.query.Get("$filter"), kind)
	if err != nil {
		return err
	}
	return k.list(context, slices.DeleteFunc(values, func(o Object) bool { return !keep(o) }))
}

// pageToken is what the opaque token of a next link holds.
type pageToken struct {
	Position, Page, Size int
	Issued               int64
	Query                url.Values
	// Of the change feed: Position is the last change told. Initial is set during the first round, which began at
	// the change Start.
	Start   int
	Initial bool
}

func (p pageToken) encode(prefix string) string {
	b, _ := json.Marshal(p) // plain values
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// decodeToken reads a token of this service.
func decodeToken(prefix, s string) (p pageToken, err error) {
	raw, ok := strings.CutPrefix(s, prefix)
	b, err := base64.RawURLEncoding.DecodeString(raw)
	if !ok || err != nil || json.Unmarshal(b, &p) != nil || p.Position < 0 {
		return p, refuse("page-token-invalid")
	}
	return p, nil
}

// page returns the position to continue at: a new one, or the one of the request's page token. A next link has the
// token and the options of the first request.
func (k *call) page(size, largest int) (pageToken, error) {
	p := pageToken{Page: 1, Size: size, Query: url.Values{}}
	for name := range k.query {
		if name != "$skiptoken" {
			p.Query.Set(name, k.query.Get(name))
		}
	}
	if top := k.query.Get("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 || n > largest {
			return p, refuse("graph-top", top, largest)
		}
		p.Size = n
	}
	if k.query.Get("$skiptoken") == "" {
		return p, nil
	}
	sent, err := decodeToken("RFNwdAIAAQ", k.query.Get("$skiptoken"))
	if err != nil {
		return p, err
	}
	set := &k.t.settings
	if set.ExpireAtPage == sent.Page {
		set.ExpireAtPage, k.t.pagesFrom = 0, k.cloud.now()
	}
	issued := time.Unix(0, sent.Issued)
	if !issued.After(k.t.pagesFrom) || set.PageLife > 0 && k.cloud.now().After(issued.Add(set.PageLife)) {
		return p, refuse("page-token-expired")
	}
	sent.Query, sent.Size = p.Query, cmp.Or(sent.Size, p.Size)

	return sent, nil
}

// next returns the link to the page after one.
func (k *call) next(p pageToken, position int) string {
	q := p.Query
	p.Position, p.Page, p.Issued, p.Query = position, p.Page+1, k.cloud.now().UnixNano(), nil
	q.Set("$skiptoken", p.encode("RFNwdAIAAQ"))
	return k.cloud.urls[Graph] + k.r.URL.Path + "?" + q.Encode()
}

const batchPath = "/v1.0/$batch"

// batch runs up to 20 requests and answers them in another order than they came (json-batching: any order).
func (k *call) batch() error {
	type part struct {
		ID, Method, URL string
		Headers         map[string]string
		Body            json.RawMessage
		DependsOn       []string
	}
	var body struct{ Requests []part }
	if raw, err := json.Marshal(k.body); err != nil || json.Unmarshal(raw, &body) != nil || len(body.Requests) == 0 {
		return refuse("batch-body")
	}
	if len(body.Requests) > 20 {
		return refuse("batch-size", 20)
	}
	statuses := map[string]int{}
	for _, p := range body.Requests {
		if _, twice := statuses[p.ID]; twice || p.ID == "" {
			return refuse("batch-id", p.ID)
		}
		for _, d := range p.DependsOn {
			if _, known := statuses[d]; !known {
				return refuse("batch-depends", d, p.ID)
			}
		}
		if !strings.HasPrefix(p.URL, "/") || strings.HasPrefix(p.URL, "/$batch") {
			return refuse("batch-url", p.ID)
		}
		if len(p.Body) > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(p.Headers)), func(n string) bool {
			return strings.EqualFold(n, "Content-Type")
		}) {
			return refuse("batch-content-type", p.ID)
		}
		statuses[p.ID] = 0
	}

	k.cloud.mu.Unlock() // each part is a request of its own
	defer k.cloud.mu.Lock()
	var responses []Object
	for _, p := range body.Requests {
		a := &answer{status: 424, body: []byte(`{"error":{"code":"FailedDependency","message":"The request depends ` +
			`on a request that failed."}}`), header: http.Header{"Content-Type": {"application/json"}}}
		if !slices.ContainsFunc(p.DependsOn, func(d string) bool { return statuses[d] >= 400 }) {
			r, err := http.NewRequestWithContext(k.r.Context(), p.Method, k.cloud.urls[Graph]+"/v1.0"+p.URL,
				bytes.NewReader(p.Body))
			if err != nil {
				return refuse("batch-url", p.ID)
			}
			r.Header.Set("Authorization", k.r.Header.Get("Authorization"))
			for name, v := range p.Headers {
				r.Header.Set(name, v)
			}
			a = k.cloud.handle(Graph, r, p.Body)
		}
		if a.fault == Lost || a.fault == Hang || a.fault == HangAfter {
			a.status, a.body = 504, []byte(`{"error":{"code":"UnknownError","message":"Gateway Timeout"}}`)
		}
		statuses[p.ID] = a.status
		o := Object{"id": p.ID, "status": a.status, "headers": Object{}}
		for name := range a.header {
			o["headers"].(Object)[strings.ToLower(name)] = a.header.Get(name)
		}
		if len(a.body) > 0 {
			o["body"] = json.RawMessage(a.body)
		}
		responses = append(responses, o)
	}
	slices.Reverse(responses)

	return k.answer(200, Object{"responses": responses})
}
