package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

const (
	own     = "Tandem-E164"
	derived = "fab.1r1.gw.example"
	gateway = "old.1r1.gw.example"
)

// onboarded returns a tenant with everything that Tandem makes, and its ledger.
func onboarded(t *testing.T) (*world, plan.Ledger) {
	w := newWorld([]plan.Object{
		object(plan.Usage, "Foreign A", plan.Fields{"place": 0}),
		object(plan.Usage, "Foreign B", plan.Fields{"place": 1}),
		object(plan.RoutingPolicy, "Theirs", plan.Fields{"usages": []string{"Foreign A"}}),
		object(plan.DialPlan, "Theirs", plan.Fields{"rules": []plan.Rule{}}),
		object(plan.User, "user-1", plan.Fields{"domain": "fabrikam.example", "routingPolicy": "Theirs"}),
		object(plan.User, "user-2", plan.Fields{"domain": "fabrikam.example"}),
	})
	s := wish{plan.Settings{Prefix: own, Port: 5061, Licence: "MCOSTANDARD",
		Labels:  []plan.Label{{Name: "fab", Trunk: plan.Derived}, {Name: "old", Trunk: plan.Gateways}},
		Regions: []string{"1r1.gw.example", "1r2.gw.example"},
		Rules: []plan.Rule{{Name: "national", Pattern: `^0(\d+)$`, Translation: "+44$1"},
			{Name: "extension", Description: "of the head office", Pattern: `^(\d{4})$`, Translation: "+4420794$1",
				Internal: true}},
		Emergency: []plan.EmergencyNumber{{DialString: "112", Mask: "999"}, {DialString: "999", Mask: "911"}}},
		[]plan.Activation{{ID: "user-1", Number: "+442079460201", CallerID: "Reception"},
			{ID: "user-2", Number: "+442079460202;ext=12"}}}
	want := s.want(w.state(), nil)
	return w, apply(t, w, nil, plan.Compare(want, w.state(), nil), want)
}

// set returns a change of a field by a person.
func set(t plan.Type, name, field string, v any) func(*world) {
	return func(w *world) {
		o := w.objects[key(t, name)]
		o.Fields = maps.Clone(o.Fields)
		o.Fields[field] = v
		w.objects[key(t, name)] = o
	}
}

// edit returns a change of a list.
func edit[T any](t plan.Type, name, field string, fn func([]T) []T) func(*world) {
	return func(w *world) {
		list, _ := w.objects[key(t, name)].Fields[field].([]T)
		set(t, name, field, fn(slices.Clone(list)))(w)
	}
}

func remove(t plan.Type, name string) func(*world) {
	return func(w *world) { delete(w.objects, key(t, name)) }
}

func swap[T any](list []T) []T {
	list[0], list[1] = list[1], list[0]
	return list
}

func first[T any](list []T) []T { return list[:1] }

func with[T any](x T) func([]T) []T { return func(list []T) []T { return append(list, x) } }

func change[T any](fn func(*T)) func([]T) []T {
	return func(list []T) []T {
		fn(&list[1])
		return list
	}
}

// What a person changes is found, with object and field, and the plan repairs it.
func TestDrift(t *testing.T) {
	type (
		rules   = []plan.Rule
		numbers = []plan.EmergencyNumber
	)
	activation := "tandem.teams@" + derived
	for _, c := range []struct {
		how   string
		on    plan.Type
		name  string
		field string // empty: the object is missing
		do    func(*world)
	}{
		{"removes the domain", plan.Domain, derived, "", remove(plan.Domain, derived)},
		{"adds the domain again and does not verify it", plan.Domain, derived, "verified",
			set(plan.Domain, derived, "verified", false)},
		{"deletes the activation user", plan.ActivationUser, activation, "", remove(plan.ActivationUser, activation)},
		{"blocks its sign-in", plan.ActivationUser, activation, "enabled",
			set(plan.ActivationUser, activation, "enabled", false)},
		{"renames it", plan.ActivationUser, activation, "displayName",
			set(plan.ActivationUser, activation, "displayName", "SBC")},
		{"takes its licence", plan.ActivationUser, activation, "licence",
			set(plan.ActivationUser, activation, "licence", "")},
		{"makes Microsoft drop the SIP domain", plan.SIPDomain, derived, "", remove(plan.SIPDomain, derived)},
		{"removes the usage", plan.Usage, own, "", remove(plan.Usage, own)},

		{"deletes the policy", plan.RoutingPolicy, own, "", remove(plan.RoutingPolicy, own)},
		{"takes a usage from it", plan.RoutingPolicy, own, "usages",
			edit(plan.RoutingPolicy, own, "usages", first[string])},
		{"swaps its usages", plan.RoutingPolicy, own, "usages", edit(plan.RoutingPolicy, own, "usages", swap[string])},
		{"adds a usage", plan.RoutingPolicy, own, "usages",
			edit(plan.RoutingPolicy, own, "usages", with("Foreign C"))},
		{"puts a usage in twice", plan.RoutingPolicy, own, "usages",
			edit(plan.RoutingPolicy, own, "usages", with(own))},
		{"replaces its usages", plan.RoutingPolicy, own, "usages",
			set(plan.RoutingPolicy, own, "usages", []string{"Foreign A"})},
		{"empties it", plan.RoutingPolicy, own, "usages", set(plan.RoutingPolicy, own, "usages", []string{})},

		{"deletes the gateway", plan.Gateway, gateway, "", remove(plan.Gateway, gateway)},
		{"changes its port", plan.Gateway, gateway, "port", set(plan.Gateway, gateway, "port", 5067)},
		{"drains it", plan.Gateway, gateway, "enabled", set(plan.Gateway, gateway, "enabled", false)},
		{"stops OPTIONS", plan.Gateway, gateway, "sendSipOptions", set(plan.Gateway, gateway, "sendSipOptions", false)},
		{"stops the call history", plan.Gateway, gateway, "forwardCallHistory",
			set(plan.Gateway, gateway, "forwardCallHistory", false)},
		{"stops the identity", plan.Gateway, gateway, "forwardPai", set(plan.Gateway, gateway, "forwardPai", false)},
		{"stops the location", plan.Gateway, gateway, "pidfLoSupported",
			set(plan.Gateway, gateway, "pidfLoSupported", false)},
		{"starts media bypass", plan.Gateway, gateway, "mediaBypass", set(plan.Gateway, gateway, "mediaBypass", true)},

		{"deletes the route", plan.Route, own, "", remove(plan.Route, own)},
		{"narrows its pattern", plan.Route, own, "pattern", set(plan.Route, own, "pattern", `^\+44`)},
		{"changes the case in its pattern", plan.Route, own, "pattern", set(plan.Route, own, "pattern", `^\D+`)},
		{"takes a gateway from it", plan.Route, own, "gateways", edit(plan.Route, own, "gateways", first[string])},
		{"adds a gateway", plan.Route, own, "gateways", edit(plan.Route, own, "gateways", with("sbc.foreign.example"))},
		{"empties its gateways", plan.Route, own, "gateways", set(plan.Route, own, "gateways", []string{})},
		{"replaces its usage", plan.Route, own, "usages", set(plan.Route, own, "usages", []string{"Foreign A"})},
		{"adds a usage to it", plan.Route, own, "usages", edit(plan.Route, own, "usages", with("Foreign A"))},
		{"moves it up", plan.Route, own, "priority", set(plan.Route, own, "priority", 0)},

		{"deletes the dial plan", plan.DialPlan, own, "", remove(plan.DialPlan, own)},
		{"removes a rule", plan.DialPlan, own, "rules", edit(plan.DialPlan, own, "rules", first[plan.Rule])},
		{"adds a rule", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", with(plan.Rule{Name: "all", Pattern: ".*", Translation: "+1"}))},
		{"swaps rules", plan.DialPlan, own, "rules", edit(plan.DialPlan, own, "rules", swap[plan.Rule])},
		{"renames a rule", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", change(func(r *plan.Rule) { r.Name = "internal" }))},
		{"describes a rule in another way", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", change(func(r *plan.Rule) { r.Description = "" }))},
		{"changes a rule's pattern", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", change(func(r *plan.Rule) { r.Pattern = `^(\d{3})$` }))},
		{"changes a rule's translation", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", change(func(r *plan.Rule) { r.Translation = "+1$1" }))},
		{"makes a rule external", plan.DialPlan, own, "rules",
			edit(plan.DialPlan, own, "rules", change(func(r *plan.Rule) { r.Internal = false }))},
		{"empties the rules", plan.DialPlan, own, "rules", set(plan.DialPlan, own, "rules", rules{})},

		{"deletes the emergency policy", plan.EmergencyPolicy, own, "", remove(plan.EmergencyPolicy, own)},
		{"removes an emergency number", plan.EmergencyPolicy, own, "numbers",
			edit(plan.EmergencyPolicy, own, "numbers", first[plan.EmergencyNumber])},
		{"adds one", plan.EmergencyPolicy, own, "numbers", edit(plan.EmergencyPolicy, own, "numbers",
			with(plan.EmergencyNumber{DialString: "911", Usage: own}))},
		{"changes one", plan.EmergencyPolicy, own, "numbers", edit(plan.EmergencyPolicy, own, "numbers",
			change(func(n *plan.EmergencyNumber) { n.DialString = "911" }))},
		{"changes its mask", plan.EmergencyPolicy, own, "numbers", edit(plan.EmergencyPolicy, own, "numbers",
			change(func(n *plan.EmergencyNumber) { n.Mask = "" }))},
		{"sends it by another usage", plan.EmergencyPolicy, own, "numbers", edit(plan.EmergencyPolicy, own, "numbers",
			change(func(n *plan.EmergencyNumber) { n.Usage = "Foreign A" }))},
		{"empties it", plan.EmergencyPolicy, own, "numbers", set(plan.EmergencyPolicy, own, "numbers", numbers{})},

		{"takes a user's number", plan.User, "user-1", "number", set(plan.User, "user-1", "number", nil)},
		{"gives a user another number", plan.User, "user-1", "number",
			set(plan.User, "user-1", "number", "+442079460999")},
		{"takes the extension from a number", plan.User, "user-2", "number",
			set(plan.User, "user-2", "number", "+442079460202")},
		{"grants another policy", plan.User, "user-1", "routingPolicy",
			set(plan.User, "user-1", "routingPolicy", "Theirs")},
		{"takes the policy", plan.User, "user-2", "routingPolicy", set(plan.User, "user-2", "routingPolicy", nil)},
		{"grants another dial plan", plan.User, "user-1", "dialPlan", set(plan.User, "user-1", "dialPlan", "Theirs")},
		{"takes the dial plan", plan.User, "user-1", "dialPlan", set(plan.User, "user-1", "dialPlan", nil)},
		{"changes the caller id", plan.User, "user-1", "callerID", set(plan.User, "user-1", "callerID", "Anonymous")},
		{"takes the emergency policy", plan.User, "user-1", "emergencyPolicy",
			set(plan.User, "user-1", "emergencyPolicy", nil)},
	} {
		t.Run(c.how, func(t *testing.T) {
			w, ledger := onboarded(t)
			intact := text(w.objects)
			c.do(w)
			drift := plan.Drift(w.state(), ledger)
			if len(drift.Steps) != 1 || len(drift.Conflicts)+len(drift.Kept) > 0 {
				t.Fatalf("found %+v", drift)
			}
			s := drift.Steps[0]
			if s.Type != c.on || !strings.EqualFold(s.Name, c.name) || (s.Action == plan.Create) != (c.field == "") {
				t.Errorf("found %s %s %s, want %s of %s", s.Action, s.Type, s.Name, c.field, c.name)
			}
			if c.field != "" && (len(s.Differences) != 1 || s.Differences[0].Field != c.field ||
				!cmp.Equal(s.Differences[0].New, mustField(ledger, c.on, c.name, c.field)) ||
				!cmp.Equal(s.Differences[0].Old, w.objects[key(c.on, c.name)].Fields[c.field])) {
				t.Errorf("found %+v, want %s with the value of the ledger", s.Differences, c.field)
			}

			if err := w.do(s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(intact, text(w.objects)); diff != "" {
				t.Errorf("after the repair (-intact +have):\n%s", diff)
			}
		})
	}
}

func mustField(l plan.Ledger, t plan.Type, name, field string) any {
	m, ok := l.Get(plan.Ref{Type: t, Name: name})
	if !ok {
		panic(fmt.Sprintf("no %s %s in the ledger", t, name))
	}
	return m.Fields[field]
}

// spelling returns a name as Teams may show it: in another case, of policies and plans with the prefix Tag.
func (r random) spelling(t plan.Type, s string) string {
	switch r.IntN(3) {
	case 0:
		s = strings.ToLower(s)
	case 1:
		s = strings.ToUpper(s)
	}
	if (t == plan.RoutingPolicy || t == plan.DialPlan || t == plan.EmergencyPolicy) && r.bool() {
		s = "Tag:" + s
	}
	return s
}

// shuffled returns the tenant as another read may show it: what has no order in another one, names in other spellings.
func (r random) shuffled(w *world) []plan.Object {
	var objects []plan.Object
	for _, o := range w.objects {
		f := maps.Clone(o.Fields)
		for n, v := range f {
			switch v := v.(type) {
			case []string:
				v = slices.Clone(v)
				for i := range v {
					v[i] = r.spelling(plan.Usage, v[i])
				}
				if o.Type == plan.Route {
					r.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
				}
				f[n] = v
			case []plan.EmergencyNumber:
				v = slices.Clone(v)
				for i := range v {
					v[i].Usage = r.spelling(plan.Usage, v[i].Usage)
				}
				f[n] = v
			case string:
				switch n {
				case "routingPolicy", "callerID", "dialPlan", "emergencyPolicy":
					f[n] = r.spelling(plan.RoutingPolicy, v)
				case "domain":
					f[n] = r.spelling(plan.Domain, v)
				}
			}
		}
		objects = append(objects, object(o.Type, r.spelling(o.Type, o.Name), f))
	}
	r.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	return objects
}

// tenant-cases 18: a tenant that nobody has changed has no drift, in whatever order and spelling it is read. Lists with
// an order have.
func TestNoFalseAlarms(t *testing.T) {
	for seed := range 100 {
		r := seeded(seed)
		foreign := r.foreign()
		w, s := newWorld(foreign), r.wish(foreign)
		want := s.want(w.state(), nil)
		ledger := apply(t, w, nil, plan.Compare(want, w.state(), nil), want)
		for i := range 100 {
			have := plan.NewState(r.shuffled(w))
			if d := plan.Drift(have, ledger); len(d.Steps)+len(d.Conflicts)+len(d.Kept) > 0 {
				t.Fatalf("seed %d, comparison %d: %+v", seed, i, d)
			}
			if d := plan.Compare(want, have, ledger); len(d.Steps)+len(d.Conflicts)+len(d.Kept) > 0 {
				t.Fatalf("seed %d, plan %d: %+v", seed, i, d)
			}
		}

		for _, list := range []struct {
			t     plan.Type
			field string
			swap  func(*world)
			n     int
		}{
			{plan.RoutingPolicy, "usages", edit(plan.RoutingPolicy, own, "usages", swap[string]),
				len(w.objects[key(plan.RoutingPolicy, own)].Fields["usages"].([]string))},
			{plan.DialPlan, "rules", edit(plan.DialPlan, own, "rules", swap[plan.Rule]), len(s.Rules)},
		} {
			if list.n < 2 {
				continue
			}
			changed := newWorld(slices.Collect(maps.Values(w.objects)))
			list.swap(changed)
			d := plan.Drift(changed.state(), ledger)
			if len(d.Steps) != 1 || d.Steps[0].Type != list.t || len(d.Steps[0].Differences) != 1 ||
				d.Steps[0].Differences[0].Field != list.field {
				t.Fatalf("seed %d: swapped %s of the %s: %+v", seed, list.field, list.t, d)
			}
		}
	}
}
