package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/testkit"
)

var discard = slog.New(slog.DiscardHandler)

func open(d *db.DB) *outbox.Outbox { return outbox.New(d, outbox.Default(), discard, nil) }

// start returns the place before all entries of o's database.
func start(t testing.TB, o *outbox.Outbox) feed.Cursor {
	t.Helper()
	head, err := o.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return feed.Cursor{Database: head.Database}
}

// appendTo appends entries in one transaction and returns the position of the last.
func appendTo(t testing.TB, d *db.DB, o *outbox.Outbox, payloads ...string) feed.Position {
	t.Helper()
	var b *outbox.Batch
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		b = o.Begin(tx)
		for _, p := range payloads {
			if err := b.Append(ctx, "t", []byte(p)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return b.Position()
}

func TestEntriesComeBackInOrder(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		if p := appendTo(t, d, o); p != 0 {
			t.Errorf("a transaction without entries took position %d", p)
		}
		for i := 1; i <= 9; i += 3 {
			if p := appendTo(t, d, o, fmt.Sprint(i), fmt.Sprint(i+1), fmt.Sprint(i+2)); p != feed.Position(i+2) {
				t.Errorf("position %d, want %d", p, i+2)
			}
		}
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if err := o.Begin(tx).Append(ctx, "t", []byte("lost")); err != nil {
				return err
			}
			return fault.New(fault.Invalid, "Rolled", "back")
		})
		if !fault.HasCode(err, "Rolled") {
			t.Fatal(err)
		}
		var got []string
		ids := map[int64]bool{}
		after := start(t, o)
		for {
			p, err := o.Read(t.Context(), "t", after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Entries) == 0 {
				break
			}
			for i, e := range p.Entries {
				got = append(got, string(e.Payload))
				if e.Position != after.Position+1+feed.Position(i) || e.Topic != "t" ||
					time.Since(e.At) > time.Minute || ids[e.ID] {
					t.Errorf("entry %d after %v: %+v", i, after, e)
				}
				ids[e.ID] = true
			}
			last := p.Entries[len(p.Entries)-1]
			if want := (feed.Cursor{Database: after.Database, Position: last.Position,
				Entry: last.ID}); p.Next != want {
				t.Errorf("the page ends at %v, want %v", p.Next, want)
			}
			after = p.Next
		}
		if want := "[1 2 3 4 5 6 7 8 9]"; fmt.Sprint(got) != want {
			t.Errorf("read %v, want %s", got, want)
		}
		// A reader of another topic does not fall behind: its next place is the head.
		if p, err := o.Read(t.Context(), "other", start(t, o), 10); err != nil || len(p.Entries) != 0 ||
			p.Next != after || p.Head != after {
			t.Errorf("another topic: %+v, %v", p, err)
		}
		if h, err := o.Head(t.Context()); err != nil || h != after || h.Position != 9 {
			t.Errorf("head %v, %v; want %v", h, err, after)
		}
	})
}

// TestReadersMissNothing runs writers, some of which roll back and some of which are slow, and a reader that always
// continues from the last position it saw: it must see every entry once, in the order of positions, without a gap.
func TestReadersMissNothing(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		const writers, each = 8, 15
		done := make(chan struct{})
		seen := make(map[string]bool)
		var reader sync.WaitGroup
		reader.Go(func() {
			last := false
			for after := start(t, o); ; {
				p, err := o.Read(t.Context(), "t", after, 7)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				for i, e := range p.Entries {
					if e.Position != after.Position+1+feed.Position(i) {
						t.Errorf("read position %d after %v", e.Position, after)
					}
					if seen[string(e.Payload)] {
						t.Errorf("read %s twice", e.Payload)
					}
					seen[string(e.Payload)] = true
				}
				after = p.Next
				if len(p.Entries) > 0 {
					continue
				}
				if last {
					return
				}
				select {
				case <-done:
					last = true
				default:
					if err := o.Wait(t.Context(), after.Position); err != nil {
						return
					}
				}
			}
		})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
						b := o.Begin(tx)
						for k := range 1 + i%3 {
							if err := b.Append(ctx, "t", fmt.Appendf(nil, "%d-%d-%d", w, i, k)); err != nil {
								return err
							}
						}
						if w%2 == 0 {
							// Work between taking a place in the transaction and committing.
							var n int64
							if _, err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM feed", nil, &n); err != nil {
								return err
							}
						}
						if i%5 == 4 {
							return fault.New(fault.Conflict, "Rolled", "back")
						}
						return nil
					})
					if err != nil && !fault.HasCode(err, "Rolled") {
						t.Errorf("append: %v", err)
					}
				}
			})
		}
		wg.Wait()
		close(done)
		reader.Wait()
		want := 0
		for i := range each {
			if i%5 != 4 {
				want += writers * (1 + i%3)
			}
		}
		if len(seen) != want {
			t.Errorf("read %d entries, want %d", len(seen), want)
		}
	})
}

func TestLargeTransactionsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		appendTo(t, d, o, "first")
		// 5 MiB in one transaction, many times what is held in memory, with a small remainder.
		const n = 83
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			b := o.Begin(tx)
			for i := range n {
				if err := b.Append(ctx, "t", append(bytes.Repeat([]byte{'x'}, 64<<10), fmt.Sprint(i)...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if p := appendTo(t, d, o, "last"); p != n+2 {
			t.Errorf("position after %d entries: %d, want %d", n+1, p, n+2)
		}
		p, err := o.Read(t.Context(), "t", start(t, o), 1000)
		if err != nil || len(p.Entries) != n+2 {
			t.Fatalf("read %d entries, %v; want %d", len(p.Entries), err, n+2)
		}
		for i, e := range p.Entries[1 : n+1] {
			if e.Position != feed.Position(i+2) || string(e.Payload[64<<10:]) != fmt.Sprint(i) {
				t.Fatalf("entry %d is at %d and says %q", i, e.Position, e.Payload[64<<10:])
			}
		}
	})
}

// places returns the cursor of every position of a feed, from 0 to its head.
func places(t *testing.T, o *outbox.Outbox) []feed.Cursor {
	t.Helper()
	all := []feed.Cursor{start(t, o)}
	for {
		p, err := o.Read(t.Context(), "t", all[len(all)-1], 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Entries) == 0 {
			return all
		}
		all = append(all, p.Next)
	}
}

// reads checks what Read returns for a cursor.
func reads(t *testing.T, o *outbox.Outbox, after feed.Cursor, want error) {
	t.Helper()
	p, err := o.Read(t.Context(), "t", after, 10)
	if !errors.Is(err, want) {
		t.Errorf("Read after %+v: %v, want %v", after, err, want)
	}
	if head, herr := o.Head(t.Context()); herr != nil || p.Head != head {
		t.Errorf("Read after %+v says head %+v, want %+v (%v)", after, p.Head, head, herr)
	}
	if err != nil && len(p.Entries) > 0 {
		t.Errorf("Read after %+v: %d entries with error %v", after, len(p.Entries), err)
	}
}

func TestPruneLeavesAGapThatReadersSee(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		for i := range 5 {
			appendTo(t, d, o, fmt.Sprint(i))
		}
		at := places(t, o)
		before := time.Now().Add(time.Millisecond)
		update(t, d, "UPDATE feed SET at = at - 3600000000 WHERE position <= 3")
		if n, err := o.Prune(t.Context(), before.Add(-time.Hour)); err != nil || n != 3 {
			t.Fatalf("Prune: %d, %v; want 3", n, err)
		}
		for after, want := range []error{feed.ErrGap, feed.ErrGap, feed.ErrGap, nil, nil, nil} {
			reads(t, o, at[after], want)
		}
		// The id at the place of pruning is still known: another history is detected there too.
		other := at[3]
		other.Entry++
		reads(t, o, other, feed.ErrFork)
		if p := appendTo(t, d, o, "x"); p != 6 {
			t.Errorf("position after pruning: %d, want 6", p)
		}
		head, err := o.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := o.Prune(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 3 {
			t.Errorf("Prune of everything: %d, %v; want 3", n, err)
		}
		if h, err := o.Head(t.Context()); err != nil || h != head {
			t.Errorf("head after pruning everything: %v, %v; want %v", h, err, head)
		}
		reads(t, o, head, nil)
		reads(t, o, at[5], feed.ErrGap)
		head.Entry++
		reads(t, o, head, feed.ErrFork)
	})
}

// TestReadVerifiesThePlace forks a history at every position, and reads from the places of the lost history and of
// another database: reading continues from shared places, all others are refused, before and after pruning.
func TestReadVerifiesThePlace(t *testing.T) {
	t.Parallel()
	const length = 4
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		fork := []db.Config{testkit.Clone(t, c)} // as it was at each position
		for i := range length {
			with(t, c, func(d *db.DB, o *outbox.Outbox) { appendTo(t, d, o, fmt.Sprint("old", i)) })
			fork = append(fork, testkit.Clone(t, c))
		}
		var lost []feed.Cursor
		with(t, c, func(_ *db.DB, o *outbox.Outbox) { lost = places(t, o) })
		for at, c := range fork {
			with(t, c, func(d *db.DB, o *outbox.Outbox) {
				check := func() {
					t.Helper()
					for p, cursor := range lost {
						want := error(nil)
						if p > at {
							want = feed.ErrFork
						}
						reads(t, o, cursor, want)
						cursor.Database = "c0ffee00-0000-4000-8000-000000000000"
						reads(t, o, cursor, feed.ErrOtherDatabase)
					}
					reads(t, o, feed.Cursor{}, feed.ErrOtherDatabase)
				}
				check()
				for i := at; i < length+1; i++ {
					appendTo(t, d, o, fmt.Sprint("new", i))
					check()
				}
				// Pruned up to the first entry of the new history: reading cannot continue from the old one.
				update(t, d, fmt.Sprintf("UPDATE feed SET at = 0 WHERE position <= %d", at+1))
				if _, err := o.Prune(t.Context(), time.UnixMicro(1)); err != nil {
					t.Fatal(err)
				}
				for p, cursor := range lost {
					want := feed.ErrFork
					if p <= at {
						want = feed.ErrGap
					}
					reads(t, o, cursor, want)
				}
			})
		}
	})
}

// with opens a database for fn alone.
func with(t *testing.T, c db.Config, fn func(*db.DB, *outbox.Outbox)) {
	t.Helper()
	d, err := db.Open(t.Context(), c, discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	fn(d, open(d))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStampMakesAnotherDatabase: after a restore no place known before belongs to the database, which the audit log
// records.
func TestStampMakesAnotherDatabase(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		appendTo(t, d, o, "1", "2")
		before := places(t, o)
		identity, err := o.Stamp(domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "local:test"}))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range before {
			reads(t, o, c, feed.ErrOtherDatabase)
			c.Database = identity
			reads(t, o, c, nil)
		}
		rows := testkit.AuditLog(t, d)
		for _, r := range rows {
			if r.Action != "database.restore" || r.Target != identity || r.Actor.ID != "local:test" ||
				!strings.Contains(r.Summary, before[0].Database) {
				t.Errorf("audit row %+v", r)
			}
		}
		if len(rows) != 1 {
			t.Errorf("%d audit rows, want 1", len(rows))
		}
		if rep, err := d.VerifyAudit(t.Context()); err != nil || rep.Break != nil {
			t.Errorf("audit chain: %+v, %v", rep.Break, err)
		}
	})
}

// TestMigrationGivesIdentities upgrades a database with the first schema that has entries, two of them pruned.
func TestMigrationGivesIdentities(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		file, err := os.ReadFile("../../db/migrations/" + c.Driver + "/00001_feed_and_audit.sql")
		if err != nil {
			t.Fatal(err)
		}
		with(t, c, func(d *db.DB, _ *outbox.Outbox) {
			if c.Driver == db.Postgres {
				update(t, d, "DROP SCHEMA public CASCADE")
				update(t, d, "CREATE SCHEMA public")
				update(t, d, "CREATE TABLE goose_db_version (id INT PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, "+
					"version_id BIGINT NOT NULL, is_applied BOOLEAN NOT NULL, tstamp TIMESTAMP NOT NULL DEFAULT now())")
			} else {
				update(t, d, "DROP VIEW schema_info")
				for _, name := range tables(t, d) {
					update(t, d, "DROP TABLE "+name)
				}
				update(t, d, "CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, "+
					"version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, "+
					"tstamp TIMESTAMP DEFAULT (datetime('now')))")
			}
			schema := regexp.MustCompile("(?m)--.*$").ReplaceAllString(string(file), "")
			for statement := range strings.SplitSeq(schema, ";") {
				if strings.TrimSpace(statement) != "" {
					update(t, d, statement)
				}
			}
			update(t, d, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, '1'), (1, '1')")
			update(t, d, "INSERT INTO feed (position, topic, at, payload) "+
				"VALUES (3, 't', 5, 'three'), (4, 't', 6, 'four'), (5, 't', 7, 'five')")
			update(t, d, "UPDATE feed_head SET position = 5, pruned = 2")
		})
		var identities []string
		for _, c := range []db.Config{testkit.Clone(t, c), testkit.Clone(t, c)} {
			with(t, c, func(d *db.DB, o *outbox.Outbox) {
				head, err := o.Head(t.Context())
				if err != nil || head.Position != 5 || head.Entry == 0 {
					t.Errorf("head %+v, %v", head, err)
				}
				if _, err := uuid.Parse(head.Database); err != nil || len(head.Database) != 36 {
					t.Errorf("identity %q: %v", head.Database, err)
				}
				identities = append(identities, head.Database)
				p, err := o.Read(t.Context(), "t", feed.Cursor{Database: head.Database, Position: 2}, 10)
				if err != nil || len(p.Entries) != 3 || p.Next != head {
					t.Fatalf("entries from before the upgrade: %+v, %v", p, err)
				}
				for i, want := range []string{"three", "four", "five"} {
					if e := p.Entries[i]; string(e.Payload) != want || e.ID == 0 || e.At.UnixMicro() != int64(5+i) {
						t.Errorf("entry %+v, want %s", e, want)
					}
				}
				if p.Entries[0].ID == p.Entries[1].ID {
					t.Error("two entries have the same id")
				}
				if next := appendTo(t, d, o, "six"); next != 6 {
					t.Errorf("the next position is %d, want 6", next)
				}
			})
		}
		if identities[0] == identities[1] {
			t.Error("two databases upgraded separately have the same identity")
		}
	})
}

// tables lists the tables of an SQLite database.
func tables(t *testing.T, d *db.DB) (names []string) {
	t.Helper()
	err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.Query(ctx, func(r *sql.Rows) error {
			names = append(names, "")
			return r.Scan(&names[len(names)-1])
		}, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestEntriesOfTheVersionBeforeHaveIDs: nodes are upgraded one after the other, and those of the previous version set
// no entry id.
func TestEntriesOfTheVersionBeforeHaveIDs(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		ids := map[int64]bool{}
		for i := range 20 {
			update(t, d, "UPDATE feed_head SET position = position + 1")
			update(t, d, fmt.Sprintf("INSERT INTO feed (position, topic, at, payload) VALUES (%d, 't', 1, '')", i+1))
		}
		for _, c := range places(t, o)[1:] {
			ids[c.Entry] = true
		}
		if len(ids) != 20 || ids[0] {
			t.Errorf("20 entries have the ids %v", ids)
		}
	})
}

func update(t *testing.T, d *db.DB, statement string) {
	t.Helper()
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, statement)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWaitAsksNothingOfTheDatabase waits in fake time, without a database.
func TestWaitAsksNothingOfTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.New(nil, outbox.Default(), discard, nil)
		start := time.Now()
		if err := o.Wait(t.Context(), 0); err != nil || time.Since(start) != 250*time.Millisecond {
			t.Errorf("Wait: %v after %v, want nil after the poll interval", err, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.Wait(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait of a caller that cancelled: %v", err)
		}
	})
}

// TestCommitWakesReaders uses a poll interval so long that only a notification can end the wait in time: of a commit in
// the same process, and on PostgreSQL of one in another (here, over another handle).
func TestCommitWakesReaders(t *testing.T) {
	t.Parallel()
	conf := outbox.Default()
	conf.Poll = time.Hour
	wakes := func(t *testing.T, d *db.DB, reader *outbox.Outbox, writer *outbox.Outbox) {
		t.Helper()
		head, err := reader.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		woken := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			for {
				if err := reader.Wait(ctx, head.Position); err != nil {
					woken <- err
					return
				}
				p, err := reader.Read(ctx, "t", head, 1)
				if err != nil || len(p.Entries) > 0 {
					woken <- err
					return
				}
			}
		}()
		appendTo(t, d, writer, "x")
		if err := <-woken; err != nil {
			t.Errorf("a waiting reader was not woken: %v", err)
		}
	}
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := outbox.New(d, conf, discard, nil)
		for range 3 {
			wakes(t, d, o, o)
		}
	})
	t.Run("another process", func(t *testing.T) {
		t.Parallel()
		c := testkit.PostgresConfig(t)
		d1, d2 := testkit.Open(t, c), testkit.Open(t, c)
		reader, writer := outbox.New(d1, conf, discard, nil), outbox.New(d2, conf, discard, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = reader.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		for range 3 {
			wakes(t, d2, reader, writer)
		}
	})
}

// TestWaitAfterEntriesWereLost: a reader that had not read the lost entries waits for new ones and does not loop.
func TestWaitAfterEntriesWereLost(t *testing.T) {
	t.Parallel()
	conf := outbox.Default()
	conf.Poll = time.Minute
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := outbox.New(d, conf, discard, nil)
		appendTo(t, d, o, "a")
		place, err := o.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		appendTo(t, d, o, "b", "c") // this process knows them; the reader has not read them
		update(t, d, "DELETE FROM feed WHERE position > 1")
		update(t, d, "UPDATE feed_head SET position = 1")

		page, err := o.Read(t.Context(), "t", place, 10)
		if err != nil || len(page.Entries) > 0 || page.Next != place {
			t.Fatalf("Read = %+v, %v; want no entries", page, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := o.Wait(ctx, page.Next.Position); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v before anything was written", err)
		}
	})
}

func TestReadReportsThatTheDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	c := db.Default()
	c.Driver, c.URL = db.Postgres, "postgres://postgres@/nothing?host="+t.TempDir()
	o := open(testkit.Open(t, c))
	if _, err := o.Read(t.Context(), "t", feed.Cursor{}, 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Read: %v, want Unavailable", err)
	}
	if err := o.Wait(t.Context(), 0); err != nil {
		t.Errorf("Wait: %v", err)
	}
}
