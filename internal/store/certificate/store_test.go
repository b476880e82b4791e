package certificate_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/testkit"
)

const (
	name  = "certificate/r1/0123"
	value = "a private key"
)

// during calls fn in a run of the work that orders certificates, and returns the run, which has ended.
func during(t *testing.T, d *db.DB, fn func(ctx context.Context, run *flow.Run)) (ended *flow.Run) {
	t.Helper()
	done := make(chan struct{})
	q := flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
		if i.State == "" {
			tx.OnCommit(func() { close(done) })
		}
		return nil
	}, slog.New(slog.DiscardHandler), nil)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() {
		stopped <- q.Run(ctx, []*flow.Kind{{Name: "certificate",
			Reconcile: func(ctx context.Context, run *flow.Run) (flow.Result, error) {
				ended = run
				fn(ctx, run)
				return flow.Result{}, nil
			},
			List: func(context.Context, string, int) ([]string, error) { return []string{"acme"}, nil }}})
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("no run within a minute")
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	return ended
}

func ring(t *testing.T) *secret.Keyring {
	t.Helper()
	r, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestValuesAreSharedSealedAndAudited(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := store.New(d, ring(t), nil)
		if _, err := s.Load(t.Context(), name); !fault.Is(err, fault.NotFound) {
			t.Errorf("Load of what is not stored: %v, want NotFound", err)
		}
		during(t, d, func(ctx context.Context, run *flow.Run) {
			for _, v := range []string{"first", value} {
				if err := s.Save(ctx, run, name, []byte(v), nil); err != nil {
					t.Errorf("Save: %v", err)
				}
			}
			if err := s.Save(ctx, run, "account/1", nil,
				&certificate.Audit{Action: "certificate.issue", Target: "1r1", Summary: "https://ca"}); err != nil {
				t.Errorf("Save of an empty value: %v", err)
			}
			if err := s.Save(ctx, run, name, make([]byte, 256<<10+1), nil); err == nil {
				t.Error("a value above the limit was stored")
			}
		})
		for want, name := range map[string]string{value: name, "": "account/1"} {
			if got, err := s.Load(t.Context(), name); err != nil || string(got) != want {
				t.Errorf("Load(%s) = %q, %v; want %q", name, got, err, want)
			}
		}
		log := testkit.AuditLog(t, d)
		if len(log) != 1 || log[0].Action != "certificate.issue" || log[0].Target != "1r1" ||
			!strings.Contains(log[0].Summary, "https://ca") {
			t.Errorf("audit log %+v, want one row about 1r1", log)
		}

		// The database holds no plain text, and a sealed value moved to another row does not open.
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			var sealed []byte
			_, err := tx.QueryRow(ctx, "SELECT sealed FROM certificate_values WHERE name = $1", []any{name}, &sealed)
			if bytes.Contains(sealed, []byte(value)) {
				t.Error("the value is stored in the clear")
			}
			if err == nil {
				_, err = tx.Exec(ctx, "UPDATE certificate_values SET sealed = $1 WHERE name = 'account/1'", sealed)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Load(t.Context(), "account/1"); !errors.Is(err, secret.ErrNotOpened) {
			t.Errorf("Load of a moved value = %q, %v; want ErrNotOpened", v, err)
		}
		if sealed, unreadable, err := s.SealAgain(t.Context()); sealed != 1 || unreadable != 1 || err != nil {
			t.Errorf("SealAgain = %d, %d, %v; want one sealed, one unreadable", sealed, unreadable, err)
		}
		if got, err := s.Load(t.Context(), name); err != nil || string(got) != value {
			t.Errorf("Load after SealAgain = %q, %v", got, err)
		}
	})
}

// A worker that was taken for dead, and does not know it, writes nothing.
func TestLostRunWritesNothing(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := store.New(d, ring(t), nil)
		lost := during(t, d, func(context.Context, *flow.Run) {})
		if err := s.Save(t.Context(), lost, name, []byte(value), &certificate.Audit{}); !errors.Is(err, flow.ErrLost) {
			t.Errorf("Save in a run that was lost: %v, want ErrLost", err)
		}
		if v, err := s.Load(t.Context(), name); !fault.Is(err, fault.NotFound) {
			t.Errorf("a lost run stored %q, %v", v, err)
		}
		if log := testkit.AuditLog(t, d); len(log) != 0 {
			t.Errorf("a lost run wrote to the audit log: %+v", log)
		}
	})
}

// What a person asks for is stored and audited, and the work runs, also if it was parked.
func TestRequestMakesTheWorkRun(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ignore := func(context.Context, *db.Tx, flow.Item) error { return nil }
		q := flow.New(d, ignore, slog.New(slog.DiscardHandler), nil)
		s := store.New(d, ring(t), q)
		state := func() string {
			t.Helper()
			l, err := q.List(t.Context(), "certificate", "", flow.Key{}, 2)
			if err != nil || len(l) != 1 || l[0].ID != "acme" {
				t.Fatalf("work %+v, %v; want one key", l, err)
			}
			return l[0].State
		}
		err := s.Request(t.Context(), "renew/1", []byte(value),
			certificate.Audit{Action: "certificate.renew", Target: "1r1"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context(), "renew/1"); err != nil || string(got) != value || state() != flow.Queued {
			t.Errorf("Load = %q, %v; the work is %s", got, err, state())
		}
		if log := testkit.AuditLog(t, d); len(log) != 1 || log[0].Action != "certificate.renew" {
			t.Errorf("audit log %+v", log)
		}

		err = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE work SET state = 'parked', attempts = 21")
			return err
		})
		if err == nil {
			err = s.Wake(t.Context())
		}
		if err != nil || state() != flow.Queued {
			t.Errorf("after Wake: %v, the work is %s", err, state())
		}
	})
}

func TestDisk(t *testing.T) {
	t.Parallel()
	k := ring(t)
	d := store.Disk{Path: filepath.Join(t.TempDir(), "certificates"), Ring: k}
	if _, err := d.Load(); !fault.Is(err, fault.NotFound) {
		t.Errorf("Load without a file: %v, want NotFound", err)
	}
	if err := d.Save([]byte(value)); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Load(); err != nil || string(v) != value {
		t.Errorf("Load = %q, %v", v, err)
	}
	raw, err := os.ReadFile(d.Path)
	if err != nil || bytes.Contains(raw, []byte(value)) {
		t.Errorf("the file holds %q, %v; want it sealed", raw, err)
	}
	if st, err := os.Stat(d.Path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	if v, err := (store.Disk{Path: d.Path, Ring: ring(t)}).Load(); !errors.Is(err, secret.ErrNotOpened) {
		t.Errorf("Load with another keyring = %q, %v; want ErrNotOpened", v, err)
	}
}
