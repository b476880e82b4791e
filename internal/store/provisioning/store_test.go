package provisioning_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/filters"
)

var discard = slog.New(slog.DiscardHandler)

func open(d *db.DB) (*provisioning.Store, *directory.Directory) {
	s := provisioning.New(d, outbox.New(d, outbox.Default(), discard, nil), services.All().Services())
	return s, directory.New(s, directory.Config{}, discard, nil)
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// world is a mixed population: every kind of value that a filter can select, and its absence.
type world struct {
	accounts []domain.Account
	numbers  []domain.Number
	requests []domain.RequestForInformation
	civic    []domain.CivicAddress
}

const tenant = "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"

func populate(t *testing.T, dir *directory.Directory) world {
	t.Helper()
	ctx := t.Context()
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	var w world
	for i := range 24 {
		a := domain.Account{Name: fmt.Sprintf("%s%02d", pick("acme", "Acme", "b_", "c-"), i),
			CorrelationID: pick("", "crm 1", "CRM 1", "it's", "100%_", "żółw"), HasServiceDetails: true,
			TeamsTenantID: pick("", tenant, strings.ToUpper(tenant))}
		for _, s := range services.All().Services() {
			if !s.Traits().InContract || r.IntN(2) == 0 {
				continue
			}
			d := domain.AccountService{Enabled: r.IntN(3) > 0,
				SyncEnabled: s != callprotection.Service && r.IntN(2) == 0}
			if s == directrouting.Service && r.IntN(3) > 0 {
				d.DirectRouting = &domain.DirectRoutingConfig{CallScreening: r.IntN(2) == 0,
					Label: domain.Label{Subdomain: fmt.Sprintf("%s%d", pick("sub", "Sub", "x-"), i), Region1Token: "a",
						Region2Token: "b"}}
			}
			if a.Services == nil {
				a.Services = map[domain.Service]domain.AccountService{}
			}
			a.Services[s] = d
		}
		must[*directory.Result](t)(dir.PutAccount(ctx, a, directory.Write{}))
		var batch []domain.Number
		for j := range 12 {
			n := domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+%s%02d%02d", pick("4420", "4930", "1425"), i,
				j)), AccountName: a.Name}
			for _, s := range services.All().Services() {
				if !s.Traits().InContract || r.IntN(3) > 0 {
					continue
				}
				d := domain.NumberService{}
				if s.Traits().TenantBound {
					d.AssignmentStatus = pick("", "assigned", "unassigned")
					if r.IntN(2) == 0 {
						d.Teams = &domain.TeamsNumberConfig{Usage: pick("CallingUserAssignment",
							"ConferenceAssignment"), ChoosableCapabilities: []string{},
							CivicAddressID: pick("", "c1", `c"2`),
							LocationID:     pick("", "l1"), DisplayedCountryCode: pick("", "GB"),
							AllowTenantAddressUpdate: r.IntN(2) == 0}
					}
				}
				if n.Services == nil {
					n.Services = map[domain.Service]domain.NumberService{}
				}
				n.Services[s] = d
			}
			// At most one service is on, and only one that the account has.
			for _, s := range services.All().Services().In(a.Enabled()) {
				if d, ok := n.Services[s]; ok && r.IntN(2) == 0 {
					d.Enabled = true
					n.Services[s] = d
					break
				}
			}
			if n.Enabled() == 0 {
				n.CustomSIPHeader = pick("", "h1", "h2")
			}
			batch = append(batch, n)
		}
		must[*directory.Result](t)(dir.PutNumbers(ctx, a.Name, batch, directory.Write{}))
	}
	for i := range 12 {
		q := domain.RequestForInformation{ID: pick("", "r1", "r2"), TenantID: fmt.Sprintf("%08x%s", i*0x10000001,
			tenant[8:]), OperatorID: pick("", "op"), Status: pick("active", "suspended", "removed")}
		if i == 0 {
			q.TenantID = tenant
		}
		if r.IntN(2) == 0 {
			q.Relationship = &domain.CustomerRelationship{Status: pick("", "AgreementSigned"),
				Comment: pick("", "it's 100%", "ok")}
		}
		if err := dir.SaveRequest(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		w.civic = append(w.civic, domain.CivicAddress{ID: fmt.Sprintf("c%02d", i), DefaultLocationID: pick("l1", "l2"),
			Country: pick("", "GB", "US"), HouseNumber: pick("", "1", "10"),
			StreetName: pick("", "Marsh Lane", "marsh lane"), ValidationStatus: pick("", "validated", "notValidated"),
			CompanyName: pick("", "O'Neill"), Latitude: pick("", "51.5"), TenantID: tenant})
	}
	if err := dir.SaveCivicAddresses(ctx, tenant, w.civic); err != nil {
		t.Fatal(err)
	}
	w.accounts = must[directory.Page[domain.Account]](t)(dir.Accounts(ctx, directory.Query{Limit: 500})).Items
	w.numbers = must[directory.Page[domain.Number]](t)(dir.Numbers(ctx, "", directory.Query{Limit: 500})).Items
	w.requests = must[directory.Page[domain.RequestForInformation]](t)(dir.Requests(ctx,
		directory.Query{Limit: 500})).Items
	if len(w.accounts) != 24 || len(w.numbers) != 288 || len(w.requests) != 12 {
		t.Fatalf("%d accounts, %d numbers, %d requests", len(w.accounts), len(w.numbers), len(w.requests))
	}
	return w
}

// literals are the values that fields are compared with: values that occur, values that do not, and texts that would
// break out of a badly built statement.
var literals = []string{"", "acme00", "Acme", "b_", "crm 1", "it's", "100%_", "%", "_", "żółw", "ż", tenant,
	strings.ToUpper(tenant), tenant[:3], "+4420", "+", "+442", "h1", "h", "synced", "pending",
	"assigned", "CallingUserAssignment", "c1", `c"2`, "l1", "GB", "provisioned", "notProvisioned", "sub", "Sub",
	"active", "AgreementSigned", "teams", "a' OR '1'='1", "x\x00", "\xff", "validated", "c0", "1"}

// expression returns a random filter over a table's fields.
func expression(r *rand.Rand, fields []*filter.Field, depth int) filter.Expr {
	if depth > 0 {
		switch r.IntN(4) {
		case 0:
			return &filter.And{Left: expression(r, fields, depth-1), Right: expression(r, fields, depth-1)}
		case 1:
			return &filter.Or{Left: expression(r, fields, depth-1), Right: expression(r, fields, depth-1)}
		case 2:
			return &filter.Not{X: expression(r, fields, depth-1)}
		}
	}
	f := fields[r.IntN(len(fields))]
	lit := literals[r.IntN(len(literals))]
	if f.Lower {
		lit = strings.ToLower(lit)
	}
	switch {
	case f.Type == filter.Bool:
		return &filter.Compare{Field: f, Negated: r.IntN(2) == 0, Value: filter.BoolValue(r.IntN(2) == 0)}
	case r.IntN(2) == 0:
		return &filter.Prefix{Field: f, Prefix: lit}
	}
	return &filter.Compare{Field: f, Negated: r.IntN(2) == 0, Value: filter.StringValue(lit)}
}

// TestFiltersMeanWhatMatchSays compares the resources that the databases find with those that filters.Match selects,
// for every field of every table by itself and for random combinations.
func TestFiltersMeanWhatMatchSays(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		_, dir := open(d)
		w := populate(t, dir)
		owner := ""
		for i := range w.accounts {
			if strings.EqualFold(w.accounts[i].TeamsTenantID, tenant) {
				owner = w.accounts[i].Name
				break
			}
		}
		ctx := t.Context()
		type resource struct {
			table *filter.Table
			want  func(e filter.Expr) []string
			got   func(e filter.Expr) ([]string, int64, error)
			// occurring returns some values that a field has.
			occurring func(f *filter.Field) []string
		}
		query := func(e filter.Expr) directory.Query { return directory.Query{Filter: e, Limit: 500, Count: true} }
		resources := []resource{
			{filter.Accounts(services.All().Services()), func(e filter.Expr) []string {
				return matching(e, w.accounts, filters.OfAccount, func(a *domain.Account) string { return a.Name })
			},
				func(e filter.Expr) ([]string, int64, error) {
					p, err := dir.Accounts(ctx, query(e))
					return keys(p.Items, func(a *domain.Account) string { return a.Name }), p.Total, err
				}, func(f *filter.Field) []string { return occurring(f, w.accounts, filters.OfAccount) }},
			{filter.Numbers(services.All().Services()), func(e filter.Expr) []string {
				return matching(e, w.numbers, filters.OfNumber,
					func(n *domain.Number) string { return string(n.TelephoneNumber) })
			},
				func(e filter.Expr) ([]string, int64, error) {
					p, err := dir.Numbers(ctx, "", query(e))
					return keys(p.Items, func(n *domain.Number) string { return string(n.TelephoneNumber) }), p.Total,
						err
				}, func(f *filter.Field) []string { return occurring(f, w.numbers, filters.OfNumber) }},
			{filter.Requests, func(e filter.Expr) []string {
				return matching(e, w.requests, filters.OfRequest,
					func(q *domain.RequestForInformation) string { return q.TenantID })
			},
				func(e filter.Expr) ([]string, int64, error) {
					p, err := dir.Requests(ctx, query(e))
					return keys(p.Items, func(q *domain.RequestForInformation) string { return q.TenantID }), p.Total,
						err
				}, func(f *filter.Field) []string { return occurring(f, w.requests, filters.OfRequest) }},
			{filter.CivicAddresses, func(e filter.Expr) []string {
				return matching(e, w.civic, filters.OfCivicAddress, func(c *domain.CivicAddress) string { return c.ID })
			},
				func(e filter.Expr) ([]string, int64, error) {
					p, err := dir.CivicAddresses(ctx, owner, query(e))
					return keys(p.Items, func(c *directory.CivicAddress) string { return c.ID }), p.Total, err
				}, func(f *filter.Field) []string { return occurring(f, w.civic, filters.OfCivicAddress) }},
		}
		for i, res := range resources {
			r := rand.New(rand.NewPCG(3, uint64(i)))
			fields := filters.Fields(res.table)
			var es []filter.Expr
			for _, f := range fields {
				if f.Type == filter.Bool {
					for n := range 4 {
						es = append(es, &filter.Compare{Field: f, Negated: n%2 == 0, Value: filter.BoolValue(n/2 == 0)})
					}
					continue
				}
				lits := res.occurring(f)
				for range 4 {
					lits = append(lits, literals[r.IntN(len(literals))])
				}
				for _, lit := range lits {
					if f.Lower {
						lit = strings.ToLower(lit)
					}
					es = append(es, &filter.Compare{Field: f, Value: filter.StringValue(lit)},
						&filter.Prefix{Field: f, Prefix: lit})
				}
				es = append(es, &filter.Compare{Field: f, Negated: true, Value: filter.StringValue(lits[0])})
			}
			for range 80 {
				es = append(es, expression(r, fields, 3))
			}
			hits := 0
			for _, e := range es {
				want := res.want(e)
				got, total, err := res.got(e)
				if err != nil {
					t.Errorf("%s: %s: %v", res.table.Resource, filters.Print(e), err)
					continue
				}
				if !slices.Equal(want, got) || total != int64(len(want)) {
					t.Errorf("%s: %s: found %d (counted %d), want %d:\n%s", res.table.Resource, filters.Print(e),
						len(got), total, len(want), cmp.Diff(want, got))
				}
				if len(want) > 0 {
					hits++
				}
			}
			if hits*4 < len(es) {
				t.Errorf("%s: only %d of %d filters find anything: the test covers too little",
					res.table.Resource, hits, len(es))
			}
		}
	})
}

func matching[T any](e filter.Expr, items []T, of func(*T) filters.Record, key func(*T) string) []string {
	var s []string
	for i := range items {
		if filters.Match(e, of(&items[i])) {
			s = append(s, key(&items[i]))
		}
	}
	return s
}

// occurring returns up to three values of a field.
func occurring[T any](f *filter.Field, items []T, of func(*T) filters.Record) []string {
	var s []string
	for i := range items {
		if v, ok := of(&items[i])(f.Path); ok && len(s) < 3 && !slices.Contains(s, v.Str) {
			s = append(s, v.Str)
		}
	}
	return s
}

func keys[T any](items []T, key func(*T) string) []string {
	var s []string
	for i := range items {
		s = append(s, key(&items[i]))
	}
	return s
}

// state is a replica's knowledge.
type state struct {
	accounts map[string]domain.AccountRouting
	numbers  map[uint64]domain.NumberRouting
}

func (s *state) apply(cs []domain.Change) {
	for _, c := range cs {
		switch {
		case c.Account != nil && c.Account.Deleted:
			delete(s.accounts, c.Account.Name)
		case c.Account != nil:
			s.accounts[c.Account.Name] = *c.Account
		case c.Number.Deleted:
			delete(s.numbers, c.Number.Key)
		default:
			s.numbers[c.Number.Key] = *c.Number
		}
	}
}

// TestScanAndFeedTogetherGiveTheState scans while changes are made, follows the feed from the scan's position, and must
// arrive at what is stored.
func TestScanAndFeedTogetherGiveTheState(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s, dir := open(d)
		ctx := t.Context()
		const accounts = 5
		for i := range accounts {
			must[*directory.Result](t)(dir.PutAccount(ctx, domain.Account{Name: fmt.Sprint("a", i),
				Services: map[domain.Service]domain.AccountService{zoom.Service: {Enabled: true}}}, directory.Write{}))
		}
		must[directory.ImportReport](t)(dir.Import(ctx, "a0", 0, func(yield func(domain.Number) bool) {
			for i := range 12_000 { // more than a page of the scan
				if !yield(domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+4420%05d", i)), AccountName: "a0",
					CustomSIPHeader: "h"}) {
					return
				}
			}
		}))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		started := make(chan struct{})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(5, 6))
			for i := 0; ; i++ {
				if i == 3 {
					close(started)
				}
				select {
				case <-stop:
					return
				default:
				}
				n := domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+4420%05d", r.IntN(12_000))),
					AccountName: "a0", CustomSIPHeader: fmt.Sprint("h", i)}
				var err error
				if r.IntN(2) == 0 {
					_, err = dir.PutNumber(ctx, n, directory.Write{})
				} else {
					_, err = dir.DeleteNumbers(ctx, "a0", []domain.E164{n.TelephoneNumber}, directory.Write{})
				}
				if err != nil {
					t.Errorf("change: %v", err)
					return
				}
			}
		})
		<-started
		src := s.Source()
		got := state{map[string]domain.AccountRouting{}, map[uint64]domain.NumberRouting{}}
		at, err := src.Scan(ctx, func(cs []domain.Change) error {
			b, err := json.Marshal(cs) // the slice must not be kept
			if err != nil {
				return err
			}
			var kept []domain.Change
			if err := json.Unmarshal(b, &kept); err != nil {
				return err
			}
			got.apply(kept)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		close(stop)
		wg.Wait()
		followed := 0
		for {
			p, err := src.Read(ctx, feed.Provisioning, at, 50)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Entries) == 0 {
				break
			}
			at = p.Next
			for _, e := range p.Entries {
				var cs []domain.Change
				if err := json.Unmarshal(e.Payload, &cs); err != nil {
					t.Fatal(err)
				}
				got.apply(cs)
				followed++
			}
		}
		want := state{map[string]domain.AccountRouting{}, map[uint64]domain.NumberRouting{}}
		q := directory.Query{Limit: 500}
		for {
			p := must[directory.Page[domain.Number]](t)(dir.Numbers(ctx, "", q))
			for i := range p.Items {
				want.numbers[p.Items[i].TelephoneNumber.Key()] = *p.Items[i].Routing()
			}
			if q.After = p.Next; q.After == "" {
				break
			}
		}
		for _, a := range must[directory.Page[domain.Account]](t)(dir.Accounts(ctx,
			directory.Query{Limit: 500})).Items {
			want.accounts[a.Name] = *a.Routing()
		}
		if diff := cmp.Diff(want.accounts, got.accounts); diff != "" {
			t.Errorf("accounts differ (-stored +replica):\n%s", diff)
		}
		if diff := cmp.Diff(want.numbers, got.numbers); diff != "" {
			t.Errorf("numbers differ (-stored +replica):\n%s", diff)
		}
		t.Logf("%d numbers, %d feed entries followed after the scan", len(got.numbers), followed)
		failed := errors.New("failed")
		if _, err := src.Scan(ctx, func([]domain.Change) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("Scan with a failing reader: %v", err)
		}
	})
}
