package snapshot

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// Summary describes a stored snapshot.
type Summary struct {
	ID       string // later ones are greater
	Tenant   string // the tenant's id at Microsoft
	Taken    time.Time
	Reason   string
	Objects  int
	Users    int
	Imported bool
	Report   bool // there is a report of the leave before which it was taken
}

// The reasons of snapshots.
const (
	Leave   = "leave"
	Request = "request"
)

// Latest stands for the newest snapshot that has a report.
const Latest = "latest"

// Store has the snapshots. It is safe for concurrent use.
type Store interface {
	// Snapshots returns up to limit snapshots of an account that are older than the one with an id, newest first.
	Snapshots(ctx context.Context, account, before string, limit int) ([]Summary, error)
	// Snapshot returns a snapshot and its export; an error of kind fault.NotFound if there is none with that id.
	Snapshot(ctx context.Context, account, id string) (*Summary, []byte, error)
	// AddSnapshot stores a snapshot, with an audit row of that action.
	AddSnapshot(ctx context.Context, account string, s *Summary, export []byte, action string) error
	// Report returns the report of the leave that followed a snapshot, or of the last leave if the id is Latest; an
	// error of kind fault.NotFound if there is none.
	Report(ctx context.Context, account, id string) (*Report, error)
	SetReport(ctx context.Context, account string, r *Report) error
}

// Source is a tenant.
type Source interface {
	// Read is that of onboard.Cloud.
	Read(ctx context.Context, named []plan.Ref) ([]plan.Object, error)
	// ReadUsers returns those of the users, by object id, that exist, with their voice settings, and how many requests
	// that took; a batch counts as one.
	ReadUsers(ctx context.Context, ids []string) (users []plan.Object, requests int, err error)
}

// Reader reads tenants.
type Reader struct {
	Tenants onboard.Store
	Sources func(ctx context.Context, t *onboard.Tenant) (Source, error)
}

// Reading is what a tenant has, beside what Tandem has made there.
type Reading struct {
	Tenant *onboard.Tenant
	Ledger plan.Ledger
	Have   plan.State
	// Requests is how many requests it took: seven lists, one for each domain, two for each activation user, and those
	// for users.
	Requests int
}

// Read reads the objects of a tenant, those that Tandem has made and further ones that are named.
func (r *Reader) Read(ctx context.Context, account string, named ...plan.Ref) (*Reading, error) {
	x := &Reading{}
	err := r.Tenants.View(ctx, account, func(ctx context.Context, tx onboard.Tx) (err error) {
		if x.Tenant, err = tx.Tenant(ctx); err == nil {
			x.Ledger, err = tx.Ledger(ctx)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	source, err := r.Sources(ctx, x.Tenant)
	if err != nil {
		return nil, err
	}

	for _, m := range x.Ledger {
		named = append(named, m.Ref)
	}
	x.Requests = 7
	var ids []string
	rest := make([]plan.Ref, 0, len(named))
	for _, r := range named {
		switch r.Type {
		case plan.User:
			ids = append(ids, r.Name)
			continue
		case plan.Domain:
			x.Requests++
		case plan.ActivationUser:
			x.Requests += 2
		}
		rest = append(rest, r)
	}
	objects, err := source.Read(ctx, rest)
	if err != nil {
		return nil, fmt.Errorf("read the tenant: %w", err)
	}
	if len(ids) > 0 {
		users, n, err := source.ReadUsers(ctx, ids)
		if err != nil {
			return nil, fmt.Errorf("read the users of the tenant: %w", err)
		}
		objects, x.Requests = append(objects, users...), x.Requests+n
	}
	x.Have = plan.NewState(objects)
	return x, nil
}

// Snapshots takes, keeps and restores snapshots. It is safe for concurrent use.
type Snapshots struct {
	Reader
	Store  Store
	Sealer Sealer
	// Advice returns what the customer may do after a leave; it may be nil.
	Advice func(ctx context.Context, t *onboard.Tenant) ([]string, error)
	// Names returns the names of users by object id, for reports. It may be nil.
	Names func(ctx context.Context, account string, ids []string) (map[string]user.Name, error)
}

// Take stores a snapshot of a tenant. One of nothing is taken before a leave only, which has a report of its own.
func (s *Snapshots) Take(ctx context.Context, account, reason string) (*Summary, error) {
	x, err := s.Read(ctx, account)
	if err != nil {
		return nil, err
	}
	if len(x.Ledger) == 0 && reason != Leave {
		return nil, fault.New(fault.Conflict, "NothingToRecord",
			"Tandem has made nothing in the tenant of account %s; there is nothing to take a snapshot of", account)
	}
	t := x.Tenant
	d := &Document{Format: Format, Account: account, Tenant: t.ID, Taken: time.Now().UTC().Truncate(time.Second),
		Reason: reason, Wishes: t.Wishes, Settings: t.Settings, MadeFor: t.MadeFor}
	for _, m := range slices.SortedFunc(maps.Values(x.Ledger), func(a, b plan.Made) int {
		return strings.Compare(string(a.Type)+" "+a.Name, string(b.Type)+" "+b.Name)
	}) {
		e := Entry{Made: m}
		if o, ok := x.Have.Get(m.Ref); ok {
			e.Found = &o
		}
		d.Entries = append(d.Entries, e)
	}
	text, err := Sign(s.Sealer, d)
	if err != nil {
		return nil, err
	}
	sum := d.summary()
	return sum, s.Store.AddSnapshot(ctx, account, sum, text, "tenant.snapshot")
}

func (d *Document) summary() *Summary {
	users := 0
	for _, e := range d.Entries {
		if e.Made.Type == plan.User {
			users++
		}
	}
	return &Summary{ID: d.Taken.UTC().Format("20060102T150405") + "-" + strings.ToLower(rand.Text()[:6]),
		Tenant: d.Tenant, Taken: d.Taken, Reason: d.Reason, Objects: len(d.Entries) - users, Users: users}
}

// Import stores a snapshot that was exported. Errors: those of Verify, and SnapshotOfAnother.
func (s *Snapshots) Import(ctx context.Context, account string, export []byte) (*Summary, error) {
	d, err := Verify(s.Sealer, export)
	if err != nil {
		return nil, err
	}
	if d.Account != account {
		return nil, fault.New(fault.Invalid, "SnapshotOfAnother", "the snapshot is of account %s, not of %s", d.Account,
			account)
	}
	sum := d.summary()
	sum.Imported = true
	return sum, s.Store.AddSnapshot(ctx, account, sum, export, "tenant.importSnapshot")
}

// Load returns a stored snapshot, verified.
func (s *Snapshots) Load(ctx context.Context, account, id string) (*Document, error) {
	_, text, err := s.Store.Snapshot(ctx, account, id)
	if err != nil {
		return nil, err
	}
	return Verify(s.Sealer, text)
}

// Restore reads a tenant and returns what it should have so that it is as in a snapshot. It changes nothing. The error
// is SnapshotOfAnother if the snapshot is of another tenant at Microsoft.
func (s *Snapshots) Restore(ctx context.Context, account, id string) (*onboard.Restoration, error) {
	d, err := s.Load(ctx, account, id)
	if err != nil {
		return nil, err
	}
	if len(d.Entries) == 0 {
		return nil, fault.New(fault.Conflict, "NothingToRestore", "snapshot %s has nothing, because Tandem had "+
			"nothing in the tenant when it was left; restore an older one (tandem tenant snapshot list %s)", id,
			account)
	}
	refs := make([]plan.Ref, len(d.Entries))
	for i, e := range d.Entries {
		refs[i] = e.Made.Ref
	}
	x, err := s.Read(ctx, account, refs...)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(x.Tenant.ID, d.Tenant) {
		return nil, fault.New(fault.Conflict, "SnapshotOfAnother",
			"snapshot %s is of the tenant %s; account %s has the tenant %s: onboard that without the snapshot",
			id, d.Tenant, account, x.Tenant.ID)
	}
	r := &onboard.Restoration{Wishes: d.Wishes, Settings: d.Settings, MadeFor: d.MadeFor}
	r.Objects, r.Users, r.Notes = Plan(d, x.Have, x.Ledger)
	return r, nil
}

// AddOutcome adds to the report of the last leave, if there is one, or replaces what it says of the same thing.
func (s *Snapshots) AddOutcome(ctx context.Context, account string, o Outcome) error {
	r, err := s.Store.Report(ctx, account, Latest)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Outcomes = append(slices.DeleteFunc(r.Outcomes, func(x Outcome) bool { return x.Ref == o.Ref }), o)
	return s.Store.SetReport(ctx, account, r)
}

// ReportLeave reads a tenant that was left, and stores with the snapshot that was taken before what became of each
// thing in it. An empty id is that of the newest snapshot that was taken before a leave. Notes are reasons that are
// known, such as those of the plan.
func (s *Snapshots) ReportLeave(ctx context.Context, account, id string, notes []plan.Note) (*Report, error) {
	if id == "" {
		newest, err := s.Store.Snapshots(ctx, account, "", 100)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(newest, func(x Summary) bool { return x.Reason == Leave && !x.Imported })
		if i >= 0 {
			id = newest[i].ID
		}
	}
	d, err := s.Load(ctx, account, id)
	if err != nil {
		return nil, err
	}
	made := make([]plan.Made, len(d.Entries))
	refs := make([]plan.Ref, len(d.Entries))
	for i, e := range d.Entries {
		made[i], refs[i] = e.Made, e.Made.Ref
	}
	x, err := s.Read(ctx, account, refs...)
	if err != nil {
		return nil, err
	}
	r := &Report{Snapshot: id, Read: time.Now().UTC().Truncate(time.Second),
		Outcomes: Outcomes(plan.NewLedger(made), x.Have, notes)}
	if s.Advice != nil {
		if r.Advice, err = s.Advice(ctx, x.Tenant); err != nil {
			return nil, err
		}
	}
	if err := s.name(ctx, account, r.Outcomes); err != nil {
		return nil, err
	}
	return r, s.Store.SetReport(ctx, account, r)
}

// name enters the names of users, which are forgotten after a leave.
func (s *Snapshots) name(ctx context.Context, account string, outcomes []Outcome) error {
	if s.Names == nil {
		return nil
	}
	var ids []string
	for _, o := range outcomes {
		if o.Type == plan.User {
			ids = append(ids, o.Name)
		}
	}
	names, err := s.Names(ctx, account, ids)
	for i := range outcomes {
		if o := &outcomes[i]; o.Type == plan.User {
			n := names[strings.ToLower(o.Name)]
			o.User, o.Display = n.UPN, n.Display
		}
	}
	return err
}
