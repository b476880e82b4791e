package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Trunk is how a tenant reaches the gateway.
type Trunk string

// The trunk models (direct-routing-sbc-multiple-tenants).
const (
	// Derived trunks need no gateway objects in the tenant: its routes name domains below the operator's trunk.
	Derived Trunk = "derived"
	// Gateways are objects of the tenant, one for each domain.
	Gateways Trunk = "gateways"
)

// Settings is what an operator wants for a tenant.
type Settings struct {
	Prefix  string   `json:"prefix"`  // the name of every object that Tandem makes, such as Tandem-E164
	Labels  []Label  `json:"labels"`  // the account's: active and pending
	Regions []string `json:"regions"` // the names of the operator's trunks, such as 1r1.gw.example.com
	Port    int      `json:"port"`    // of the gateway objects
	Rules   []Rule   `json:"rules"`   // of the dial plan
	// Pattern selects the numbers that the route takes, as a regular expression; empty: all.
	Pattern string `json:"pattern,omitempty"`
	// OwnUsageOnly leaves the tenant's other usages out of the policy: its users reach numbers through Tandem only.
	OwnUsageOnly bool `json:"ownUsageOnly,omitempty"`
	// Emergency are the numbers of an emergency call routing policy; none makes no policy. Usage is set here.
	Emergency []EmergencyNumber `json:"emergency,omitempty"`
	// Licence is the service plan of the activation users; package readiness chooses it. If it is
	// MCOEV_VIRTUALUSER, resource accounts take their place: whether those activate a domain is not known.
	Licence string `json:"licence"`
	// ReuseSeat makes one licence serve all activation users, one after the other: each gives it back when its domain
	// is activated. Microsoft's newest pages no longer say that a domain stays active without it.
	ReuseSeat bool `json:"reuseSeat,omitempty"`
}

// Label is a label of an account in the tenant. Its trunk model cannot be changed, because Teams does not remove a
// gateway object that a route names: another label, with the other model, takes its place.
type Label struct {
	Name  string `json:"name"`
	Trunk Trunk  `json:"trunk"`
}

// Activation is the voice settings of a user or resource account.
type Activation struct {
	ID       string `json:"id"`
	Number   string `json:"number"` // E.164, with ";ext=" and an extension if it has one
	CallerID string `json:"callerID,omitempty"`
}

// ResourceAccount is the service plan of resource accounts, whose licence is free.
const ResourceAccount = "MCOEV_VIRTUALUSER"

// Names returns the names of a tenant's trunks: one for each label and region.
func (s *Settings) Names() []string {
	var names []string
	for _, l := range s.Labels {
		for _, r := range s.Regions {
			names = append(names, l.Name+"."+r)
		}
	}
	return names
}

// Objects returns the objects that a tenant should have, without its users. What depends on other people's objects
// comes from the state: their usages follow Tandem's own in the policy, and the route has the last priority. Both stay
// as they were once made.
func (s *Settings) Objects(have State, ledger Ledger) []Object {
	var objects []Object
	add := func(t Type, name string, f Fields) { objects = append(objects, Object{Ref{t, name}, f}) }
	for _, l := range s.Labels {
		for _, r := range s.Regions {
			n := l.Name + "." + r
			add(Domain, n, Fields{"verified": true})
			user := Fields{"domain": n, "displayName": "Teams Gateway", "enabled": true, "licence": s.Licence}
			if s.Licence == ResourceAccount {
				delete(user, "enabled") // nobody signs in to one
			}
			if s.ReuseSeat {
				user["release"] = true
			}
			add(ActivationUser, "tandem.teams@"+n, user)
			add(SIPDomain, n, Fields{"domain": n})
			if l.Trunk == Gateways {
				add(Gateway, n, Fields{"domain": n, "port": s.Port, "enabled": true, "sendSipOptions": true,
					"forwardCallHistory": true, "forwardPai": true, "pidfLoSupported": true, "mediaBypass": false})
			}
		}
	}

	add(Usage, s.Prefix, Fields{})
	usages := []string{s.Prefix}
	if !s.OwnUsageOnly {
		usages = append(usages, foreignUsages(have, s.Prefix)...)
	}
	add(RoutingPolicy, s.Prefix, Fields{"usages": usages})
	add(Route, s.Prefix, Fields{"pattern": cmp.Or(s.Pattern, ".*"), "gateways": s.Names(), "usages": []string{s.Prefix},
		"priority": priority(have, ledger, s.Prefix)})
	add(DialPlan, s.Prefix, Fields{"rules": s.Rules})
	if len(s.Emergency) > 0 {
		numbers := slices.Clone(s.Emergency)
		for i := range numbers {
			numbers[i].Usage = s.Prefix
		}
		add(EmergencyPolicy, s.Prefix, Fields{"numbers": numbers})
	}

	return objects
}

// UserObject returns the voice settings that an activated user should have. Users are no part of Objects: each is
// compared on its own.
func UserObject(s *Settings, a Activation) Object {
	f := Fields{"number": a.Number, "routingPolicy": s.Prefix, "dialPlan": s.Prefix}
	if a.CallerID != "" {
		f["callerID"] = a.CallerID
	}
	if len(s.Emergency) > 0 {
		f["emergencyPolicy"] = s.Prefix
	}

	return Object{Ref{User, a.ID}, f}
}

// foreignUsages returns the tenant's usages but Tandem's own, in their order, which the field place has.
func foreignUsages(have State, own string) []string {
	var usages []Object
	for _, o := range sorted(have) {
		if o.Type == Usage && fold(o.Name) != fold(own) {
			usages = append(usages, o)
		}
	}
	place := func(o Object) int { n, _ := o.Fields["place"].(int); return n }
	slices.SortStableFunc(usages, func(a, b Object) int { return cmp.Compare(place(a), place(b)) })

	names := make([]string, len(usages))
	for i, u := range usages {
		names[i] = u.Name
	}
	return names
}

// priority returns the priority of Tandem's route: the one that it was given, or the last.
func priority(have State, ledger Ledger, name string) int {
	if n, ok := ledger[Ref{Route, name}.key()].Fields["priority"].(int); ok {
		return n
	}
	last := 0
	for _, o := range have {
		if n, ok := o.Fields["priority"].(int); ok && o.Type == Route {
			last = max(last, n)
		}
	}
	return last + 1
}

// Opened returns what other people's usages in Tandem's policy open to the users who get it: each usage, with the
// routes that have it.
func Opened(desired []Object, have State) []Note {
	var notes []Note
	for _, o := range desired {
		usages, _ := o.Fields["usages"].([]string)
		if o.Type != RoutingPolicy || len(usages) < 2 {
			continue
		}
		for _, u := range usages[1:] {
			var routes []string
			for _, r := range sorted(have) {
				if r.Type == Route && refersTo(r, Ref{Usage, u}) {
					routes = append(routes, r.Name)
				}
			}
			text := "no route has it"
			if len(routes) > 0 {
				text = fmt.Sprintf("opens %s", strings.Join(routes, ", "))
			}
			notes = append(notes, Note{Ref{Usage, u}, text})
		}
	}
	return notes
}

// Drift returns what a person has changed since Tandem made it: the steps that would repair it.
func Drift(have State, ledger Ledger) *Plan {
	var desired []Object
	for _, m := range sorted(ledger) {
		desired = append(desired, m.Object)
	}
	return Compare(desired, have, ledger)
}
