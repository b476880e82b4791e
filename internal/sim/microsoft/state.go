package microsoft

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Settings are the switches of one tenant. The zero value is a tenant without delays and without surprises.
type Settings struct {
	// The login.

	// After a consent, the first ConsentRefusals requests for a token are refused with AADSTS65001; for ConsentLag,
	// tokens then lack the permissions ConsentMissing.
	ConsentRefusals int
	ConsentMissing  []string
	ConsentLag      time.Duration
	MFA             bool          // signing in needs a second factor; sessions without one are refused
	BlockDeviceCode bool          // AADSTS53003
	SignInFrequency time.Duration // refresh tokens end so long after the sign-in; 0 for never
	SignInError     string        // "error" of AADSTS70043; "invalid_grant" if empty

	// Graph.

	Propagation      time.Duration // reads of users and domains show the old state for so long
	ActivationDelay  time.Duration // from the first licensed user in a domain to its activation
	ForceDeleteDelay time.Duration
	OperationDelay   time.Duration // of assigning and unassigning numbers
	PageLife         time.Duration // of a page token; 0 for unlimited
	ExpireAtPage     int           // all page tokens so far expire when this page is asked for, once
	DeltaLostStatus  int           // 410 if 0, or 400: how a lost delta token is refused
	BinBlocksDomain  bool          // deleted users that are not purged keep a domain from being deleted
	WarningSeatsFail bool          // seats in "warning" give CountViolation
	// ResourceAccountsActivate lets resource accounts with their free licence activate a domain.
	ResourceAccountsActivate bool
	BlameOnPremises          bool     // a missing licence is reported as an on-premises number
	GraphPolicyTypes         []string // that Graph assigns; all if nil

	// The Teams service.

	TeamsPropagation time.Duration // reads of configurations, grants and numbers show the old state for so long
	// CopyGlobalNumbers copies the Global emergency numbers into each policy that is created with any, and not only
	// into those created with the modifier Add.
	CopyGlobalNumbers bool
	// OddReads swaps the gateways of routes and writes the names of policies in lower case when they are read.
	OddReads bool
}

// State is the content of a tenant. It is accessed within Tenant.Edit only.
type State struct {
	Organization Object
	Domains      []*Domain
	SKUs         []*SKU
	Users        []*User // those in the bin too
	Groups       []*Group
	Principals   []*Principal
	Roles        []RoleAssignment
	Partners     map[string][]string // role names by the id of a partner's tenant (GDAP)
	Numbers      map[string]*Number  // by telephone number
	// Configurations are the objects of the Teams service by type and by key, which is the name in lower case.
	Configurations map[string]map[string]Object
	GroupGrants    []GroupGrant
	TenantGrants   map[string]string // policy name by policy type

	t          *Tenant
	users      map[string]*User // by id, and by name in lower case
	operations map[string]*operation
	outcomes   []string
	old        map[string]oldView
	due        []dueChange
	seq        int // of the last change of a user
	purged     []purgedUser
	serial     int
}

// Domain is a domain of a tenant.
type Domain struct {
	Name                     string
	Verified, Root           bool
	Default, Initial         bool
	LicensedAt               time.Time // since when it has a user who activates it; zero for none
	Active                   bool      // it is a SIP domain
	Deleting                 bool      // forceDelete runs
	ValidityDays, NoticeDays int
}

// SKU is a subscription.
type SKU struct {
	ID, Part, AppliesTo, Status            string
	Enabled, Warning, Suspended, LockedOut int
	Extra                                  int // consumed units beyond the users'
	Plans                                  []Plan
	consumed                               int
}

// Plan is a service plan.
type Plan struct{ ID, Name string }

// License is a licence of a user.
type License struct {
	SKU      string // id
	Disabled []string
	Error    string // "CountViolation": counted, but without effect
}

// User is a user, a guest or a resource account.
type User struct {
	ID, UPN, DisplayName, GivenName, Surname string
	Mail, Department, UsageLocation          string
	Nickname                                 string
	Guest, Disabled, OnPremises              bool
	Home                                     string // of a guest: the name to sign in with
	ResourceApp, ACSResource                 string // of a resource account
	Phones                                   []string
	Licenses                                 []License
	LostPlans                                []string // plans that it had; capabilityStatus "Deleted"
	Policies                                 map[string]string
	Password                                 string
	Deleted                                  time.Time // when it went into the bin; zero for never

	created           time.Time
	revoked, outdated time.Time // tokens issued earlier are refused
	seq               int
	other             Object // further properties
}

// Group is a group of users and of groups.
type Group struct {
	ID, Name string
	Members  []string // ids
}

// GroupGrant gives a policy to the direct members of a group.
type GroupGrant struct {
	Group, Type, Policy string
	Rank                int
}

// RoleAssignment gives a directory role to a user or a service principal.
type RoleAssignment struct{ ID, Principal, Role string }

// Number is a telephone number of the inventory.
type Number struct {
	Number, Type, Source    string // Type "directRouting"; Source "online"
	Target, Category        string // an id; "primary"
	Location, Site, Country string
	Status                  string   // overrides the status of the assignment
	Lookup                  []string // reverse number lookup options
	Uploaded                bool     // stays in the inventory when it is unassigned
	VoiceApp                bool     // assigned to a voice application
	Capabilities            []string // user, voice application and conference assignment if nil
}

// Principal is a service principal.
type Principal struct {
	ID, App, Name, Home string
	Roles               []AppRole
	Grants              []Grant
	consented           time.Time
	refusals            int
}

// AppRole is an application permission given to a principal.
type AppRole struct{ ID, Resource, Name string } // Resource is an application id

// Grant is a set of delegated permissions given to a principal, for User or, if that is "", for all users.
type Grant struct {
	ID, Resource, User string
	Scopes             []string
}

type purgedUser struct {
	id  string
	seq int
}

type dueChange struct {
	at time.Time
	do func()
}

type oldView struct {
	view  any // nil if it did not exist
	until time.Time
}

func newState(t *Tenant) *State {
	return &State{t: t, Partners: map[string][]string{}, Numbers: map[string]*Number{},
		Configurations: map[string]map[string]Object{}, TenantGrants: map[string]string{},
		users: map[string]*User{}, operations: map[string]*operation{}, old: map[string]oldView{}}
}

// settle applies the changes that are due, and activates domains.
func (s *State) settle() {
	now := s.t.cloud.now()
	for i := 0; i < len(s.due); i++ {
		if s.due[i].at.After(now) {
			continue
		}
		do := s.due[i].do
		s.due = slices.Delete(s.due, i, i+1)
		do()
		i = -1
	}
	maps.DeleteFunc(s.old, func(_ string, o oldView) bool { return !o.until.After(now) })
	for _, d := range s.Domains {
		if !d.Active && !d.LicensedAt.IsZero() && !now.Before(d.LicensedAt.Add(s.t.settings.ActivationDelay)) {
			d.Active = true
		}
	}
}

// later runs do after d.
func (s *State) later(d time.Duration, do func()) {
	if d <= 0 {
		do()
		return
	}
	s.due = append(s.due, dueChange{s.t.cloud.now().Add(d), do})
}

// changing remembers how an object looked before a change, nil if it did not exist, for reads within d.
func (s *State) changing(key string, d time.Duration, view any) {
	if d <= 0 {
		return
	}
	now := s.t.cloud.now()
	if o, ok := s.old[key]; ok && o.until.After(now) {
		view = o.view
	}
	s.old[key] = oldView{view, now.Add(d)}
}

// seen returns how reads see an object: as it was before a recent change, or as it is.
func (s *State) seen(key string, view any) any {
	if o, ok := s.old[key]; ok && o.until.After(s.t.cloud.now()) {
		return o.view
	}
	return view
}

// id returns an id that depends on the tenant's seed and on what was made before.
func (s *State) id() string {
	s.serial++
	return uuid.NewSHA1(uuid.MustParse(s.t.ID), []byte{byte(s.serial), byte(s.serial >> 8), byte(s.serial >> 16),
		byte(s.serial >> 24)}).String()
}

// derived returns an id that depends on names only.
func derived(names ...string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(strings.Join(names, "\n"))).String()
}

// User returns the user with an id or a user principal name, or nil. Users in the bin are found by their id.
func (s *State) User(idOrName string) *User { return s.users[strings.ToLower(idOrName)] }

// live returns a user who is not in the bin, or nil.
func (s *State) live(idOrName string) *User {
	if u := s.User(idOrName); u != nil && u.Deleted.IsZero() {
		return u
	}
	return nil
}

// AddUser adds a user, with a new id if it has none.
func (s *State) AddUser(u *User) *User {
	if u.ID == "" {
		u.ID = s.id()
	}
	u.created = cmp.Or(u.created, s.t.created)
	s.Users = append(s.Users, u)
	s.users[u.ID], s.users[strings.ToLower(u.UPN)] = u, u
	s.Changed(u)
	return u
}

// Changed records that a user changed, for the change feed, counters of licences and the activation of domains.
func (s *State) Changed(u *User) {
	s.seq++
	u.seq = s.seq
	_, host, _ := strings.Cut(u.UPN, "@")
	if d := s.domain(host); d != nil {
		s.watchActivation(d)
	}
}

// Rename changes a user principal name.
func (s *State) Rename(u *User, upn string) {
	_, host, _ := strings.Cut(u.UPN, "@")
	delete(s.users, strings.ToLower(u.UPN))
	u.UPN = upn
	s.users[strings.ToLower(upn)] = u
	if d := s.domain(host); d != nil {
		s.watchActivation(d)
	}
	s.Changed(u)
}

// DeleteUser moves a user into the bin. Its licences become free; its numbers stay with it.
func (s *State) DeleteUser(u *User) {
	u.Deleted = s.t.cloud.now()
	delete(s.users, strings.ToLower(u.UPN))
	for _, l := range u.Licenses {
		s.consume(l, -1)
	}
	s.Changed(u)
}

// RestoreUser takes a user out of the bin.
func (s *State) RestoreUser(u *User) {
	u.Deleted = time.Time{}
	s.users[strings.ToLower(u.UPN)] = u
	for _, l := range u.Licenses {
		s.consume(l, 1)
	}
	s.Changed(u)
}

// PurgeUser removes a user from the bin permanently; its numbers become free.
func (s *State) PurgeUser(u *User) {
	s.seq++
	s.purged = append(s.purged, purgedUser{u.ID, s.seq})
	for _, n := range s.numbersOf(u.ID) {
		s.free(n)
	}
	delete(s.users, u.ID)
	s.Users = slices.DeleteFunc(s.Users, func(v *User) bool { return v == u })
	s.Roles = slices.DeleteFunc(s.Roles, func(r RoleAssignment) bool { return r.Principal == u.ID })
}

func (s *State) domain(name string) *Domain {
	for _, d := range s.Domains {
		if strings.EqualFold(d.Name, name) {
			return d
		}
	}
	return nil
}

func (s *State) sku(id string) *SKU {
	for _, k := range s.SKUs {
		if strings.EqualFold(k.ID, id) {
			return k
		}
	}
	return nil
}

// consume counts the seat of a licence. One in error has none.
func (s *State) consume(l License, n int) {
	if k := s.sku(l.SKU); k != nil && l.Error == "" {
		k.consumed += n
	}
}

// License gives a user a licence without any check.
func (s *State) License(u *User, l License) {
	s.consume(l, 1)
	u.Licenses = append(u.Licenses, l)
	s.Changed(u)
}

// Unlicense takes a licence from a user; the plans remain with the capability status "Deleted".
func (s *State) Unlicense(u *User, sku string) {
	before := s.plans(u)
	u.Licenses = slices.DeleteFunc(u.Licenses, func(l License) bool {
		found := strings.EqualFold(l.SKU, sku)
		if found {
			s.consume(l, -1)
		}
		return found
	})
	after := s.plans(u)
	for _, p := range before {
		if !slices.Contains(after, p) && !slices.Contains(u.LostPlans, p.ID) {
			u.LostPlans = append(u.LostPlans, p.ID)
		}
	}
	s.Changed(u)
}

// plans returns the service plans that a user's licences give.
func (s *State) plans(u *User) []Plan {
	var plans []Plan
	for _, l := range u.Licenses {
		k := s.sku(l.SKU)
		if k == nil || l.Error != "" {
			continue
		}
		for _, p := range k.Plans {
			if !slices.Contains(l.Disabled, p.ID) && !slices.Contains(plans, p) {
				plans = append(plans, p)
			}
		}
	}

	return plans
}

// hasPlan reports whether a user has one of the named service plans.
func (s *State) hasPlan(u *User, names ...string) bool {
	return slices.ContainsFunc(s.plans(u), func(p Plan) bool { return slices.Contains(names, p.Name) })
}

// phoneSystem are the service plans with which an account can have a number.
var phoneSystem = []string{"MCOEV", "MCOEVSMB", "MCOEV_GOV", "MCOEV_VIRTUALUSER"}

// activating are the service plans that make a user activate its domain. teams-tenant §2; [C].
var activating = []string{"MCOSTANDARD", "MCOSTANDARD_GOV", "MCOIMP", "MCOEV", "MCOEV_GOV", "TEAMS1"}

// watchActivation notes since when a domain has a user who activates it.
func (s *State) watchActivation(d *Domain) {
	if d.Active {
		return
	}
	found := slices.ContainsFunc(s.Users, func(u *User) bool {
		if !u.Deleted.IsZero() || u.Disabled && u.ResourceApp == "" || len(u.Licenses) == 0 {
			return false
		}
		_, host, _ := strings.Cut(u.UPN, "@")
		plans := activating
		if s.t.settings.ResourceAccountsActivate {
			plans = append(phoneSystem, activating...)
		}
		return strings.EqualFold(host, d.Name) && s.hasPlan(u, plans...)
	})
	switch {
	case !found || !d.Verified:
		d.LicensedAt = time.Time{}
	case d.LicensedAt.IsZero():
		d.LicensedAt = s.t.cloud.now()
	}
}

// numbersOf returns the numbers of an account, in order.
func (s *State) numbersOf(id string) []*Number {
	var list []*Number
	for _, n := range s.Numbers {
		if n.Target == id {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b *Number) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// free unassigns a number.
func (s *State) free(n *Number) {
	n.Target, n.Category, n.VoiceApp, n.Status = "", "", false, ""
	if !n.Uploaded {
		delete(s.Numbers, n.Number)
	}
}

// wids returns the template ids of the directory roles of a principal.
func (s *State) wids(principal string) []string {
	var ids []string
	for _, r := range s.Roles {
		if r.Principal == principal {
			ids = append(ids, r.Role)
		}
	}
	return ids
}

func (s *State) principal(app string) *Principal {
	for _, p := range s.Principals {
		if strings.EqualFold(p.App, app) || strings.EqualFold(p.ID, app) {
			return p
		}
	}
	return nil
}

// dump returns the state as JSON values: kind, then id, then the object, without times.
func (s *State) dump() map[string]Object {
	d := map[string]Object{"organization": {s.t.ID: s.Organization}}
	put := func(kind, id string, v Object) {
		if d[kind] == nil {
			d[kind] = Object{}
		}
		d[kind][id] = v
	}
	for _, x := range s.Domains {
		put("domain", x.Name, x.view())
	}
	for _, x := range s.SKUs {
		put("sku", x.ID, s.skuView(x))
	}
	for _, x := range s.Users {
		v := s.userView(x)
		for name, value := range v {
			if strings.HasSuffix(name, "DateTime") && value != nil {
				v[name] = "set"
			}
		}
		delete(v, "licenseAssignmentStates")
		delete(v, "assignedPlans")
		policies := maps.Clone(x.Policies)
		if len(policies) == 0 {
			policies = nil // nothing tells it from policies that were removed
		}
		v["plans"], v["policies"] = s.plans(x), policies
		put("user", x.ID, v)
	}
	for _, x := range s.Groups {
		put("group", x.ID, Object{"name": x.Name, "members": x.Members})
	}
	for _, x := range s.Principals {
		put("principal", x.App, Object{"roles": x.Roles, "grants": x.Grants})
	}
	for _, x := range s.Roles {
		put("role", x.ID, Object{"principal": x.Principal, "role": x.Role})
	}
	for _, x := range s.Numbers {
		put("number", x.Number, s.numberView(x))
	}
	for kind, objects := range s.Configurations {
		for key, x := range objects {
			put(kind, key, x)
		}
	}
	for _, x := range s.GroupGrants {
		put("groupGrant", x.Group+" "+x.Type, Object{"policy": x.Policy, "rank": x.Rank})
	}
	for kind, name := range s.TenantGrants {
		put("tenantGrant", kind, Object{"policy": name})
	}

	return d
}

// clone returns a deep copy of plain JSON values.
func clone[T any](v T) T {
	var out T
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err) // plain JSON values
	}

	return out
}
