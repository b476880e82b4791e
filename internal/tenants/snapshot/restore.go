package snapshot

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// configuration are the types whose objects a person can configure. They get again what they had when the snapshot was
// taken; those of other types get what Tandem had set.
var configuration = []plan.Type{plan.RoutingPolicy, plan.Gateway, plan.Route, plan.DialPlan, plan.EmergencyPolicy}

// Plan returns what a tenant should have so that it is as in the snapshot: its objects, the users, each with what it
// had before Tandem, and what a person has changed in between. The latter stays: it is not among the objects and
// users.
func Plan(d *Document, have plan.State, ledger plan.Ledger) (objects []plan.Object, users []plan.Made,
	notes []plan.Note) {
	r := &restoration{have: have, ledger: ledger, made: map[string]bool{}}
	for _, e := range d.Entries {
		if e.Made.Type == plan.Usage {
			r.made[strings.ToLower(e.Made.Name)] = true
		}
	}
	for _, e := range d.Entries {
		if e.Made.Type == plan.User {
			if m, ok := r.user(e); ok {
				users = append(users, m)
			}
			continue
		}
		if o, ok := r.object(e); ok {
			objects = append(objects, o)
		}
	}
	return objects, users, r.notes
}

type restoration struct {
	have   plan.State
	ledger plan.Ledger
	made   map[string]bool // usages of the snapshot, in lower case
	notes  []plan.Note
}

func (r *restoration) note(ref plan.Ref, format string, args ...any) {
	r.notes = append(r.notes, plan.Note{Ref: ref, Text: fmt.Sprintf(format, args...)})
}

// object returns what an object should have again.
func (r *restoration) object(e Entry) (plan.Object, bool) {
	ref, fields := e.Made.Ref, maps.Clone(e.Made.Fields)
	if e.Found == nil {
		r.note(ref, "was missing when the snapshot was taken; it is made again as Tandem had made it")
	} else if slices.Contains(configuration, ref.Type) {
		fields = maps.Clone(e.Found.Fields)
		maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	}
	want := plan.Object{Ref: ref, Fields: fields}
	if usages, ok := fields["usages"].([]string); ok {
		fields["usages"] = r.present(ref, usages)
	}

	got, exists := r.have.Get(ref)
	made, ours := r.ledger.Get(ref)
	diffs := differences(got, fields)
	switch {
	case !exists || len(diffs) == 0 || ref.Type == plan.Domain:
		return want, true
	case !ours:
		r.note(ref, "exists, was not made by Tandem and is kept as it is: %s", list(diffs))
		return plan.Object{}, false
	}
	for _, f := range diffs {
		if len(differences(got, plan.Fields{f.Field: made.Fields[f.Field]})) == 0 {
			continue // Tandem has set it since
		}
		fields[f.Field] = f.Old
		r.note(ref, "changed since by someone else and kept: %s", list([]plan.Difference{f}))
	}
	return want, true
}

// present returns the usages that the tenant has, or will have.
func (r *restoration) present(ref plan.Ref, usages []string) []string {
	return slices.DeleteFunc(slices.Clone(usages), func(u string) bool {
		_, ok := r.have.Get(plan.Ref{Type: plan.Usage, Name: u})
		if !ok && !r.made[strings.ToLower(u)] {
			r.note(ref, "is restored without the PSTN usage %s, which no longer exists", u)
			return true
		}
		return false
	})
}

// user returns what a user should have again. One whose settings a person has changed in between is left alone.
func (r *restoration) user(e Entry) (plan.Made, bool) {
	ref, want := e.Made.Ref, plan.Fields{}
	for n, v := range e.Made.Fields {
		if want[n] = v; e.Found != nil {
			want[n] = e.Found.Fields[n]
		}
	}
	got, exists := r.have.Get(ref)
	if !exists {
		r.note(ref, "no longer exists; it is not activated")
		return plan.Made{}, false
	}
	if number, _ := want["number"].(string); number == "" {
		r.note(ref, "had no number any more when the snapshot was taken; it is not activated")
		return plan.Made{}, false
	}
	before := e.Made.Before
	made, ours := r.ledger.Get(ref)
	if ours {
		before = made.Before
	}
	var changed []plan.Difference
	for _, d := range differences(got, want) {
		is := func(v any) bool { return len(differences(got, plan.Fields{d.Field: v})) == 0 }
		if !is(e.Made.Before[d.Field]) && !(ours && is(made.Fields[d.Field])) {
			changed = append(changed, d)
		}
	}
	if len(changed) > 0 {
		r.note(ref, "changed since by someone else; it is not activated: %s", list(changed))
		return plan.Made{}, false
	}
	return plan.Made{Object: plan.Object{Ref: ref, Fields: want}, Before: before,
		OverrideGroup: e.Made.OverrideGroup}, true
}

// differences returns the fields that an object does not have as wanted, by the rules of package plan: Old is what it
// has.
func differences(got plan.Object, want plan.Fields) []plan.Difference {
	if got.Ref == (plan.Ref{}) {
		return nil
	}
	ledger := plan.NewLedger([]plan.Made{{Object: plan.Object{Ref: got.Ref}}})
	var diffs []plan.Difference
	p := plan.Compare([]plan.Object{{Ref: got.Ref, Fields: want}}, plan.NewState([]plan.Object{got}), ledger)
	for _, s := range p.Steps {
		diffs = append(diffs, s.Differences...)
	}
	return diffs
}

// list says what differs from a snapshot.
func list(diffs []plan.Difference) string {
	texts := make([]string, len(diffs))
	for i, d := range diffs {
		texts[i] = fmt.Sprintf("%s is %s, the snapshot has %s", d.Field, value(d.Old), value(d.New))
	}
	return strings.Join(texts, "; ")
}

// value returns a value for a person.
func value(v any) string {
	if v == nil || v == "" {
		return "none"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
