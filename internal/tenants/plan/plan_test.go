package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// world is a tenant that carries out steps and refuses what Teams refuses. It is written apart from package plan: it
// knows no comparison of fields.
type world struct{ objects map[string]plan.Object }

func key(t plan.Type, name string) string { return string(t) + " " + strings.ToLower(name) }

func newWorld(objects []plan.Object) *world {
	w := &world{map[string]plan.Object{}}
	for _, o := range objects {
		w.objects[key(o.Type, o.Name)] = o
	}
	return w
}

func (w *world) state() plan.State { return plan.NewState(slices.Collect(maps.Values(w.objects))) }

// uses returns the names of the objects which an object of the type uses, by what the cmdlets' pages say.
func uses(o plan.Object) []string {
	var keys []string
	text := func(field string, ts ...plan.Type) {
		v, _ := o.Fields[field].(string)
		for _, t := range ts {
			if v != "" {
				keys = append(keys, key(t, v))
			}
		}
	}
	texts := func(field string, t plan.Type) {
		vs, _ := o.Fields[field].([]string)
		for _, v := range vs {
			keys = append(keys, key(t, v))
		}
	}
	switch o.Type {
	case plan.ActivationUser, plan.SIPDomain:
		text("domain", plan.Domain)
	case plan.RoutingPolicy:
		texts("usages", plan.Usage)
	case plan.Gateway:
		text("domain", plan.SIPDomain)
	case plan.Route:
		texts("usages", plan.Usage)
	case plan.EmergencyPolicy:
		numbers, _ := o.Fields["numbers"].([]plan.EmergencyNumber)
		for _, n := range numbers {
			keys = append(keys, key(plan.Usage, n.Usage))
		}
	case plan.User:
		text("routingPolicy", plan.RoutingPolicy)
		text("dialPlan", plan.DialPlan)
		text("emergencyPolicy", plan.EmergencyPolicy)
	}
	return keys
}

func (w *world) do(s plan.Step) error {
	k := key(s.Type, s.Name)
	old, exists := w.objects[k]
	if exists == (s.Action == plan.Create) {
		return fmt.Errorf("%s %s: exists: %t", s.Action, k, exists)
	}
	if s.Action == plan.Delete {
		for _, o := range w.objects {
			if slices.Contains(uses(o), k) && !(o.Type == plan.SIPDomain && s.Type == plan.Domain) {
				return fmt.Errorf("delete %s: in use by %s", k, o.Name)
			}
		}
		delete(w.objects, k)
		if s.Type == plan.Domain {
			delete(w.objects, key(plan.SIPDomain, s.Name)) // Microsoft removes it with the domain
		}
		return nil
	}

	o := plan.Object{Ref: s.Ref, Fields: maps.Clone(old.Fields)}
	if o.Fields == nil {
		o.Fields = plan.Fields{}
	}
	for _, d := range s.Differences {
		if !cmp.Equal(o.Fields[d.Field], d.Old) {
			return fmt.Errorf("%s %s: %s is %v, the plan says %v", s.Action, k, d.Field, o.Fields[d.Field], d.Old)
		}
		o.Fields[d.Field] = d.New
	}
	for _, u := range uses(o) {
		if _, ok := w.objects[u]; !ok {
			return fmt.Errorf("%s %s: no %s", s.Action, k, u)
		}
	}
	w.objects[k] = o
	return nil
}

func (w *world) run(t *rapid.T, ledger plan.Ledger, p *plan.Plan, desired []plan.Object) plan.Ledger {
	if len(p.Conflicts) > 0 {
		t.Fatalf("conflicts: %v", p.Conflicts)
	}
	entries := map[string]plan.Made{}
	for _, m := range ledger {
		entries[key(m.Type, m.Name)] = m
	}
	for _, s := range p.Steps {
		k := key(s.Type, s.Name)
		before := w.objects[k]
		if err := w.do(s); err != nil {
			t.Fatalf("%v\nin %v", err, p.Steps)
		}
		i := slices.IndexFunc(desired, func(o plan.Object) bool { return key(o.Type, o.Name) == k })
		switch {
		case i < 0:
			delete(entries, k)
		default:
			m := plan.Made{Object: desired[i], Before: entries[k].Before}
			if s.Action == plan.Change && s.Type == plan.User && m.Before == nil {
				m.Before = plan.Fields{}
				for f := range desired[i].Fields {
					m.Before[f] = before.Fields[f]
				}
			}
			entries[k] = m
		}
	}
	for k, m := range entries { // what is no longer wanted and was gone
		if !slices.ContainsFunc(desired, func(o plan.Object) bool { return key(o.Type, o.Name) == k }) {
			delete(entries, key(m.Type, m.Name))
		}
	}
	return plan.NewLedger(slices.Collect(maps.Values(entries)))
}

func tenant(t *rapid.T) []plan.Object {
	var objects []plan.Object
	add := func(ty plan.Type, name string, f plan.Fields) {
		objects = append(objects, plan.Object{Ref: plan.Ref{Type: ty, Name: name}, Fields: f})
	}
	var usages []string
	for i := range rapid.IntRange(0, 4).Draw(t, "usages") {
		usages = append(usages, fmt.Sprintf("Foreign %d", i))
		add(plan.Usage, usages[i], plan.Fields{"place": i})
	}
	pick := func(label string) []string {
		var some []string
		for _, u := range usages {
			if rapid.Bool().Draw(t, label) {
				some = append(some, u)
			}
		}
		return some
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "routes") {
		add(plan.Route, fmt.Sprintf("Route %d", i), plan.Fields{"pattern": `^\+1`, "usages": pick("in route"),
			"gateways": []string{"sbc.foreign.example"}, "priority": i + 1})
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
		add(plan.RoutingPolicy, fmt.Sprintf("Policy %d", i), plan.Fields{"usages": pick("in policy")})
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "users") {
		f := plan.Fields{"domain": "fabrikam.example"}
		if rapid.Bool().Draw(t, "has number") {
			f["number"] = fmt.Sprintf("+44207946010%d", i)
		}
		add(plan.User, fmt.Sprintf("user-%d", i), f)
	}
	return objects
}

// stored returns the ledger as a database gives it back.
func stored(t *rapid.T, l plan.Ledger) plan.Ledger {
	b, err := json.Marshal(slices.Collect(maps.Values(l)))
	if err != nil {
		t.Fatal(err)
	}
	var entries []plan.Made
	if err := json.Unmarshal(b, &entries); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, plan.NewLedger(entries)); diff != "" {
		t.Fatalf("stored and read (-want +got):\n%s", diff)
	}
	return plan.NewLedger(entries)
}

// storedPlan checks that a plan that was stored and read has the same hash.
func storedPlan(t *rapid.T, p *plan.Plan) {
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var read plan.Plan
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if read.Hash() != p.Hash() {
		t.Fatalf("the hash of %v changes when the plan is stored", p.Steps)
	}
}

func settings(t *rapid.T) *plan.Settings {
	s := &plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD",
		Labels: rapid.SampledFrom([][]plan.Label{{{"fab", plan.Derived}}, {{"fab2", plan.Gateways}},
			{{"fab", plan.Derived}, {"fab2", plan.Gateways}},
			{{"fab3", plan.Gateways}, {"fab2", plan.Gateways}}}).Draw(t, "labels"),
		Regions: rapid.SampledFrom([][]string{{"1r1.gw.example"},
			{"1r1.gw.example", "1r2.gw.example"}}).Draw(t, "regions"),
		OwnUsageOnly: rapid.Bool().Draw(t, "own usage only"),
		Rules: []plan.Rule{{Name: "national", Description: "0 and a number", Pattern: `^0(\d+)$`,
			Translation: "+44$1"}}}
	if rapid.Bool().Draw(t, "emergency") {
		s.Emergency = []plan.EmergencyNumber{{DialString: "112", Mask: "999"}}
	}
	return s
}

// activated returns the voice settings of some of the users.
func activated(t *rapid.T, s *plan.Settings, users int) (objects []plan.Object) {
	for i := range users {
		if rapid.Bool().Draw(t, "activated") {
			objects = append(objects, plan.UserObject(s, plan.Activation{ID: fmt.Sprintf("user-%d", i),
				Number: fmt.Sprintf("+44207946020%d", i)}))
		}
	}
	return objects
}

func countUsers(objects []plan.Object) int {
	n := 0
	for _, o := range objects {
		if o.Type == plan.User {
			n++
		}
	}
	return n
}

func dump(w *world) string {
	b, _ := json.Marshal(w.objects)
	return string(b)
}

// A plan does what it says, in an order that Teams accepts; a second one is empty; changed settings are followed; after
// leaving, everything is as before.
func TestPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		foreign := tenant(t)
		w := newWorld(foreign)
		before := dump(w)
		ledger := plan.Ledger{}

		for range rapid.IntRange(1, 3).Draw(t, "settings") {
			s := settings(t)
			users := activated(t, s, countUsers(foreign))
			desired := append(s.Objects(w.state(), ledger), users...)
			p := plan.Compare(desired, w.state(), ledger)
			storedPlan(t, p)
			ledger = stored(t, w.run(t, ledger, p, desired))
			for _, o := range desired {
				got := w.objects[key(o.Type, o.Name)]
				for f, v := range o.Fields {
					if !cmp.Equal(got.Fields[f], v) {
						t.Fatalf("%s %s: %s is %v, want %v", o.Type, o.Name, f, got.Fields[f], v)
					}
				}
			}
			again := plan.Compare(append(s.Objects(w.state(), ledger), users...), w.state(), ledger)
			if len(again.Steps) > 0 || len(again.Conflicts) > 0 {
				t.Fatalf("second plan: %v %v", again.Steps, again.Conflicts)
			}
			if d := plan.Drift(w.state(), ledger); len(d.Steps) > 0 {
				t.Fatalf("drift: %v", d.Steps)
			}
		}

		leave := plan.Compare(nil, w.state(), ledger)
		if ledger = w.run(t, ledger, leave, nil); len(ledger) > 0 {
			t.Fatalf("left: %v", ledger)
		}
		for _, o := range w.objects { // a field that was not there is null
			maps.DeleteFunc(o.Fields, func(_ string, v any) bool { return v == nil })
		}
		if diff := cmp.Diff(before, dump(w)); diff != "" {
			t.Fatalf("after leaving (-before +after):\n%s", diff)
		}
	})
}

func object(t plan.Type, name string, f plan.Fields) plan.Object {
	return plan.Object{Ref: plan.Ref{Type: t, Name: name}, Fields: f}
}

func brief(p *plan.Plan) string {
	var lines []string
	for _, s := range p.Steps {
		line := fmt.Sprintf("%s %s %s", s.Action, s.Type, s.Name)
		for _, d := range s.Differences {
			if s.Action == plan.Change {
				line += fmt.Sprintf(" %s: %v -> %v", d.Field, d.Old, d.New)
			}
		}
		lines = append(lines, line)
	}
	for _, n := range p.Conflicts {
		lines = append(lines, "conflict: "+n.Name+" "+n.Text)
	}
	for _, n := range p.Kept {
		lines = append(lines, "kept: "+n.Name+" "+n.Text)
	}
	return strings.Join(lines, "\n")
}

// What is whose, and what stands in the way of leaving.
func TestOwnership(t *testing.T) {
	const name = "fab.1r1.gw.example"
	upn := "tandem.teams@" + name
	domain := func(verified bool) plan.Object { return object(plan.Domain, name, plan.Fields{"verified": verified}) }
	user := func(licence string) plan.Object {
		return object(plan.ActivationUser, upn, plan.Fields{"domain": name, "displayName": "Teams Gateway",
			"enabled": true, "licence": licence})
	}
	releasing := user("MCOSTANDARD")
	releasing.Fields["release"] = true
	sip := object(plan.SIPDomain, name, plan.Fields{"domain": name})
	policy := object(plan.RoutingPolicy, "Tandem-E164", plan.Fields{"usages": []string{"Tandem-E164"}})
	ours := func(o plan.Object, before plan.Fields) []plan.Made { return []plan.Made{{Object: o, Before: before}} }
	const removed, inUse = "delete domain " + name, " cannot be removed, because "
	const first = " names it: change that first"
	type objects = []plan.Object

	for what, c := range map[string]struct {
		desired, have []plan.Object
		ledger        []plan.Made
		want          string
	}{
		"a domain that a person has added is verified": {objects{domain(true)}, objects{domain(false)}, nil,
			"change domain " + name + " verified: false -> true"},
		"and stays": {nil, objects{domain(true)}, ours(domain(true), plan.Fields{"verified": false}),
			"kept: " + name + " a person had added it: it stays, verified"},
		"a domain that was verified is used":  {objects{domain(true)}, objects{domain(true)}, nil, ""},
		"and stays as well":                   {nil, objects{domain(true)}, nil, ""},
		"a domain that Tandem has added goes": {nil, objects{domain(true)}, ours(domain(true), nil), removed},

		"an activation user of someone else": {objects{user("MCOSTANDARD")}, objects{user("MCOEV")}, nil, ""},
		"is not licensed by Tandem": {objects{user("MCOSTANDARD")}, objects{user("")}, nil, "conflict: " + upn +
			` exists, is different, and was not made by Tandem: licence is "" instead of "MCOSTANDARD". ` +
			"Rename or remove it, or choose other names"},
		"and keeps its domain": {nil, objects{domain(true), user("MCOEV")}, ours(domain(true), nil),
			removed + "\nconflict: " + name + inUse + "activationUser " + upn + first},
		"any licence that activates will do": {objects{user("MCOSTANDARD")}, objects{user("MCOEV")},
			ours(user("MCOSTANDARD"), nil), ""},
		"a seat is needed until the activation": {objects{releasing}, objects{user("")}, ours(releasing, nil),
			"change activationUser " + upn + " licence:  -> MCOSTANDARD"},
		"and given back then": {objects{releasing}, objects{user("MCOEV"), sip}, ours(releasing, nil),
			"change activationUser " + upn + " licence: MCOEV -> "},
		"which is no drift": {objects{releasing}, objects{user(""), sip}, ours(releasing, nil), ""},

		"another user with a name in the domain": {nil, objects{domain(true), object(plan.Reference, "anna@"+name,
			plan.Fields{"domain": name})}, ours(domain(true), nil),
			removed + "\nconflict: " + name + inUse + "reference anna@" + name + first},
		"a group with our policy": {nil, objects{policy, object(plan.GroupGrant, "Sales",
			plan.Fields{"routingPolicy": "tandem-e164"})}, ours(policy, nil),
			"delete routingPolicy Tandem-E164\nconflict: Tandem-E164" + inUse + "groupGrant Sales" + first},
	} {
		p := plan.Compare(c.desired, plan.NewState(c.have), plan.NewLedger(c.ledger))
		if got := brief(p); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, c.want)
		}
	}

	p := plan.Compare(nil, plan.NewState(objects{user("MCOEV")}), plan.NewLedger(ours(user("MCOEV"), nil)))
	hash := p.Hash()
	p.Binned()
	p.Kept = append(p.Kept, plan.ConsentStays("aaaaaaaa-0000-4000-8000-000000000001", true))
	if len(p.Kept) != 2 || p.Kept[1].Type != plan.Consent ||
		!strings.Contains(p.Kept[0].Text, "30 days") || p.Hash() != hash {
		t.Errorf("what cannot be purged: %+v", p.Kept)
	}
}

// Objects that users have are not removed before the users have others.
func TestHolders(t *testing.T) {
	s := &plan.Settings{Prefix: "Tandem-E164"}
	users := []plan.Made{{Object: plan.UserObject(s, plan.Activation{ID: "1", Number: "+442079460201"})},
		{Object: plan.UserObject(s, plan.Activation{ID: "2", Number: "+442079460202"})}}
	policy := object(plan.RoutingPolicy, "Tandem-E164", plan.Fields{"usages": []string{}})
	structure, held := plan.NewLedger(append(users, plan.Made{Object: policy})).Split()
	if len(structure) != 1 || len(held) != 2 {
		t.Fatalf("split into %v and %v", structure, held)
	}
	if n := plan.Compare(nil, plan.NewState([]plan.Object{policy}), structure).Holders(held); n != 2 {
		t.Errorf("%d users hold the policy, want 2", n)
	}
	if n := plan.Compare([]plan.Object{policy}, plan.NewState(nil), structure).Holders(held); n != 0 {
		t.Errorf("%d users hold something that is created, want 0", n)
	}
}
