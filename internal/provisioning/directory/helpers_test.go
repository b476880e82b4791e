package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

// house is a directory on a new database, with the parts it is made of.
type house struct {
	*directory.Directory
	t     testing.TB
	db    *db.DB
	feed  *outbox.Outbox
	store *provisioning.Store
}

func open(t testing.TB, d *db.DB) *house {
	log := slog.New(slog.DiscardHandler)
	o := outbox.New(d, outbox.Default(), log, nil)
	s := provisioning.New(d, o, services.All().Services())
	return &house{directory.New(s, directory.Config{BaseDomain: "voice.example.net"}, log, nil), t, d, o, s}
}

// each runs fn on both databases.
func each(t *testing.T, fn func(t *testing.T, h *house)) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) { fn(t, open(t, d)) })
}

const (
	tenant1 = "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"
	tenant2 = "A7F4BD5C-CC01-40F4-8BAA-2B6BDB272B8A"
)

// account builds an account with the given services enabled; Direct Routing gets the account's name as its subdomain.
func account(name string, services ...domain.Service) domain.Account {
	a := domain.Account{Name: name, HasServiceDetails: true, TeamsTenantID: tenant1}
	for _, s := range services {
		if a.Services == nil {
			a.Services = map[domain.Service]domain.AccountService{}
		}
		d := domain.AccountService{Enabled: true}
		if s == directrouting.Service {
			d.DirectRouting = &domain.DirectRoutingConfig{CallScreening: true,
				Label: domain.Label{Subdomain: name, Region1Token: "MS=ms1", Region2Token: "MS=ms2"}}
		}
		a.Services[s] = d
	}
	return a
}

func number(account, n string, services ...domain.Service) domain.Number {
	r := domain.Number{TelephoneNumber: domain.E164(n), AccountName: account}
	for _, s := range services {
		if r.Services == nil {
			r.Services = map[domain.Service]domain.NumberService{}
		}
		r.Services[s] = domain.NumberService{Enabled: true}
	}
	return r
}

func (h *house) putAccount(a domain.Account) *directory.Result {
	h.t.Helper()
	r, err := h.PutAccount(h.t.Context(), a, directory.Write{})
	if err != nil {
		h.t.Fatalf("PutAccount(%s): %v", a.Name, err)
	}
	return r
}

func (h *house) putNumber(n domain.Number) *directory.Result {
	h.t.Helper()
	r, err := h.PutNumber(h.t.Context(), n, directory.Write{})
	if err != nil {
		h.t.Fatalf("PutNumber(%s): %v", string(n.TelephoneNumber), err)
	}
	return r
}

// wantCode checks that err is a fault of that kind and code, and that its target ends as given.
func wantCode(t testing.TB, what string, err error, kind fault.Kind, code, target string) {
	t.Helper()
	f := fault.As(err)
	if f == nil {
		t.Errorf("%s: no error, want %s", what, code)
		return
	}
	if f.Kind != kind || f.Code != code || !strings.HasSuffix(f.Target, target) {
		t.Errorf("%s: kind %v, code %s, target %q (%v); want %v, %s, …%q", what, f.Kind, f.Code, f.Target, err,
			kind, code, target)
	}
}

// changes returns all changes of the feed after a position, and the last position.
func (h *house) changes(after feed.Position) ([]domain.Change, feed.Position) {
	h.t.Helper()
	var cs []domain.Change
	head, err := h.feed.Head(h.t.Context())
	if err != nil {
		h.t.Fatalf("read the feed: %v", err)
	}
	for at := (feed.Cursor{Database: head.Database}); ; {
		p, err := h.feed.Read(h.t.Context(), feed.Provisioning, at, 100)
		if err != nil {
			h.t.Fatalf("read the feed: %v", err)
		}
		if len(p.Entries) == 0 {
			return cs, after
		}
		at = p.Next
		for _, e := range p.Entries {
			if e.Position <= after {
				continue
			}
			if e.Position != after+1 {
				h.t.Fatalf("feed skips from position %d to %d", after, e.Position)
			}
			after = e.Position
			var c []domain.Change
			if err := json.Unmarshal(e.Payload, &c); err != nil {
				h.t.Fatalf("feed entry %d: %v", e.Position, err)
			}
			cs = append(cs, c...)
		}
	}
}

// audit returns all rows of the audit log.
func (h *house) audit() []db.AuditRecord {
	h.t.Helper()
	rows := testkit.AuditLog(h.t, h.db)
	rep, err := h.db.VerifyAudit(h.t.Context())
	if err != nil || rep.Break != nil {
		h.t.Fatalf("verify the audit log: %+v, %v", rep, err)
	}
	return rows
}

func once(id string, digest byte) *directory.Once {
	return &directory.Once{Scope: "bss", ID: id, FirstSent: time.Now(), Digest: [32]byte{digest},
		Render: func(r *directory.Result) ([]byte, error) { return json.Marshal(r.Created) }}
}

func since(t time.Time) *time.Time { return &t }

// findNumber returns a number whatever its account.
func findNumber(ctx context.Context, h *house, key string) (n domain.Number, err error) {
	err = h.store.View(ctx, func(ctx context.Context, r directory.Reader) error {
		ns, err := r.FindNumbers(ctx, []domain.E164{domain.E164(key)})
		if err == nil && len(ns) == 0 {
			err = errors.New("no such number")
		}
		if err == nil {
			n = ns[0]
		}
		return err
	})
	return n, err
}
