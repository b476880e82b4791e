package readiness

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// maxFQDN is the longest name of a gateway that a tenant can have as a domain, in characters.
const maxFQDN = 48

const again = "then check again"

// report collects findings.
type report struct {
	f        *Facts
	findings []Finding
}

func (r *report) add(s Stage, l Level, id, subject, remedy, reason string, args ...any) {
	r.findings = append(r.findings, Finding{ID: id, Subject: subject, Level: l, Stage: s, Remedy: remedy,
		Reason: fmt.Sprintf(reason, args...)})
}

// Check returns the findings, those after the consent first.
func Check(f *Facts) []Finding {
	r := &report{f: f}
	r.deployment()
	if f.Denied != "" {
		r.add(Consented, Fail, "consent", "", "authorise the app (step 1), "+again, "%s", f.Denied)
		return r.findings
	}

	for _, what := range slices.Sorted(maps.Keys(f.Unread)) {
		r.add(Consented, Warn, "unread", what, "see the missing permissions and roles, "+again,
			"this could not be checked: %s", f.Unread[what])
	}
	r.permissions()
	r.tenant()
	r.licences()
	r.users()
	r.numbers()

	if f.Mode != "" {
		r.roles()
	}
	if f.State != nil {
		r.collisions()
		r.shadows()
		r.emergency()
	}
	return r.findings
}

// deployment checks what is known without the tenant.
func (r *report) deployment() {
	f := r.f
	if f.Undecided != "" {
		r.add(Consented, Fail, "settings", "", "change the settings of the tenant, "+again, "%s", f.Undecided)
	}
	if f.Settings != nil {
		for _, l := range f.Settings.Labels {
			r.add(Consented, Pass, "label", l.Name, "", "another label can be chosen until the first plan is applied")
		}
	}
	for _, n := range f.Names {
		if len(n.FQDN) > maxFQDN {
			r.add(Consented, Fail, "name", n.FQDN, "choose a shorter label", "the name has %d characters; Microsoft "+
				"365 allows %d", len(n.FQDN), maxFQDN)
		}
		for _, c := range []struct{ id, remedy, good string }{
			{"dns", "see tandem zone check", "every name server answers the name"},
			{"certificate", "see tandem certificate list", "the gateway's certificate covers the name"},
			{"reachable", "open the port from the Internet to the SIP listener", "the SIP listener answers"},
		} {
			if err, looked := n.Checks[c.id]; fault.Is(err, fault.Unavailable) {
				r.add(Consented, Warn, c.id, n.FQDN, c.remedy, "%s", fault.As(err).Message)
			} else if err != nil {
				r.add(Consented, Fail, c.id, n.FQDN, c.remedy, "%s", fault.As(err).Message)
			} else if looked {
				r.add(Consented, Pass, c.id, n.FQDN, "", "%s", c.good)
			}
		}
	}

	if t := f.Teams; t.Name == "" {
		r.add(SignedIn, Fail, "teams", "", t.Missing, "this deployment has no way to configure Teams, so step 3 "+
			"cannot be done")
	} else {
		level := Pass
		if t.Remark != "" {
			level = Warn
		}
		r.add(SignedIn, level, "teams", t.Name, "", "Teams is configured by %s%s", t.Name, suffix(t.Remark))
	}
	r.dialPlan()
}

func suffix(remark string) string {
	if remark == "" {
		return ""
	}
	return ": " + remark
}

// dialPlan checks that the rules keep emergency numbers.
func (r *report) dialPlan() {
	s := r.f.Settings
	if s == nil || len(s.Rules) == 0 {
		return
	}
	country, err := dialplan.EmergencyStrings(r.f.Tenant.Country)
	if err != nil {
		r.add(SignedIn, Warn, "dialPlan", "", "add the country's emergency numbers to the configuration",
			"the emergency numbers of the tenant's country are unknown: %s", fault.As(err).Message)
	}
	rules := make([]dialplan.Rule, len(s.Rules))
	for i, x := range s.Rules {
		rules[i] = dialplan.Rule{Name: x.Name, Description: x.Description, Pattern: x.Pattern,
			Translation: x.Translation, InternalExtension: x.Internal}
	}

	kept := append(country, r.f.Emergency...)
	for _, n := range s.Emergency {
		kept = append(kept, n.Strings()...)
	}
	problems := dialplan.Check(rules, kept)
	for _, p := range problems {
		level := Fail
		if p.Code == dialplan.CodeShadowed || p.Code == dialplan.CodeNeverMatches {
			level = Warn
		}
		r.add(SignedIn, level, "dialPlan", p.Target, "change the rules of the dial plan", "%s", p.Message)
	}
	if len(problems) == 0 && err == nil {
		r.add(SignedIn, Pass, "dialPlan", "", "", "the dial plan keeps the emergency numbers")
	}
}

// permissions checks each permission against what the tenant shows and what fresh tokens carry. Roles of the person do
// not count: they give an app nothing.
func (r *report) permissions() {
	f := r.f
	_, unread := f.Unread["grants"]
	for _, p := range permission.All() {
		same := func(q permission.Permission) bool { return q.Kind == p.Kind && q.Name == p.Name }
		granted, carried := slices.ContainsFunc(f.Granted, same), slices.ContainsFunc(f.InToken, same)
		// Tokens with delegated permissions exist when a person has signed in.
		tokens := p.Kind == permission.Application || f.Mode == AsPerson
		subject := fmt.Sprintf("%s (%s)", p.Name, p.Kind)
		switch {
		case p.Kind == permission.Delegated && (f.Mode == AsApplication || f.Mode == "" && unread):
			// not used, or not known before the sign-in
		case (granted || unread) && (carried || !tokens):
			r.add(Consented, Pass, "permission", subject, "", "granted")
		case granted:
			r.add(Consented, Warn, "permission", subject, "wait a minute, "+again, "granted, but new tokens do not "+
				"carry it yet: that takes up to some minutes after the consent")
		default:
			r.add(Consented, Fail, "permission", subject, "authorise the app again (step 1), "+again,
				"not granted. %s", p.Why)
		}
	}
}

func (r *report) tenant() {
	t := &r.f.Tenant
	if t.ID == "" {
		return // unread
	}
	if t.Type != "AAD" {
		r.add(Consented, Fail, "tenant", t.Name, "use the tenant of the organisation", "a tenant of type %q has no "+
			"Teams telephony", t.Type)
	} else {
		r.add(Consented, Pass, "tenant", t.Name, "", "a tenant of an organisation in %s",
			cmp.Or(t.Country, "no country"))
	}
	// The login served it, so the tenant is in the deployment's cloud; GCC, a part of it, shows by its plans
	// (inferred).
	government := false
	for _, s := range r.f.SKUs {
		for _, p := range s.Plans {
			government = government || strings.HasSuffix(p.Name, "_GOV")
		}
	}
	if government {
		r.add(Consented, Warn, "cloud", "", "make sure that the operator's trunks are in the same cloud", "the tenant "+
			"has licences of the US government cloud, where some interfaces are missing")
	} else {
		r.add(Consented, Pass, "cloud", "", "", "the tenant is in the cloud of the operator")
	}
	if t.Synced {
		r.add(Consented, Warn, "synchronised", "", "clear msRTCSIP-Line of users in Active Directory before they get "+
			"a number", "users are synchronised from Active Directory: numbers that are set there cannot be changed "+
			"in the cloud")
	}

	verified := 0
	for _, d := range t.Domains {
		if d.Verified {
			verified++
		}
	}
	r.add(Consented, Pass, "domains", t.Initial, "", "%s", domain.Count(verified, "verified domain"))
}

func (r *report) licences() {
	if len(r.f.SKUs) == 0 {
		if _, unread := r.f.Unread["licences"]; !unread {
			r.add(Consented, Fail, "licence", "", "buy a licence with Teams", "the tenant has no licences")
		}
		return
	}
	s := Seats(r.f.SKUs, r.f.unactivated())
	r.add(Consented, s.Level, "licence", s.Product, s.Remedy, "%s", s.Reason)
}

// unactivated returns how many names still need an activation user.
func (f *Facts) unactivated() int {
	n := 0
	for _, name := range f.Names {
		active := slices.ContainsFunc(f.Tenant.Domains, func(d Domain) bool {
			return d.Active && strings.EqualFold(d.Name, name.FQDN)
		})
		if !active {
			n++
		}
	}
	return n
}

func (r *report) users() {
	if _, unread := r.f.Unread["users"]; unread {
		return
	}
	user := "user"
	if r.f.MoreUsers {
		user = "or more user"
	}
	if r.f.Phone == 0 {
		r.add(Consented, Warn, "users", "", "assign Teams Phone licences", "no user has a Teams Phone licence, so no "+
			"user can get a number")
		return
	}
	r.add(Consented, Pass, "users", "", "", "%s can get a number", domain.Count(r.f.Phone, user))
}

// numbers tells which numbers of the account are taken, and by whom.
func (r *report) numbers() {
	for _, h := range r.f.Holders {
		who := cmp.Or(h.Name, h.ID)
		switch {
		case r.f.ours(plan.Ref{Type: plan.User, Name: h.ID}): // activated by Tandem
		case h.Source == "onPremises":
			r.add(SignedIn, Fail, "number", h.Number, "clear msRTCSIP-Line of the user in Active Directory",
				"%s has the number from Active Directory", who)
		case h.Type != "directRouting":
			r.add(SignedIn, Fail, "number", h.Number, "release it there, or move it to the operator",
				"the number is assigned as %s, to %s", h.Type, who)
		case h.Gone:
			r.add(SignedIn, Warn, "number", h.Number, "ask Microsoft's support to release it", "held by an account "+
				"that no longer exists (%s)", h.ID)
		case !h.Deleted.IsZero():
			r.add(SignedIn, Warn, "number", h.Number, "restore or permanently delete the account", "held by %s, "+
				"deleted on %s, until 30 days later", who, h.Deleted.UTC().Format(time.DateOnly))
		default:
			r.add(SignedIn, Warn, "number", h.Number, "unassign the number, or have that user activated",
				"assigned to %s", who)
		}
	}
	if r.f.MoreNumber {
		r.add(SignedIn, Warn, "number", "", "", "more numbers of the account are assigned; only the first are listed")
	}
}

// roles checks who configures Teams.
func (r *report) roles() {
	f, who := r.f, permission.Person
	if f.Mode == AsApplication {
		who = permission.App
	}
	_, unread := f.Unread["roles"]
	for _, need := range permission.Roles() {
		switch {
		case need.Who != who || unread:
		case need.HeldBy(f.Person.Roles):
			r.add(SignedIn, Pass, "role", need.ID, "", "%s has the role %s", f.Person.Name, need.Names())
		case need.Optional:
			r.add(SignedIn, Warn, "role", need.ID, "assign the role "+need.Names(), "%s lacks the role %s. %s",
				f.Person.Name, need.Names(), need.Why)
		default:
			r.add(SignedIn, Fail, "role", need.ID, "assign the role "+need.Names()+", sign in again, "+again,
				"%s lacks the role %s. %s", f.Person.Name, need.Names(), need.Why)
		}
	}
	if f.Mode == AsApplication {
		r.add(SignedIn, Warn, "role", "purge", "sign in as a User Administrator before leaving, if that matters",
			"an application cannot delete users permanently: Microsoft does so 30 days after leaving")
	}
	if f.Person.Partner {
		r.add(SignedIn, Warn, "partner", f.Person.Name, "sign in with an account of the tenant for these", "the "+
			"account is a partner's. It cannot change the tenant's default policies (40301), and consent goes through "+
			"Partner Center; its roles are those of the delegation")
	}
}

// desired returns what onboarding would make, without users.
func (f *Facts) desired() []plan.Object {
	if f.Settings == nil {
		return nil
	}
	return f.Settings.Objects(f.State, f.Ledger)
}

// ours reports whether Tandem has made an object.
func (f *Facts) ours(r plan.Ref) bool {
	_, ok := f.Ledger.Get(r)
	return ok
}

// collisions finds objects of others that have names of ours.
func (r *report) collisions() {
	f := r.f
	if f.Settings == nil {
		return
	}
	conflicts := plan.Compare(f.desired(), f.State, f.Ledger).Conflicts
	for _, l := range f.Settings.Labels {
		for _, region := range f.Settings.Regions {
			ref := plan.Ref{Type: plan.Gateway, Name: l.Name + "." + region}
			if _, exists := f.State.Get(ref); exists && l.Trunk == plan.Derived && !f.ours(ref) {
				conflicts = append(conflicts, plan.Note{Ref: ref, Text: "is a gateway object of the tenant, which " +
					"hides the operator's trunk. Remove it, or use the model with gateway objects"})
			}
		}
	}
	for _, c := range conflicts {
		r.add(SignedIn, Fail, "collision", fmt.Sprintf("%s %s", c.Type, c.Name), "rename or remove it, or use another "+
			"prefix", "%s", c.Text)
	}
	if len(conflicts) == 0 {
		r.add(SignedIn, Pass, "collision", "", "", "no object has a name that Tandem needs")
	}
}

// shadows finds routes of others that take calls before ours: a user's call goes by the first usage of the policy that
// has a route for it, which is ours, and there by the route with the lowest priority (direct-routing-voice-routing).
func (r *report) shadows() {
	f := r.f
	if f.Settings == nil {
		return
	}
	ours := plan.NewState(f.desired())
	own, _ := ours.Get(plan.Ref{Type: plan.Route, Name: f.Settings.Prefix})
	last, _ := own.Fields["priority"].(int)
	found := false
	for _, o := range routes(f.State) {
		priority, _ := o.Fields["priority"].(int)
		if _, named := ours.Get(o.Ref); named || !hasName(o.Fields["usages"], f.Settings.Prefix) || priority > last {
			continue // ours, or a collision
		}
		found = true
		pattern, _ := o.Fields["pattern"].(string)
		r.add(SignedIn, Fail, "shadow", o.Name, "take the usage "+f.Settings.Prefix+" out of that route",
			"the route has our usage and comes before ours (priority %d, ours %d): it takes the calls that match %s",
			priority, last, pattern)
	}
	if !found {
		r.add(SignedIn, Pass, "shadow", "", "", "no route of others takes calls before ours")
	}
}

func routes(s plan.State) []plan.Object {
	var list []plan.Object
	for _, o := range s {
		if o.Type == plan.Route {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b plan.Object) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// hasName reports whether a list of names has one, whatever the case.
func hasName(list any, name string) bool {
	names, _ := list.([]string)
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
}

// emergency checks where emergency calls of users go.
func (r *report) emergency() {
	f := r.f
	if f.Settings == nil {
		return
	}
	if own := f.Settings.Emergency; len(own) > 0 {
		var dialled []string
		for _, n := range own {
			dialled = append(dialled, n.DialString)
		}
		r.add(SignedIn, Pass, "emergency", f.Settings.Prefix, "", "users whom Tandem activates get an emergency "+
			"policy of their own, whose numbers (%s) go by our usage", list(dialled))
		return
	}

	uses := append([]PolicyUse{{Name: "Global", Users: -1}}, f.Policies...)
	for _, use := range uses {
		who := domain.Count(use.Users, "user")
		if use.Users < 0 {
			who = "users without a policy of their own"
		}
		policy, _ := f.State.Get(plan.Ref{Type: plan.EmergencyPolicy, Name: use.Name})
		numbers, _ := policy.Fields["numbers"].([]plan.EmergencyNumber)
		if len(numbers) == 0 {
			r.add(SignedIn, Pass, "emergency", use.Name, "", "%s: the policy has no numbers, so emergency calls go by "+
				"our route like others", who)
		}
		for _, n := range numbers {
			r.emergencyNumber(use.Name, who, n)
		}
	}
}

func (r *report) emergencyNumber(policy, who string, n plan.EmergencyNumber) {
	f, subject := r.f, policy+" "+n.DialString
	const remedy = "give the template emergency numbers, so that activated users get a policy of their own"
	all := maps.Clone(f.State)
	maps.Copy(all, plan.NewState(f.desired()))
	var others []string
	reaches := false
	for _, o := range routes(all) {
		pattern, _ := o.Fields["pattern"].(string)
		re, err := regexp.Compile(pattern)
		if !hasName(o.Fields["usages"], n.Usage) || err == nil && !re.MatchString(n.DialString) {
			continue
		}
		mine := slices.ContainsFunc(f.Settings.Names(), func(s string) bool { return hasName(o.Fields["gateways"], s) })
		reaches = reaches || mine
		if !mine {
			others = append(others, o.Name)
		}
	}
	switch {
	case reaches && others == nil:
		r.add(SignedIn, Pass, "emergency", subject, "", "%s: the usage %s leads to our route", who, n.Usage)
	case others == nil:
		r.add(SignedIn, Fail, "emergency", subject, remedy, "%s: no route has the usage %s for this number, so the "+
			"call fails", who, n.Usage)
	default:
		r.add(SignedIn, Warn, "emergency", subject, remedy, "%s: the usage %s leads to %s, not to the operator", who,
			n.Usage, list(others))
	}
}

func list(names []string) string { return strings.Join(names, ", ") }
