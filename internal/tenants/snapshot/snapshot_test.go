package snapshot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

const own = "Tandem-E164"

func ref(t plan.Type, name string) plan.Ref { return plan.Ref{Type: t, Name: name} }

// world is a tenant in memory with its row; it carries out every step.
type world struct {
	onboard.Tx // the rest, which is not called
	onboard.Store

	t      *testing.T
	have   plan.State
	ledger plan.Ledger
	tenant onboard.Tenant

	exports map[string][]byte
	sums    []snapshot.Summary
	reports map[string]*snapshot.Report
	audits  []string
}

func newWorld(t *testing.T) *world {
	return &world{t: t, ledger: plan.Ledger{}, exports: map[string][]byte{}, reports: map[string]*snapshot.Report{},
		tenant: onboard.Tenant{Account: "contoso", ID: "9f0c8d9e-0000-4000-8000-000000000001",
			Settings: plan.Settings{Prefix: own, Port: 5061, Licence: "MCOSTANDARD",
				Regions: []string{"1r1.gw.example"},
				Labels:  []plan.Label{{Name: "fab", Trunk: plan.Derived}, {Name: "old", Trunk: plan.Gateways}},
				Rules:   []plan.Rule{{Name: "national", Pattern: `^0(\d+)$`, Translation: "+44$1"}, {Name: "local"}}}},
		have: plan.NewState([]plan.Object{
			{Ref: ref(plan.Usage, "Foreign"), Fields: plan.Fields{"place": 0}},
			{Ref: ref(plan.RoutingPolicy, "Theirs"), Fields: plan.Fields{"usages": []string{"Foreign"}}},
			{Ref: ref(plan.User, "user-1"), Fields: plan.Fields{"domain": "fabrikam.example", "number": "+442079460101",
				"routingPolicy": "Theirs"}},
			{Ref: ref(plan.User, "user-2"), Fields: plan.Fields{"domain": "fabrikam.example"}},
		})}
}

func (w *world) View(ctx context.Context, _ string, fn func(context.Context, onboard.Tx) error) error {
	return fn(ctx, w)
}

func (w *world) Update(ctx context.Context, _ *flow.Run, _, _ string,
	fn func(context.Context, onboard.Tx) error) error {
	return fn(ctx, w)
}

func (w *world) Tenant(context.Context) (*onboard.Tenant, error) { c := w.tenant; return &c, nil }

func (w *world) SetTenant(context.Context, *onboard.Tenant) error { return nil }

func (w *world) SetTarget(context.Context, string, []plan.Object) error { return nil }

func (w *world) Ledger(context.Context) (plan.Ledger, error) { return maps.Clone(w.ledger), nil }

func (w *world) Record(context.Context, ...plan.Made) error { return nil }

func (w *world) Forget(context.Context, ...plan.Ref) error { return nil }

func (w *world) Read(_ context.Context, _ []plan.Ref) ([]plan.Object, error) {
	return slices.Collect(maps.Values(w.have)), nil
}

func (w *world) ReadUsers(context.Context, []string) ([]plan.Object, int, error) { return nil, 0, nil }

func (w *world) Get(_ context.Context, r plan.Ref) (plan.Object, bool, error) {
	o, ok := w.have.Get(r)
	return o, ok, nil
}

func (w *world) RemoveConsent(context.Context) error { return nil }

func (w *world) Snapshots(context.Context, string, string, int) ([]snapshot.Summary, error) {
	return w.sums, nil
}

func (w *world) Snapshot(_ context.Context, _, id string) (*snapshot.Summary, []byte, error) {
	text, ok := w.exports[id]
	if !ok {
		return nil, nil, fault.New(fault.NotFound, "SnapshotNotFound", "none")
	}
	return &snapshot.Summary{ID: id}, text, nil
}

func (w *world) AddSnapshot(_ context.Context, _ string, s *snapshot.Summary, text []byte, action string) error {
	w.exports[s.ID], w.sums, w.audits = text, append(w.sums, *s), append(w.audits, action)
	return nil
}

func (w *world) Report(_ context.Context, _, id string) (*snapshot.Report, error) {
	return w.reports[id], nil
}

func (w *world) SetReport(_ context.Context, _ string, r *snapshot.Report) error {
	w.reports[r.Snapshot] = r
	return nil
}

// set changes a field as a person does.
func (w *world) set(r plan.Ref, field string, v any) {
	o, ok := w.have.Get(r)
	if !ok {
		w.t.Fatalf("no %v", r)
	}
	f := maps.Clone(o.Fields)
	f[field] = v
	w.remove(r)
	w.have[ref(o.Type, strings.ToLower(o.Name))] = plan.Object{Ref: o.Ref, Fields: f}
}

func (w *world) remove(r plan.Ref) { delete(w.have, ref(r.Type, strings.ToLower(r.Name))) }

// apply brings the tenant to the desired objects, and keeps the ledger.
func (w *world) apply(want []plan.Object) *plan.Plan {
	w.t.Helper()
	p := plan.Compare(want, w.have, w.ledger)
	if len(p.Conflicts) > 0 {
		w.t.Fatalf("conflicts: %v", p.Conflicts)
	}
	wanted := plan.NewState(want)
	for _, s := range p.Steps {
		old, _ := w.have.Get(s.Ref)
		f := maps.Clone(old.Fields)
		if f == nil {
			f = plan.Fields{}
		}
		for _, d := range s.Differences {
			f[d.Field] = d.New
		}
		w.remove(s.Ref)
		if s.Action != plan.Delete {
			w.have[ref(s.Type, strings.ToLower(s.Name))] = plan.Object{Ref: s.Ref, Fields: f}
		} else if s.Type == plan.Domain {
			w.remove(ref(plan.SIPDomain, s.Name))
		}
		if o, ok := wanted.Get(s.Ref); ok {
			m := plan.Made{Object: o}
			if s.Type == plan.User {
				m.Before = plan.Fields{}
				for n := range o.Fields {
					m.Before[n] = old.Fields[n]
				}
			}
			w.ledger.Set(m)
		} else {
			w.ledger.Remove(s.Ref)
		}
	}
	for _, m := range w.ledger {
		if _, ok := wanted.Get(m.Ref); !ok {
			w.ledger.Remove(m.Ref)
		}
	}
	return p
}

// onboard makes everything, and activates the users.
func (w *world) onboard() {
	w.apply(append(w.tenant.Settings.Objects(w.have, w.ledger),
		plan.Object{Ref: ref(plan.User, "user-1"), Fields: plan.Fields{"number": "+442079460201", "routingPolicy": own,
			"dialPlan": own, "callerID": "Reception"}},
		plan.Object{Ref: ref(plan.User, "user-2"), Fields: plan.Fields{"number": "+442079460202;ext=12",
			"routingPolicy": own, "dialPlan": own}}))
}

func (w *world) text() []string {
	var lines []string
	for _, o := range w.have {
		f := maps.Clone(o.Fields)
		maps.DeleteFunc(f, func(_ string, v any) bool { return v == nil })
		b, err := json.Marshal(f)
		if err != nil {
			w.t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", o.Type, o.Name, b))
	}
	slices.Sort(lines)
	return lines
}

func (w *world) snapshots(ring snapshot.Sealer) *snapshot.Snapshots {
	return &snapshot.Snapshots{Reader: snapshot.Reader{Tenants: w,
		Sources: func(context.Context, *onboard.Tenant) (snapshot.Source, error) { return w, nil }}, Store: w,
		Sealer: ring}
}

func keyring(t *testing.T) *secret.Keyring {
	t.Helper()
	k, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// leave takes a snapshot, leaves and returns the snapshot's id.
func (w *world) leave(s *snapshot.Snapshots) string {
	w.t.Helper()
	sum, err := s.Take(w.t.Context(), "contoso", "leave")
	if err != nil {
		w.t.Fatal(err)
	}
	w.apply(nil)
	return sum.ID
}

func (w *world) restore(s *snapshot.Snapshots, id string) []plan.Note {
	w.t.Helper()
	r, err := s.Restore(w.t.Context(), "contoso", id)
	if err != nil {
		w.t.Fatal(err)
	}
	want := r.Objects
	for _, u := range r.Users {
		want = append(want, u.Object)
	}
	w.apply(want)
	return r.Notes
}

// A tenant that was left and is restored is field by field as before, with users' numbers, and with what they had
// before Tandem: a second leave gives them that again.
func TestLeaveAndRestore(t *testing.T) {
	w := newWorld(t)
	s := w.snapshots(keyring(t))
	foreign := w.text()
	w.onboard()
	w.set(ref(plan.Route, own), "description", "Do not touch") // a person's, before the snapshot
	joined, made := w.text(), maps.Clone(w.ledger)
	id := w.leave(s)
	if diff := cmp.Diff(foreign, w.text()); diff != "" {
		t.Fatalf("after leaving (-before +after):\n%s", diff)
	}

	if notes := w.restore(s, id); len(notes) > 0 {
		t.Errorf("notes: %v", notes)
	}
	if diff := cmp.Diff(joined, w.text()); diff != "" {
		t.Errorf("after the restore (-before +after):\n%s", diff)
	}
	for k, m := range made {
		if diff := cmp.Diff(m.Before, w.ledger[k].Before); diff != "" {
			t.Errorf("before Tandem %v had (-want +got):\n%s", k, diff)
		}
	}
	w.apply(nil)
	if diff := cmp.Diff(foreign, w.text()); diff != "" {
		t.Errorf("after leaving again (-before +after):\n%s", diff)
	}
}

// A tenant that was left and is onboarded again without its snapshot has nothing of what was set before.
func TestOnboardAgainWithoutSnapshot(t *testing.T) {
	w := newWorld(t)
	w.onboard()
	fresh := w.text()
	w.set(ref(plan.Route, own), "priority", 7)
	w.set(ref(plan.RoutingPolicy, own), "description", "edited")
	w.leave(w.snapshots(keyring(t)))
	w.onboard()
	if diff := cmp.Diff(fresh, w.text()); diff != "" {
		t.Errorf("onboarded again (-fresh +again):\n%s", diff)
	}
}

// What a person changes between a snapshot and its restore is reported and stays.
func TestChangedInBetween(t *testing.T) {
	policy := ref(plan.RoutingPolicy, own)
	for _, c := range []struct {
		how   string
		do    func(*world)
		on    plan.Ref // of the only note
		says  string
		check func(*world) bool
	}{
		{"makes a policy of the same name", func(w *world) {
			w.have[ref(policy.Type, strings.ToLower(own))] = plan.Object{Ref: policy,
				Fields: plan.Fields{"usages": []string{"Foreign"}}}
		}, policy, `was not made by Tandem and is kept as it is: usages is ["Foreign"], the snapshot has`,
			func(w *world) bool { o, _ := w.have.Get(policy); return len(o.Fields["usages"].([]string)) == 1 }},
		{"makes the same usage", func(w *world) {
			w.have[ref(plan.Usage, strings.ToLower(own))] = plan.Object{Ref: ref(plan.Usage, own),
				Fields: plan.Fields{"place": 4}}
		}, plan.Ref{}, "", nil},
		{"removes a usage that the policy had", func(w *world) {
			w.remove(ref(plan.RoutingPolicy, "Theirs"))
			w.remove(ref(plan.Usage, "Foreign"))
			w.set(ref(plan.User, "user-1"), "routingPolicy", "Theirs")
		}, policy, "without the PSTN usage Foreign", func(w *world) bool {
			o, _ := w.have.Get(policy)
			return cmp.Equal(o.Fields["usages"], []string{own})
		}},
		{"gives a user another number", func(w *world) { w.set(ref(plan.User, "user-2"), "number", "+15550100") },
			ref(plan.User, "user-2"), `number is "+15550100", the snapshot has "+442079460202;ext=12"`,
			func(w *world) bool {
				o, _ := w.have.Get(ref(plan.User, "user-2"))
				return o.Fields["number"] == "+15550100" && o.Fields["routingPolicy"] == nil
			}},
		{"takes the number that a user had before", func(w *world) { w.set(ref(plan.User, "user-1"), "number", nil) },
			ref(plan.User, "user-1"), "number is none", nil},
		{"deletes a user", func(w *world) { w.remove(ref(plan.User, "user-2")) }, ref(plan.User, "user-2"),
			"no longer exists", nil},
		{"renames a user", func(w *world) { w.set(ref(plan.User, "user-2"), "domain", "other.example") }, plan.Ref{},
			"", nil},
	} {
		t.Run(c.how, func(t *testing.T) {
			w := newWorld(t)
			s := w.snapshots(keyring(t))
			w.onboard()
			id := w.leave(s)
			c.do(w)
			notes := w.restore(s, id)
			switch {
			case c.on == plan.Ref{}:
				if len(notes) > 0 {
					t.Errorf("notes: %v", notes)
				}
			case len(notes) != 1 || notes[0].Ref != c.on || !strings.Contains(notes[0].Text, c.says):
				t.Errorf("notes: %v, want one about %v with %q", notes, c.on, c.says)
			}
			if c.check != nil && !c.check(w) {
				t.Errorf("it was overwritten: %v", w.text())
			}
		})
	}
}

// What a person had changed before the snapshot was taken is as it was then: a user without its number is not
// activated.
func TestChangedBefore(t *testing.T) {
	w := newWorld(t)
	s := w.snapshots(keyring(t))
	w.onboard()
	w.set(ref(plan.User, "user-2"), "number", nil)
	w.set(ref(plan.Route, own), "pattern", `^\+44`)
	w.remove(ref(plan.DialPlan, own))
	notes := w.restore(s, w.leave(s))
	slices.SortFunc(notes, func(a, b plan.Note) int { return strings.Compare(string(a.Type), string(b.Type)) })
	if len(notes) != 2 || notes[0].Ref != ref(plan.DialPlan, own) || notes[1].Ref != ref(plan.User, "user-2") {
		t.Errorf("notes: %v", notes)
	}
	route, _ := w.have.Get(ref(plan.Route, own))
	_, made := w.have.Get(ref(plan.DialPlan, own))
	if route.Fields["pattern"] != `^\+44` || !made {
		t.Errorf("restored: %v", w.text())
	}
}

// A snapshot can be restored in a tenant that was not left: what Tandem has set since is taken back, what a person has
// set since stays.
func TestRestoreInPlace(t *testing.T) {
	w := newWorld(t)
	s := w.snapshots(keyring(t))
	w.onboard()
	sum, err := s.Take(t.Context(), "contoso", "request")
	if err != nil {
		t.Fatal(err)
	}
	w.tenant.Settings.Rules = w.tenant.Settings.Rules[:1]
	w.onboard()
	w.set(ref(plan.Route, own), "pattern", `^\+44`)

	notes := w.restore(s, sum.ID)
	if len(notes) != 1 || notes[0].Ref != ref(plan.Route, own) {
		t.Errorf("notes: %v, want one about the route", notes)
	}
	dial, _ := w.have.Get(ref(plan.DialPlan, own))
	route, _ := w.have.Get(ref(plan.Route, own))
	if len(dial.Fields["rules"].([]plan.Rule)) != 2 || route.Fields["pattern"] != `^\+44` {
		t.Errorf("restored: %v %v", dial, route)
	}
}

// An export that was changed, cut off or signed elsewhere is refused, and says why; its white space does not count.
func TestVerify(t *testing.T) {
	w := newWorld(t)
	ring := keyring(t)
	s := w.snapshots(ring)
	w.onboard()
	sum, err := s.Take(t.Context(), "contoso", "leave")
	if err != nil {
		t.Fatal(err)
	}
	text := w.exports[sum.ID]
	var tight bytes.Buffer
	if err := json.Compact(&tight, text); err != nil {
		t.Fatal(err)
	}
	imported, err := s.Import(t.Context(), "contoso", tight.Bytes())
	if err != nil || !imported.Imported || imported.Users != 2 || imported.Objects != sum.Objects ||
		imported.ID == sum.ID {
		t.Errorf("imported: %+v, %v", imported, err)
	}
	if want := []string{"tenant.snapshot", "tenant.importSnapshot"}; !slices.Equal(w.audits, want) {
		t.Errorf("audited: %v, want %v", w.audits, want)
	}

	change := func(from, to string) []byte {
		changed := bytes.Replace(text, []byte(from), []byte(to), 1)
		if bytes.Equal(changed, text) {
			t.Fatalf("no %s in the export", from)
		}
		return changed
	}
	next, err := snapshot.Sign(ring, &snapshot.Document{Format: 2, Account: "contoso"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := snapshot.Sign(keyring(t), &snapshot.Document{Format: 1, Account: "contoso"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := snapshot.Sign(ring, &snapshot.Document{Format: 1, Account: "fabrikam"})
	if err != nil {
		t.Fatal(err)
	}
	signature := func(text []byte) string {
		var e struct{ Signature string }
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		return e.Signature
	}
	for _, c := range []struct {
		name, code string
		text       []byte
	}{
		{"nothing", "SnapshotDamaged", nil},
		{"no object", "SnapshotDamaged", []byte(`"x"`)},
		{"cut off", "SnapshotDamaged", text[:len(text)/2]},
		{"a number changed", "SnapshotDamaged", change("+442079460201", "+442079460299")},
		{"signature cut off", "SnapshotDamaged", change(`"signature": "`, `"signature": "*`)},
		{"signature of another document", "SnapshotNotOurs", change(signature(text), signature(other))},
		{"signed elsewhere", "SnapshotNotOurs", foreign},
		{"a later format", "SnapshotFormat", next},
		{"another account", "SnapshotOfAnother", other},
	} {
		if _, err := s.Import(t.Context(), "contoso", c.text); !fault.Is(err, fault.Invalid) ||
			!fault.HasCode(err, c.code) {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}

	w.tenant.ID = "9f0c8d9e-0000-4000-8000-000000000002"
	if _, err := s.Restore(t.Context(), "contoso", sum.ID); !fault.HasCode(err, "SnapshotOfAnother") {
		t.Errorf("restored in another tenant: %v", err)
	}
}

// After a leave, each thing that Tandem had made is reported with what became of it.
func TestReport(t *testing.T) {
	w := newWorld(t)
	s := w.snapshots(keyring(t))
	w.onboard()
	w.set(ref(plan.User, "user-2"), "number", "+15550100") // kept, because a person has set it
	sum, err := s.Take(t.Context(), "contoso", "leave")
	if err != nil {
		t.Fatal(err)
	}
	p := w.apply(nil)
	w.have[ref(plan.Usage, strings.ToLower(own))] = plan.Object{Ref: ref(plan.Usage, own)} // still visible
	activation := ref(plan.ActivationUser, "tandem.teams@fab.1r1.gw.example")
	notes := append(p.Kept, plan.Note{Ref: activation, Text: "deleted, not purged"})

	began := time.Now().Truncate(time.Second)
	if _, err := s.Take(t.Context(), "contoso", snapshot.Request); !fault.HasCode(err, "NothingToRecord") {
		t.Errorf("a snapshot of nothing: %v", err)
	}
	r, err := s.ReportLeave(t.Context(), "contoso", "", notes)
	if err != nil {
		t.Fatal(err)
	}
	if r.Read.Before(began) || w.reports[sum.ID] != r || len(r.Outcomes) != len(w.exportEntries(sum.ID)) {
		t.Errorf("report: %+v", r)
	}
	got := map[plan.Ref]snapshot.Outcome{}
	for _, o := range r.Outcomes {
		got[o.Ref] = o
	}
	for r, want := range map[plan.Ref]struct {
		fate snapshot.Fate
		says string
	}{
		ref(plan.Route, own):                      {snapshot.Gone, ""},
		ref(plan.Usage, own):                      {snapshot.Kept, "still there"},
		ref(plan.User, "user-1"):                  {snapshot.PutBack, ""},
		ref(plan.User, "user-2"):                  {snapshot.Kept, "changed since by someone else"},
		activation:                                {snapshot.Gone, "not purged"},
		ref(plan.DialPlan, own):                   {snapshot.Gone, ""},
		ref(plan.SIPDomain, "fab.1r1.gw.example"): {snapshot.Gone, ""},
	} {
		if o := got[r]; o.Fate != want.fate || !strings.Contains(o.Reason, want.says) {
			t.Errorf("%v: %+v, want %s with %q", r, o, want.fate, want.says)
		}
	}
}

func (w *world) exportEntries(id string) []any {
	var e struct{ Document struct{ Entries []any } }
	if err := json.Unmarshal(w.exports[id], &e); err != nil {
		w.t.Fatal(err)
	}
	return e.Document.Entries
}
