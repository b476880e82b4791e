package onboard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// rows is a store of one tenant. A killed process changes nothing in it.
type rows struct {
	tenant onboard.Tenant
	ledger map[plan.Ref]plan.Made
}

type process struct {
	onboard.Store // the rest, which is not called

	rows   *rows
	cloud  *cloud
	at     int // the point at which something happens
	what   string
	points int
	killed bool
}

var errKilled = errors.New("killed")

// point is reached before and after everything that leaves the process.
func (p *process) point() error {
	p.points++
	if p.points == p.at && p.what == "kill" {
		p.killed = true
	}
	if p.killed {
		return errKilled
	}
	return nil
}

func (p *process) View(ctx context.Context, _ string, fn func(context.Context, onboard.Tx) error) error {
	if err := p.point(); err != nil {
		return err
	}
	return fn(ctx, &tx{rows: p.rows.clone()})
}

func (p *process) Update(ctx context.Context, _ *flow.Run, _, _ string,
	fn func(context.Context, onboard.Tx) error) error {
	if err := p.point(); err != nil {
		return err
	}
	c := p.rows.clone()
	if err := fn(ctx, &tx{rows: c}); err != nil {
		return err
	}
	*p.rows = *c
	return p.point()
}

func (r *rows) clone() *rows { return &rows{r.tenant, maps.Clone(r.ledger)} }

type tx struct {
	*rows
	onboard.Tx // the rest, which is not called
}

func (t *tx) Event(context.Context, string, string, map[string]any) error { return nil }

func (t *tx) Tenant(context.Context) (*onboard.Tenant, error) { c := t.tenant; return &c, nil }

func (t *tx) SetTenant(_ context.Context, n *onboard.Tenant) error { t.tenant = *n; return nil }

func (t *tx) SetTarget(_ context.Context, _ string, target []plan.Object) error {
	t.tenant.Target = target
	return nil
}

func (t *tx) Ledger(context.Context) (plan.Ledger, error) {
	return plan.NewLedger(slices.Collect(maps.Values(t.ledger))), nil
}

func (t *tx) Record(_ context.Context, entries ...plan.Made) error {
	for _, m := range entries {
		t.ledger[m.Ref] = m
	}
	return nil
}

func (t *tx) Forget(_ context.Context, refs ...plan.Ref) error {
	for _, r := range refs {
		maps.DeleteFunc(t.ledger, func(k plan.Ref, _ plan.Made) bool {
			return k.Type == r.Type && strings.EqualFold(k.Name, r.Name)
		})
	}
	return nil
}

// cloud is a tenant at Microsoft. What is written shows after a while.
type cloud struct {
	objects     map[plan.Ref]plan.Object
	writes      int
	consented   bool // the application has not been removed
	keepConsent bool // nor may it be

	mu    sync.Mutex // guards what follows
	shown map[plan.Ref]plan.Object
	since int // number of the write that is shown
}

func newCloud(objects ...plan.Object) *cloud {
	c := &cloud{objects: map[plan.Ref]plan.Object{}, consented: true}
	for _, o := range objects {
		c.objects[o.Ref] = o
	}
	c.shown = maps.Clone(c.objects)
	return c
}

func (c *cloud) later(d time.Duration) {
	now, write := maps.Clone(c.objects), c.writes
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if write > c.since {
			c.shown, c.since = now, write
		}
	})
}

// session is the cloud as one process reaches it.
type session struct{ *process }

// call is one call to the cloud: effect is what it does.
func (s session) call(write bool, effect func() error) error {
	before := s.points
	if err := s.point(); err != nil {
		return err
	}
	if !s.cloud.consented {
		return fault.New(fault.Unauthenticated, "AppRemoved", "authorise Tandem again")
	}
	hit := s.at == before+1
	if hit && s.what != "kill" {
		switch s.what {
		case "timeout before":
			return context.DeadlineExceeded
		case "429":
			return fault.New(fault.Limited, "TooManyRequests", "later").After(time.Second)
		case "500":
			return fault.New(fault.Unavailable, "ServerError", "failed")
		case "signed out":
			return fault.New(fault.Unauthenticated, "SignIn", "sign in again")
		}
	}
	if write {
		s.cloud.writes++
	}
	if err := effect(); err != nil {
		return err
	}
	if hit && s.what == "timeout after" {
		return context.DeadlineExceeded
	}
	return s.point()
}

func (s session) Read(context.Context, []plan.Ref) (objects []plan.Object, err error) {
	err = s.call(false, func() error {
		s.cloud.mu.Lock()
		defer s.cloud.mu.Unlock()
		objects = slices.Collect(maps.Values(s.cloud.shown))
		return nil
	})
	return objects, err
}

func (s session) Get(_ context.Context, r plan.Ref) (o plan.Object, ok bool, err error) {
	err = s.call(false, func() error {
		s.cloud.mu.Lock()
		defer s.cloud.mu.Unlock()
		o, ok = s.cloud.shown[r]
		return nil
	})
	return o, ok, err
}

func (s session) Do(_ context.Context, st plan.Step) error {
	return s.call(true, func() error {
		c := s.cloud
		old, exists := c.objects[st.Ref]
		switch {
		case st.Action == plan.Create && exists:
			return fmt.Errorf("%s exists", st.Name)
		case st.Action == plan.Delete && !exists: // gone, or in the bin
		case st.Action == plan.Delete:
			delete(c.objects, st.Ref)
			if st.Type == plan.Domain {
				delete(c.objects, plan.Ref{Type: plan.SIPDomain, Name: st.Name})
			}
		default:
			f := maps.Clone(old.Fields)
			if f == nil {
				f = plan.Fields{}
			}
			for _, d := range st.Differences {
				f[d.Field] = d.New
			}
			maps.DeleteFunc(f, func(_ string, v any) bool { return v == nil })
			c.objects[st.Ref] = plan.Object{Ref: st.Ref, Fields: f}
			if st.Type == plan.ActivationUser {
				domain := f["domain"].(string)
				c.objects[plan.Ref{Type: plan.SIPDomain, Name: domain}] = plan.Object{
					Ref: plan.Ref{Type: plan.SIPDomain, Name: domain}, Fields: plan.Fields{"domain": domain}}
			}
		}
		c.later(3 * time.Second)
		return nil
	})
}

func (s session) RemoveConsent(context.Context) error {
	if !s.cloud.consented {
		return s.point()
	}
	return s.call(true, func() error {
		if s.cloud.keepConsent {
			return fault.New(fault.Forbidden, "NotAllowed", "the application may not do this")
		}
		s.cloud.consented = false
		return nil
	})
}

// drive runs the tenant until it has its target, like package flow does: again after a failure and after a kill, and
// a person signs in when that is waited for.
func drive(t *testing.T, r *rows, c *cloud, at int, what string) int {
	p := &process{rows: r, cloud: c, at: at, what: what}
	var failures []error
	for range 60 {
		o := &onboard.Onboarder{Store: p, Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) {
			return session{p}, nil
		}}
		result, err := o.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "contoso"}})
		if p.killed {
			p.killed, p.at = false, 0
		}
		if err == nil && result == (flow.Result{}) && !r.tenant.Pending {
			return p.points
		}
		failures = append(failures, err)
		time.Sleep(time.Minute)
	}
	t.Fatalf("%s at %d: not done: %+v, %v", what, at, r.tenant.Waiting, failures)
	return 0
}

func foreign() []plan.Object {
	return []plan.Object{
		{Ref: plan.Ref{Type: plan.Usage, Name: "Fabrikam"}, Fields: plan.Fields{"place": 0}},
		{Ref: plan.Ref{Type: plan.Route, Name: "Fabrikam"}, Fields: plan.Fields{"pattern": `^\+1`,
			"usages": []string{"Fabrikam"}, "gateways": []string{"sbc.fabrikam.example"}, "priority": 1}},
		{Ref: plan.Ref{Type: plan.User, Name: "user-1"}, Fields: plan.Fields{"number": "+442079460100"}},
		{Ref: plan.Ref{Type: plan.User, Name: "user-2"}, Fields: plan.Fields{}},
	}
}

func dump(c *cloud) string {
	var lines []string
	for r, o := range c.objects {
		b, _ := json.Marshal(o.Fields)
		lines = append(lines, fmt.Sprintln(r, string(b)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Whatever happens at any point of onboarding and leaving, in both trunk models, the tenant ends as without it, and
// what other people have is untouched.
func TestFaultsAtEveryPoint(t *testing.T) {
	for _, trunk := range []plan.Trunk{plan.Derived, plan.Gateways} {
		settings := &plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD",
			Labels:  []plan.Label{{Name: "contoso", Trunk: trunk}},
			Regions: []string{"1r1.gw.example", "1r2.gw.example"},
			Rules:   []plan.Rule{{Name: "national", Pattern: `^0(\d+)$`, Translation: "+44$1"}}}
		onboardAndLeave := func(at int, what string) (joined, left string, points int) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(foreign()...)
				r := &rows{ledger: map[plan.Ref]plan.Made{}}
				r.tenant = onboard.Tenant{Account: "contoso", Pending: true,
					Target: settings.Objects(plan.NewState(foreign()), nil)}
				n := drive(t, r, c, at, what)
				joined = dump(c)

				r.tenant.Target, r.tenant.Pending = nil, true
				points = n + drive(t, r, c, at-n, what)
				left = dump(c)
				if len(r.ledger) > 0 {
					t.Errorf("%s at %d: left in the ledger: %v", what, at, r.ledger)
				}
			})
			return joined, left, points
		}

		joined, left, points := onboardAndLeave(0, "")
		if want := dump(newCloud(foreign()...)); left != want {
			t.Fatalf("after leaving:\n%s\nwant\n%s", left, want)
		}
		if points < 50 {
			t.Fatalf("%d points only", points)
		}
		for _, what := range []string{"kill", "timeout before", "timeout after", "429", "500", "signed out"} {
			for at := 1; at <= points; at++ {
				j, l, _ := onboardAndLeave(at, what)
				if j != joined || l != left {
					t.Fatalf("%s at %d, %s:\n%s\nwant\n%s\nafter leaving\n%s", what, at, trunk, j, joined, l)
				}
			}
		}
		t.Logf("%s: %d points", trunk, points)
	}
}
