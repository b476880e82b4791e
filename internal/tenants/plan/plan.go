package plan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is what a tenant has: its objects by Ref, other people's among them. Make it with NewState.
type State map[Ref]Object

// NewState returns the state with the objects.
func NewState(objects []Object) State {
	s := make(State, len(objects))
	for _, o := range objects {
		s[o.key()] = o
	}
	return s
}

// Get returns an object of the state.
func (s State) Get(r Ref) (Object, bool) {
	o, ok := s[r.key()]
	return o, ok
}

// Set enters an object.
func (s State) Set(o Object) { s[o.key()] = o }

// Made is an entry of the ledger: what Tandem has made, or was about to.
type Made struct {
	Object        // with the fields that Tandem has set
	Before Fields `json:"before,omitempty"` // what a shared object had in these fields
	// OverrideGroup is set for a user who was given policies directly that it has by a group.
	OverrideGroup bool `json:"overrideGroup,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Made) UnmarshalJSON(b []byte) (err error) {
	var raw struct {
		Before        json.RawMessage
		OverrideGroup bool
	}
	if err := json.Unmarshal(b, &m.Object); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if m.OverrideGroup = raw.OverrideGroup; raw.Before == nil {
		return nil
	}
	m.Before, err = m.Type.decode(raw.Before)
	return err
}

// Ledger has what Tandem has made in a tenant, by Ref. Make it with NewLedger.
type Ledger map[Ref]Made

// NewLedger returns the ledger with the entries.
func NewLedger(entries []Made) Ledger {
	l := make(Ledger, len(entries))
	for _, m := range entries {
		l[m.key()] = m
	}
	return l
}

// Get returns an entry of the ledger.
func (l Ledger) Get(r Ref) (Made, bool) {
	m, ok := l[r.key()]
	return m, ok
}

// Set enters an entry.
func (l Ledger) Set(m Made) { l[m.key()] = m }

// Remove removes an entry.
func (l Ledger) Remove(r Ref) { delete(l, r.key()) }

// Split returns the entries that are not of users, and those that are: a tenant and each of its users are brought to
// what they should have apart from each other.
func (l Ledger) Split() (structure, users Ledger) {
	structure, users = maps.Clone(l), maps.Clone(l)
	maps.DeleteFunc(structure, func(r Ref, _ Made) bool { return r.Type == User })
	maps.DeleteFunc(users, func(r Ref, _ Made) bool { return r.Type != User })
	return structure, users
}

// Action is what a step does.
type Action string

// The actions.
const (
	Create Action = "create" // of a SIPDomain: wait until Microsoft has made it
	Change Action = "change"
	Delete Action = "delete"
)

// Difference is a field that a step changes. Old and New are nil where the field, or the object, is not there.
type Difference struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

// Step is one change of one object.
type Step struct {
	Action Action `json:"action"`
	Ref
	Differences []Difference `json:"differences,omitempty"`
}

// Done reports whether an object is as the step leaves it.
func (s Step) Done(o Object, exists bool) bool {
	if s.Action == Delete || !exists {
		return exists == (s.Action != Delete)
	}
	want := Fields{}
	for _, d := range s.Differences {
		want[d.Field] = d.New
	}
	return len(differences(s.Type, o.Fields, want)) == 0
}

// Note is about an object for a person to read.
type Note struct {
	Ref
	Text string `json:"text"`
}

// Plan is the difference between what a tenant has and what it should have.
type Plan struct {
	// Steps are in the order in which they are carried out: what refers to something is made after it and removed
	// before it.
	Steps []Step `json:"steps,omitempty"`
	// Conflicts are what a person has to solve first. A plan with conflicts is not carried out.
	Conflicts []Note `json:"conflicts,omitempty"`
	// Kept are objects that stay although nothing desires them, with the reason.
	Kept []Note `json:"kept,omitempty"`
}

// Hash identifies what a plan does and to what. It changes if any value that the plan has read and would change does.
// It is the same for a plan that was stored as JSON, in which structures have become maps.
func (p *Plan) Hash() string {
	var stored any
	if err := json.Unmarshal([]byte(encode([]any{p.Steps, p.Conflicts})), &stored); err != nil {
		panic(err) // encode made it
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(encode(stored))))
}

// Binned adds to Kept what stays in the tenant's bin unless somebody has signed in who can purge it.
func (p *Plan) Binned() {
	for _, s := range p.Steps {
		if text := kinds[s.Type].binned; text != "" && s.Action == Delete {
			p.Kept = append(p.Kept, Note{s.Ref, text})
		}
	}
}

// ConsentStays returns the note that Tandem's application, by its id, remains in the tenant: because nobody asked to
// remove it, or because it may not remove itself; and what becomes of the stored sign-in.
func ConsentStays(app string, asked bool) Note {
	why, signIn := "its removal was not asked for", "is kept for a restore; tandem tenant delete deletes it"
	if asked {
		why, signIn = "it has no permission to remove itself", "is deleted; a restore needs a new one"
	}
	return Note{Ref{Consent, app}, "remains, because " + why + ": an administrator deletes it in the Microsoft Entra " +
		"admin centre, under Enterprise applications. The stored sign-in " + signIn}
}

// Holders returns how many of the users name an object that the plan deletes.
func (p *Plan) Holders(users Ledger) int {
	n := 0
	for _, u := range users {
		if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Action == Delete && refersTo(u.Object, s.Ref) }) {
			n++
		}
	}
	return n
}

// Compare returns what is to be done so that a tenant has the desired objects, and none of the ledger besides.
func Compare(desired []Object, have State, ledger Ledger) *Plan {
	p := &Plan{}
	wanted := NewState(desired)
	for _, want := range sorted(wanted) {
		p.want(want, have, ledger)
	}

	var deletes []Step
	for _, m := range sorted(ledger) {
		if _, ok := wanted[m.key()]; !ok {
			if s, ok := p.unwant(m, have); ok {
				deletes = append(deletes, s)
			}
		}
	}
	slices.Reverse(deletes)
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return compareRefs(a.Ref, b.Ref) })
	p.Steps = append(p.Steps, deletes...)
	p.blockers(have, deletes)

	return p
}

func sorted[V interface{ ref() Ref }](m map[Ref]V) []V {
	return slices.SortedFunc(maps.Values(m), func(a, b V) int { return compareRefs(a.ref(), b.ref()) })
}

func (r Ref) ref() Ref { return r }

// want adds the step that gives the tenant a desired object.
func (p *Plan) want(want Object, have State, ledger Ledger) {
	k := kinds[want.Type]
	got, exists := have[want.key()]
	m, made := ledger[want.key()]
	fields := want.Fields
	if m.Before != nil {
		fields = p.putBack(m, got, want.Fields)
		maps.Copy(fields, want.Fields)
	}
	domain, _ := want.Fields["domain"].(string)
	if _, active := have.Get(Ref{SIPDomain, domain}); active && want.Fields["release"] == true {
		fields = maps.Clone(fields)
		fields["licence"] = ""
	}

	diffs := differences(want.Type, got.Fields, fields)
	switch {
	case !exists && want.Type == User:
		p.Conflicts = append(p.Conflicts, Note{want.Ref, "the account does not exist"})
	case !exists:
		p.Steps = append(p.Steps, Step{Create, want.Ref, diffs})
	case len(diffs) == 0:
	case made || k.shared:
		p.Steps = append(p.Steps, Step{Change, want.Ref, diffs})
	default:
		p.Conflicts = append(p.Conflicts, Note{want.Ref, "exists, is different, and was not made by Tandem: " +
			list(diffs) + ". Rename or remove it, or choose other names"})
	}
}

// unwant returns the step that removes what Tandem has made, or puts back what was there before.
func (p *Plan) unwant(m Made, have State) (Step, bool) {
	got, exists := have[m.key()]
	switch {
	case !exists || kinds[m.Type].observed:
		return Step{}, false
	case m.Before == nil:
		return Step{Delete, m.Ref, differences(m.Type, got.Fields, nil)}, true
	}

	diffs := differences(m.Type, got.Fields, p.putBack(m, got, nil))
	return Step{Change, m.Ref, diffs}, len(diffs) > 0
}

// putBack returns what a shared object had in the fields that Tandem has set and no longer wants. Those that a person
// has changed since stay as they are.
func (p *Plan) putBack(m Made, got Object, wanted Fields) Fields {
	back := Fields{}
	for _, n := range slices.Sorted(maps.Keys(m.Fields)) {
		if _, ok := wanted[n]; ok {
			continue
		}
		if d := differences(m.Type, Fields{n: got.Fields[n]}, Fields{n: m.Fields[n]}); len(d) > 0 {
			p.Kept = append(p.Kept, Note{m.Ref, "changed since by someone else: " + list(d)})
			continue
		}
		if final := kinds[m.Type].fields[n].final; final != "" {
			p.Kept = append(p.Kept, Note{m.Ref, final})
			continue
		}
		back[n] = m.Before[n]
	}
	return back
}

// blockers adds the objects that stay and name one that is to be deleted: Microsoft refuses the deletion.
func (p *Plan) blockers(have State, deletes []Step) {
	if len(deletes) == 0 {
		return
	}
	after := p.after(have)
	for _, d := range deletes {
		if d.Action != Delete {
			continue
		}
		for _, o := range sorted(after) {
			if !kinds[o.Type].observed && refersTo(o, d.Ref) {
				p.Conflicts = append(p.Conflicts, Note{d.Ref, fmt.Sprintf("cannot be removed, because %s %s names it: "+
					"change that first", o.Type, o.Name)})
			}
		}
	}
}

// after returns the state after all steps.
func (p *Plan) after(have State) State {
	after := maps.Clone(have)
	for _, s := range p.Steps {
		if s.Action == Delete {
			delete(after, s.key())
			continue
		}
		o := Object{s.Ref, maps.Clone(after[s.key()].Fields)}
		if o.Fields == nil {
			o.Fields = Fields{}
		}
		for _, d := range s.Differences {
			o.Fields[d.Field] = d.New
		}
		after[s.key()] = o
	}
	return after
}

// differences returns the fields of to that differ in from, by name. If to is nil, these are all fields of from.
func differences(t Type, from, to Fields) []Difference {
	var diffs []Difference
	if to == nil {
		for _, n := range slices.Sorted(maps.Keys(from)) {
			diffs = append(diffs, Difference{n, from[n], nil})
		}
		return diffs
	}

	for _, n := range slices.Sorted(maps.Keys(to)) {
		c := kinds[t].fields[n].compare
		if c != never && c.canonical(from[n]) != c.canonical(to[n]) {
			diffs = append(diffs, Difference{n, from[n], to[n]})
		}
	}
	return diffs
}

func list(diffs []Difference) string {
	texts := make([]string, len(diffs))
	for i, d := range diffs {
		texts[i] = fmt.Sprintf("%s is %s instead of %s", d.Field, encode(d.Old), encode(d.New))
	}
	return strings.Join(texts, ", ")
}
