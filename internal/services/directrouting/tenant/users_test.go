package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/testkit"
)

// people are the users of a bed's tenant, as Tandem knows them.
type people struct {
	*bed
	*user.Service
	store store.Users
	queue *flow.Queue
	kinds []*flow.Kind
	cloud user.Cloud // what Tandem reaches
	death *death     // nil: the process lives
}

// death ends the process at a request, or breaks the connection there before the request has an effect.
type death struct {
	http.RoundTripper
	how string // "timeout before", "end before", "end after"
	at  int    // counts down

	mu    sync.Mutex
	ended bool
	stop  context.CancelFunc // of the work
}

func (d *death) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	d.at--
	hit := d.at == 0
	d.ended = d.ended || hit && d.how == "end before"
	ended, stop := d.ended, d.stop
	d.mu.Unlock()
	if ended {
		stop()
		return nil, errKilled
	}
	if hit && d.how == "timeout before" {
		return nil, errBroken
	}

	resp, err := d.RoundTripper.RoundTrip(r)
	if hit && d.how == "end after" {
		if err == nil {
			_ = resp.Body.Close()
		}
		d.mu.Lock()
		d.ended = true
		d.mu.Unlock()
		stop()
		return nil, errKilled
	}
	return resp, err
}

// work runs the queue as one process after the other, each until it ends.
func (p *people) work(ctx context.Context) error {
	for {
		process, stop := context.WithCancel(ctx)
		if p.death != nil {
			p.death.mu.Lock()
			p.death.ended, p.death.stop = false, stop
			p.death.mu.Unlock()
		}
		err := p.queue.Run(process, p.kinds)
		stop()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// inventory has numbers of the account that users can have.
type inventory []domain.E164

func (v inventory) Unusable(_ context.Context, _ string, ns []domain.E164) (map[domain.E164]string, error) {
	bad := map[domain.E164]string{}
	for _, n := range ns {
		if !slices.Contains(v, n) {
			bad[n] = string(n) + " is not a number of the account"
		}
	}
	return bad, nil
}

func (v inventory) Usable(_ context.Context, _ string, after domain.E164, limit int) (page []domain.E164, _ error) {
	for _, n := range v {
		if n > after && len(page) < limit {
			page = append(page, n)
		}
	}
	return page, nil
}

const (
	firstNumber = domain.E164("+442079460001")
	mainNumber  = domain.E164("+3221231212")
)

// newPeople returns a tenant that is onboarded, with more users.
func newPeople(t *testing.T, d *db.DB, more int) *people {
	t.Helper()
	b := newBed(t)
	b.tenant.Edit(func(s *microsoft.State) {
		s.SKUs[0].Enabled += more
		for i := range more {
			u := s.AddUser(&microsoft.User{UPN: fmt.Sprintf("more%05d@%s", i, b.tenant.Initial), UsageLocation: "GB",
				DisplayName: fmt.Sprintf("More %d", i), Department: "Shop floor"})
			s.License(u, microsoft.License{SKU: s.SKUs[0].ID})
		}
		s.Configurations["OnlinePstnUsages"]["global"]["Usage"] = []any{"Foreign-1", "Tandem-E164"}
		for _, kind := range []string{"OnlineVoiceRoutingPolicy", "TenantDialPlan", "TeamsEmergencyCallRoutingPolicy"} {
			s.Configurations[kind]["tandem-e164"] = map[string]any{"Identity": "Tag:Tandem-E164"}
		}
	})

	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	reg := prometheus.NewRegistry()
	l := events.New(d, log, reg)
	p := &people{bed: b, cloud: b.reach}
	p.queue = flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, reg)
	p.store = store.Users{Store: store.New(d, nil, p.queue, l)}
	clouds := func(context.Context, *onboard.Tenant) (user.Cloud, error) { return p.cloud, nil }
	p.Service = &user.Service{Store: p.store, Clouds: clouds,
		Inventory: inventory{mainNumber, firstNumber, "+442079460002", "+442079460003", "+442079460004"}}
	syncer := &user.Syncer{Store: p.store, Clouds: clouds, Metrics: user.NewMetrics(reg), Log: log}
	activator := &user.Activator{Store: p.store, Clouds: clouds}
	p.kinds = []*flow.Kind{syncer.Kind(), activator.Kind()}

	settings := b.settings(plan.Derived)
	made := []plan.Made{{Object: plan.Object{Ref: plan.Ref{Type: plan.RoutingPolicy, Name: settings.Prefix}}}}
	err := p.store.Store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context, tx onboard.Tx) error {
		err := tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", ID: b.tenant.ID, Purpose: onboard.Onboard,
			Settings: *settings})
		return errors.Join(err, tx.Record(ctx, made...))
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// settle works until no key is due, and returns those that wait. The clock of the cloud runs faster.
func (p *people) settle() map[string]string {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.t.Context())
	ended := make(chan error)
	go func() { ended <- p.work(ctx) }()
	waiting := map[string]string{}
	limit := time.After(5 * time.Minute) // a failing test waits so long
	for idle := 0; idle < 2; {
		select {
		case <-limit:
			p.t.Fatal("the work does not end")
		case <-time.After(20 * time.Millisecond):
		}
		p.bed.cloud.Advance(10 * time.Second)
		items, err := p.queue.List(ctx, "", "", flow.Key{}, 1000)
		if err != nil {
			p.t.Fatal(err)
		}
		clear(waiting)
		idle++
		for _, i := range items {
			switch {
			case i.State == flow.Waiting || i.State == flow.Parked:
				waiting[i.Kind+" "+i.ID] = i.Reason
			case i.State == flow.Running || time.Until(i.Due) < time.Minute:
				idle = 0
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		p.t.Fatal(err)
	}
	return waiting
}

// sync asks for a pass, works, and returns the last pass.
func (p *people) sync(mode string) user.Pass {
	p.t.Helper()
	if err := p.Sync(p.t.Context(), "contoso", mode); err != nil {
		p.t.Fatal(err)
	}
	p.settle()
	return p.passes()[0]
}

func (p *people) view(fn func(ctx context.Context, tx user.Tx) error) {
	p.t.Helper()
	if err := p.store.View(p.t.Context(), "contoso", fn); err != nil {
		p.t.Fatal(err)
	}
}

func (p *people) passes() (all []user.Pass) {
	p.t.Helper()
	p.view(func(ctx context.Context, tx user.Tx) (err error) {
		all, err = tx.Passes(ctx, 100)
		return err
	})
	return all
}

func (p *people) list(f user.Filter) (all []user.User) {
	p.t.Helper()
	p.view(func(ctx context.Context, tx user.Tx) error {
		all = nil
		for after := (user.Key{}); ; {
			page, err := tx.Users(ctx, f, after, 100)
			if err != nil || len(page) == 0 {
				return err
			}
			all = append(all, page...)
			last := page[len(page)-1]
			after = user.Key{Login: strings.ToLower(last.UPN), ID: last.ID}
		}
	})
	return all
}

func (p *people) user(name string) (u *user.User) {
	p.t.Helper()
	p.view(func(ctx context.Context, tx user.Tx) (err error) {
		if u, err = tx.User(ctx, name); fault.Is(err, fault.NotFound) {
			err = nil
		}
		return err
	})
	return u
}

func (p *people) upn(n int) string { return fmt.Sprintf("user%06d@%s", n, p.tenant.Initial) }

func (p *people) edit(n int, f func(s *microsoft.State, u *microsoft.User)) {
	p.tenant.Edit(func(s *microsoft.State) { f(s, s.User(p.upn(n))) })
}

// real returns how many users the tenant has.
func (p *people) real() (n int) {
	p.tenant.Edit(func(s *microsoft.State) {
		for _, u := range s.Users {
			if u.Deleted.IsZero() {
				n++
			}
		}
	})
	return n
}

func TestFullPass(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		p := newPeople(t, d, 1000)
		p.edit(1, func(s *microsoft.State, u *microsoft.User) { u.Disabled = true })
		p.edit(2, func(s *microsoft.State, u *microsoft.User) {
			u.Department = "Sales"
			if len(u.Licenses) > 0 {
				s.Unlicense(u, u.Licenses[0].SKU)
			}
		})
		got := p.sync(user.Full)
		if n := int64(p.real()); got.Mode != user.Full || got.Users != n || got.Voices != n || got.Failure != "" ||
			got.Ended.IsZero() {
			t.Errorf("pass %+v, want one over %d users", got, n)
		}
		if n := len(p.list(user.Filter{})); n != p.real() {
			t.Errorf("%d users are listed, want %d", n, p.real())
		}

		if u := p.user(p.upn(1)); u.State != user.Blocked {
			t.Errorf("the user who may not sign in is %s", u.State)
		}
		if u := p.user(p.upn(2)); u.State != user.Unlicensed ||
			!strings.HasPrefix(u.Missing(), "MCOEV Deleted since 20") {
			t.Errorf("the user without a licence is %s, missing %q", u.State, u.Missing())
		}
		if n := len(p.list(user.Filter{Department: "Shop floor", State: user.Inactive, Location: "GB"})); n != 1000 {
			t.Errorf("%d users of the shop floor, want 1000", n)
		}
		if n := len(p.list(user.Filter{Text: "MORE 7"})); n != 111 { // 7, 70 to 79, 700 to 799
			t.Errorf("%d names begin with More 7, want 111", n)
		}
		resources := p.list(user.Filter{Kind: user.ResourceAccount})
		if len(resources) != 3 || resources[0].Voice.Number == "" || resources[0].State != user.Inactive {
			t.Errorf("resource accounts: %+v", resources)
		}
		if n, m := len(p.list(user.Filter{Number: new(true)})), len(p.list(user.Filter{Number: new(false)})); n < 3 ||
			n+m != p.real() {
			t.Errorf("%d users have a number, and %d have none", n, m)
		}
		counts, err := p.store.Count(t.Context())
		if err != nil || counts[user.Blocked] != 1 || counts[user.Unlicensed] < 1 {
			t.Errorf("counts %v, %v", counts, err)
		}
	})
}

// failing is a cloud whose lists fail after some pages.
type failing struct {
	user.Cloud
	after int
	from  []string // the links with which lists began
}

func (f *failing) Profiles(ctx context.Context, from string, fn func([]user.Profile, string) error) error {
	f.from = append(f.from, from)
	return f.Cloud.Profiles(ctx, from, func(page []user.Profile, next string) error {
		if f.after--; f.after < 0 {
			return fault.New(fault.Forbidden, "Cut", "cut")
		}
		return fn(page, next)
	})
}

// tenant-cases 8, and a run that is cut: the pass continues with the page that is not stored. Nobody counts as deleted
// before its end, and the earlier state is readable meanwhile.
func TestPassIsCut(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 1200)
	p.sync(user.Full)
	before := len(p.list(user.Filter{}))
	p.tenant.Edit(func(s *microsoft.State) { s.PurgeUser(s.User("more00001@" + p.tenant.Initial)) })

	p.cloud = &failing{Cloud: p.reach, after: 1}
	cut := p.sync(user.Full)
	if !cut.Ended.IsZero() || cut.Users != 999 || cut.Failure != "cut" {
		t.Errorf("the pass that was cut: %+v", cut)
	}
	if n := len(p.list(user.Filter{})); n != before || len(p.list(user.Filter{State: user.Deleted})) > 0 {
		t.Errorf("%d users are listed during the pass, want %d", n, before)
	}
	whole := &failing{Cloud: p.reach, after: 1000}
	p.cloud = whole
	p.sync(user.Delta)
	rest := p.passes()[0]
	if rest.Number != cut.Number || rest.Users != int64(p.real()) || whole.from[0] == "" {
		t.Errorf("after the pass was cut it began with page %q: %+v", whole.from[0], rest)
	}
	p.cloud = p.reach
	if gone := p.list(user.Filter{State: user.Deleted}); len(gone) != 1 || rest.Removed != 1 {
		t.Errorf("deleted: %+v, %+v", gone, rest)
	}

	// A link expires: the list begins again.
	p.tenant.Set(func(s *microsoft.Settings) { s.ExpireAtPage = 2 })
	if again := p.sync(user.Full); again.Restarts == 0 || again.Failure != "" || again.Users != int64(p.real()) {
		t.Errorf("after a link expired: %+v", again)
	}
	// Links always expire: the pass is abandoned, after a bounded number of times.
	p.tenant.Set(func(s *microsoft.Settings) { s.PageLife = time.Nanosecond })
	if never := p.sync(user.Full); never.Restarts != 3 || never.Failure == "" || never.Ended.IsZero() {
		t.Errorf("when all links expire: %+v", never)
	}
	if n := len(p.list(user.Filter{State: user.Deleted})); n != 1 {
		t.Errorf("%d users count as deleted after a pass that did not end", n)
	}
}

// tenant-cases 8: page 6 of 11 has expired, in a pass and when one continues after a restart.
func TestPageExpires(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 10*999)
	p.tenant.Set(func(s *microsoft.Settings) { s.ExpireAtPage = 6 })
	if pass := p.sync(user.Full); pass.Restarts == 0 || pass.Failure != "" || pass.Users != int64(p.real()) {
		t.Errorf("page 6 has expired: %+v", pass)
	}
	p.cloud = &failing{Cloud: p.reach, after: 5}
	if cut := p.sync(user.Full); cut.Users != 5*999 || !cut.Ended.IsZero() {
		t.Errorf("cut at page 6: %+v", cut)
	}
	p.tenant.ExpirePages()
	resumed := &failing{Cloud: p.reach, after: 1000}
	p.cloud = resumed
	pass := p.sync(user.Delta)
	if len(resumed.from) != 2 || resumed.from[0] == "" || resumed.from[1] != "" || pass.Users != int64(p.real()) {
		t.Errorf("the stored link has expired: began at %q: %+v", resumed.from, pass)
	}
	if gone := p.list(user.Filter{State: user.Deleted}); len(gone) > 0 {
		t.Errorf("deleted: %+v", gone)
	}
}

// tenant-cases 9: the bin, the end, and two ways in which the link to the changes is lost.
func TestChanges(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		p := newPeople(t, d, 50)
		p.sync(user.Full)
		active := "more00000@" + p.tenant.Initial
		p.activate(user.Request{Items: []user.Item{{User: active, Number: string(firstNumber)}}})
		p.settle()
		p.edit(3, func(s *microsoft.State, u *microsoft.User) { u.Department = "Night shift"; s.Changed(u) })
		p.edit(4, func(s *microsoft.State, u *microsoft.User) { s.DeleteUser(u) })
		binned, gone := p.user(p.upn(4)).ID, p.user(p.upn(5)).ID
		p.edit(5, func(s *microsoft.State, u *microsoft.User) { s.PurgeUser(u) })
		pass := p.sync(user.Delta)
		if pass.Mode != user.Delta || pass.Users != 1 || pass.Removed != 2 {
			t.Errorf("pass over changes: %+v", pass)
		}
		if u := p.user(p.upn(3)); u.Department != "Night shift" {
			t.Errorf("changed user: %+v", u)
		}
		if u := p.user(binned); u == nil || u.State != user.Deleted || u.UPN != p.upn(4) {
			t.Errorf("user in the bin: %+v", u)
		}
		if u := p.user(gone); u != nil {
			t.Errorf("user who is gone: %+v", u)
		}

		p.tenant.Edit(func(s *microsoft.State) { s.RestoreUser(s.User(binned)) })
		p.sync(user.Delta)
		if u := p.user(p.upn(4)); u.ID != binned || u.State == user.Deleted {
			t.Errorf("restored user: %+v", u)
		}

		for _, status := range []int{410, 400} {
			p.tenant.Set(func(s *microsoft.Settings) { s.DeltaLostStatus = status })
			p.tenant.LoseDelta()
			n := len(p.list(user.Filter{}))
			pass := p.sync(user.Delta)
			if pass.Mode != user.Full || !strings.Contains(pass.Why, "no longer knows") || pass.Failure != "" {
				t.Errorf("after the link was lost with %d: %+v", status, pass)
			}
			if len(p.list(user.Filter{})) != n {
				t.Errorf("%d users after the full pass, want %d", len(p.list(user.Filter{})), n)
			}
			if u := p.user(active); u.State != user.Active || u.Voice.Number != string(firstNumber) {
				t.Errorf("the activated user after the full pass: %+v", u)
			}
		}
	})
}

// licensed returns the numbers of generated users with a licence and without a number or a policy.
func (p *people) licensed() (ns []int) {
	for n := 1; n <= 10; n++ {
		p.edit(n, func(s *microsoft.State, u *microsoft.User) {
			if len(u.Licenses) == 0 || len(u.Policies) > 0 {
				return
			}
			for _, x := range s.Numbers {
				if x.Target == u.ID {
					return
				}
			}
			ns = append(ns, n)
		})
	}
	return ns
}

func (p *people) activate(r user.Request) []user.Outcome {
	p.t.Helper()
	out, _, err := p.Activate(p.t.Context(), "contoso", r)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *people) deactivate(users ...string) []user.Outcome {
	p.t.Helper()
	out, _, err := p.Deactivate(p.t.Context(), "contoso", users, nil, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func refusals(all []user.Outcome) (codes []string) {
	for _, o := range all {
		codes = append(codes, o.Code)
	}
	return codes
}

// held returns the number of a user in the tenant, and its direct policies.
func (p *people) held(n int) (number string, policies map[string]string) {
	p.edit(n, func(s *microsoft.State, u *microsoft.User) {
		for _, x := range s.Numbers {
			if x.Target == u.ID {
				number = x.Number
			}
		}
		policies = u.Policies
	})
	return number, policies
}

var ours = map[string]string{"OnlineVoiceRoutingPolicy": "Tandem-E164", "TenantDialPlan": "Tandem-E164",
	"TeamsEmergencyCallRoutingPolicy": "Tandem-E164"}

// A user is activated and gets back what it had.
func TestActivate(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		p := newPeople(t, d, 0)
		p.tenant.Set(func(s *microsoft.Settings) {
			s.OperationDelay, s.TeamsPropagation = 20*time.Second, 45*time.Second
			// The rest by the Teams service.
			s.GraphPolicyTypes = []string{"TenantDialPlan", "TeamsEmergencyCallRoutingPolicy"}
		})
		free := p.licensed()
		p.edit(free[0], func(s *microsoft.State, u *microsoft.User) {
			u.Policies = map[string]string{"TenantDialPlan": "Foreign-1"}
			s.Numbers["+442079469999"] = &microsoft.Number{Number: "+442079469999", Uploaded: true, Target: u.ID,
				Category: "primary"}
		})
		before := string(p.tenant.Dump())
		p.sync(user.Full)

		upn := p.upn(free[0])
		out := p.activate(user.Request{Items: []user.Item{{User: upn, Number: "tel:" + string(firstNumber)}}})
		if len(out) != 1 || out[0].Code != "" || out[0].Number != string(firstNumber) {
			t.Fatalf("outcome %+v", out)
		}
		if u := p.user(upn); u.State != user.Activating {
			t.Errorf("before it is read back the user is %s", u.State)
		}
		if w := p.settle(); len(w) > 0 {
			t.Fatalf("waiting: %v", w)
		}
		if u := p.user(upn); u.State != user.Active || u.Voice.Number != string(firstNumber) {
			t.Errorf("activated user: %+v, waiting %+v", u, u.Waiting)
		}
		number, policies := p.held(free[0])
		if number != string(firstNumber) || cmp.Diff(ours, policies) != "" {
			t.Errorf("in the tenant the user has %s and %v", number, policies)
		}

		p.deactivate(upn)
		if w := p.settle(); len(w) > 0 {
			t.Fatalf("waiting: %v", w)
		}
		if u := p.user(upn); u.State != user.Inactive || u.Voice.Number != "+442079469999" {
			t.Errorf("deactivated user: %+v", u)
		}
		if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(p.tenant.Dump()), "\n")); diff != "" {
			t.Errorf("after the deactivation (-before +after):\n%s", diff)
		}

		p.view(func(ctx context.Context, tx user.Tx) error {
			h, err := tx.History(ctx, string(firstNumber), "", 10)
			if len(h) != 1 || h[0].UPN != upn || h[0].Ended.IsZero() || h[0].Began.After(h[0].Ended) {
				t.Errorf("history of the number: %+v", h)
			}
			if _, ok, _ := tx.Made(ctx, plan.Ref{Type: plan.User, Name: p.user(upn).ID}); ok {
				t.Error("the ledger has an entry of a user that is not activated")
			}
			return err
		})
	})
}

// A resource account is activated like a user, and gets back what it had.
func TestActivateResourceAccount(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 0)
	before := string(p.tenant.Dump())
	p.sync(user.Full)
	account := p.list(user.Filter{Kind: user.ResourceAccount})[0]
	out := p.activate(user.Request{Items: []user.Item{{User: account.UPN, Number: string(firstNumber)}},
		OverrideGroup: true}) // it has a dial plan by group
	if diff := cmp.Diff([]string{""}, refusals(out)); diff != "" {
		t.Fatalf("refused: %+v", out)
	}
	if w := p.settle(); len(w) > 0 || p.user(account.ID).State != user.Active {
		t.Fatalf("activated: %+v, waiting %v", p.user(account.ID), w)
	}
	p.tenant.Edit(func(s *microsoft.State) {
		if n := s.Numbers[string(firstNumber)]; n == nil || n.Target != account.ID {
			t.Errorf("the number: %+v", n)
		}
		if diff := cmp.Diff(ours, s.User(account.ID).Policies); diff != "" {
			t.Errorf("the policies (-want +got):\n%s", diff)
		}
	})
	p.deactivate(account.UPN)
	if w := p.settle(); len(w) > 0 || p.user(account.ID).Voice.Number != account.Voice.Number {
		t.Errorf("deactivated: %+v, waiting %v", p.user(account.ID), w)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(p.tenant.Dump()), "\n")); diff != "" {
		t.Errorf("after the deactivation (-before +after):\n%s", diff)
	}
}

// A number goes to one user; the next free ones are given in order; what cannot be is said for each.
func TestNumbersOfRequests(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 5)
	more := func(n int) string { return fmt.Sprintf("more%05d@%s", n, p.tenant.Initial) }
	var foreign string
	p.tenant.Edit(func(s *microsoft.State) {
		s.Numbers["+442079460002"] = &microsoft.Number{Number: "+442079460002", Uploaded: true, VoiceApp: true,
			Target: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"} // tenant-cases 13
		for _, x := range s.Numbers {
			if x.Target != "" && x.Number != "+442079460002" {
				foreign = x.Number
			}
		}
	})
	p.sync(user.Full)
	p.Inventory = append(p.Inventory.(inventory), domain.E164(foreign))

	dry := p.activate(user.Request{Rule: &onboard.Selection{Department: "Shop floor"}, NextNumber: true, DryRun: true})
	want := []string{string(mainNumber), string(firstNumber), "+442079460003", "+442079460004", ""}
	for i, o := range dry {
		if o.User != more(i) || o.Number != want[i] {
			t.Errorf("candidate %d: %+v, want %s", i, o, want[i])
		}
	}
	if dry[4].Code != "NoFreeNumber" || len(p.list(user.Filter{State: user.Activating})) > 0 {
		t.Errorf("dry run: %+v", dry)
	}

	// tenant-cases 15: the inventory has the main number; extensions make other numbers.
	out := p.activate(user.Request{Items: []user.Item{
		{User: more(0), Number: "+3221231212;ext=1234"},
		{User: more(1), Number: "+3221231212;ext=1235"},
		{User: more(2), Number: "+32 2 123 12 12 ext. 1238"},
		{User: more(3), Number: "+3221231212;ext=1235"},
		{User: more(3), Number: "+3221231213;ext=1"},
		{User: more(3), Number: "+442079460002"},
		{User: more(3), Number: foreign},
		{User: "nobody@contoso.example", Number: string(firstNumber)},
		{User: more(3)},
	}})
	codes := []string{"", "", "InvalidNumber", "NumberTwice", "NumberNotInInventory", "NumberInUse", "NumberInUse",
		"UserNotFound", "NoNumber"}
	if diff := cmp.Diff(codes, refusals(out)); diff != "" {
		t.Errorf("refusals (-want +got):\n%s\n%+v", diff, out)
	}
	if out[1].Number != "+3221231212;ext=1235" || !strings.Contains(out[5].Refused,
		"no longer exists: aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee (voiceApplicationAssigned)") ||
		!strings.Contains(out[6].Refused, "is held by the ") {
		t.Errorf("outcomes: %+v", out)
	}
	if w := p.settle(); len(w) > 0 {
		t.Fatal(w)
	}
	out = p.activate(user.Request{Items: []user.Item{ // as a CSV file has them
		{User: more(2), Number: "tel:+3221231212;ext=1236"},
		{User: more(3), Number: "3221231212;ext=1237"},
	}})
	if w := p.settle(); len(w) > 0 || out[0].Code+out[1].Code != "" {
		t.Fatal(w, out)
	}
	for i := range 4 {
		number := fmt.Sprint("+3221231212;ext=", 1234+i)
		if u := p.user(more(i)); u.State != user.Active || u.Voice.Number != number {
			t.Errorf("user %d: %s %s", i, u.State, u.Voice.Number)
		}
		p.tenant.Edit(func(s *microsoft.State) { // what was sent is the whole number, without "tel:"
			for _, n := range s.Numbers {
				if n.Target == s.User(more(i)).ID && n.Number != number {
					t.Errorf("user %d has %s at Microsoft, want %s", i, n.Number, number)
				}
			}
		})
	}
	// Its own number again is no conflict; another's is.
	out = p.activate(user.Request{Items: []user.Item{{User: more(0), Number: "+3221231212;ext=1234"},
		{User: more(4), Number: "+3221231212;ext=1235"}}})
	if diff := cmp.Diff([]string{"", "NumberInUse"}, refusals(out)); diff != "" {
		t.Error(diff, out)
	}
	p.settle()
	p.deactivate(more(0), more(1), more(2), more(3))
	p.settle()
	if n := len(p.list(user.Filter{Number: new(true), Department: "Shop floor"})); n != 0 {
		t.Errorf("%d users of the shop floor still have a number", n)
	}
}

// tenant-cases 11 and 12: what Microsoft says of an order is not what counts.
func TestOrders(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 6)
	more := func(n int) string { return fmt.Sprintf("more%05d@%s", n, p.tenant.Initial) }
	p.sync(user.Full)

	p.tenant.EndOperations("skipped")
	p.activate(user.Request{Items: []user.Item{{User: more(0), Number: string(firstNumber)}}})
	w := p.settle()
	if reason := w["tenantUser contoso/"+p.user(more(0)).ID]; !strings.Contains(reason, "skipped") {
		t.Errorf("after an order that was skipped: %v", w)
	}
	if u := p.user(more(0)); u.State != user.Activating || u.Waiting == nil || u.Waiting.For != onboard.Person {
		t.Errorf("the user: %+v", u)
	}
	p.activate(user.Request{Items: []user.Item{{User: more(0), Number: string(firstNumber)}}})
	p.settle()
	if u := p.user(more(0)); u.State != user.Active {
		t.Errorf("after asking again the user is %s: %+v", u.State, u.Waiting)
	}

	p.tenant.EndOperations("entryFailed")
	p.activate(user.Request{Items: []user.Item{{User: more(1), Number: "+442079460003"}}})
	w = p.settle()
	if reason := w["tenantUser contoso/"+p.user(more(1)).ID]; !strings.Contains(reason, "could not be assigned") {
		t.Errorf("after an order whose number failed: %v", w)
	}

	// The licence is lost after the last pass; Microsoft blames the on-premises directory.
	p.tenant.Set(func(s *microsoft.Settings) { s.BlameOnPremises = true })
	hooked := &unlicensing{Cloud: p.reach, before: func() {
		p.tenant.Edit(func(s *microsoft.State) {
			u := s.User(more(2))
			if len(u.Licenses) > 0 {
				s.Unlicense(u, u.Licenses[0].SKU)
			}
		})
	}}
	p.cloud = hooked
	p.activate(user.Request{Items: []user.Item{{User: more(2), Number: "+442079460004"}}})
	p.settle()
	u := p.user(more(2))
	if u.State != user.Unlicensed || u.Waiting == nil ||
		!strings.Contains(u.Waiting.Reason, "MCOEV Deleted since 20") ||
		!strings.Contains(u.Waiting.Reason, "on-premises") || strings.Contains(u.Waiting.Reason, "clear it") {
		t.Errorf("a licence problem reported as an on-premises number: %+v", u.Waiting)
	}
	p.cloud = p.reach
	p.tenant.Edit(func(s *microsoft.State) {
		s.License(s.User(more(2)), microsoft.License{SKU: s.SKUs[0].ID})
	})
	p.sync(user.Delta) // sees the licence, and continues
	if u := p.user(more(2)); u.State != user.Active {
		t.Errorf("with the licence again the user is %s: %+v", u.State, u.Waiting)
	}

	// A number that really is on premises.
	p.tenant.Edit(func(s *microsoft.State) {
		s.Numbers[string(mainNumber)] = &microsoft.Number{Number: string(mainNumber), Source: "onPremises"}
	})
	out := p.activate(user.Request{Items: []user.Item{{User: more(3), Number: string(mainNumber)}}})
	if out[0].Code != "NumberInUse" || !strings.Contains(out[0].Refused, "on-premises Active Directory: clear it") {
		t.Errorf("a number that is set on premises: %+v", out)
	}
}

// unlicensing is a cloud in which something happens before each change of a user.
type unlicensing struct {
	user.Cloud
	before func()
}

func (u *unlicensing) SetVoice(ctx context.Context, s plan.Step) (string, error) {
	u.before()
	return u.Cloud.SetVoice(ctx, s)
}

// tenant-cases 13 and 14: a number that a deleted or unlicensed user holds.
func TestHolders(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 6)
	more := func(n int) string { return fmt.Sprintf("more%05d@%s", n, p.tenant.Initial) }
	p.sync(user.Full)
	p.activate(user.Request{Items: []user.Item{{User: more(0), Number: string(firstNumber)},
		{User: more(1), Number: "+442079460003"}}})
	p.settle()

	// In the bin: the number stays with the user, whose activation waits.
	id := p.user(more(0)).ID
	p.tenant.Edit(func(s *microsoft.State) { s.DeleteUser(s.User(more(0))) })
	p.sync(user.Delta)
	if u := p.user(id); u.State != user.Deleted || u.Activation == nil || u.Waiting == nil ||
		!strings.Contains(u.Waiting.Reason, "restore it") {
		t.Errorf("deleted user: %+v %+v", u, u.Waiting)
	}
	out := p.activate(user.Request{Items: []user.Item{{User: more(2), Number: string(firstNumber)}}})
	var since time.Time
	p.tenant.Edit(func(s *microsoft.State) { since = s.User(id).Deleted })
	if out[0].Code != "NumberInUse" || !strings.Contains(out[0].Refused, more(0)+", deleted on "+
		since.UTC().Format(time.DateOnly)+", until it is purged 30 days later: restore or purge") {
		t.Errorf("the number of a deleted user: %+v", out)
	}
	p.tenant.Edit(func(s *microsoft.State) { s.RestoreUser(s.User(id)) })
	p.sync(user.Delta)
	if u := p.user(id); u.State != user.Active || u.Waiting != nil {
		t.Errorf("restored user: %s %+v", u.State, u.Waiting)
	}

	// Purged: the activation ends, and the history of the number.
	p.tenant.Edit(func(s *microsoft.State) { s.DeleteUser(s.User(id)); s.PurgeUser(s.User(id)) })
	p.sync(user.Delta)
	if u := p.user(id); u != nil && (u.Activation != nil || u.Pending) {
		t.Errorf("purged user: %+v", u)
	}
	p.view(func(ctx context.Context, tx user.Tx) error {
		h, err := tx.History(ctx, "", id, 10)
		if len(h) != 1 || h[0].Ended.IsZero() {
			t.Errorf("history: %+v", h)
		}
		return err
	})

	// The licence was taken first: Microsoft refuses the removal of the number.
	p.tenant.Edit(func(s *microsoft.State) { s.Unlicense(s.User(more(1)), s.SKUs[0].ID) })
	p.sync(user.Delta)
	if u := p.user(more(1)); u.State != user.Unlicensed || u.Voice.Number != "+442079460003" {
		t.Errorf("unlicensed user: %+v", u)
	}
	p.deactivate(more(1))
	p.settle()
	u := p.user(more(1))
	if u.Waiting == nil || !strings.Contains(u.Waiting.Reason, "unlicensed, still holds +442079460003") || !u.Pending ||
		u.Waiting.For != onboard.Person || !strings.Contains(u.Waiting.Reason, "give it the licence again") {
		t.Errorf("deactivation without a licence: %+v %+v", u, u.Waiting)
	}
	p.view(func(ctx context.Context, tx user.Tx) error { // a leave waits for it, and does not say that it is done
		_, holds, err := tx.Made(ctx, plan.Ref{Type: plan.User, Name: u.ID})
		if !holds {
			t.Error("the ledger has no entry of a user that still holds a number")
		}
		return err
	})
	p.tenant.Edit(func(s *microsoft.State) {
		s.License(s.User(more(1)), microsoft.License{SKU: s.SKUs[0].ID})
	})
	p.sync(user.Delta)
	if u := p.user(more(1)); u.State != user.Inactive || u.Voice.Number != "" || len(u.Voice.Policies) > 0 {
		t.Errorf("after the licence: %+v", u)
	}
}

// tenant-cases 16: a policy by group is not hidden unasked, and works again afterwards.
func TestPolicyByGroup(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 3)
	more := func(n int) string { return fmt.Sprintf("more%05d@%s", n, p.tenant.Initial) }
	p.tenant.Edit(func(s *microsoft.State) {
		s.Groups = append(s.Groups, &microsoft.Group{ID: "11111111-0000-4000-8000-000000000001", Name: "outer",
			Members: []string{s.User(more(0)).ID, "11111111-0000-4000-8000-000000000002"}},
			&microsoft.Group{ID: "11111111-0000-4000-8000-000000000002", Name: "inner",
				Members: []string{s.User(more(1)).ID}})
		s.GroupGrants = append(s.GroupGrants, microsoft.GroupGrant{Group: "11111111-0000-4000-8000-000000000001",
			Type: "OnlineVoiceRoutingPolicy", Policy: "Foreign-1", Rank: 1})
	})
	before := string(p.tenant.Dump())
	p.sync(user.Full)
	want := user.Policy{Name: "Foreign-1", Group: "11111111-0000-4000-8000-000000000001"}
	if got := p.user(more(0)).Voice.Policies["routingPolicy"]; got != want {
		t.Errorf("policy by group is shown as %+v", got)
	}

	items := []user.Item{{User: more(0), Number: string(firstNumber)}, {User: more(1), Number: "+442079460003"}}
	out := p.activate(user.Request{Items: items})
	if diff := cmp.Diff([]string{"PolicyByGroup", ""}, refusals(out)); diff != "" {
		t.Errorf("refusals: %s %+v", diff, out)
	}
	p.activate(user.Request{Items: items[:1], OverrideGroup: true})
	if w := p.settle(); len(w) > 0 {
		t.Fatal(w)
	}
	for i := range 2 {
		if u := p.user(more(i)); u.State != user.Active {
			t.Errorf("user %d is %s: %+v", i, u.State, u.Waiting)
		}
	}
	p.view(func(ctx context.Context, tx user.Tx) error { // a snapshot has it from there
		for i := range 2 {
			m, _, err := tx.Made(ctx, plan.Ref{Type: plan.User, Name: p.user(more(i)).ID})
			if err != nil || m.OverrideGroup != (i == 0) {
				t.Errorf("ledger of user %d: %+v, %v", i, m, err)
			}
		}
		return nil
	})
	p.deactivate(more(0), more(1))
	p.settle()
	if got := p.user(more(0)).Voice.Policies["routingPolicy"]; got != want {
		t.Errorf("after the deactivation the policy is %+v", got)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(p.tenant.Dump()), "\n")); diff != "" {
		t.Errorf("after the deactivation (-before +after):\n%s", diff)
	}
}

// A tenant leaves, with 20 activated users, and is restored.
func TestDeactivateAll(t *testing.T) {
	t.Parallel()
	const nobody = "99999999-0000-4000-8000-000000000001"
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 20)
	var numbers inventory
	for i := range 20 {
		numbers = append(numbers, domain.E164(fmt.Sprintf("+4420794700%02d", i)))
	}
	p.Inventory = numbers
	before := string(p.tenant.Dump())
	p.sync(user.Full)
	p.activate(user.Request{Rule: &onboard.Selection{Department: "Shop floor"}, NextNumber: true})
	p.settle()
	active := p.list(user.Filter{State: user.Active})
	if len(active) != 20 {
		t.Fatalf("%d users are active, want 20", len(active))
	}
	var activations []user.Activation
	for _, u := range active {
		activations = append(activations, *u.Activation)
	}

	err := p.store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context, tx user.Tx) error {
		n, err := user.DeactivateNext(ctx, tx, "contoso", 100)
		if n != 20 {
			t.Errorf("%d users are deactivated", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.settle()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(p.tenant.Dump()), "\n")); diff != "" {
		t.Errorf("after leaving (-before +after):\n%s", diff)
	}

	err = p.store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context, tx user.Tx) error {
		return user.Restore(ctx, tx, "contoso", append(activations, user.Activation{
			Activation: plan.Activation{ID: nobody, Number: "+442079470099"}}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if w := p.settle(); len(w) > 0 || p.user(nobody).Activation != nil {
		t.Errorf("a user that no longer exists: %+v; waiting: %v", p.user(nobody), w)
	}
	if n := len(p.list(user.Filter{State: user.Active})); n != 20 {
		t.Errorf("%d users are active after the restoration, want 20", n)
	}
}

// hesitant calls then, once, before it answers who has a number.
type hesitant struct {
	user.Cloud
	then func()
	sets int
}

func (h *hesitant) Held(ctx context.Context, numbers []string) (map[string]user.Holding, error) {
	if then := h.then; then != nil {
		h.then = nil
		then()
	}
	return h.Cloud.Held(ctx, numbers)
}

func (h *hesitant) SetVoice(ctx context.Context, s plan.Step) (string, error) {
	h.sets++
	return h.Cloud.SetVoice(ctx, s)
}

// A run that is about to give a user a number does not, if the tenant leaves meanwhile: the tenant would not wait for
// it.
func TestLeaveDuringAnActivation(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 1)
	p.sync(user.Full)
	upn := "more00000@" + p.tenant.Initial
	p.activate(user.Request{Items: []user.Item{{User: upn, Number: string(firstNumber)}}})
	h := &hesitant{Cloud: p.cloud, then: func() { p.deactivate(upn) }}
	p.cloud = h
	if w := p.settle(); len(w) > 0 || p.user(upn).State != user.Inactive || h.sets > 0 {
		t.Errorf("%s after %d changes, waiting %v", p.user(upn).State, h.sets, w)
	}
}

// One user is read within a second, also one that no pass has seen.
func TestRefresh(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 1)
	upn := "more00000@" + p.tenant.Initial
	u, err := p.Refresh(t.Context(), "contoso", upn)
	if err != nil || u.State != user.Inactive || u.Department != "Shop floor" {
		t.Errorf("%+v, %v", u, err)
	}
	p.tenant.Edit(func(s *microsoft.State) { s.PurgeUser(s.User(upn)) })
	if u, err = p.Refresh(t.Context(), "contoso", upn); err != nil || u.State != user.Deleted {
		t.Errorf("purged: %+v, %v", u, err)
	}
	if _, err = p.Refresh(t.Context(), "contoso", "nobody@contoso.example"); !fault.HasCode(err, "UserNotFound") {
		t.Errorf("unknown: %v", err)
	}
}

// A number is taken from a user by a process whose end is not recorded. The next one asks again, is refused, and ends
// the work when the tenant shows what there is, at once or later; no person is asked.
func TestNumberTakenBefore(t *testing.T) {
	t.Parallel()
	for _, propagation := range []time.Duration{0, 10 * time.Minute, 40 * time.Minute} {
		t.Run(propagation.String(), func(t *testing.T) {
			t.Parallel()
			p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 0)
			free := p.licensed()[0]
			p.sync(user.Full)
			p.activate(user.Request{Items: []user.Item{{User: p.upn(free), Number: string(firstNumber)}}})
			p.settle()
			p.tenant.Set(func(s *microsoft.Settings) { s.TeamsPropagation = propagation })
			p.bed.cloud.Inject(microsoft.Fault{Kind: microsoft.Lost, Path: "unassignNumber", Times: 1})

			p.deactivate(p.upn(free))
			if w := p.settle(); len(w) > 0 || p.user(p.upn(free)).State != user.Inactive {
				t.Errorf("%s, waiting %v", p.user(p.upn(free)).State, w)
			}
			if number, policies := p.held(free); number != "" || len(policies) > 0 {
				t.Errorf("the user has %q, %v", number, policies)
			}
		})
	}
}

// Each request of an activation and of its end is disturbed in turn: the tenant ends as without that.
func TestDisturbedUsers(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, f *microsoft.Fault, d *death) (active, inactive string,
		requests map[microsoft.Service]int) {
		p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 0)
		p.tenant.Set(func(s *microsoft.Settings) {
			s.OperationDelay, s.TeamsPropagation = 20*time.Second, 45*time.Second
			s.GraphPolicyTypes = []string{"TenantDialPlan", "TeamsEmergencyCallRoutingPolicy"}
		})
		free := p.licensed()[0]
		p.edit(free, func(s *microsoft.State, u *microsoft.User) {
			u.Policies = map[string]string{"TenantDialPlan": "Foreign-1"}
			s.Numbers["+442079469999"] = &microsoft.Number{Number: "+442079469999", Uploaded: true, Target: u.ID,
				Category: "primary"}
		})
		p.sync(user.Full)
		p.activate(user.Request{Items: []user.Item{{User: p.upn(free), Number: string(firstNumber)}}})
		count := func() map[microsoft.Service]int {
			n := map[microsoft.Service]int{}
			for c, times := range p.bed.cloud.Requests() {
				n[c.Service] += times
			}
			return n
		}
		before := count()
		if f != nil {
			p.bed.cloud.Inject(*f)
		}
		if d != nil {
			d.RoundTripper = p.bed.real
			p.connect(d)
			p.cloud, p.death = p.reach, d
		}

		if w := p.settle(); len(w) > 0 || p.user(p.upn(free)).State != user.Active {
			t.Errorf("after the activation: %s, waiting %v", p.user(p.upn(free)).State, w)
		}
		active = string(p.tenant.Dump())
		p.deactivate(p.upn(free))
		if w := p.settle(); len(w) > 0 || p.user(p.upn(free)).State != user.Inactive {
			t.Errorf("after the deactivation: %s, waiting %v", p.user(p.upn(free)).State, w)
		}
		requests = count()
		for service := range requests {
			requests[service] -= before[service]
		}
		return active, string(p.tenant.Dump()), requests
	}

	counted := &death{}
	active, inactive, requests := run(t, nil, counted)
	sent := -counted.at
	if sent < 20 {
		t.Fatalf("%d requests only", sent)
	}
	same := func(t *testing.T, f *microsoft.Fault, d *death) {
		a, in, _ := run(t, f, d)
		if diff := cmp.Diff(strings.Split(active, "\n"), strings.Split(a, "\n")); diff != "" {
			t.Errorf("after the activation:\n%s", diff)
		}
		if diff := cmp.Diff(strings.Split(inactive, "\n"), strings.Split(in, "\n")); diff != "" {
			t.Errorf("after the deactivation:\n%s", diff)
		}
	}
	for name, f := range map[string]microsoft.Fault{
		"lost": {Kind: microsoft.Lost}, "expired": {Kind: microsoft.Expired},
		"429": {Kind: microsoft.Refuse, Status: 429, RetryAfter: "0"}, "500": {Kind: microsoft.Refuse, Status: 500},
	} {
		for _, service := range []microsoft.Service{microsoft.Graph, microsoft.Teams} {
			for i := 0; i < requests[service]; i += min(every, 60) {
				t.Run(fmt.Sprintf("%s/%s/%d", name, service, i), func(t *testing.T) {
					t.Parallel()
					f := f
					f.Service, f.Skip, f.Times = service, i, 1
					same(t, &f, nil)
				})
			}
		}
	}
	for n, how := range []string{"timeout before", "end before", "end after"} {
		for at := 1 + n*min(every, 60)/3; at <= sent; at += min(every, 60) {
			t.Run(fmt.Sprintf("%s/%d", how, at), func(t *testing.T) {
				t.Parallel()
				d := &death{how: how, at: at}
				same(t, nil, d)
				if d.at > 0 { // polls are not always as many
					t.Logf("request %d was not sent", at)
				}
			})
		}
	}
}

// Requests that arrive at the same time never give one number to two users.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		p := newPeople(t, d, 8)
		p.sync(user.Full)
		var requests sync.WaitGroup
		accepted := make([]string, 8)
		for i := range accepted {
			requests.Go(func() {
				r := user.Request{NextNumber: true,
					Items: []user.Item{{User: fmt.Sprintf("more%05d@%s", i, p.tenant.Initial)}}}
				if i%2 == 0 {
					r.Items[0].Number = string(firstNumber)
				}
				out, _, err := p.Activate(t.Context(), "contoso", r)
				if err != nil || len(out) != 1 {
					t.Error(out, err)
				} else if out[0].Code == "" {
					accepted[i] = out[0].Number
				}
			})
		}
		requests.Wait()
		seen := map[string]bool{}
		for _, n := range accepted {
			if n != "" && seen[n] {
				t.Errorf("%s was given twice: %v", n, accepted)
			}
			seen[n] = true
		}
		if !seen[string(firstNumber)] {
			t.Errorf("nobody has the number that four asked for: %v", accepted)
		}
	})
}

// A tenant that was left is forgotten, but for the history of its numbers, and its users are not activated until a
// snapshot is restored.
func TestTenantWasLeft(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		p := newPeople(t, d, 1)
		p.sync(user.Full)
		upn := "more00000@" + p.tenant.Initial
		items := []user.Item{{User: upn, Number: string(firstNumber)}}
		p.activate(user.Request{Items: items})
		p.settle()
		set := func(purpose onboard.Purpose, pending bool) {
			err := p.store.Store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context,
				tx onboard.Tx) error {
				row, err := tx.Tenant(ctx)
				if err != nil {
					return err
				}
				row.Purpose, row.Pending = purpose, pending
				return tx.SetTenant(ctx, row)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		set(onboard.Leave, true)
		if _, _, err := p.Activate(t.Context(), "contoso", user.Request{Items: items}); !fault.HasCode(err,
			"TenantLeaves") {
			t.Errorf("activation while the tenant is being left: %v", err)
		}
		had := *p.user(upn).Activation
		p.deactivate(upn)
		p.settle()
		if u := p.user(upn); u.State != user.Inactive {
			t.Errorf("while the tenant is being left the user is %s: %+v", u.State, u.Waiting)
		}

		long := time.Now().Add(time.Hour)
		stale := func() []string {
			accounts, err := p.store.Stale(t.Context(), long, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			return accounts
		}
		if s := stale(); len(s) != 1 {
			t.Errorf("to be synchronised: %v", s)
		}
		if err := p.Sync(t.Context(), "contoso", user.Delta); err != nil {
			t.Fatal(err)
		}
		set(onboard.Leave, false)
		p.settle()
		p.view(func(ctx context.Context, tx user.Tx) error {
			had, err := tx.History(ctx, "", "", 10)
			if len(had) != 1 || len(p.list(user.Filter{})) != 0 || len(p.passes()) != 0 || len(stale()) != 0 {
				t.Errorf("after leaving: %+v, %d users, %d passes, %v", had, len(p.list(user.Filter{})),
					len(p.passes()),
					stale())
			}
			return err
		})
		if err := p.Sync(t.Context(), "contoso", user.Full); !fault.HasCode(err, "NotSynchronised") {
			t.Errorf("synchronisation of a tenant that was left: %v", err)
		}

		set(onboard.Restore, false)
		err := p.store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context, tx user.Tx) error {
			return user.Restore(ctx, tx, "contoso", []user.Activation{had})
		})
		if err != nil {
			t.Fatal(err)
		}
		if w := p.settle(); len(w) > 0 || p.user(upn).State != user.Active {
			t.Errorf("after the restoration: %+v, waiting %v", p.user(upn), w)
		}
	})
}
