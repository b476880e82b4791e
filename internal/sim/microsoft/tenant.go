package microsoft

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	_ "embed"

	"github.com/google/uuid"
)

// Directory roles by name; teams-tenant §1 [K].
var roles = map[string]string{
	"Global Administrator":            "62e90394-69f5-4237-9190-012177145e10",
	"Privileged Role Administrator":   "e8611ab8-c189-46e8-94e1-60213ab1f814",
	"Cloud Application Administrator": "158c047a-c907-4556-b7ef-446551a6b5f7",
	"Domain Name Administrator":       "8329153b-31d0-4727-b945-745eb3bc5f31",
	"User Administrator":              "fe930be7-5e62-47db-91af-98c3a49a38b1",
	"License Administrator":           "4d6ac14f-3453-41d0-bef9-a3e0c569773a",
	"Teams Administrator":             "69091246-20e8-4a56-aa4d-066075b2a7a8",
	"Teams Telephony Administrator":   "aa38014f-0993-46e9-9b45-30501a20909d",
	"Global Reader":                   "f2ef992c-3afb-46b9-b7cf-a126ee74c451",
	"Teams Reader":                    derived("role", "Teams Reader"),
}

// Role returns the template id of a directory role, or "".
func Role(name string) string { return roles[name] }

// Skype and Teams Tenant Admin API, Microsoft Graph, and the application of Microsoft's own command line tools.
const (
	TeamsID        = "48ac35b8-9aa8-4d74-927d-1f4a14a0b239"
	GraphID        = "00000003-0000-0000-c000-000000000000"
	CommandLineApp = "14d82eec-204b-4c2f-b7e8-296a70dab67e"
	PersonalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad" // of personal accounts
)

// Names of Microsoft's in tokens.
const (
	graphName = "https://graph.microsoft.com"
	stsName   = "https://sts.windows.net/"
)

// Password is the password of users that are made without one.
const Password = "correct horse battery staple"

//go:embed data/skus.json
var skusFile []byte

//go:embed data/permissions.json
var permissionsFile []byte

var products, permissions = func() (p struct {
	Plans map[string]string
	SKUs  map[string]struct {
		ID, AppliesTo string
		Plans         []string
	}
}, names map[string][2]string) {
	if err := json.Unmarshal(skusFile, &p); err != nil {
		panic(err)
	}
	if err := json.Unmarshal(permissionsFile, &names); err != nil {
		panic(err)
	}
	for name, ids := range names {
		for i, kind := range []string{"application", "delegated"} {
			if ids[i] == "" { // not read: any id serves
				ids[i] = derived(kind, name)
			}
		}
		names[name] = ids
	}
	return p, names
}()

// NewSKU returns a subscription to a product of the table, with enabled seats. It panics if there is no such product.
func NewSKU(part string, enabled int) *SKU {
	p, ok := products.SKUs[part]
	if !ok {
		panic("no product " + part)
	}
	k := &SKU{ID: p.ID, Part: part, AppliesTo: cmp.Or(p.AppliesTo, "User"), Enabled: enabled, Status: "Enabled"}
	for _, name := range p.Plans {
		k.Plans = append(k.Plans, Plan{cmp.Or(products.Plans[name], derived("plan", name)), name})
	}

	return k
}

// Spec describes a tenant to make.
type Spec struct {
	Name    string // label of its initial domain, for example "contoso"
	ID      string // derived from Name if empty
	Country string // "GB" if empty
	Seed    uint64 // of what is generated
	Users   int    // generated users with a Phone System licence
	// Foreign generates objects of another operator: a gateway, and so many usages, routes, policies, dial plans,
	// translation rules, caller ids, emergency policies, numbers, resource accounts and groups.
	Foreign int
}

// Tenant is a tenant of the cloud.
type Tenant struct {
	ID, Name string
	Initial  string // its initial domain
	Admin    string // user principal name of its Global Administrator

	settings Settings
	cloud    *Cloud
	state    *State
	created  time.Time
	// Tokens of pages and of deltas that were given out earlier are refused.
	pagesFrom, deltasFrom time.Time
}

// AddTenant makes a tenant: an initial domain, a Global Administrator, licences, and what the Spec asks for. The same
// Spec gives the same tenant.
func (c *Cloud) AddTenant(spec Spec) *Tenant {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &Tenant{ID: cmp.Or(spec.ID, derived("tenant", spec.Name)), Name: spec.Name, cloud: c,
		Initial: spec.Name + ".onmicrosoft.com", created: time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)}
	t.Admin = "admin@" + t.Initial
	t.state = newState(t)
	s, country := t.state, cmp.Or(spec.Country, "GB")
	s.Organization = Object{"id": t.ID, "displayName": spec.Name, "countryLetterCode": country, "tenantType": "AAD",
		"defaultUsageLocation": country, "onPremisesSyncEnabled": nil}
	s.Domains = []*Domain{{Name: t.Initial, Verified: true, Root: true, Initial: true, Default: true, Active: true}}
	s.SKUs = []*SKU{NewSKU("ENTERPRISEPREMIUM", spec.Users+10), NewSKU("MCOSTANDARD", 5),
		NewSKU("PHONESYSTEM_VIRTUALUSER", 25)}
	for kind, k := range kinds {
		s.Configurations[kind] = map[string]Object{}
		if k.Global != nil {
			s.Configurations[kind]["global"] = clone(k.Global)
		}
	}
	for _, app := range []string{GraphID, TeamsID} {
		s.Principals = append(s.Principals, &Principal{ID: derived(t.ID, app), App: app,
			Name: resourceNames[app], Home: "f8cdef31-a31e-4b4a-93e4-5f571e91255a"})
	}
	admin := s.AddUser(&User{UPN: t.Admin, DisplayName: "Admin", UsageLocation: country})
	s.Assign(admin.ID, "Global Administrator")

	random := rand.New(rand.NewPCG(spec.Seed, 1))
	s.generateUsers(spec.Users, country, random)
	s.generateForeign(spec.Foreign, random)
	c.tenants = append(c.tenants, t)

	return t
}

var resourceNames = map[string]string{GraphID: "Microsoft Graph", TeamsID: "Skype and Teams Tenant Admin API"}

// Assign gives a principal a directory role.
func (s *State) Assign(principal, role string) {
	s.Roles = append(s.Roles, RoleAssignment{s.id(), principal, roles[role]})
}

func (s *State) generateUsers(n int, country string, random *rand.Rand) {
	given := []string{"Anna", "Björn", "Chloé", "Dmitri", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jürgen"}
	family := []string{"Novak", "Schmidt", "O'Brien", "Dupont", "García", "Yılmaz", "Smith", "Łukasik", "Rossi", "Berg"}
	departments := []string{"Sales", "Support", "Finance", "Legal", ""}
	sku := s.SKUs[0].ID
	for i := range n {
		u := &User{UPN: fmt.Sprintf("user%06d@%s", i+1, s.t.Initial), UsageLocation: country,
			GivenName: given[random.IntN(len(given))], Surname: family[random.IntN(len(family))],
			Department: departments[random.IntN(len(departments))]}
		u.DisplayName = u.GivenName + " " + u.Surname
		u.Mail = u.UPN
		s.AddUser(u)
		if random.IntN(10) > 0 { // one of ten has no licence
			s.License(u, License{SKU: sku})
		}
	}
}

// generateForeign makes n objects of each kind as another operator would have left them.
func (s *State) generateForeign(n int, random *rand.Rand) {
	if n == 0 {
		return
	}
	sbc := "sbc." + s.t.Name + ".example"
	s.Domains = append(s.Domains, &Domain{Name: sbc, Verified: true, Root: true, Active: true})
	s.put("OnlinePSTNGateway", Object{"Identity": sbc, "Fqdn": sbc, "SipSignalingPort": 5067.0, "Enabled": true})
	usages := []any{}
	for i := range n {
		name := fmt.Sprintf("Foreign-%d", i+1)
		usages = append(usages, name)
		s.put("OnlineVoiceRoute", Object{"Identity": name, "NumberPattern": fmt.Sprintf(`^\+%d`, 1+random.IntN(99)),
			"OnlinePstnGatewayList": []any{sbc}, "OnlinePstnUsages": []any{name}, "Priority": float64(i)})
		s.put("OnlineVoiceRoutingPolicy", Object{"Identity": "Tag:" + name, "OnlinePstnUsages": []any{name}})
		s.put("TenantDialPlan", Object{"Identity": "Tag:" + name, "SimpleName": name, "NormalizationRules": []any{
			Object{"Name": "local", "Pattern": `^(\d{4})$`,
				"Translation": fmt.Sprintf("+4420%d$1", random.IntN(10))}}})
		s.put("TeamsTranslationRule", Object{"Identity": name, "Pattern": `^0(\d+)$`, "Translation": "+44$1"})
		s.put("CallingLineIdentity", Object{"Identity": "Tag:" + name, "CallingIDSubstitute": "Anonymous"})
		s.put("TeamsEmergencyCallRoutingPolicy", Object{"Identity": "Tag:" + name, "EmergencyNumbers": []any{
			Object{"EmergencyDialString": "911", "EmergencyDialMask": "933", "OnlinePSTNUsage": name}}})
		s.generateAccounts(name, random)
		number := fmt.Sprintf("+4420%08d", random.IntN(100_000_000))
		s.Numbers[number] = &Number{Number: number, Uploaded: true}
		if len(s.Users) > 1 {
			u := s.Users[1+random.IntN(len(s.Users)-1)]
			u.Policies = map[string]string{"OnlineVoiceRoutingPolicy": name, "TenantDialPlan": name}
			if s.hasPlan(u, phoneSystem...) && len(s.numbersOf(u.ID)) == 0 {
				s.Numbers[number].Target, s.Numbers[number].Category = u.ID, "primary"
			}
		}
	}
	s.Configurations["OnlinePstnUsages"]["global"]["Usage"] = usages
}

// generateAccounts makes a resource account with a number, and a group of some users with a dial plan.
func (s *State) generateAccounts(name string, random *rand.Rand) {
	account := s.AddUser(&User{UPN: strings.ToLower(name) + "@" + s.t.Initial, DisplayName: name, UsageLocation: "GB",
		Disabled: true, ResourceApp: instanceApps[random.IntN(2)]})
	s.License(account, License{SKU: s.SKUs[2].ID})
	number := fmt.Sprintf("+4430%08d", random.IntN(100_000_000))
	s.Numbers[number] = &Number{Number: number, Uploaded: true, Target: account.ID, Category: "primary"}

	g := &Group{ID: s.id(), Name: name}
	for range 3 {
		g.Members = append(g.Members, s.Users[random.IntN(len(s.Users))].ID)
	}
	s.Groups = append(s.Groups, g)
	if random.IntN(2) == 0 {
		s.GroupGrants = append(s.GroupGrants, GroupGrant{g.ID, "TenantDialPlan", name, 1 + random.IntN(9)})
	}
}

// put adds a configuration object with the defaults of its kind, without any check.
func (s *State) put(kind string, o Object) {
	name, _ := o["Identity"].(string)
	s.Configurations[kind][configKey(name)] = kinds[kind].complete(o)
}

// Edit changes, or reads, the state of the tenant as a person in its portals would. f must not keep what it gets.
func (t *Tenant) Edit(f func(s *State)) {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	t.cloud.settle()
	f(t.state)
}

// Set changes the settings of the tenant.
func (t *Tenant) Set(f func(s *Settings)) { t.Edit(func(*State) { f(&t.settings) }) }

// Dump returns the state as canonical JSON, for comparison byte by byte: an object by kind, then by id. It has no
// times and no sign-ins.
func (t *Tenant) Dump() []byte {
	var b []byte
	t.Edit(func(s *State) { b, _ = json.MarshalIndent(s.dump(), "", " ") })
	return b
}

// EndOperations gives the outcomes of the next number operations, one each, instead of what would be: "skipped",
// "failed", "entryFailed" (the operation succeeds, its number failed) or "running" (it never ends).
func (t *Tenant) EndOperations(outcomes ...string) {
	t.Edit(func(s *State) { s.outcomes = append(s.outcomes, outcomes...) })
}

// ExpirePages makes all page tokens that were given out expire.
func (t *Tenant) ExpirePages() { t.Edit(func(*State) { t.pagesFrom = t.cloud.now() }) }

// LoseDelta makes all delta tokens that were given out useless.
func (t *Tenant) LoseDelta() { t.Edit(func(*State) { t.deltasFrom = t.cloud.now() }) }

// Revoke ends the sessions of a user as a password reset does: the refresh tokens, and the access tokens with a claims
// challenge.
func (t *Tenant) Revoke(upn string) {
	t.Edit(func(s *State) { s.User(upn).revoked = t.cloud.now() })
}

// Outdate ends the access tokens of a user with a claims challenge as a new policy does; refreshing helps.
func (t *Tenant) Outdate(upn string) {
	t.Edit(func(s *State) { s.User(upn).outdated = t.cloud.now() })
}

// Consent gives an application permissions in the tenant, as an administrator's consent does: application
// permissions of Graph, and delegated permissions of Graph and of the Teams service.
func (t *Tenant) Consent(app string, application, delegated []string) {
	t.Edit(func(s *State) { s.consent(t.cloud.app(app), application, delegated) })
}

func (s *State) consent(app *App, application, delegated []string) *Principal {
	p := s.principal(app.ID)
	if p == nil {
		p = &Principal{ID: derived(s.t.ID, app.ID), App: app.ID, Name: app.Name, Home: app.Home}
		s.Principals = append(s.Principals, p)
	}
	p.consented, p.refusals = s.t.cloud.now(), s.t.settings.ConsentRefusals
	for _, name := range application {
		if !slices.ContainsFunc(p.Roles, func(r AppRole) bool { return r.Name == name }) {
			p.Roles = append(p.Roles, AppRole{derived(p.ID, name), GraphID, name})
		}
	}
	byResource := map[string][]string{}
	for _, name := range delegated {
		resource := GraphID
		if name == "user_impersonation" {
			resource = TeamsID
		}
		byResource[resource] = append(byResource[resource], name)
	}
	for _, resource := range []string{GraphID, TeamsID} {
		if scopes := byResource[resource]; len(scopes) > 0 {
			s.grant(p, resource, "", scopes)
		}
	}

	return p
}

// grant adds delegated permissions for a user, or for all if that is "".
func (s *State) grant(p *Principal, resource, user string, scopes []string) {
	for i := range p.Grants {
		if g := &p.Grants[i]; g.Resource == resource && g.User == user {
			for _, name := range scopes {
				if !slices.Contains(g.Scopes, name) {
					g.Scopes = append(g.Scopes, name)
				}
			}
			return
		}
	}
	id := strings.ReplaceAll(derived(p.ID, resource, user), "-", "")
	p.Grants = append(p.Grants, Grant{id, resource, user, slices.Clone(scopes)})
}

// tenant returns the tenant with an id or a verified domain, or nil.
func (c *Cloud) tenant(idOrDomain string) *Tenant {
	for _, t := range c.tenants {
		if strings.EqualFold(t.ID, idOrDomain) {
			return t
		}
		if d := t.state.domain(idOrDomain); d != nil && d.Verified {
			return t
		}
	}

	return nil
}

func isGUID(s string) bool { return uuid.Validate(s) == nil && len(s) == 36 }
