package onboard

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
	"github.com/tandemgw/tandem/internal/tenants/label"
	"github.com/tandemgw/tandem/internal/tenants/licence"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Carrier is the id of the operator's own tenant in place of an account, which cannot have that name.
const Carrier = ".carrier"

// Next follows the name of an account in the id of the tenant to which the account moves. No account's name ends so.
const Next = "@next"

// Owner returns the account of a tenant.
func Owner(id string) string { return strings.TrimSuffix(id, Next) }

// Wishes are what a person has decided for a tenant. What is left open is decided when a plan is made, and shown there.
type Wishes struct {
	Label    string     `json:"label,omitempty"` // empty: the account's, else one made of the initial domain
	Trunk    plan.Trunk `json:"trunk,omitempty"` // empty: Derived
	OwnLabel bool       `json:"ownLabel,omitempty"`
	// Template is the name of the wishes from which comes what is left open here.
	Template string `json:"template,omitempty"`

	Dial
	// Rules of the dial plan that a person has edited; empty: those made for Dial.
	Rules []plan.Rule `json:"rules,omitempty"`

	OwnUsageOnly bool `json:"ownUsageOnly,omitempty"`
	// Prefix is the name of every object; empty: the deployment's. A tenant's objects keep the name they have.
	Prefix string `json:"prefix,omitempty"`
	// RoutePattern selects the numbers that the route takes, emergency numbers included; empty: all.
	RoutePattern string `json:"routePattern,omitempty"`
	// Users selects the users that should be active, but for ExceptUsers, by object id.
	Users       Selection `json:"users,omitzero"`
	ExceptUsers []string  `json:"exceptUsers,omitempty"`

	// Licence is the service plan of the activation users; empty: what is free.
	Licence string `json:"licence,omitempty"`
}

// Selection selects users by what the directory has of them. An empty field selects all, an empty selection none.
type Selection struct {
	Department string `json:"department,omitempty"`
	Location   string `json:"usageLocation,omitempty"` // ISO 3166
}

// With returns the wishes with what they leave open taken from a template: field by field, lists as a whole. What is
// switched on in either is on. Label, OwnLabel, Template and ExceptUsers are not taken.
func (w Wishes) With(t Wishes) Wishes {
	w.Trunk, w.Licence = cmp.Or(w.Trunk, t.Trunk), cmp.Or(w.Licence, t.Licence)
	w.Prefix, w.RoutePattern = cmp.Or(w.Prefix, t.Prefix), cmp.Or(w.RoutePattern, t.RoutePattern)
	w.Users = cmp.Or(w.Users, t.Users)
	if w.Country == "" || w.Country == t.Country { // an area code of another country says nothing
		w.AreaCode = cmp.Or(w.AreaCode, t.AreaCode)
	}
	w.Country = cmp.Or(w.Country, t.Country)
	w.OwnUsageOnly = w.OwnUsageOnly || t.OwnUsageOnly
	if len(w.Extensions) == 0 {
		w.Extensions = t.Extensions
	}
	if len(w.Rules) == 0 {
		w.Rules = t.Rules
	}
	if len(w.Emergency) == 0 {
		w.Emergency = t.Emergency
	}
	return w
}

// Dial is what a dial plan is made for.
type Dial struct {
	Country    string                `json:"country,omitempty"` // ISO 3166; empty: the tenant's
	AreaCode   string                `json:"areaCode,omitempty"`
	Extensions []dialplan.Extensions `json:"extensions,omitempty"`
	// Emergency are the numbers of an emergency policy, which the dial plan keeps as well.
	Emergency []plan.EmergencyNumber `json:"emergency,omitempty"`
}

// Deployment is what the settings of all tenants have in common.
type Deployment struct {
	Prefix    string
	Base      string   // the base domain
	Regions   []string // labels of the regions, such as 1r1
	Port      int      // of gateway objects
	Emergency []string // emergency numbers that the gateway knows as such; dial plans keep them besides their country's
	// Labels returns the labels of an account, the active one first; none if it has none.
	Labels func(ctx context.Context, account string) ([]domain.Label, error)
	// Taken reports whether another account than the one given has a label.
	Taken func(ctx context.Context, account, label string) (bool, error)
	// Used reports whether calls to numbers of an account go to a label: it is the active one, or recorded for some.
	Used func(ctx context.Context, account, label string) (bool, error)
}

// Check checks wishes as far as that is possible before the tenant is read. country is the tenant's; empty if it is not
// known yet.
func (d *Deployment) Check(w Wishes, country string) error {
	if known := licence.Plans(); w.Licence != "" && !slices.Contains(known, w.Licence) {
		return fault.New(fault.Invalid, "InvalidLicence", "%q is no service plan that activates a name; choose one of "+
			"%s, or none for what is free", w.Licence, strings.Join(known, ", ")).At("licence")
	}
	if err := d.checkEmergency(w.Emergency); err != nil {
		return err
	}
	if w.Prefix != "" {
		if err := dialplan.CheckPlan(w.Prefix, ""); err != nil {
			return fault.New(fault.Invalid, "InvalidPrefix", "%s", fault.As(err).Message).At("prefix")
		}
	}

	dial := w.Dial
	if dial.Country = cmp.Or(dial.Country, country); dial.Country == "" {
		needs := func(at string) error {
			return fault.New(fault.Invalid, "NoCountry", "%s cannot be checked before the country is known: set the "+
				"country as well", at).At(at)
		}
		switch {
		case dial.AreaCode != "":
			return needs("areaCode")
		case len(w.Rules) > 0:
			return needs("rules")
		case w.RoutePattern != "":
			return needs("routePattern")
		}
		return dialplan.CheckExtensions(dial.Extensions)
	}
	if err := d.checkPattern(w.RoutePattern, dial); err != nil {
		return err
	}
	_, _, err := d.Rules(w.Rules, dial)
	return err
}

// checkPattern checks a pattern of a route. If there is one, it must take emergency calls, with "+" as without.
func (d *Deployment) checkPattern(pattern string, dial Dial) error {
	if pattern == "" {
		return nil
	}
	const longest = 1000
	invalid := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "InvalidRoutePattern", format, args...).At("routePattern")
	}
	re, err := regexp.Compile(pattern)
	switch {
	case err != nil:
		return invalid("%q is no regular expression: %v", pattern, err)
	case len(pattern) > longest:
		return invalid("the pattern has more than %d characters; shorten it", longest)
	}

	country, err := dialplan.EmergencyStrings(dial.Country)
	if err != nil {
		return err
	}
	for _, s := range append(country, d.kept(dial)...) {
		if !re.MatchString(s) || !re.MatchString("+"+s) {
			return invalid("the route would not take emergency calls to %[1]s, which Teams may send as %[1]s or "+
				"+%[1]s; let the pattern match both, as ^\\+?\\d+$ does", s)
		}
	}
	return nil
}

// kept returns the emergency strings that dial plans keep besides their country's.
func (d *Deployment) kept(dial Dial) []string {
	kept := slices.Clone(d.Emergency)
	for _, n := range dial.Emergency {
		kept = append(kept, n.Strings()...)
	}
	return kept
}

// dialString is what New-CsTeamsEmergencyNumber takes.
var dialString = regexp.MustCompile(`^[0-9]{1,10}$`)

// checkEmergency checks the numbers of an emergency policy. The gateway has to know them, or it would not carry calls
// to them as emergency calls.
func (d *Deployment) checkEmergency(numbers []plan.EmergencyNumber) error {
	seen := map[string]bool{}
	for i, n := range numbers {
		for k, s := range n.Strings() {
			at := fmt.Sprintf("emergency[%d].%s", i, []string{"dialString", "mask"}[min(k, 1)])
			invalid := func(format string, args ...any) error {
				return fault.New(fault.Invalid, "InvalidEmergencyNumber", format, args...).At(at)
			}
			switch {
			case !dialString.MatchString(s):
				return invalid("%q is not what is dialled for an emergency number, which is 1 to 10 digits, such as "+
					"112; masks are separated by \";\"", s)
			case seen[s]:
				return invalid("%s is given twice; give each number and mask once", s)
			case k == 0 && !slices.Contains(d.Emergency, s):
				return invalid("the gateway does not know %s as an emergency number, only %s; add it to "+
					"calls.routing.emergencyDialStrings of the configuration first", s, strings.Join(d.Emergency, ", "))
			}
			seen[s] = true
		}
	}
	return nil
}

// Facts are what the settings of a tenant depend on.
type Facts struct {
	Initial string // the initial domain, such as contoso.onmicrosoft.com
	Country string // ISO 3166
	Licence string // the service plan with free seats that activation users should have; empty if there is none
	Seats   int    // how many seats are free, of any plan that will do
	App     string // the application id of Tandem
	// Purges is set if a person has signed in who can purge users, and RemovesItself if Tandem may remove its
	// application from the tenant.
	Purges, RemovesItself bool
	Spare                 int // seats with Phone System that are free
}

// Trunks returns the names of the operator's trunks, one in each region.
func (d *Deployment) Trunks() []string {
	names := make([]string, len(d.Regions))
	for i, r := range d.Regions {
		names[i] = r + "." + d.Base
	}
	return names
}

// settle decides what the settings of a tenant leave open: what was wished, what the tenant has been given, and else
// what follows from the facts.
func (d *Deployment) settle(ctx context.Context, t *Tenant, f Facts) (err error) {
	w, s := &t.Wishes, &t.Settings
	s.Regions, s.Port, s.OwnUsageOnly, s.Emergency = d.Trunks(), d.Port, w.OwnUsageOnly, w.Emergency
	if t.State() == Left { // and has no object that keeps its name
		s.Prefix = ""
	}
	s.Prefix, s.Pattern = cmp.Or(s.Prefix, w.Prefix, d.Prefix), w.RoutePattern
	dial := w.Dial
	dial.Country = cmp.Or(dial.Country, f.Country)
	if err := d.checkPattern(s.Pattern, dial); err != nil {
		return err
	}
	if s.Licence = cmp.Or(w.Licence, s.Licence, f.Licence); s.Licence == "" {
		return fault.New(fault.Conflict, "NoLicence", "no licence that can activate a domain has a free seat "+
			"(tandem tenant check %s says more)", t.Account)
	}

	if s.Labels, err = d.labels(ctx, t, f); err != nil {
		return err
	}
	if t.Purpose == "" || t.Purpose == Leave { // once activation users are made, they keep their licences
		s.ReuseSeat = f.Seats > 0 && f.Seats < len(s.Names())
	}
	return d.dialPlan(t, dial)
}

// labels returns the labels of the tenant: those it has, but for one that is to be removed, and the one that is wished.
func (d *Deployment) labels(ctx context.Context, t *Tenant, f Facts) ([]plan.Label, error) {
	labels := slices.DeleteFunc(slices.Clone(t.Settings.Labels), func(l plan.Label) bool { return l.Name == t.Retire })
	for i := range labels {
		if t.State() == Left { // and has nothing that keeps a label from another trunk model
			labels[i].Trunk = cmp.Or(t.Wishes.Trunk, plan.Derived)
		}
	}
	if t.Retire != "" {
		used, err := d.Used(ctx, t.Account, t.Retire)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, fault.New(fault.Conflict, "LabelInUse", "calls to numbers of the account go to the label %q, "+
				"which is to be removed; use another one for them (tandem account label "+
				"activate, tandem number label)", t.Retire)
		}
	}
	name := t.Wishes.Label
	if name == "" && len(labels) > 0 {
		return labels, nil
	}
	if name == "" {
		has, err := d.Labels(ctx, t.Account)
		if err != nil {
			return nil, err
		}
		if len(has) > 0 {
			name = has[0].Subdomain
		} else if name, err = label.Propose(f.Initial, d.Base, func(l string) (bool, error) {
			return d.Taken(ctx, t.Account, l)
		}); err != nil {
			return nil, err
		}
	}

	if err := d.CheckLabel(ctx, t.Account, name); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(labels, func(l plan.Label) bool { return strings.EqualFold(l.Name, name) }) {
		labels = append(labels, plan.Label{Name: name, Trunk: cmp.Or(t.Wishes.Trunk, plan.Derived)})
	}
	return labels, nil
}

// CheckLabel checks a label that an account is to have.
func (d *Deployment) CheckLabel(ctx context.Context, account, name string) error {
	if err := label.Check(name, d.Base); err != nil {
		return err
	}
	used, err := d.Taken(ctx, account, strings.ToLower(name))
	if err == nil && used {
		err = fault.New(fault.Conflict, "SubdomainTaken", "another account has the label %q; choose another",
			name).At("label")
	}
	return err
}

// replaced returns the labels of a tenant without those whose place the wished one takes: calls have never used them,
// because the route does not name them, such as one that Microsoft does not activate. A route that a person has deleted
// counts as Tandem made it: calls to the tenant need none.
func (t *Tenant) replaced(have plan.State, ledger plan.Ledger) []plan.Label {
	s, ref := &t.Settings, plan.Ref{Type: plan.Route, Name: t.Settings.Prefix}
	route, _ := have.Get(ref)
	gateways, _ := route.Fields["gateways"].([]string)
	if made, ok := ledger.Get(ref); ok {
		named, _ := made.Fields["gateways"].([]string)
		gateways = append(slices.Clone(gateways), named...)
	}
	return slices.DeleteFunc(slices.Clone(s.Labels), func(l plan.Label) bool {
		one := plan.Settings{Labels: []plan.Label{l}, Regions: s.Regions}
		return t.Wishes.Label != "" && !strings.EqualFold(l.Name, t.Wishes.Label) &&
			!slices.ContainsFunc(one.Names(), func(name string) bool {
				return slices.ContainsFunc(gateways, func(g string) bool { return strings.EqualFold(g, name) })
			})
	})
}

// dialPlan decides the rules of the dial plan. Rules that were made once stay until what they were made for changes:
// the metadata of countries changes with releases.
func (d *Deployment) dialPlan(t *Tenant, dial Dial) error {
	if len(t.Wishes.Rules) == 0 && len(t.Settings.Rules) > 0 && reflect.DeepEqual(t.MadeFor, dial) {
		return nil
	}
	rules, _, err := d.Rules(t.Wishes.Rules, dial)
	if err != nil {
		return err
	}

	t.Settings.Rules, t.MadeFor = nil, dial
	for _, r := range rules {
		t.Settings.Rules = append(t.Settings.Rules, plan.Rule{Name: r.Name, Description: r.Description,
			Pattern: r.Pattern, Translation: r.Translation, Internal: r.InternalExtension})
	}
	return nil
}

// Rules returns the rules of a dial plan, which change no emergency string: those that a person has written or, if
// there are none, those made for a country and so on. leftOut says what the latter do not do.
func (d *Deployment) Rules(written []plan.Rule, dial Dial) (rules []dialplan.Rule, leftOut []string, err error) {
	kept := d.kept(dial)
	if len(written) == 0 {
		return dialplan.Rules(dialplan.Options{Country: dial.Country, AreaCode: dial.AreaCode,
			Extensions: dial.Extensions, Emergency: kept})
	}

	emergency, err := dialplan.EmergencyStrings(dial.Country)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range written {
		rules = append(rules, dialplan.Rule{Name: r.Name, Description: r.Description, Pattern: r.Pattern,
			Translation: r.Translation, InternalExtension: r.Internal})
	}
	if problems := dialplan.Check(rules, append(emergency, kept...)); len(problems) > 0 {
		e := fault.New(fault.Invalid, "InvalidDialPlan", "the rules of the dial plan have %d mistakes; the first: %s",
			len(problems), problems[0].Message).At("rules")
		e.Details = problems
		return nil, nil, e
	}
	return rules, nil, nil
}
