// Package tenant_test onboards the operator's and a customer's tenant of Microsoft's simulated cloud with the built
// program, which is itself the name server of the customer's names, and removes everything again.
package tenant_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

const (
	carrier  = ".carrier" // the operator's own tenant
	customer = "adatum"   // an account
	block    = "+4416329605"
	patience = 5 * time.Minute // for one stage
)

// world is the program between its neighbours, Microsoft's cloud among them.
type world struct {
	*lab.Lab
	t        *testing.T
	p        *demo.Product
	set      []string
	restarts int
	observe  atomic.Pointer[func(microsoft.Exchange)]
	pid      atomic.Int64
}

// start starts the cloud, without delays, and the program, whose application it registers there.
func start(t *testing.T, set ...string) *world {
	t.Helper()
	fixture, _, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, set: set}
	observe := func(e microsoft.Exchange) {
		if f := w.observe.Load(); f != nil {
			(*f)(e)
		}
	}
	w.Lab, w.p, err = demo.Start(t.Context(), t.TempDir(), rig.Binary(t), fixture,
		lab.Options{Microsoft: true, Observe: observe}, set...)
	if err != nil {
		t.Fatal(err)
	}
	w.pid.Store(int64(w.p.PID()))
	t.Cleanup(func() {
		rig.Stop(t, w.p)
		if err := w.Close(); err != nil {
			t.Errorf("stop the neighbours: %v", err)
		}
	})
	w.settings(func(s *microsoft.Settings) { *s = microsoft.Settings{} })
	if _, err = demo.Register(t.Context(), w.Lab, w.p.Manage); err != nil {
		t.Fatal(err)
	}
	return w
}

// settings changes the switches of both tenants.
func (w *world) settings(f func(*microsoft.Settings)) {
	w.Operator.Set(f)
	w.Customer.Set(f)
}

// kill ends the program, as a crash does. It may be called from any goroutine.
func (w *world) kill() { _ = syscall.Kill(int(w.pid.Load()), syscall.SIGKILL) } // it may have ended

// alive starts the program again if it has been killed.
func (w *world) alive() {
	w.t.Helper()
	select {
	case <-w.p.Exited():
	default:
		return
	}
	var err error
	w.p, err = demo.StartProduct(w.t.Context(), rig.Binary(w.t), w.p.Config, w.p.Dir, w.set...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.pid.Store(int64(w.p.PID()))
	w.restarts++
}

// do repeats what a person or a BSS does until it succeeds: the program may be killed meanwhile. An error that is not
// for now fails the test.
func (w *world) do(what string, f func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		w.alive()
		attempt, stop := context.WithCancel(ctx)
		exited := w.p.Exited()
		go func() { // clients wait for a program that has gone, and nobody else starts it again
			select {
			case <-exited:
			case <-attempt.Done():
			}
			stop()
		}()
		err := f(attempt)
		stop()
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil { // why the last request was cancelled says nothing
			last = err
		}
		if errors.As(err, new(*never)) {
			w.t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%s: %v", what, last)
		}
	}
}

// never is an error that repeating does not end.
type never struct{ text string }

func (e *never) Error() string { return e.text }

func neverf(format string, args ...any) error { return &never{fmt.Sprintf(format, args...)} }

// signIn signs a person in to the tenant of an account, with the consent of its administrator, as the CLI does.
func (w *world) signIn(account, admin, person string) {
	w.t.Helper()
	w.do("sign in to "+account, func(ctx context.Context) error {
		step, err := w.p.Manage.StartSignIn(ctx, account,
			api.SignInRequest{Way: api.SignInRequestWayBrowser, Port: 8400})
		for err == nil && step.ID != "" {
			who := person
			if step.Step != api.SignInStepStepIntegrate {
				who = admin
			}
			back, err := w.Microsoft.Walk(ctx, step.URL, who, nil)
			if err != nil || back == nil {
				return fmt.Errorf("%s at the login: %w", who, err)
			}
			if step, err = w.p.Manage.ContinueSignIn(ctx, account, step.ID, back.RawQuery); err != nil {
				return err
			}
		}
		return err
	})
}

// number returns a number of the customer's.
func number(i int) string { return fmt.Sprintf("%s%02d", block, i) }

// account creates the customer's account, with numbers.
func (w *world) account() {
	w.t.Helper()
	var numbers []client.Number
	for i := range 20 {
		numbers = append(numbers, client.Number{TelephoneNumber: number(i), AccountName: customer,
			ServiceDetails: client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true}}})
	}
	w.do("create the account", func(ctx context.Context) error {
		_, err := w.p.API.PutAccount(ctx, &client.Account{Name: customer, ServiceDetails: &client.AccountServices{
			TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true}}}, client.Condition{})
		if err == nil {
			err = w.p.API.CreateOrUpdateNumbers(ctx, customer, numbers)
		}
		return err
	})
}

// carry makes a plan, approves it, and waits until the tenant has what it asks for.
func (w *world) carry(account string, r api.PlanRequest, want api.TenantState) {
	w.t.Helper()
	w.carryPlan(account, "", r, want)
}

// carryPlan is carry with a plan that was made; a plan that the tenant has outrun is made again.
func (w *world) carryPlan(account, id string, r api.PlanRequest, want api.TenantState) {
	w.t.Helper()
	applied := false
	w.do(fmt.Sprintf("%s %s", r.Purpose, account), func(ctx context.Context) error {
		if id == "" {
			p, err := w.p.Manage.PlanTenant(ctx, account, r)
			if err != nil {
				return err
			}
			id = p.ID
		}
		p, err := w.p.Manage.Plan(ctx, account, id)
		if err == nil && len(p.Conflicts) > 0 {
			return neverf("%+v", p.Conflicts)
		}
		if err == nil && p.Applied.IsZero() && !applied {
			if _, err = w.p.Manage.ApplyPlan(ctx, account, id); err == nil {
				applied = true
			}
		}
		if err != nil {
			return err
		}
		t, _, err := w.p.Manage.Tenant(ctx, account)
		switch {
		case err != nil:
			return err
		case t.Waiting != nil && t.Waiting.For == "person":
			return neverf("a person is asked: %s", t.Waiting.Reason)
		case t.State != want || t.Purpose != string(r.Purpose):
			return fmt.Errorf("the tenant is %s by %s; %+v", t.State, t.Purpose, t.Waiting)
		}
		return nil
	})
}

// setUpCarrier gives the operator's own tenant the trunks.
func (w *world) setUpCarrier() {
	w.t.Helper()
	w.carry(carrier, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}, api.TenantStateOnboarded)
	w.do("check the operator's tenant", func(ctx context.Context) error {
		r, err := w.p.Manage.Carrier(ctx)
		if err == nil && !r.Passed {
			err = errors.New(strings.Join(r.Missing, "; "))
		}
		return err
	})
}

// choose replaces the settings of the customer's tenant.
func (w *world) choose(s api.TenantSettings) {
	w.t.Helper()
	w.do("choose settings", func(ctx context.Context) error {
		_, err := w.p.Manage.PutTenant(ctx, customer, s, nil)
		return err
	})
}

// sync reads all users.
func (w *world) sync(account string) []api.User {
	w.t.Helper()
	var users []api.User
	w.do("synchronise users", func(ctx context.Context) error {
		return w.p.Manage.SyncUsers(ctx, account, "full")
	})
	w.do("users", func(ctx context.Context) error {
		passes, err := w.p.Manage.UserSyncs(ctx, account)
		if err == nil && !slices.ContainsFunc(passes, func(s api.UserSync) bool {
			return !s.Ended.IsZero() && s.Users > 0
		}) {
			err = errors.New("no pass has ended")
		}
		if err == nil {
			users, err = w.p.Manage.Users(ctx, account, api.ListUsersParams{})
		}
		return err
	})
	return users
}

// free returns users without a number who can have one, the first n by their names.
func free(users []api.User, n int) []string {
	var names []string
	for _, u := range users {
		if u.State == "inactive" && u.Number == "" && u.AccountType == "user" && strings.HasPrefix(u.User, "user") {
			names = append(names, u.User)
		}
	}
	slices.Sort(names)
	return names[:min(n, len(names))]
}

// activate gives users numbers, in the order of their names.
func (w *world) activate(account string, names []string) {
	w.t.Helper()
	want := wanted(names)
	w.do("activate users", func(ctx context.Context) error {
		var r api.UserActivation
		for _, name := range names {
			r.Items = append(r.Items, api.UserItem{User: name, Number: want[name]})
		}
		outcomes, err := w.p.Manage.ActivateUsers(ctx, account, r)
		for _, o := range outcomes {
			if o.Code != "" {
				return neverf("%s: %s: %s", o.User, o.Code, o.Reason)
			}
		}
		return err
	})
	w.active(account, want)
}

// active waits until these users are active with their numbers, and no others.
func (w *world) active(account string, want map[string]string) {
	w.t.Helper()
	w.do("active users", func(ctx context.Context) error {
		users, err := w.p.Manage.Users(ctx, account, api.ListUsersParams{})
		if err != nil {
			return err
		}
		found := map[string]string{}
		for _, u := range users {
			switch u.State {
			case "active":
				found[u.User] = u.Number
			case "activating", "deactivating":
				return fmt.Errorf("%s is %s: %+v", u.User, u.State, u.Waiting)
			}
		}
		if !maps.Equal(found, want) {
			return fmt.Errorf("active: %v, want %v", found, want)
		}
		return nil
	})
}

// state returns a tenant as its Dump has it, with names in place of the ids of Tandem's activation users, which
// Microsoft assigns, and 5061 in place of this test's port.
func (w *world) state(of *microsoft.Tenant) map[string]map[string]any {
	w.t.Helper()
	text := string(of.Dump())
	_, port, _ := net.SplitHostPort(w.Gateway.DirectRouting)
	ids := []string{`"SipSignalingPort": ` + port, `"SipSignalingPort": 5061`}
	of.Edit(func(s *microsoft.State) {
		for _, u := range s.Users {
			if strings.HasPrefix(u.UPN, "tandem.teams@") {
				ids = append(ids, u.ID, u.UPN)
			}
		}
	})
	return parse(w.t, []byte(strings.NewReplacer(ids...).Replace(text)))
}

func parse(t *testing.T, dump []byte) (state map[string]map[string]any) {
	t.Helper()
	if err := json.Unmarshal(dump, &state); err != nil {
		t.Fatal(err)
	}
	return state
}

// same compares what two tenants have.
func same(t *testing.T, what string, want, got map[string]map[string]any) {
	t.Helper()
	if reflect.DeepEqual(want, got) { // to look for differences takes seconds
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
