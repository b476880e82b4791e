//go:build deep

package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

const (
	callEvery = 50 * time.Millisecond // 20 calls/s
	next      = customer + "@next"    // the account's new tenant
	inUse     = 8                     // numbers
)

// The customer's tenant goes from gateway objects to derived trunks while calls go on: none is lost.
func TestConvertUnderCalls(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.busy("gateways")
	w.move(api.MoveRequest{Label: "adatum2", Trunk: api.MoveRequestTrunkDerived})
	onboarding := api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}
	w.carry(customer, onboarding, api.TenantStateOnboarded)
	w.moveOn("remove the old label")
	w.carry(customer, onboarding, api.TenantStateOnboarded)
	w.moved("adatum2")
	c.end(t)
	w.Customer.Edit(func(s *microsoft.State) {
		for _, d := range s.Domains {
			if strings.HasPrefix(d.Name, "adatum.1r1.") {
				t.Errorf("the tenant still has %s", d.Name)
			}
		}
		if len(s.Configurations["OnlinePSTNGateway"]) != 1 { // the other operator's
			t.Errorf("gateway objects: %v", s.Configurations["OnlinePSTNGateway"])
		}
	})
}

// The customer moves to another tenant while calls go on: none is lost.
func TestMoveUnderCalls(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.busy("derived")
	other := w.Microsoft.AddTenant(microsoft.Spec{Name: "fabrikam", Users: 50, Seed: 3})
	w.move(api.MoveRequest{TenantID: other.ID})
	w.signIn(next, other.Admin, other.Admin)
	w.carry(next, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}, api.TenantStateOnboarded)
	w.activate(next, free(w.sync(next), inUse))
	w.moveOn("leave the old tenant")
	w.leave(c.before)
	w.moved("fabrikam")
	c.end(t)
}

// busy onboards the customer and begins calls to and from its users.
func (w *world) busy(trunk api.TenantSettingsTrunk) *callers {
	w.t.Helper()
	w.signIn(carrier, w.Operator.Admin, w.Operator.Admin)
	w.setUpCarrier()
	w.account()
	w.signIn(customer, w.Customer.Admin, w.ServiceUser())
	before := w.Customer.Dump()
	w.choose(api.TenantSettings{Trunk: trunk})
	w.carry(customer, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}, api.TenantStateOnboarded)
	w.activate(customer, free(w.sync(customer), inUse))
	for i := range inUse {
		if err := w.p.WaitRouted(w.t.Context(), "core-fixed", number(i), "teamsDirectRouting"); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := demo.WaitKnown(w.t.Context(), w.Lab); err != nil {
		w.t.Fatal(err)
	}
	c := w.callAll()
	c.before = before
	return c
}

// move begins a move.
func (w *world) move(r api.MoveRequest) {
	w.t.Helper()
	if _, err := w.p.Manage.BeginMove(w.t.Context(), customer, r); err != nil {
		w.t.Fatal(err)
	}
}

// moveOn continues a move that is ready, and waits until a person is asked for what comes next.
func (w *world) moveOn(want string) {
	w.t.Helper()
	continued := false
	w.do("move", func(ctx context.Context) error {
		m, err := w.p.Manage.Move(ctx, customer)
		if err == nil && m.Stage == "ready" && !continued {
			m, err = w.p.Manage.ContinueMove(ctx, customer)
			continued = err == nil
		}
		if err == nil && (m.Stage != "leave" || !strings.Contains(m.Next, want)) {
			err = fmt.Errorf("stage %s: %s", m.Stage, m.Next)
		}
		return err
	})
}

// moved waits until a move is done: the account has only the new label.
func (w *world) moved(label string) {
	w.t.Helper()
	w.do("end of the move", func(ctx context.Context) error {
		m, err := w.p.Manage.Move(ctx, customer)
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusNotFound {
			return fmt.Errorf("the move is not done: %+v, %v", m, err)
		}
		return nil
	})
	a, err := w.p.API.Account(w.t.Context(), customer)
	if err != nil || a.ServiceDetails.TeamsDirectRouting.Configuration.Subdomain != label {
		w.t.Errorf("the account's label: %+v, %v; want %s", a.ServiceDetails.TeamsDirectRouting, err, label)
	}
	tenant, _, err := w.p.Manage.Tenant(w.t.Context(), customer)
	if err != nil || len(tenant.Labels) != 1 || tenant.Labels[0].Label != label {
		w.t.Errorf("the tenant's labels: %+v, %v", tenant, err)
	}
}

// callers place calls.
type callers struct {
	before []byte // what the tenant had before the onboarding
	stop   func()
	done   sync.WaitGroup

	mu     sync.Mutex
	placed int
	lost   []string
}

// callAll begins 20 calls/s, by turns to and from users of the customer.
func (w *world) callAll() *callers {
	ctx, cancel := context.WithCancel(w.t.Context())
	c := &callers{stop: cancel}
	c.done.Go(func() {
		tick := time.NewTicker(callEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			user := number(i / 2 % inUse)
			f := fixtures.Call{Neighbour: "core-fixed", From: "+442890180001", To: user}
			if i%2 == 1 {
				f = fixtures.Call{Neighbour: "teams-1", From: user, To: fmt.Sprintf("+44289018%04d", i%1000)}
			}
			c.done.Go(func() { c.call(w, f) })
		}
	})
	w.t.Cleanup(func() {
		cancel()
		c.done.Wait()
	})
	return c
}

// call places one call, holds it for up to 2 s and ends it.
func (c *callers) call(w *world, f fixtures.Call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
	defer cancel()
	began := time.Now()
	err := func() error {
		call, err := w.Place(ctx, f)
		if err != nil {
			return err
		}
		final, err := call.Wait(ctx)
		if err != nil {
			return err
		}
		if final.Status() != http.StatusOK {
			return errors.New(final.StartLine() + " " + strings.Join(final.Values("Warning"), " "))
		}
		select {
		case <-time.After(time.Duration(rand.IntN(2000)) * time.Millisecond): // the length of the call
		case <-call.Ended():
			return errors.New("ended by " + call.EndedBy())
		}
		bye, err := call.Bye(ctx)
		if err == nil && bye.Status() != http.StatusOK {
			err = errors.New("BYE: " + bye.StartLine())
		}
		return err
	}()

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.placed++; err != nil {
		c.lost = append(c.lost, fmt.Sprintf("%s %s -> %s: %v", began.Format(time.TimeOnly), f.From, f.To, err))
	}
}

// end ends the calls, of which none may have been lost.
func (c *callers) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.done.Wait()
	t.Logf("%d calls, %d lost", c.placed, len(c.lost))
	if len(c.lost) > 0 || c.placed == 0 {
		slices.Sort(c.lost)
		t.Errorf("lost:\n%s", strings.Join(c.lost[:min(len(c.lost), 20)], "\n"))
	}
}
