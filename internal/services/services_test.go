package services_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

// TestList: what other packages rely on. IDs are stored, so those of the first six services are written out here.
func TestList(t *testing.T) {
	ids := map[string]uint8{"teamsDirectRouting": 1, "teamsOperatorConnect": 2, "teamsPhoneMobile": 3,
		"zoomPhoneCloudPeering": 4, "azureOperatorCallProtection": 5, "azureCommunicationServices": 6}
	known := services.All().Services()
	names := map[string]bool{}
	last := uint8(0)
	for _, d := range services.All() {
		tr := d.Service.Traits()
		if want, ok := ids[tr.Name]; ok && tr.ID != want {
			t.Errorf("%s has ID %d, want %d: rows and snapshots hold it", tr.Name, tr.ID, want)
		}
		delete(ids, tr.Name)
		if tr.ID <= last || names[tr.Name] || tr.Title == "" {
			t.Errorf("%s: ID %d after %d, name used before: %v, title %q", tr.Name, tr.ID, last, names[tr.Name],
				tr.Title)
		}
		last, names[tr.Name] = tr.ID, true
		for _, other := range tr.ExcludedBy {
			if _, ok := known.ByName(other); !ok {
				t.Errorf("%s is excluded by %s, which is not a service", tr.Name, other)
			}
		}
		// Routing refuses the calls of a service by its traits; without a profile it must.
		if tr.CarriesCalls != (d.Profile != nil) {
			t.Errorf("%s carries calls: %v, has a profile: %v", tr.Name, tr.CarriesCalls, d.Profile != nil)
		}
		if d.Profile == nil {
			continue
		}
		if p := legtest.Profile(t, d.Profile); p.Service() != d.Service {
			t.Errorf("the profile of %s is for %s", tr.Name, p.Service())
		}
	}
	if len(ids) > 0 {
		t.Errorf("services %v are missing", ids)
	}
}

// tenMore returns the program's list and ten more services. Every other one is in the contract.
func tenMore() services.List {
	list := services.All()
	for i := range 10 {
		id := list[len(list)-1].Service.ID() + 1
		s := domain.NewService(domain.Traits{ID: id, Name: fmt.Sprintf("service%d", id),
			Title: fmt.Sprintf("Service %d", id), Exclusive: true, InContract: i%2 == 0,
			CustomHeader: true, CarriesCalls: true})
		list = append(list, services.Definition{Service: s,
			Profile: func(*leg.Rules, leg.Names) (leg.Profile, error) { return nil, errors.New("not needed") }})
	}
	return list
}

// broken is a source whose database cannot be reached.
type broken struct{ replica.Source }

func (broken) Read(context.Context, string, feed.Cursor, int) (feed.Page, error) {
	return feed.Page{}, errors.New("away")
}

// plain seals nothing.
type plain struct{}

func (plain) Seal(_ string, b []byte) ([]byte, error) { return slices.Clone(b), nil }
func (plain) Open(_ string, b []byte) ([]byte, error) { return slices.Clone(b), nil }

// TestTenMoreServices: with ten services more in the list, a number of each is stored, found by its service, indexed,
// kept on disk and routed, on both databases. Nothing but the list differs from the program.
func TestTenMoreServices(t *testing.T) {
	known := tenMore().Services()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx, log := t.Context(), slog.New(slog.DiscardHandler)
		o := outbox.New(d, outbox.Default(), log, nil)
		st := provisioning.New(d, o, known)
		dir := directory.New(st, directory.Config{BaseDomain: "gw.example.com"}, log, nil)
		number := func(s domain.Service) domain.E164 { return domain.E164FromKey(442079460100 + uint64(s.ID())) }
		provision(t, st, dir, known, number)

		a, err := dir.Account(ctx, "acme")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range known {
			if !a.Services[s].Enabled || a.Services[s].NumberCount != 1 {
				t.Errorf("%s on the account: %+v, want it enabled with one number", s, a.Services[s])
			}
			n, err := dir.Number(ctx, "acme", number(s))
			if err != nil {
				t.Fatal(err)
			}
			if n.Enabled() != domain.ServiceSet(0).With(s) || !n.Services[s].Enabled {
				t.Errorf("the number of %s has services %b, %v", s, n.Enabled(), n.Services)
			}
			if !s.Traits().InContract {
				continue
			}
			e, err := filter.Parse(filter.Numbers(known), "serviceDetails/"+s.String()+"/enabled eq true")
			if err != nil {
				t.Fatal(err)
			}
			page, err := dir.Numbers(ctx, "acme", directory.Query{Filter: e, Limit: 10})
			if err != nil || len(page.Items) != 1 || page.Items[0].TelephoneNumber != number(s) {
				t.Errorf("numbers with %s: %v, %v; want %s", s, page.Items, err, number(s))
			}
		}

		files := t.TempDir()
		r, err := replica.Open(replica.Default(), files, st.Source(), plain{}, log, nil)
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- r.Run(run) }()
		for deadline := time.Now().Add(time.Minute); !r.Status().CaughtUp; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the index is not loaded: %+v", r.Status())
			}
		}
		routed(t, known, r.Route(), number)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r, err = replica.Open(replica.Default(), files, broken{}, plain{}, log, nil); err != nil {
			t.Fatal(err)
		}
		routed(t, known, r.Route(), number)
	})
}

// provision puts an account that has every service, and a number of each.
func provision(t *testing.T, st *provisioning.Store, dir *directory.Directory, known domain.Services,
	number func(domain.Service) domain.E164) {
	t.Helper()
	a := domain.Account{Name: "acme", TeamsTenantID: "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d",
		Services: map[domain.Service]domain.AccountService{}}
	for _, s := range known {
		if s.Traits().InContract {
			x := domain.AccountService{Enabled: true}
			if s.Traits().Labelled {
				x.DirectRouting = &domain.DirectRoutingConfig{
					Label: domain.Label{Subdomain: "acme", Region1Token: "a", Region2Token: "b"}}
			}
			a.Services[s] = x
		}
	}
	if _, err := dir.PutAccount(t.Context(), a, directory.Write{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range known {
		n := domain.Number{TelephoneNumber: number(s), AccountName: "acme"}
		if s.Traits().InContract {
			n.Services = map[domain.Service]domain.NumberService{s: {Enabled: true}}
		}
		if _, err := dir.PutNumber(t.Context(), n, directory.Write{}); err != nil {
			t.Fatalf("number of %s: %v", s, err)
		}
	}
	if err := st.Update(t.Context(), func(ctx context.Context, tx directory.Tx) error {
		return enable(ctx, tx, slices.DeleteFunc(slices.Clone(known), func(s domain.Service) bool {
			return s.Traits().InContract
		}), number)
	}); err != nil {
		t.Fatal(err)
	}
}

// enable stores services that cannot be provisioned yet on the account and a number of each, as the directory would.
func enable(ctx context.Context, tx directory.Tx, ss domain.Services, number func(domain.Service) domain.E164) error {
	a, err := tx.Account(ctx, "acme")
	if err != nil {
		return err
	}
	var keys []domain.E164
	service := map[domain.E164]domain.Service{}
	for _, s := range ss {
		a.Services[s] = domain.AccountService{Enabled: true}
		keys = append(keys, number(s))
		service[number(s)] = s
	}
	found, err := tx.FindNumbers(ctx, keys)
	if err != nil {
		return err
	}
	changes := []domain.Change{{Account: a.Routing()}}
	old := map[domain.E164]*domain.Number{}
	ns := slices.Clone(found)
	for i := range ns {
		old[ns[i].TelephoneNumber] = &found[i]
		ns[i].Services = map[domain.Service]domain.NumberService{service[ns[i].TelephoneNumber]: {Enabled: true}}
		changes = append(changes, domain.Change{Number: ns[i].Routing()})
	}
	return errors.Join(tx.PutAccount(ctx, a, false), tx.PutNumbers(ctx, ns, old), tx.Publish(ctx, changes))
}

// routed checks that a call from the core to the number of each service goes to the peer group of that service, or is
// refused in its name if it carries no calls.
func routed(t *testing.T, known domain.Services, view route.View, number func(domain.Service) domain.E164) {
	t.Helper()
	groups := []route.Group{{Name: "core"}}
	for _, s := range known {
		if s.Traits().CarriesCalls {
			groups = append(groups, route.Group{Name: "to-" + s.String(), Service: s})
		}
	}
	c := route.Config{BaseDomain: "gw.example.com", EmergencyDialStrings: []string{"999"}}
	policy, problems := c.Compile(known, groups)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, s := range known {
		d := route.Decide(view, policy, domain.CallFacts{PeerGroup: "core", Called: string(number(s))})
		if d.Service != s || d.Account == nil || d.Account.Name != "acme" {
			t.Errorf("a call to the number of %s is one of %s: %+v", s, d.Service, d)
		}
		if !s.Traits().CarriesCalls {
			if d.Outcome != route.Rejected || d.Rule != route.RuleCarriesCalls {
				t.Errorf("a call to the number of %s: %v by %s", s, d.Outcome, d.Rule)
			}
			continue
		}
		if d.Outcome != route.ToService || !slices.Equal(d.Groups, []string{"to-" + s.String()}) {
			t.Errorf("a call to the number of %s: %v to %v by %s", s, d.Outcome, d.Groups, d.Rule)
		}
	}
}
