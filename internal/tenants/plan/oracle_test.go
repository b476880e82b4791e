package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// random makes tenants and what an operator wants for them.
type random struct{ *rand.Rand }

func seeded(seed int) random { return random{rand.New(rand.NewPCG(uint64(seed), 8))} }

func (r random) bool() bool { return r.IntN(2) == 0 }

// some returns a part of the names, in their order.
func (r random) some(names []string) []string {
	part := []string{}
	for _, n := range names {
		if r.bool() {
			part = append(part, n)
		}
	}
	return part
}

// foreign returns what a tenant has before Tandem.
func (r random) foreign() []plan.Object {
	var objects []plan.Object
	var usages []string
	for i := range r.IntN(5) {
		usages = append(usages, fmt.Sprintf("Foreign %c", 'A'+i))
	}
	r.Shuffle(len(usages), func(i, j int) { usages[i], usages[j] = usages[j], usages[i] })
	for i, u := range usages {
		objects = append(objects, object(plan.Usage, u, plan.Fields{"place": i}))
	}
	for i := range r.IntN(4) {
		objects = append(objects, object(plan.Route, fmt.Sprintf("Route %d", i), plan.Fields{"pattern": `^\+1`,
			"usages": r.some(usages), "gateways": []string{"sbc.foreign.example"}, "priority": r.IntN(20)}))
	}
	for i := range r.IntN(3) {
		objects = append(objects, object(plan.RoutingPolicy, fmt.Sprintf("Policy %d", i),
			plan.Fields{"usages": r.some(usages), "description": "of the customer"}))
	}
	if r.bool() {
		objects = append(objects, object(plan.DialPlan, "Branch", plan.Fields{"rules": []plan.Rule{{Name: "internal",
			Pattern: `^(\d{4})$`, Translation: "+4420794$1", Internal: true}}}))
	}
	if r.bool() {
		objects = append(objects, object(plan.SIPDomain, "fabrikam.example", plan.Fields{"domain": "fabrikam.example"}),
			object(plan.Domain, "fabrikam.example", plan.Fields{"verified": true}))
	}
	for i := range r.IntN(6) {
		f := plan.Fields{"domain": "fabrikam.example"}
		if r.bool() {
			f["number"] = fmt.Sprintf("+44207946010%d", i)
		}
		if r.bool() {
			f["callerID"] = "Anonymous"
		}
		policies := slices.DeleteFunc(slices.Clone(objects), func(o plan.Object) bool {
			return o.Type != plan.RoutingPolicy
		})
		if len(policies) > 0 && r.bool() {
			f["routingPolicy"] = policies[r.IntN(len(policies))].Name
		}
		objects = append(objects, object(plan.User, fmt.Sprintf("user-%d", i), f))
	}
	return objects
}

// wish is what an operator wants: settings, and the users that are activated.
type wish struct {
	plan.Settings
	users []plan.Activation
}

func (r random) wish(foreign []plan.Object) wish {
	w := wish{Settings: plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD",
		Pattern: []string{"", `^\+?\d+$`}[r.IntN(2)],
		Regions: []string{"1r1.gw.example", "1r2.gw.example"}[:1+r.IntN(2)], OwnUsageOnly: r.bool()}}
	w.Labels = [][]plan.Label{{{Name: "fab", Trunk: plan.Derived}}, {{Name: "old", Trunk: plan.Gateways}},
		{{Name: "fab", Trunk: plan.Derived}, {Name: "old", Trunk: plan.Gateways}},
		{{Name: "old", Trunk: plan.Gateways}, {Name: "older", Trunk: plan.Gateways}}}[r.IntN(4)]
	for i := range 1 + r.IntN(4) {
		w.Rules = append(w.Rules, plan.Rule{Name: fmt.Sprintf("rule %d", r.IntN(100)), Internal: r.bool(),
			Pattern: fmt.Sprintf(`^%d(\d+)$`, i), Translation: "+44$1"})
	}
	if r.bool() {
		w.Emergency = []plan.EmergencyNumber{{DialString: "112", Mask: "999"}, {DialString: "999"}}[:1+r.IntN(2)]
	}
	for _, o := range foreign {
		if o.Type == plan.User && r.bool() {
			a := plan.Activation{ID: o.Name, Number: fmt.Sprintf("+4420794602%02d", r.IntN(100))}
			if r.bool() {
				a.Number += ";ext=12"
				a.CallerID = "Reception"
			}
			w.users = append(w.users, a)
		}
	}
	return w
}

// want returns the objects that a plan is made for: those of the settings, and the users, whose activations are kept
// apart from them.
func (w *wish) want(have plan.State, ledger plan.Ledger) []plan.Object {
	objects := w.Objects(have, ledger)
	for _, u := range w.users {
		f := plan.Fields{"number": u.Number, "routingPolicy": w.Prefix, "dialPlan": w.Prefix}
		if u.CallerID != "" {
			f["callerID"] = u.CallerID
		}
		if len(w.Emergency) > 0 {
			f["emergencyPolicy"] = w.Prefix
		}
		objects = append(objects, object(plan.User, u.ID, f))
	}
	return objects
}

// oracle returns the whole tenant as an operator expects it, by the sequence of teams-tenant.md, section 7, and the
// trunk models of section 6. It knows the tenant before Tandem, and the priority that the route was first given.
func oracle(foreign []plan.Object, w *wish, priority int) map[string]plan.Object {
	all := map[string]plan.Object{}
	put := func(o plan.Object) { all[key(o.Type, o.Name)] = o }
	var usages []plan.Object
	for _, o := range foreign {
		put(o)
		if o.Type == plan.Usage {
			usages = append(usages, o)
		}
	}

	var trunks []string
	for _, l := range w.Labels {
		for _, region := range w.Regions {
			name := l.Name + "." + region
			trunks = append(trunks, name)
			put(object(plan.Domain, name, plan.Fields{"verified": true}))
			put(object(plan.SIPDomain, name, plan.Fields{"domain": name}))
			put(object(plan.ActivationUser, "tandem.teams@"+name, plan.Fields{"domain": name,
				"displayName": "Teams Gateway", "enabled": true, "licence": "MCOSTANDARD"}))
			if l.Trunk == plan.Gateways {
				put(object(plan.Gateway, name, plan.Fields{"domain": name, "port": 5061, "enabled": true,
					"sendSipOptions": true, "forwardCallHistory": true, "forwardPai": true, "pidfLoSupported": true,
					"mediaBypass": false}))
			}
		}
	}

	const name = "Tandem-E164"
	put(object(plan.Usage, name, plan.Fields{}))
	order := []string{name}
	if !w.OwnUsageOnly {
		slices.SortFunc(usages, func(a, b plan.Object) int { return a.Fields["place"].(int) - b.Fields["place"].(int) })
		for _, u := range usages {
			order = append(order, u.Name)
		}
	}
	put(object(plan.RoutingPolicy, name, plan.Fields{"usages": order}))
	pattern := ".*"
	if w.Pattern != "" {
		pattern = w.Pattern
	}
	put(object(plan.Route, name, plan.Fields{"pattern": pattern, "gateways": trunks, "usages": []string{name},
		"priority": priority}))
	put(object(plan.DialPlan, name, plan.Fields{"rules": w.Rules}))
	if len(w.Emergency) > 0 {
		var numbers []plan.EmergencyNumber
		for _, n := range w.Emergency {
			numbers = append(numbers, plan.EmergencyNumber{DialString: n.DialString, Mask: n.Mask, Usage: name})
		}
		put(object(plan.EmergencyPolicy, name, plan.Fields{"numbers": numbers}))
	}

	for _, u := range w.users {
		f := maps.Clone(all[key(plan.User, u.ID)].Fields)
		f["number"], f["routingPolicy"], f["dialPlan"] = u.Number, name, name
		if u.CallerID != "" {
			f["callerID"] = u.CallerID
		}
		if len(w.Emergency) > 0 {
			f["emergencyPolicy"] = name
		}
		put(object(plan.User, u.ID, f))
	}
	return all
}

// text returns objects in a form to compare: a field without a value is as one that is not there, and lists of gateways
// have no order.
func text(objects map[string]plan.Object) string {
	lines := make([]string, 0, len(objects))
	for k, o := range objects {
		f := maps.Clone(o.Fields)
		maps.DeleteFunc(f, func(_ string, v any) bool { return v == nil })
		if g, ok := f["gateways"].([]string); ok {
			f["gateways"] = slices.Sorted(slices.Values(g))
		}
		b, _ := json.Marshal(f)
		lines = append(lines, k+" "+string(b))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// changes returns what differs between two states of a tenant, one line for each object and field.
func changes(before, after map[string]plan.Object) []string {
	var lines []string
	value := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	for k := range maps.Keys(merged(before, after)) {
		a, had := before[k]
		b, has := after[k]
		switch {
		case !had:
			lines = append(lines, "create "+k)
		case !has:
			lines = append(lines, "delete "+k)
		}
		for f := range merged(a.Fields, b.Fields) {
			if had && has && value(a.Fields[f]) != value(b.Fields[f]) {
				lines = append(lines, fmt.Sprintf("change %s %s %s %s", k, f, value(a.Fields[f]), value(b.Fields[f])))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func merged[M ~map[string]V, V any](a, b M) M {
	m := maps.Clone(a)
	if m == nil {
		m = M{}
	}
	maps.Copy(m, b)
	return m
}

// promised returns what a plan says it does, in the form of changes. Microsoft removes a SIP domain with its domain.
func promised(p *plan.Plan) []string {
	var lines []string
	value := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	for _, s := range p.Steps {
		k := key(s.Type, s.Name)
		if s.Action != plan.Change {
			lines = append(lines, string(s.Action)+" "+k)
			if s.Action == plan.Delete && s.Type == plan.Domain {
				lines = append(lines, "delete "+key(plan.SIPDomain, s.Name))
			}
			continue
		}
		for _, d := range s.Differences {
			lines = append(lines, fmt.Sprintf("change %s %s %s %s", k, d.Field, value(d.Old), value(d.New)))
		}
	}
	slices.Sort(lines)
	return lines
}

// apply carries out a plan in the world, and keeps the ledger as package onboard does.
func apply(t *testing.T, w *world, ledger plan.Ledger, p *plan.Plan, want []plan.Object) plan.Ledger {
	t.Helper()
	next := plan.NewLedger(slices.Collect(maps.Values(ledger)))
	wanted := plan.NewState(want)
	for _, s := range p.Steps {
		old := w.objects[key(s.Type, s.Name)]
		if err := w.do(s); err != nil {
			t.Fatalf("%v\nin %v", err, p.Steps)
		}
		o, ok := wanted.Get(s.Ref)
		if !ok {
			next.Remove(s.Ref)
			continue
		}
		m := plan.Made{Object: o}
		if known, ok := next.Get(s.Ref); s.Action == plan.Change && (!ok || known.Before != nil) {
			m.Before = plan.Fields{}
			for f := range o.Fields {
				m.Before[f] = old.Fields[f]
			}
			maps.Copy(m.Before, known.Before)
		}
		next.Set(m)
	}
	for _, m := range next { // what is gone with something else
		_, has := w.objects[key(m.Type, m.Name)]
		if _, ok := wanted.Get(m.Ref); !ok && !has {
			next.Remove(m.Ref)
		}
	}
	return next
}

// A tenant has what the oracle expects after a plan, and nothing else of it has changed. A plan does what it says, and
// a second one does nothing. After leaving, the tenant is as before Tandem.
func TestOracle(t *testing.T) {
	for seed := range 1000 {
		r := seeded(seed)
		foreign := r.foreign()
		w, ledger := newWorld(foreign), plan.Ledger{}
		before := text(w.objects)
		last := 0
		for _, o := range foreign {
			if n, ok := o.Fields["priority"].(int); ok {
				last = max(last, n)
			}
		}

		for range 1 + r.IntN(3) {
			s := r.wish(foreign)
			want := s.want(w.state(), ledger)
			p := plan.Compare(want, w.state(), ledger)
			if len(p.Conflicts) > 0 {
				t.Fatalf("seed %d: conflicts: %v", seed, p.Conflicts)
			}
			var kept plan.Plan
			if b, err := json.Marshal(p); err != nil || json.Unmarshal(b, &kept) != nil || kept.Hash() != p.Hash() {
				t.Fatalf("seed %d: a plan that was stored has another hash: %v", seed, err)
			}
			was := maps.Clone(w.objects)
			ledger = apply(t, w, ledger, p, want)

			if diff := cmp.Diff(changes(was, w.objects), promised(p)); diff != "" {
				t.Fatalf("seed %d: what the plan did and said (-did +said):\n%s", seed, diff)
			}
			if diff := cmp.Diff(text(oracle(foreign, &s, last+1)), text(w.objects)); diff != "" {
				t.Fatalf("seed %d: the tenant (-oracle +have):\n%s", seed, diff)
			}
			again := plan.Compare(s.want(w.state(), ledger), w.state(), ledger)
			if len(again.Steps)+len(again.Conflicts)+len(again.Kept) > 0 {
				t.Fatalf("seed %d: a second plan: %+v", seed, again)
			}
		}

		leave := plan.Compare(nil, w.state(), ledger)
		if ledger = apply(t, w, ledger, leave, nil); len(ledger)+len(leave.Conflicts) > 0 {
			t.Fatalf("seed %d: left %v, conflicts %v", seed, ledger, leave.Conflicts)
		}
		if diff := cmp.Diff(before, text(w.objects)); diff != "" {
			t.Fatalf("seed %d: after leaving (-before +after):\n%s", seed, diff)
		}
	}
}

// A domain that a person had added is only verified, and stays when Tandem leaves.
func TestDomainOfAPerson(t *testing.T) {
	for _, verified := range []bool{false, true} {
		r := seeded(1)
		const name = "fab.1r1.gw.example"
		foreign := []plan.Object{object(plan.Domain, name, plan.Fields{"verified": verified})}
		w, s := newWorld(foreign), r.wish(nil)
		s.Labels, s.Regions = []plan.Label{{Name: "fab", Trunk: plan.Derived}}, []string{"1r1.gw.example"}
		want := s.want(w.state(), nil)
		ledger := apply(t, w, nil, plan.Compare(want, w.state(), nil), want)

		leave := plan.Compare(nil, w.state(), ledger)
		for _, s := range leave.Steps {
			if s.Type == plan.Domain {
				t.Errorf("verified by a person: %t: %s %v, which Microsoft does not do", verified, s.Action,
					s.Differences)
			}
		}
		if verified == (len(leave.Kept) > 0) {
			t.Errorf("verified by a person: %t: kept %v", verified, leave.Kept)
		}
		apply(t, w, ledger, leave, nil)
		if _, ok := w.objects[key(plan.Domain, name)]; !ok {
			t.Errorf("verified by a person: %t: the domain was removed", verified)
		}
		delete(w.objects, key(plan.Domain, name))
		delete(w.objects, key(plan.SIPDomain, name)) // Microsoft's
		if len(w.objects) > 0 {
			t.Errorf("left: %s", text(w.objects))
		}
	}
}
