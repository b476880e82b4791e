package tenant_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

// shelf keeps one snapshot and its report.
type shelf struct {
	export []byte
	report *snapshot.Report
}

func (s *shelf) Snapshots(context.Context, string, string, int) ([]snapshot.Summary, error) {
	return nil, nil
}

func (s *shelf) Snapshot(_ context.Context, _, id string) (*snapshot.Summary, []byte, error) {
	if s.export == nil {
		return nil, nil, fault.New(fault.NotFound, "SnapshotNotFound", "none")
	}
	return &snapshot.Summary{ID: id}, s.export, nil
}

func (s *shelf) AddSnapshot(_ context.Context, _ string, _ *snapshot.Summary, export []byte, _ string) error {
	s.export = export
	return nil
}

func (s *shelf) Report(context.Context, string, string) (*snapshot.Report, error) {
	return s.report, nil
}

func (s *shelf) SetReport(_ context.Context, _ string, r *snapshot.Report) error {
	s.report = r
	return nil
}

// snapshots returns those of the tenant.
func (b *bed) snapshots(m *memory) *snapshot.Snapshots {
	b.t.Helper()
	sealer, err := secret.Ephemeral()
	b.must(err)
	return &snapshot.Snapshots{Store: &shelf{}, Sealer: sealer, Reader: snapshot.Reader{Tenants: m,
		Sources: func(context.Context, *onboard.Tenant) (snapshot.Source, error) { return b.reach, nil }}}
}

// content returns what the tenant has. Ids of activation users, which Microsoft assigns again, are replaced.
func (b *bed) content() (content any) {
	text := b.dump()
	b.edit(func(s *microsoft.State) {
		for _, u := range s.Users {
			if strings.HasPrefix(u.UPN, "tandem.teams@") && u.Deleted.IsZero() {
				text = strings.ReplaceAll(text, u.ID, "id of "+u.UPN)
			}
		}
	})
	if err := json.Unmarshal([]byte(text), &content); err != nil {
		b.t.Fatal(err)
	}
	return content
}

// users gives users what is wanted, and all others of the ledger what they had before, as package user does.
func (b *bed) users(m *memory, want ...plan.Object) {
	b.t.Helper()
	ledger, _ := m.Ledger(b.t.Context())
	maps.DeleteFunc(ledger, func(r plan.Ref, _ plan.Made) bool { return r.Type != plan.User })
	have, wanted := plan.State{}, plan.NewState(want)
	for r := range merge(ledger, wanted) {
		have[r], _ = b.voice(r)
	}
	for _, s := range plan.Compare(want, have, ledger).Steps {
		b.setVoice(s)
		b.cloud.Advance(time.Minute)
		if o, ok := b.voice(s.Ref); !s.Done(o, ok) {
			b.t.Fatalf("after %+v: %+v", s, o)
		}
		if o, ok := wanted.Get(s.Ref); ok {
			made := plan.Made{Object: o, Before: plan.Fields{}}
			for f := range o.Fields {
				made.Before[f] = have[s.Ref].Fields[f]
			}
			_ = m.Record(b.t.Context(), made)
		} else {
			_ = m.Forget(b.t.Context(), s.Ref)
		}
	}
}

// merge returns the keys of both.
func merge(l plan.Ledger, s plan.State) map[plan.Ref]bool {
	keys := map[plan.Ref]bool{}
	for r := range l {
		keys[r] = true
	}
	for r := range s {
		keys[r] = true
	}
	return keys
}

// A tenant is left and restored from its snapshot: it is as before, users' numbers among that, and what they had
// before Tandem is put back when it is left again. Onboarded again without the snapshot, it is as a new one.
func TestLeaveAndRestore(t *testing.T) {
	t.Parallel()
	for _, trunk := range []plan.Trunk{plan.Derived, plan.Gateways} {
		t.Run(string(trunk), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			settings := b.settings(trunk)
			var user string
			b.tenant.Edit(func(s *microsoft.State) {
				user = s.User("user000001@" + b.tenant.Initial).ID
				var policies []string
				for _, p := range s.Configurations["OnlineVoiceRoutingPolicy"] {
					policies = append(policies, strings.TrimPrefix(p["Identity"].(string), "Tag:"))
				}
				policies = slices.DeleteFunc(policies, func(n string) bool { return n == "Global" })
				s.User(user).Policies = map[string]string{"OnlineVoiceRoutingPolicy": slices.Min(policies)}
				for _, n := range s.Numbers {
					if n.Target == user {
						n.Target = ""
					}
				}
				s.Numbers["+442079460111"] = &microsoft.Number{Number: "+442079460111", Type: "directRouting",
					Source: "online", Target: user, Category: "primary"}
			})
			before := b.content()

			m := &memory{ledger: map[plan.Ref]plan.Made{}}
			s := b.snapshots(m)
			read := func() plan.State {
				objects, err := b.reach.Read(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				return plan.NewState(objects)
			}
			target := settings.Objects(read(), nil)
			b.join(m, target)
			activation := plan.Object{Ref: plan.Ref{Type: plan.User, Name: user}, Fields: plan.Fields{
				"number": "+442079460999", "routingPolicy": settings.Prefix, "dialPlan": settings.Prefix,
				"emergencyPolicy": settings.Prefix}}
			b.users(m, activation)
			joined, made := b.content(), maps.Clone(m.ledger)
			if got := made[activation.Ref].Before; got["number"] != "+442079460111" || got["routingPolicy"] == nil {
				t.Fatalf("the user had %v before Tandem", got)
			}

			leave := func() {
				t.Helper()
				if _, err := s.Take(t.Context(), "contoso", "leave"); err != nil {
					t.Fatal(err)
				}
				b.users(m)
				b.join(m, nil)
				b.purge()
				if diff := cmp.Diff(before, b.content()); diff != "" {
					t.Fatalf("after leaving (-before +after):\n%s", diff)
				}
				r, err := s.ReportLeave(t.Context(), "contoso", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range r.Outcomes {
					if (o.Fate == snapshot.PutBack) != (o.Type == plan.User) || o.Fate == snapshot.Kept {
						t.Errorf("reported: %+v", o)
					}
				}
			}
			leave()
			r, err := s.Restore(t.Context(), "contoso", "")
			if err != nil || len(r.Notes) > 0 {
				t.Fatalf("restore: %v, %v", r, err)
			}
			// So whatever disturbs onboarding and is survived, is survived here.
			if p := plan.Compare(r.Objects, plan.NewState(target), nil); len(p.Steps)+len(p.Conflicts) > 0 ||
				len(r.Objects) != len(target) {
				t.Errorf("the target of the restore is not that of the onboarding: %+v", p)
			}
			b.join(m, r.Objects)
			for _, u := range r.Users {
				b.users(m, u.Object)
			}
			if diff := cmp.Diff(joined, b.content()); diff != "" {
				t.Errorf("restored (-before +after):\n%s", diff)
			}
			for k, e := range made {
				if diff := cmp.Diff(e.Before, m.ledger[k].Before); diff != "" {
					t.Errorf("before Tandem %v had (-want +got):\n%s", k, diff)
				}
			}

			leave()
			b.join(m, settings.Objects(read(), nil))
			b.users(m, activation)
			if diff := cmp.Diff(joined, b.content()); diff != "" {
				t.Errorf("onboarded again (-first +again):\n%s", diff)
			}
		})
	}
}

// Users are read in batches, or in the pages of all users if those are fewer requests; the same either way, also if the
// pages turn out to be more. Those that do not exist are left out.
func TestReadUsers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var ids []string
	b.tenant.Edit(func(s *microsoft.State) {
		for i := range 2100 {
			s.AddUser(&microsoft.User{UPN: fmt.Sprintf("more%04d@%s", i, b.tenant.Initial), UsageLocation: "GB"})
		}
		for _, u := range s.Users {
			ids = append(ids, u.ID)
		}
	})
	const missing = "00000000-0000-4000-8000-000000000000"
	var batches []plan.Object // all users
	for _, c := range []struct {
		what               string
		size, users, wants int // what is known of the tenant, how many users are read, and the requests for them
	}{
		{"the size is not known", 0, len(ids), (len(ids) + 19) / 20},
		{"batches are fewer", 1_000_000, 100, 5},
		{"as many batches as pages", len(ids), 60, 3},
		{"pages are fewer", len(ids), 80, 3},
		{"all", len(ids), len(ids), 3},
		{"none", len(ids), 0, 0},
		{"more pages than expected", 900, 21, 2 + 2}, // the users are on the third
	} {
		if c.size > 0 {
			b.reach.Sized(c.size)
		}
		asked := slices.Clone(ids[len(ids)-c.users:])
		if c.users > 0 {
			asked[0], asked[1] = strings.ToUpper(asked[0]), missing
		}
		users, requests, err := b.reach.ReadUsers(t.Context(), asked)
		if err != nil || requests != c.wants {
			t.Errorf("%s: %d requests, want %d; %v", c.what, requests, c.wants, err)
		}
		if c.size == 0 {
			batches = users
		}
		want := slices.DeleteFunc(slices.Clone(batches), func(o plan.Object) bool {
			return !slices.ContainsFunc(asked, func(id string) bool { return strings.EqualFold(id, o.Name) })
		})
		for _, list := range [][]plan.Object{want, users} {
			slices.SortFunc(list, func(a, b plan.Object) int { return strings.Compare(a.Name, b.Name) })
		}
		if diff := cmp.Diff(want, users, cmpopts.EquateEmpty()); diff != "" || len(users) == 0 && c.users > 0 {
			t.Errorf("%s: users (-in batches +now):\n%s", c.what, diff)
		}
	}
}
