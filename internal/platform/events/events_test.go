package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	platformauth "github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/store/auth"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

var discard = slog.New(slog.DiscardHandler)

func open(d *db.DB) *events.Log { return events.New(d, discard, nil) }

// add appends events of kind "test.done" with the given subjects, in one transaction.
func add(t *testing.T, d *db.DB, l *events.Log, subjects ...string) {
	t.Helper()
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, s := range subjects {
			if err := l.Append(ctx, tx, api.Event{Kind: "test.done", Subject: s}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func head(t *testing.T, l *events.Log) feed.Cursor {
	t.Helper()
	p, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// read returns all events after a place, in pages of two.
func read(t *testing.T, l *events.Log, after feed.Cursor, all bool) []api.Event {
	t.Helper()
	var out []api.Event
	for end := head(t, l); after != end; {
		page, next, err := l.Read(t.Context(), after, all, 2)
		if err != nil {
			t.Fatal(err)
		}
		out, after = append(out, page...), next
	}
	return out
}

func subjects(es []api.Event) string {
	var s []string
	for _, e := range es {
		s = append(s, e.Subject)
	}
	return strings.Join(s, " ")
}

// TestEveryAuditedChangeIsAnEvent makes changes of every kind that the database records, and compares the events with
// the audit log.
func TestEveryAuditedChangeIsAnEvent(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		l := open(d)
		start := head(t, l)
		rows := provisioning.New(d, outbox.New(d, outbox.Default(), discard, nil), services.All().Services())
		dir := directory.New(rows, directory.Config{}, discard, nil)
		ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "client", ID: "bss"})
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(dir.PutAccount(ctx, domain.Account{Name: "contoso", Services: map[domain.Service]domain.AccountService{
			zoom.Service: {Enabled: true}}}, directory.Write{}))
		var ns []domain.Number
		for i := range 100 {
			ns = append(ns, domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+4420794600%02d", i)),
				AccountName: "contoso"})
		}
		must(dir.PutNumbers(ctx, "contoso", ns, directory.Write{}))
		if _, err := dir.DeleteAccount(ctx, "contoso", false, directory.Write{}); err == nil { // rolled back
			t.Error("an account with numbers was deleted")
		}
		must(dir.DeleteNumber(ctx, "contoso", "+442079460042", directory.Write{}))
		must(nil, dir.SaveRequest(ctx, domain.RequestForInformation{TenantID: "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"}))
		must(nil, auth.New(d).AddClient(ctx, platformauth.Client{ID: "c1", Secret: "hash-of-a-secret"}))
		must(dir.DeleteAccount(ctx, "contoso", true, directory.Write{}))

		var want, got []string
		for _, r := range testkit.AuditLog(t, d) {
			want = append(want, fmt.Sprint(r.Action, " ", r.Target, " ", r.Items, " ", r.Actor.Kind, " ", r.Actor.ID))
		}
		all := read(t, l, start, true)
		for _, e := range all {
			got = append(got, fmt.Sprint(e.Kind, " ", e.Subject, " ", e.Items, " ", e.Actor.Kind, " ", e.Actor.ID))
			if age := time.Since(e.Time); age < 0 || age > 10*time.Minute {
				t.Errorf("%s is %v old", e.Kind, age)
			}
			if text, _ := json.Marshal(e); strings.Contains(string(text), "hash-of") ||
				strings.Contains(string(text), "4420794600") {
				t.Errorf("an event holds a secret or a phone number: %s", text)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) != 6 {
			t.Errorf("events (-audit log +events), want 6:\n%s", diff)
		}
		if diff := cmp.Diff([]string{"account.put", "numbers.put", "number.delete", "request.save", "account.delete"},
			kinds(read(t, l, start, false))); diff != "" {
			t.Errorf("events without the restricted ones (-want +got):\n%s", diff)
		}
		if all[1].Items != 100 {
			t.Errorf("a batch of 100 numbers is %+v, want one event with 100 items", all[1])
		}
	})
}

func kinds(es []api.Event) (out []string) {
	for _, e := range es {
		out = append(out, e.Kind)
	}
	return out
}

// TestAppend stores an event of another package, with an audited change in the same transaction.
func TestAppend(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		l := open(d)
		start := head(t, l)
		in := api.Event{Kind: "flow.step", Subject: "tenant-1", Data: map[string]any{"step": 2.0, "of": 7.0},
			Actor: &api.Actor{Kind: "system", ID: "flow"}, ID: "ignored", Time: time.Unix(1, 0)}
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if err := l.Append(ctx, tx, in); err != nil {
				return err
			}
			return tx.AuditOf(ctx, "tenant.join", "tenant-1", 1, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, l, start, true)
		if len(got) != 2 || got[1].Kind != "tenant.join" {
			t.Fatalf("%+v, want the event and the audited change", got)
		}
		in.ID, in.Time = got[0].ID, got[0].Time
		if diff := cmp.Diff(in, got[0]); diff != "" || in.Time.Unix() < 1e9 {
			t.Errorf("event (-appended +read):\n%s", diff)
		}
		// A place survives as text, and the log continues after it.
		for i, want := range []string{"tenant-1 tenant-1", "tenant-1", ""} {
			id := events.ID(start)
			if i > 0 {
				id = got[i-1].ID
			}
			p, err := events.ParseID(id)
			if rest := subjects(read(t, l, p, true)); err != nil || events.ID(p) != id || rest != want {
				t.Errorf("after %s: %q, %v; want %q", id, rest, err, want)
			}
		}
	})
}

func TestParseIDRefusesOtherText(t *testing.T) {
	t.Parallel()
	const ok = "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d.7.ffffffffffffffff"
	if p, err := events.ParseID(ok); err != nil || events.ID(p) != ok {
		t.Fatalf("ParseID(%q) = %v, %v", ok, p, err)
	}
	for _, s := range []string{"", "7", ok + ".", ok + "0", strings.Replace(ok, ".7.", ".-7.", 1),
		strings.Replace(ok, ".7.", ".x.", 1), strings.Replace(ok, ".7.", ".99999999999999999999.", 1),
		strings.Replace(ok, "6f", "xx", 1), ok[:38] + "7"} {
		if _, err := events.ParseID(s); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseID(%q): %v, want Invalid", s, err)
		}
	}
}

func wantResync(t *testing.T, l *events.Log, after feed.Cursor, what string) {
	t.Helper()
	es, _, err := l.Read(t.Context(), after, true, 10)
	if !fault.Is(err, fault.Gone) || !fault.HasCode(err, "resync") || len(es) > 0 {
		t.Errorf("Read after %s: %d events, %v; want Gone with code resync", what, len(es), err)
	}
}

// TestLimits prunes by number and by age.
func TestLimits(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		few := events.Table
		few.Max = 10
		l := &events.Log{Outbox: outbox.In(d, few, outbox.Default(), discard, nil)}
		places := []feed.Cursor{head(t, l)}
		for i := range 25 {
			add(t, d, l, fmt.Sprint(i+1))
			places = append(places, head(t, l))
		}
		hourAgo := time.Now().Add(-time.Hour)
		if n, err := l.Prune(t.Context(), hourAgo); err != nil || n != 15 {
			t.Fatalf("Prune with 25 events of at most 10: %d, %v; want 15", n, err)
		}
		wantResync(t, l, places[14], "a removed event")
		if got := subjects(read(t, l, places[15], true)); got != "16 17 18 19 20 21 22 23 24 25" {
			t.Errorf("after the last event that was removed: %s", got)
		}
		// Three of those that are left are too old.
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE events SET at = at - 3600000001 WHERE position <= 18")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := l.Prune(t.Context(), time.Now().Add(-time.Hour)); err != nil || n != 3 {
			t.Errorf("Prune with 3 events too old: %d, %v", n, err)
		}
		wantResync(t, l, places[17], "an event that was too old")
		if got := subjects(read(t, l, places[18], true)); got != "19 20 21 22 23 24 25" {
			t.Errorf("after the events that were too old: %s", got)
		}
		if got := read(t, l, places[25], true); len(got) > 0 {
			t.Errorf("after the newest event: %+v", got)
		}
	})
}

// TestPlacesOfOtherHistories reads from places of a database that was set back, and of one that was restored.
func TestPlacesOfOtherHistories(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		first := func(c db.Config, fn func(d *db.DB, l *events.Log)) {
			d, err := db.Open(t.Context(), c, discard, nil)
			if err != nil {
				t.Fatal(err)
			}
			fn(d, open(d))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var kept, lost feed.Cursor
		first(c, func(d *db.DB, l *events.Log) {
			add(t, d, l, "1", "2")
			kept = head(t, l)
		})
		back := testkit.Clone(t, c)
		first(c, func(d *db.DB, l *events.Log) {
			add(t, d, l, "3")
			lost = head(t, l)
		})
		first(back, func(d *db.DB, l *events.Log) {
			wantResync(t, l, lost, "an event that was lost")
			add(t, d, l, "another third")
			wantResync(t, l, lost, "an event in whose place there is another")
			if got := subjects(read(t, l, kept, true)); got != "another third" {
				t.Errorf("after a shared event: %q", got)
			}
			feed := outbox.New(d, outbox.Default(), discard, nil)
			err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				return feed.Begin(tx).Append(ctx, "t", []byte("x"))
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := feed.Stamp(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantResync(t, l, kept, "an event of the database before it was restored")
		})
	})
}

// TestReaderAmongWriters reads while several writers commit and roll back: each committed event is read once, in order.
func TestReaderAmongWriters(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		follow(t, []*db.DB{d, d, d}, d)
	})
}

// TestNodesOnOneDatabase writes on two nodes and reads on both.
func TestNodesOnOneDatabase(t *testing.T) {
	t.Parallel()
	c := testkit.PostgresConfig(t)
	one, two := testkit.Open(t, c), testkit.Open(t, c)
	follow(t, []*db.DB{one, two}, one, two)
}

// follow lets each of the writers commit 20 transactions, and checks what readers of each of the databases get.
func follow(t *testing.T, writers []*db.DB, readers ...*db.DB) {
	const each = 20
	logs := map[*db.DB]*events.Log{}
	for _, d := range append(writers, readers...) {
		if logs[d] == nil {
			logs[d] = open(d)
		}
	}
	start := head(t, logs[readers[0]])
	var wg sync.WaitGroup
	got := make([][]api.Event, len(readers))
	for i, d := range readers {
		wg.Go(func() {
			at := start
			for len(got[i]) < each*len(writers) {
				page, next, err := logs[d].Read(t.Context(), at, true, 3)
				if err == nil && next == at {
					err = logs[d].Wait(t.Context(), at.Position)
				}
				if err != nil {
					t.Error(err)
					return
				}
				got[i], at = append(got[i], page...), next
			}
		})
	}
	failed := errors.New("rolled back")
	for w, d := range writers {
		wg.Go(func() {
			for n := range each {
				for _, end := range []error{failed, nil} {
					err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
						e := api.Event{Kind: "test.done", Subject: fmt.Sprintf("w%d", w), Items: int64(n)}
						if err := logs[d].Append(ctx, tx, e); err != nil {
							return err
						}
						return end
					})
					if (err == nil) != (end == nil) {
						t.Errorf("Update: %v, want %v", err, end)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range got {
		next := map[string]int64{}
		for _, e := range got[i] {
			if e.Items != next[e.Subject] {
				t.Fatalf("reader %d got event %d of %s, want %d", i, e.Items, e.Subject, next[e.Subject])
			}
			next[e.Subject]++
		}
		if diff := cmp.Diff(got[0], got[i]); diff != "" {
			t.Errorf("two readers got different sequences:\n%s", diff)
		}
	}
}

// TestCommitWakesReaderOfAnotherNode uses a poll interval so long that only a notification can end the wait in time.
func TestCommitWakesReaderOfAnotherNode(t *testing.T) {
	t.Parallel()
	c := testkit.PostgresConfig(t)
	one, two := testkit.Open(t, c), testkit.Open(t, c)
	rarely := outbox.Config{Poll: time.Hour, Keep: time.Hour}
	reader, writer := &events.Log{Outbox: outbox.In(one, events.Table, rarely, discard, nil)}, open(two)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { _ = reader.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	at := head(t, reader)
	waiting, woken := make(chan struct{}), make(chan error, 1)
	go func() {
		for first := true; ; first = false {
			es, next, err := reader.Read(ctx, at, true, 10)
			if first {
				close(waiting)
			}
			if err == nil && len(es) == 0 {
				err = reader.Wait(ctx, next.Position)
			}
			if err != nil || len(es) > 0 {
				woken <- err
				return
			}
		}
	}()
	<-waiting
	add(t, two, writer, "x")
	if err := <-woken; err != nil {
		t.Errorf("the reader was not woken: %v", err)
	}
}
