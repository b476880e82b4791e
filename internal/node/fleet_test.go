package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	tenantstore "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/zone"
)

// fleet is a node with its directory and its tenants, which are in memory.
type fleet struct {
	*testing.T
	*tenants
	onboarder *onboard.Onboarder

	mu     sync.Mutex // guards what follows
	worlds map[string]*world
	moment func(what string) // is called after each change
}

// world is a tenant in memory, where everything is done at once.
type world struct {
	fleet   *fleet
	id      string // of its row, when it was made
	objects map[plan.Ref]plan.Object
	stuck   string            // a label whose names are never activated
	numbers map[string]string // of users, by id
	country string
	failing error // of each reading
	stays   bool  // the application may not remove itself
}

// loose is a store whose runs are not those of a queue.
type loose struct{ *tenantstore.Store }

func (s loose) Update(ctx context.Context, _ *flow.Run, account, progress string,
	fn func(context.Context, onboard.Tx) error) error {
	return s.Store.Update(ctx, nil, account, progress, fn)
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := buildNode(t, "calls.routing.baseDomain=gw.example.com", "onboarding.app.secretFile="+file,
		"onboarding.app.id=11111111-1111-4111-8111-111111111111", "onboarding.teams=https",
		"front.listen=127.0.0.1:0", "front.insecure=true")
	f := &fleet{T: t, tenants: n.tenants, worlds: map[string]*world{}, moment: func(string) {}}
	f.planner.Sources = func(_ context.Context, t *onboard.Tenant) (onboard.Source, error) {
		return f.world(t.Account), nil
	}
	f.planner.Missing = func(context.Context) ([]string, error) { return nil, nil }
	f.planner.Leaving = func(context.Context, *onboard.Tenant, plan.State, plan.Ledger) error { return nil }
	f.onboarder = &onboard.Onboarder{Store: loose{f.store}, Done: f.done, Metrics: f.work,
		Users:  f.usersOf,
		Clouds: func(_ context.Context, t *onboard.Tenant) (onboard.Cloud, error) { return f.world(t.Account), nil }}
	return f
}

func (f *fleet) world(id string) *world {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.worlds[id]
	if w == nil {
		w = &world{fleet: f, id: id, objects: map[plan.Ref]plan.Object{}, numbers: map[string]string{}, country: "GB"}
		f.worlds[id] = w
	}
	return w
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// account makes an account with a tenant.
func (f *fleet) account(name string) {
	f.Helper()
	_, err := f.n.core.directory.PutAccount(f.Context(), domain.Account{Name: name}, directory.Write{})
	f.must(err)
	f.must(f.store.Update(f.Context(), nil, name, "", func(ctx context.Context, tx onboard.Tx) error {
		return tx.SetTenant(ctx, &onboard.Tenant{Account: name, ID: "t-" + name})
	}))
}

func (f *fleet) number(account string, n domain.E164) {
	f.Helper()
	_, err := f.n.core.directory.PutNumber(f.Context(), domain.Number{TelephoneNumber: n, AccountName: account,
		Services: map[domain.Service]domain.NumberService{f.service: {Enabled: true}}}, directory.Write{})
	f.must(err)
}

// wish changes what a tenant is to have.
func (f *fleet) wish(id string, change func(*onboard.Wishes)) {
	f.Helper()
	f.must(f.store.Update(f.Context(), nil, id, "", func(ctx context.Context, tx onboard.Tx) error {
		t, err := tx.Tenant(ctx)
		if err != nil {
			return err
		}
		change(&t.Wishes)
		return tx.SetTenant(ctx, t)
	}))
}

func (f *fleet) tenant(id string) *onboard.Tenant {
	f.Helper()
	t, err := f.row(f.Context(), id)
	f.must(err)
	return t
}

// apply makes a plan, applies it and carries it out, until it waits.
func (f *fleet) apply(id string, p onboard.Purpose) *onboard.Proposal {
	f.Helper()
	n, err := f.planner.Plan(f.Context(), id, onboard.Order{Purpose: p}, "test")
	f.must(err)
	_, err = f.planner.Apply(f.Context(), id, n.ID)
	f.must(err)
	f.carryOut(id)
	return n
}

func (f *fleet) carryOut(id string) {
	f.Helper()
	_, err := f.onboarder.Reconcile(f.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: id}})
	f.must(err)
	f.settle(id)
}

// labels are the active one, and the pending one.
func (f *fleet) labels(account string) string {
	f.Helper()
	active, pending, err := accountLabels{f.inventory()}.Of(f.Context(), account)
	f.must(err)
	return strings.TrimSuffix(active+" "+pending, " ")
}

func (w *world) Read(context.Context, []plan.Ref) ([]plan.Object, error) {
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	return slices.Collect(maps.Values(w.objects)), w.failing
}

func (w *world) Get(_ context.Context, r plan.Ref) (plan.Object, bool, error) {
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	o, ok := w.objects[key(r.Type, r.Name)]
	return o, ok, nil
}

func (w *world) RemoveConsent(context.Context) error {
	if w.stays {
		return fault.New(fault.Forbidden, "Authorization_RequestDenied", "the application may not")
	}
	return nil
}

func (w *world) Facts(context.Context) (onboard.Facts, error) {
	return onboard.Facts{Initial: strings.TrimSuffix(w.id, onboard.Next) + "x.onmicrosoft.com", Country: w.country,
		Licence: "MCOSTANDARD", Spare: 7, RemovesItself: !w.stays}, w.failing
}

func key(t plan.Type, name string) plan.Ref { return plan.Ref{Type: t, Name: strings.ToLower(name)} }

func (w *world) Do(ctx context.Context, s plan.Step) error {
	if s.Type == plan.Domain && s.Action == plan.Create {
		if err := w.fleet.publishForCustomer(ctx, w.id, s.Name, "MS=ms1"); err != nil {
			return err
		}
	}
	w.change(s)
	w.fleet.moment(fmt.Sprintf("%s: %s %s %s", w.id, s.Action, s.Type, s.Name))
	return nil
}

func (w *world) change(s plan.Step) {
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	r := key(s.Type, s.Name)
	if s.Action == plan.Delete {
		if o := w.objects[r]; s.Type == plan.ActivationUser {
			delete(w.objects, key(plan.SIPDomain, o.Fields["domain"].(string)))
		}
		delete(w.objects, r)
		return
	}
	o := plan.Object{Ref: s.Ref, Fields: plan.Fields{}}
	maps.Copy(o.Fields, w.objects[r].Fields)
	for _, d := range s.Differences {
		if o.Fields[d.Field] = d.New; d.New == nil {
			delete(o.Fields, d.Field)
		}
	}
	w.objects[r] = o
	if s.Type == plan.ActivationUser {
		name := o.Fields["domain"].(string)
		if label, _, _ := strings.Cut(name, "."); label != w.stuck {
			w.objects[key(plan.SIPDomain, name)] = plan.Object{Ref: plan.Ref{Type: plan.SIPDomain, Name: name},
				Fields: plan.Fields{"domain": name}}
		}
	}
}

// give activates a user with a number, or asks for it if now is not set.
func (f *fleet) give(id, who, number string) {
	f.Helper()
	f.must(f.rows.Update(f.Context(), nil, id, "", func(ctx context.Context, tx user.Tx) error {
		p := user.Profile{ID: who, UPN: who + "@example", Facts: user.Facts{Plans: []user.Plan{{Name: "MCOEV",
			Status: "Enabled"}}}}
		if err := tx.PutProfiles(ctx, 1, []user.Profile{p}); err != nil {
			return err
		}
		u, err := tx.User(ctx, who)
		if err != nil {
			return err
		}
		u.Activation, u.Pending = &user.Activation{Activation: plan.Activation{ID: who, Number: number}}, true
		return tx.Ask(ctx, u)
	}))
}

// settle gives users what they are to have.
func (f *fleet) settle(id string) {
	f.Helper()
	for {
		ids, err := f.rows.Pending(f.Context(), "", 100)
		f.must(err)
		i := slices.IndexFunc(ids, func(s string) bool { return strings.HasPrefix(s, id+"/") })
		if i < 0 {
			return
		}
		who := strings.TrimPrefix(ids[i], id+"/")
		f.must(f.rows.Update(f.Context(), nil, id, "", func(ctx context.Context, tx user.Tx) error {
			u, err := tx.User(ctx, who)
			if err != nil {
				return err
			}
			number := ""
			if u.Activation != nil {
				number = u.Activation.Number
			}
			w := f.world(id)
			f.mu.Lock()
			w.numbers[who] = number
			f.mu.Unlock()
			voice := user.Voice{ID: who, UPN: u.UPN, Kind: "user", Number: number}
			if err := tx.PutVoices(ctx, 1, []user.Voice{voice}); err != nil {
				return err
			}
			if u, err = tx.User(ctx, who); err != nil {
				return err
			}
			u.Pending = false
			return tx.Settle(ctx, u)
		}))
		f.moment(fmt.Sprintf("%s: user %s", id, who))
	}
}

// looseMoves is a store whose runs are not those of a queue, and which can end a process.
type looseMoves struct {
	*tenantstore.Store
	point func() error
}

func (s looseMoves) ViewMove(ctx context.Context, account string, fn func(context.Context, move.Tx) error) error {
	if err := s.point(); err != nil {
		return err
	}
	return s.Store.ViewMove(ctx, account, fn)
}

func (s looseMoves) UpdateMove(ctx context.Context, _ *flow.Run, account string,
	fn func(context.Context, move.Tx) error) error {
	if err := s.point(); err != nil {
		return err
	}
	if err := s.Store.UpdateMove(ctx, nil, account, fn); err != nil {
		return err
	}
	return s.point()
}

// numbered are numbers in use, each by a user with the name of its last digit.
var numbered = []domain.E164{"+442079460200", "+442079460201", "+442079460202", "+442079460203"}

// watch checks at every moment that calls to numbers in use go to a label under which a user has the number.
func (f *fleet) watch() {
	moments := 0
	f.Cleanup(func() {
		if moments < 15 {
			f.Errorf("only %d moments were checked", moments)
		}
	})
	f.moment = func(what string) {
		moments++
		active, pending, err := accountLabels{f.inventory()}.Of(f.Context(), "acme")
		if err != nil {
			f.Errorf("%s: %v", what, err)
			return
		}
		for _, n := range numbered {
			x, err := f.n.core.directory.Number(f.Context(), "acme", n)
			if err != nil {
				f.Errorf("%s: %v", what, err)
				return
			}
			label := active
			a, _ := f.n.core.directory.Account(f.Context(), "acme")
			if x.Slot != domain.NoSlot && x.Slot != a.ActiveSlot() {
				label = pending
			}
			if !f.reached(label, string(n)) {
				f.Errorf("%s: calls to %s go to %q, and no user has it there", what, n, label)
			}
		}
	}
}

func (f *fleet) reached(label, number string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.worlds {
		route := w.objects[key(plan.Route, "Tandem-E164")]
		gateways, _ := route.Fields["gateways"].([]string)
		all := label != ""
		for _, trunk := range f.planner.Trunks() {
			name := label + "." + trunk
			_, ok := w.objects[key(plan.SIPDomain, name)]
			all = all && ok && slices.Contains(gateways, name)
		}
		if all && slices.Contains(slices.Collect(maps.Values(w.numbers)), number) {
			return true
		}
	}
	return false
}

// moving is the mover, which may be ended at a point.
func (f *fleet) moving(at int) (s *move.Service, points *int) {
	points = new(int)
	point := func() error {
		if *points++; *points == at {
			return fault.New(fault.Unavailable, "Killed", "the process has ended")
		}
		return nil
	}
	s = &move.Service{Store: looseMoves{f.store, point}, Users: f.users,
		Labels: watched{accountLabels{f.inventory()}, f, point}, Settle: time.Nanosecond}
	return s, points
}

// watched are labels each change of which is watched.
type watched struct {
	accountLabels
	f     *fleet
	point func() error
}

func (w watched) change(what string, fn func() error) error {
	if err := w.point(); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	w.f.moment(what)
	return w.point()
}

func (w watched) Activate(ctx context.Context, account, label string) error {
	return w.change("activate "+label, func() error { return w.accountLabels.Activate(ctx, account, label) })
}

func (w watched) Record(ctx context.Context, account, label string, ns []domain.E164) error {
	return w.change("record "+label, func() error { return w.accountLabels.Record(ctx, account, label, ns) })
}

func (w watched) Release(ctx context.Context, account, label string) error {
	return w.change("release "+label, func() error { return w.accountLabels.Release(ctx, account, label) })
}

// stage runs a move until it is at a stage.
func (f *fleet) stage(s *move.Service, want move.Stage) {
	f.Helper()
	var m *move.Move
	for range 50 {
		_, err := s.Reconcile(f.Context(), &flow.Run{Key: flow.Key{Kind: move.Kind, ID: "acme"}})
		if err != nil && !fault.HasCode(err, "Killed") {
			f.Fatal(err)
		}
		f.settle("acme")
		m, err = f.moves.Get(f.Context(), "acme")
		if want == move.Done && fault.Is(err, fault.NotFound) {
			return
		}
		if err == nil && m.Stage == want {
			return
		}
	}
	f.Fatalf("not %s: %+v", want, m)
}

// onboarded is an account whose tenant is onboarded, with numbers in use.
func (f *fleet) onboarded(trunk plan.Trunk) {
	f.Helper()
	f.account("acme")
	f.wish("acme", func(w *onboard.Wishes) { w.Trunk = trunk })
	f.apply("acme", onboard.Onboard)
	for i, n := range numbered {
		f.number("acme", n)
		f.give("acme", fmt.Sprint("old", i), string(n))
	}
	f.settle("acme")
	if got := f.labels("acme"); got != "acmex" || f.tenant("acme").State() != onboard.Onboarded {
		f.Fatalf("labels %q, %+v", got, f.tenant("acme").Waiting)
	}
	f.watch()
	f.moment("before")
}

// gateways returns the labels of an account for whose names OPTIONS are sent.
func (f *fleet) gateways(account string) (labels []string) {
	f.Helper()
	a, err := f.n.core.directory.Account(f.Context(), account)
	f.must(err)
	if r := a.Routing(); r.Gateway {
		labels = append(labels, r.Subdomain)
	}
	if r := a.Routing(); r.PendingGateway {
		labels = append(labels, r.Pending)
	}
	return labels
}

// OPTIONS are sent for names with gateway objects while a tenant has these, also for a label that its callers own.
func TestGatewayObjectsAreMonitored(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	check := func(when string, want ...string) {
		t.Helper()
		if got := f.gateways("acme"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	f.wish("acme", func(w *onboard.Wishes) { w.Trunk = plan.Gateways })
	f.apply("acme", onboard.Onboard)
	check("onboarded", "acmex")

	_, err := f.moves.Begin(t.Context(), "acme", move.Request{Label: "acme2", Trunk: plan.Derived}, "test")
	f.must(err)
	f.apply("acme", onboard.Onboard)
	check("with derived trunks too", "acmex")
	f.must(f.moves.Abandon(t.Context(), "acme"))
	f.apply("acme", onboard.Leave)
	check("left")

	f.account("fab")
	l := domain.Label{Subdomain: "fab", Region1Token: "MS=ms1", Region2Token: domain.NoToken}
	_, err = f.n.core.directory.PutAccount(t.Context(), domain.Account{Name: "fab",
		Services: map[domain.Service]domain.AccountService{f.service: {Enabled: true,
			DirectRouting: &domain.DirectRoutingConfig{Label: l}}}}, directory.Write{})
	f.must(err)
	f.wish("fab", func(w *onboard.Wishes) { w.Trunk = plan.Gateways })
	f.apply("fab", onboard.Onboard)
	if got := f.gateways("fab"); !slices.Equal(got, []string{"fab"}) {
		t.Errorf("a label of callers: %q", got)
	}
	f.number("fab", "+442079460300") // the label stays
	f.apply("fab", onboard.Leave)
	if got := f.gateways("fab"); got != nil || f.labels("fab") != "fab" {
		t.Errorf("after leaving: %q, label %s", got, f.labels("fab"))
	}
}

// A tenant gets another label with the other trunk model, and calls find their user at every moment, wherever the
// process ends.
func TestConvert(t *testing.T) {
	t.Parallel()
	for at := 0; ; at += pointStep {
		f := newFleet(t)
		f.onboarded(plan.Gateways)
		s, points := f.moving(at)
		_, err := f.moves.Begin(t.Context(), "acme", move.Request{Label: "new", Trunk: plan.Derived}, "test")
		f.must(err)
		if _, err := f.moves.Continue(t.Context(), "acme"); !fault.HasCode(err, "MoveNotReady") {
			t.Errorf("continued too early: %v", err)
		}
		f.stage(s, move.Onboard)
		f.apply("acme", onboard.Onboard)
		f.stage(s, move.Ready)
		if got := f.labels("acme"); got != "acmex new" {
			t.Errorf("labels %q", got)
		}
		// One number tries the new label, another one is kept at the old one.
		d := f.n.core.directory
		f.must(d.RecordLabel(t.Context(), "acme", "new", numbered[:1]))
		f.must(d.RecordLabel(t.Context(), "acme", "acmex", numbered[1:2]))
		f.moment("pilot")
		_, err = f.moves.Continue(t.Context(), "acme")
		f.must(err)
		f.stage(s, move.Leave)
		if got := f.labels("acme"); got != "new acmex" {
			t.Errorf("labels %q", got)
		}
		for range 3 { // until the old label is to be retired
			_, _ = s.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: move.Kind, ID: "acme"}})
		}
		f.must(d.RecordLabel(t.Context(), "acme", "acmex", numbered[1:2]))
		_, err = f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Onboard}, "test")
		if !fault.HasCode(err, "LabelInUse") {
			t.Errorf("planned to remove a label in use: %v", err)
		}
		f.must(d.RecordLabel(t.Context(), "acme", "", numbered[1:2]))
		f.apply("acme", onboard.Onboard)
		f.stage(s, move.Done)
		for r := range f.world("acme").objects {
			if strings.Contains(r.Name, "acmex") || r.Type == plan.Gateway {
				t.Errorf("left: %+v", r)
			}
		}
		if got := f.labels("acme"); got != "new" {
			t.Errorf("labels %q", got)
		}
		if n := f.apply("acme", onboard.Onboard); len(n.Plan.Steps) > 0 {
			t.Errorf("a further plan has steps: %+v", n.Plan.Steps)
		}
		if at > *points || t.Failed() {
			t.Logf("%d points", *points)
			return
		}
	}
}

// An account moves to another tenant: numbers follow the users who have them there, and calls find their user at every
// moment, wherever the process ends.
func TestMove(t *testing.T) {
	t.Parallel()
	const next, second = "acme" + onboard.Next, "22222222-2222-4222-8222-222222222222"
	ring := func(f *fleet, account, tenant, token string) {
		f.must(f.access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
			return tx.SetAccess(ctx, &invite.Access{Account: account, Tenant: tenant, Mode: invite.Application,
				Consented: time.Now(), Due: time.Now().Add(time.Hour)}, secret.New(token))
		}))
	}
	for at := 0; ; at += pointStep {
		f := newFleet(t)
		f.planner.TenantID = func(context.Context, string) (string, error) { return "", nil }
		f.onboarded(plan.Derived)
		ring(f, "acme", "first", "token1")
		s, points := f.moving(at)
		m, err := f.moves.Begin(t.Context(), "acme", move.Request{TenantID: second}, "test")
		f.must(err)
		if !strings.Contains(m.Next, "tandem tenant invite "+next) {
			t.Errorf("next: %s", m.Next)
		}
		_, err = f.moves.Begin(t.Context(), "acme", move.Request{Label: "x"}, "test")
		if !fault.HasCode(err, "MoveExists") {
			t.Errorf("began twice: %v", err)
		}
		ring(f, next, "second", "token2")
		f.apply(next, onboard.Onboard)
		f.stage(s, move.Ready)
		if got := f.labels("acme"); got != "acmex acmex2" && got != "acmex acmex1" {
			t.Errorf("labels %q", got)
		}

		for i := range 2 {
			f.give(next, fmt.Sprint("new", i), string(numbered[i]))
		}
		f.settle(next)
		_, err = f.moves.Continue(t.Context(), "acme")
		f.must(err)
		for range 10 {
			_, _ = s.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: move.Kind, ID: "acme"}})
			f.settle("acme")
		}
		if m, err = f.moves.Get(t.Context(), "acme"); err != nil || m.Stage != move.Numbers || m.Numbers != 2 ||
			f.world("acme").numbers["old0"] != "" || f.world("acme").numbers["old2"] == "" {
			t.Errorf("half of the numbers: %+v, %v, %v", m, f.world("acme").numbers, err)
		}
		for i := 2; i < len(numbered); i++ {
			f.give(next, fmt.Sprint("new", i), string(numbered[i]))
		}
		f.settle(next)
		f.stage(s, move.Leave)
		f.apply("acme", onboard.Leave)
		f.mu.Lock()
		if left := len(f.worlds["acme"].objects); left > 0 {
			t.Errorf("the old tenant still has %d objects", left)
		}
		f.mu.Unlock()
		f.stage(s, move.Done)

		row := f.tenant("acme")
		if row.ID != second || row.State() != onboard.Onboarded ||
			f.labels("acme") != row.Settings.Labels[0].Name {
			t.Errorf("the tenant is %+v, its labels %q", row, f.labels("acme"))
		}
		if _, err := f.row(t.Context(), next); !fault.Is(err, fault.NotFound) {
			t.Errorf("the second row: %v", err)
		}
		if token, err := f.access.Tokens("acme").RefreshToken(t.Context()); err != nil || token.Reveal() != "token2" {
			t.Errorf("token %q, %v", token.Reveal(), err)
		}
		f.mu.Lock()
		f.worlds["acme"] = f.worlds[next]
		delete(f.worlds, next)
		f.worlds["acme"].id = "acme"
		f.mu.Unlock()
		if n := f.apply("acme", onboard.Onboard); len(n.Plan.Steps) > 0 {
			t.Errorf("a further plan has steps: %+v", n.Plan.Steps)
		}
		if at > *points || t.Failed() {
			t.Logf("%d points", *points)
			return
		}
	}
}

// A label that Microsoft does not activate is replaced by another one, which becomes the account's.
func TestReplaceALabelThatIsNotActivated(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.world("acme").stuck = "acmex"
	f.apply("acme", onboard.Onboard)
	f.number("acme", numbered[0])
	f.must(f.store.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx onboard.Tx) error {
		t, err := tx.Tenant(ctx)
		if err == nil {
			t.Waiting.Since = time.Now().Add(-25 * time.Hour)
			err = tx.SetTenant(ctx, t)
		}
		return err
	}))
	f.carryOut("acme")
	if w := f.tenant("acme").Waiting; w == nil || !strings.Contains(w.Reason, "choose a new label") {
		t.Fatalf("waits for %+v", w)
	}

	f.wish("acme", func(w *onboard.Wishes) { w.Label = "stuck2" })
	f.world("acme").stuck = "stuck2" // again
	f.apply("acme", onboard.Onboard)
	if got := f.labels("acme"); got != "acmex stuck2" || f.tenant("acme").State() != onboard.Waits {
		t.Errorf("labels %q, %s", got, f.tenant("acme").State())
	}
	f.wish("acme", func(w *onboard.Wishes) { w.Label = "third" })
	n := f.apply("acme", onboard.Onboard)
	if got := f.labels("acme"); got != "third" || f.tenant("acme").State() != onboard.Onboarded {
		t.Errorf("labels %q, %+v", got, f.tenant("acme"))
	}
	for _, r := range slices.Collect(maps.Keys(f.world("acme").objects)) {
		if strings.Contains(r.Name, "acmex") || strings.Contains(r.Name, "stuck") {
			t.Errorf("left: %+v", r)
		}
	}
	if len(n.Plan.Conflicts) > 0 {
		t.Errorf("conflicts: %+v", n.Plan.Conflicts)
	}
}

// What happens to a tenant is in the event stream, and counted: plans and their approval, waits once each with who has
// to act, the end.
func TestTenantEventsAndMetrics(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	head, err := f.n.core.events.Head(t.Context())
	f.must(err)
	f.account("acme")
	f.world("acme").stuck = "acmex"
	f.apply("acme", onboard.Onboard)
	f.carryOut("acme") // it waits for the same
	f.world("acme").stuck = ""
	w := f.world("acme")
	for _, trunk := range f.planner.Trunks() {
		w.change(plan.Step{Action: plan.Change, Ref: plan.Ref{Type: plan.ActivationUser,
			Name: "tandem.teams@acmex." + trunk}})
	}
	f.carryOut("acme")
	f.apply("acme", onboard.Leave)

	all, _, err := f.n.core.events.Read(t.Context(), head, false, 1000)
	f.must(err)
	var got []string
	for _, e := range all {
		if strings.HasPrefix(e.Kind, "tenant.") {
			party, purpose := cmp.Or(e.Data["for"], any("")), cmp.Or(e.Data["purpose"], any(""))
			got = append(got, strings.TrimSuffix(fmt.Sprintf("%s %s %v%v", e.Kind, e.Subject, party, purpose), " "))
		}
	}
	want := []string{"tenant.plan acme", "tenant.apply acme", "tenant.waiting acme microsoft",
		"tenant.onboarded acme onboard", "tenant.plan acme", "tenant.apply acme", "tenant.left acme leave"}
	if !slices.Equal(got, want) {
		t.Errorf("events %q\nwant %q", got, want)
	}

	sums, err := f.store.Sums(t.Context())
	f.must(err)
	if sums.States[onboard.Left] != 1 || sums.Lost != 0 {
		t.Errorf("sums %+v", sums)
	}
	gathered, err := f.n.gather()
	f.must(err)
	counts := map[string]float64{}
	for _, family := range gathered {
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += " " + l.GetValue()
			}
			counts[family.GetName()+labels] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{"tandem_tenant_plans_applied_total onboard": 1,
		"tandem_tenant_plans_applied_total leave": 1, "tandem_tenant_steps_total waiting sipDomain": 4,
		"tandem_tenant_steps_total done route": 2, "tandem_tenant_step_seconds sipDomain": 1,
		"tandem_tenant_step_seconds route": 2} {
		if counts[name] != want {
			t.Errorf("%s = %v, want %v", name, counts[name], want)
		}
	}
}

// TestALabelThatCallsUseIsNotReplaced: calls to the tenant use a label without a route. So a second label does not take
// its place after a person has deleted the route.
func TestALabelThatCallsUseIsNotReplaced(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	f.settle("acme")
	w := f.world("acme")
	f.mu.Lock()
	maps.DeleteFunc(w.objects, func(r plan.Ref, _ plan.Object) bool { return r.Type == plan.Route })
	f.mu.Unlock()
	f.wish("acme", func(w *onboard.Wishes) { w.Label = "second" })
	n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Onboard}, "test")
	f.must(err)
	for _, s := range n.Plan.Steps {
		if s.Action == plan.Delete {
			t.Errorf("deletes %+v", s.Ref)
		}
	}
	f.apply("acme", onboard.Onboard)
	if got := f.labels("acme"); got != "acmex second" {
		t.Errorf("labels %q", got)
	}
}

// TestWrongWishesAreRefusedAtOnce: a label that no plan could have is refused when a move begins, and so is a plan that
// is to remove the application without leaving.
func TestWrongWishesAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	var ops manage.Operations
	f.tenants.bind(&ops)
	_, err := ops.PlanTenant(t.Context(), api.PlanTenantRequestObject{Account: "acme",
		Body: &api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard, RemoveConsent: true}})
	if !fault.HasCode(err, "NotLeaving") {
		t.Errorf("a plan to onboard that removes the application: %v", err)
	}
	for label, code := range map[string]string{"1r1": "ReservedLabel", "hooks": "ReservedLabel",
		"a.b": "InvalidLabel"} {
		_, err := ops.BeginMove(t.Context(), api.BeginMoveRequestObject{Account: "acme",
			Body: &api.MoveRequest{Label: label}})
		if !fault.HasCode(err, code) {
			t.Errorf("move to %q: %v", label, err)
		}
	}
}

// TestCarrierLeavesNoText: the texts that prove the operator's domains leave the zone with the operator's tenant.
func TestCarrierLeavesNoText(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.n.cfg.Zone.Names.NameServers, f.n.cfg.Zone.Publish = []zone.Host{{Name: "ns1.gw.example.com"}}, "serve"
	names := append(f.planner.Trunks(), f.planner.Base)
	for _, name := range names {
		f.must(f.publishForCarrier(t.Context(), onboard.Carrier, name, "MS=ms1"))
	}
	texts := func() (n int) {
		f.must(f.n.core.zone.View(t.Context(), func(ctx context.Context, r zone.Reader) error {
			sources, err := r.Sources(ctx, "")
			for _, s := range sources {
				records, err := r.Records(ctx, s)
				f.must(err)
				for _, x := range records {
					if strings.Contains(fmt.Sprint(x), "MS=ms1") {
						n++
					}
				}
			}
			return err
		}))
		return n
	}
	if n := texts(); n != len(names) {
		t.Errorf("%d texts are published, want %d", n, len(names))
	}
	for _, p := range []onboard.Purpose{onboard.Onboard, onboard.Leave} {
		f.must(f.done(t.Context(), &onboard.Tenant{Account: onboard.Carrier, Purpose: p}))
		if n, want := texts(), map[onboard.Purpose]int{onboard.Onboard: len(names)}[p]; n != want {
			t.Errorf("after %s: %d texts, want %d", p, n, want)
		}
	}
}

// TestWorkIsLogged: who reads the log sees which plan of which account was applied, each step, and the end.
func TestWorkIsLogged(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var log strings.Builder
	f.planner.Log = slog.New(slog.NewTextHandler(&log, nil))
	f.onboarder.Log = f.planner.Log
	f.account("acme")
	want := func(text string) {
		t.Helper()
		if !strings.Contains(log.String(), text) {
			t.Errorf("%q is missing in\n%s", text, &log)
		}
	}
	p := f.apply("acme", onboard.Onboard)
	want(fmt.Sprintf(`msg="plan applied" account=acme plan=%s purpose=onboard steps=%d users=0 took=`, p.ID,
		len(p.Plan.Steps)))
	want(`msg="tenant onboarded" account=acme plan=` + p.ID + " took=")
	want(`step="create route Tandem-E164" took=`)
	if n := strings.Count(log.String(), `msg="step done" account=acme plan=`+p.ID); n != len(p.Plan.Steps) {
		t.Errorf("%d steps are logged, want %d\n%s", n, len(p.Plan.Steps), &log)
	}
	p = f.apply("acme", onboard.Leave)
	want(`msg="tenant left" account=acme plan=` + p.ID + " took=")
}

// TestWrongSettingsAreRefusedAtOnce: each value of a tenant or a template that no plan could have is refused when it is
// set, with a code, where it is, and what would be right; and nothing is stored.
func TestWrongSettingsAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.account("other")
	f.wish("other", func(w *onboard.Wishes) { w.Label = "taken" })
	f.apply("other", onboard.Onboard)
	f.account("derived")
	f.apply("derived", onboard.Onboard)
	label := f.tenant("derived").Settings.Labels[0].Name
	f.must(f.rollouts.Put(t.Context(), "branch", onboard.Wishes{Dial: onboard.Dial{Country: "GB", AreaCode: "20"}}))
	put := func(path, body string) (int, string) {
		w := ask(t, f.n.local(), "PUT", "/manage/v1/"+path, body)
		return w.Code, w.Body.String()
	}

	acme, both := []string{"tenants/acme"}, []string{"tenants/acme", "templates/x"}
	for _, c := range []struct {
		paths []string
		body  string
		want  []string // in the answer
	}{
		{both, `{"emergency":[{"dialString":"+112"}]}`,
			[]string{"InvalidEmergencyNumber", "emergency[0].dialString", "1 to 10 digits, such as 112"}},
		{both, `{"emergency":[{"dialString":"911"},{"dialString":"abc"}]}`, []string{"emergency[1].dialString"}},
		{both, `{"emergency":[{"dialString":"112"}]}`, []string{"calls.routing.emergencyDialStrings"}},
		{both, `{"emergency":[{"dialString":"911","mask":"112, 999"}]}`, []string{"emergency[0].mask", "separated by"}},
		{both, `{"emergency":[{"dialString":"911","mask":"933"},{"dialString":"933"}]}`,
			[]string{"emergency[1].dialString", "933 is given twice"}},
		{both, `{"licence":"E5"}`,
			[]string{"InvalidLicence", `"target":"licence"`, "MCOSTANDARD, MCOSTANDARD_GOV, TEAMS1"}},
		{both, `{"areaCode":"20"}`, []string{"NoCountry", "areaCode", "set the country as well"}},
		{both, `{"country":"gb"}`, []string{"InvalidDialPlan", "country", "such as GB"}},
		{both, `{"country":"XX"}`, []string{"InvalidDialPlan", "country"}},
		{both, `{"trunk":"direct"}`, []string{"trunk"}},
		{both, `{"country":"GB","areaCode":"020"}`, []string{"InvalidDialPlan", "areaCode", "without trunk prefix"}},
		{both, `{"country":"GB","areaCode":"7400"}`, []string{"InvalidDialPlan", "areaCode"}},
		{both, `{"prefix":"-a b"}`, []string{"InvalidPrefix", "prefix", "letters, digits"}},
		{both, `{"routePattern":"^\\+44"}`, []string{"NoCountry", "routePattern"}},
		{both, `{"country":"GB","routePattern":"("}`, []string{"InvalidRoutePattern", "regular expression"}},
		{both, `{"country":"GB","routePattern":"^\\+44"}`, []string{"InvalidRoutePattern", "emergency calls to 112"}},
		// 911 is no emergency number of the country, but one of the gateway.
		{both, `{"country":"GB","routePattern":"^\\+?(112|999|44.*)$"}`, []string{"emergency calls to 911"}},
		{both, `{"users":{"usageLocation":"G1"}}`, []string{"InvalidUsageLocation", "users.usageLocation"}},
		{both, `{"extensions":[{"range":"2y"}]}`, []string{"InvalidDialPlan", "extensions[0]", "such as 2xxx"}},
		{both, `{"extensions":[{"range":"2xx"},{"range":"20x"}]}`, []string{"extensions[1]", "overlaps"}},
		{both, `{"extensions":[{"range":"2xx","base":"44"}]}`, []string{"extensions[0]", "such as +1425555"}},
		{both, `{"rules":[{"name":"a","pattern":"^1$","translation":"2"}]}`, []string{"NoCountry", "rules"}},
		{both, `{"country":"GB","rules":[{"name":"a","pattern":"^(\\d+)$","translation":"+44$1"}]}`,
			[]string{"InvalidDialPlan", "EmergencyRewritten"}},
		// 911 is no emergency number of the country, but one of the gateway.
		{both, `{"country":"GB","rules":[{"name":"x","pattern":"^91(\\d)$","translation":"$1"}]}`,
			[]string{"EmergencyRewritten", "911"}},
		{acme, `{"country":"DE","areaCode":"020","template":"branch"}`, []string{"areaCode", "no number of DE"}},
		{acme, `{"template":"none"}`, []string{"TemplateNotFound", "template"}},
		{acme, `{"label":"a.b"}`, []string{"InvalidLabel", "label"}},
		{acme, `{"label":"1r1"}`, []string{"ReservedLabel", "label"}},
		{acme, `{"label":"taken"}`, []string{"SubdomainTaken", "label"}},
		{acme, `{"tenantId":"contoso"}`, []string{"InvalidTenantId", "GUID"}},
		{[]string{"tenants/derived"}, `{}`, []string{"TenantInUse", "t-derived", "--leave"}},
		{[]string{"tenants/.carrier"}, `{"country":"GB"}`, []string{"CarrierSettings"}},
	} {
		for _, path := range c.paths {
			status, answer := put(path, c.body)
			if status != 400 && status != 409 {
				t.Errorf("%s %s: %d %s", path, c.body, status, answer)
			}
			for _, want := range c.want {
				if !strings.Contains(answer, want) {
					t.Errorf("%s %s: %s\nwithout %q", path, c.body, answer, want)
				}
			}
		}
	}

	f.must(f.store.Update(t.Context(), nil, "derived", "", func(ctx context.Context, tx onboard.Tx) error {
		x, err := tx.Tenant(ctx)
		if err == nil {
			x.ID = "11111111-2222-4333-8444-555555555555"
			err = tx.SetTenant(ctx, x)
		}
		return err
	}))
	const id = `"tenantId":"11111111-2222-4333-8444-555555555555"`
	for _, c := range []struct{ body, want string }{
		{`"trunk":"gateways"`, "tandem tenant move begin derived --label LABEL --trunk gateways"},
		{`"trunk":"gateways","label":"` + label + `"`, "TrunkModel"},
		{`"trunk":"derived"`, ""},
		{`"prefix":"Other"`, "NamesStay"}, {`"prefix":"Tandem-E164"`, ""},
		{`"routePattern":"^\\+?\\d+$"`, ""},
		{`"users":{"department":"Sales","usageLocation":"gb"}`, `"usageLocation":"GB"`},
		{`"trunk":"gateways","label":"second"`, ""},
		{`"emergency":[{"dialString":"911","mask":"112;999"}],"areaCode":"20"`, ""}, // the country is known
	} {
		status, answer := put("tenants/derived", "{"+id+","+c.body+"}")
		refused := c.want != "" && !strings.HasPrefix(c.want, `"`)
		if (status != 200) != refused || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s, want %q", c.body, status, answer, c.want)
		}
	}
	if w := f.tenant("acme").Wishes; !reflect.DeepEqual(w, onboard.Wishes{}) {
		t.Errorf("a setting that was refused is stored: %+v", w)
	}
	if status, answer := put("tenants/acme", `{}`); status != 200 || f.tenant("acme").ID != "" {
		t.Errorf("the tenant is not forgotten: %d %s", status, answer)
	}
}

// TestAnAbandonedMoveIsNoDeadEnd: after a move was abandoned, the account moves on to the label that it got, or back to
// the old one; to no third one.
func TestAnAbandonedMoveIsNoDeadEnd(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	s, _ := f.moving(-1)
	begin := func(label, code string) {
		t.Helper()
		_, err := f.moves.Begin(t.Context(), "acme", move.Request{Label: label}, "test")
		if !fault.HasCode(err, code) && (code != "" || err != nil) {
			t.Fatalf("begin %s: %v", label, err)
		}
	}
	abandon := func() {
		t.Helper()
		f.must(f.moves.Abandon(t.Context(), "acme"))
		begin("third", "LabelState")
	}
	proceed := func() {
		t.Helper()
		f.stage(s, move.Ready)
		_, err := f.moves.Continue(t.Context(), "acme")
		f.must(err)
		f.stage(s, move.Leave)
	}

	begin("new", "")
	f.apply("acme", onboard.Onboard)
	f.stage(s, move.Ready)
	abandon()
	begin("new", "")
	proceed()
	abandon()
	begin("acmex", "")
	proceed()
	for range 3 { // until the label is to be retired
		_, err := s.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: move.Kind, ID: "acme"}})
		f.must(err)
	}
	f.apply("acme", onboard.Onboard)
	f.stage(s, move.Done)
	if got := f.labels("acme"); got != "acmex" {
		t.Errorf("labels %q", got)
	}
	for r := range f.world("acme").objects {
		if strings.Contains(r.Name, "new.") {
			t.Errorf("left: %+v", r)
		}
	}
}

// The administrator of a customer sees each step with its state, and why one waits.
func TestTasks(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.world("acme").stuck = "acmex"
	begun, running := 0, 0
	f.moment = func(string) { // an object was begun, and is not confirmed yet
		w, err := f.Work(t.Context(), "acme")
		f.must(err)
		now := 0
		for _, x := range w.Tasks {
			if x.State == "running" {
				now++
			}
		}
		if begun++; now > 0 {
			running++
		}
		if now > 1 {
			t.Errorf("%d objects are being worked on: %+v", now, w.Tasks)
		}
	}
	f.apply("acme", onboard.Onboard)
	if begun == 0 || running != begun {
		t.Errorf("%d of %d objects are shown as being worked on", running, begun)
	}
	w, err := f.Work(t.Context(), "acme")
	f.must(err)
	states := map[string]int{}
	for _, x := range w.Tasks {
		states[x.State]++
		if x.State == "waiting" && (!strings.Contains(x.Title, "acmex") || !strings.Contains(x.Detail, "usually")) {
			t.Errorf("waits: %+v", x)
		}
	}
	if w.Done || w.Left || states["waiting"] != 1 || states["done"] == 0 || states["planned"] == 0 {
		t.Errorf("work %+v", w)
	}

	f.world("acme").failing = fault.New(fault.Conflict, "TenantDiffers", "make a new plan (tandem tenant plan)")
	f.carryOut("acme")
	w, err = f.Work(t.Context(), "acme")
	f.must(err)
	last := w.Tasks[len(w.Tasks)-1]
	if last.State != "waiting" || !strings.HasPrefix(last.Detail, "your provider has to") ||
		strings.Contains(last.Detail, "tandem") {
		t.Errorf("what waits for the operator is shown as %+v", last)
	}
}
