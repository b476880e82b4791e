package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// operator is what two tenants and the directory have of an account that moves from one to the other, or converts the
// trunks of one.
type operator struct {
	*testing.T
	regions []string
	tenants map[string]*world
	ledgers map[string]plan.Ledger
	labels  []string          // of the account in the directory; the first is the active one
	numbers map[string]string // the labels that are recorded for numbers; empty for the active one
	moments int
}

// check reports each number whose calls would be lost now: nobody has it where calls to it go, or who has it cannot
// call.
func (o *operator) check(moment string) {
	o.Helper()
	o.moments++
	for number, label := range o.numbers {
		if label == "" {
			label = o.labels[0]
		}
		if !slices.Contains(o.labels, label) {
			o.Errorf("%s: %s has the label %s, which the account does not have", moment, number, label)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(o.tenants)), func(w *world) bool {
			return o.reaches(w, label) && slices.ContainsFunc(w.users(), func(u plan.Object) bool {
				return u.Fields["number"] == number && o.calls(w, u)
			})
		}) {
			o.Errorf("%s: calls to %s go to the label %s, and no user has it there", moment, number, label)
		}
	}
}

func (w *world) users() []plan.Object {
	return slices.DeleteFunc(slices.Collect(maps.Values(w.objects)), func(o plan.Object) bool {
		return o.Type != plan.User
	})
}

// reaches reports whether a tenant accepts calls from the trunks of a label, and returns those of its users there.
func (o *operator) reaches(w *world, label string) bool {
	route := w.objects[key(plan.Route, own)]
	gateways, _ := route.Fields["gateways"].([]string)
	for _, r := range o.regions {
		name := label + "." + r
		if _, ok := w.objects[key(plan.SIPDomain, name)]; !ok || !slices.Contains(gateways, name) {
			return false
		}
	}
	return true
}

// calls reports whether a user's calls have a way to one of the account's labels, and no way that does not exist.
func (o *operator) calls(w *world, u plan.Object) bool {
	route, policy := w.objects[key(plan.Route, own)], w.objects[key(plan.RoutingPolicy, own)]
	usages, _ := policy.Fields["usages"].([]string)
	gateways, _ := route.Fields["gateways"].([]string)
	for _, g := range gateways {
		if _, ok := w.objects[key(plan.SIPDomain, g)]; !ok {
			return false
		}
	}
	return u.Fields["routingPolicy"] == own && slices.Contains(usages, own) && len(gateways) > 0
}

// plan makes and applies a plan, and checks after each step.
func (o *operator) plan(tenant string, s *wish) {
	o.Helper()
	w, ledger := o.tenants[tenant], o.ledgers[tenant]
	var want []plan.Object
	if s != nil {
		want = s.want(w.state(), ledger)
	}
	p := plan.Compare(want, w.state(), ledger)
	if len(p.Conflicts) > 0 {
		o.Fatalf("%s: %v", tenant, p.Conflicts)
	}
	for _, s := range p.Steps {
		ledger = apply(o.T, w, ledger, &plan.Plan{Steps: []plan.Step{s}}, append(want, entries(ledger, s)...))
		o.check(fmt.Sprintf("%s: %s %s %s", tenant, s.Action, s.Type, s.Name))
	}
	o.ledgers[tenant] = ledger
}

// entries returns what the ledger has but for the object of a step.
func entries(l plan.Ledger, s plan.Step) []plan.Object {
	var objects []plan.Object
	for _, m := range l {
		if key(m.Type, m.Name) != key(s.Type, s.Name) {
			objects = append(objects, m.Object)
		}
	}
	return objects
}

// An account moves to another tenant, or from gateway objects to derived trunks. There is no moment in which the label
// of a number in use is missing in the tenant that has the number.
func TestMoveAndConvert(t *testing.T) {
	for _, regions := range [][]string{{"1r1.gw.example"}, {"1r1.gw.example", "1r2.gw.example"}} {
		for _, from := range []plan.Trunk{plan.Derived, plan.Gateways} {
			for _, convert := range []bool{false, true} {
				if convert && from == plan.Derived {
					continue
				}
				t.Run(fmt.Sprintf("%d regions, from %s, convert %t", len(regions), from, convert), func(t *testing.T) {
					o := &operator{T: t, regions: regions, labels: []string{"old"},
						tenants: map[string]*world{}, ledgers: map[string]plan.Ledger{},
						numbers: map[string]string{}}
					var users []plan.Activation
					var people []plan.Object
					for i := range 3 {
						users = append(users, plan.Activation{ID: fmt.Sprintf("user-%d", i),
							Number: fmt.Sprintf("+44207946020%d", i)})
						people = append(people, object(plan.User, users[i].ID,
							plan.Fields{"domain": "fabrikam.example"}))
					}
					settings := func(users []plan.Activation, labels ...plan.Label) *wish {
						s := seeded(len(regions)).wish(nil)
						s.Labels, s.Regions, s.users = labels, regions, users
						return &s
					}
					o.tenants["first"] = newWorld(people)
					old, next := plan.Label{Name: "old", Trunk: from}, plan.Label{Name: "new", Trunk: plan.Derived}
					o.plan("first", settings(users, old))
					for _, u := range users {
						o.numbers[u.Number] = ""
					}
					o.check("before")

					o.labels = append(o.labels, "new")
					o.check("pending label")
					if convert {
						o.plan("first", settings(users, old, next))
						for _, u := range users {
							o.numbers[u.Number] = "new"
							o.check("record")
						}
						o.labels = []string{"new", "old"}
						o.check("activate")
						o.plan("first", settings(users, next))
					} else {
						o.tenants["second"] = newWorld(people)
						o.plan("second", settings(nil, next))
						for i, u := range users { // a number can be in two tenants: calls go to the recorded label
							o.plan("second", settings(users[:i+1], next))
							o.numbers[u.Number] = "new"
							o.check("record")
							o.plan("first", settings(users[i+1:], old))
						}
						o.labels = []string{"new", "old"}
						o.check("activate")
						o.plan("first", nil)
					}
					o.labels = []string{"new"}
					o.check("remove the old label")

					for k := range o.tenants["first"].objects {
						if !convert && k != key(plan.User, "user-0") && k != key(plan.User, "user-1") &&
							k != key(plan.User, "user-2") {
							t.Errorf("left in the first tenant: %s", k)
						}
						if k == key(plan.Gateway, "old.1r1.gw.example") || k == key(plan.Domain, "old.1r1.gw.example") {
							t.Errorf("left of the old label: %s", k)
						}
					}
					if o.moments < 20 {
						t.Errorf("only %d moments were checked", o.moments)
					}
				})
			}
		}
	}
}
