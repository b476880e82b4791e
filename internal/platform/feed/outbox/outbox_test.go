package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/testkit"
)

var discard = slog.New(slog.DiscardHandler)

func open(d *db.DB) *outbox.Outbox { return outbox.New(d, outbox.Default(), discard, nil) }

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
		after := feed.Position(0)
		for {
			es, err := o.Read(t.Context(), "t", after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				got = append(got, string(e.Payload))
				if e.Position != after+1 || e.Topic != "t" || time.Since(e.At) > time.Minute {
					t.Errorf("entry after %d: %+v", after, e)
				}
				after = e.Position
			}
		}
		if want := "[1 2 3 4 5 6 7 8 9]"; fmt.Sprint(got) != want {
			t.Errorf("read %v, want %s", got, want)
		}
		if es, err := o.Read(t.Context(), "other", 0, 10); err != nil || len(es) != 0 {
			t.Errorf("another topic: %v, %v", es, err)
		}
		if h, err := o.Head(t.Context()); err != nil || h != 9 {
			t.Errorf("head %d, %v; want 9", h, err)
		}
	})
}

// TestReadersMissNothing runs writers of which some roll back and some are slow, and a reader that always goes on from
// the last position it saw: it must see every entry once, in the order of positions, without a hole.
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
			for after := feed.Position(0); ; {
				es, err := o.Read(t.Context(), "t", after, 7)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				for _, e := range es {
					if e.Position != after+1 {
						t.Errorf("read position %d after %d", e.Position, after)
					}
					after = e.Position
					if seen[string(e.Payload)] {
						t.Errorf("read %s twice", e.Payload)
					}
					seen[string(e.Payload)] = true
				}
				if len(es) > 0 {
					continue
				}
				if last {
					return
				}
				select {
				case <-done:
					last = true
				default:
					if err := o.Wait(t.Context(), after); err != nil {
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
		// 5 MiB in one transaction, many times what is held in memory, with a small rest.
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
		es, err := o.Read(t.Context(), "t", 1, 1000)
		if err != nil || len(es) != n+1 {
			t.Fatalf("read %d entries, %v; want %d", len(es), err, n+1)
		}
		for i, e := range es[:n] {
			if e.Position != feed.Position(i+2) || string(e.Payload[64<<10:]) != fmt.Sprint(i) {
				t.Fatalf("entry %d is at %d and says %q", i, e.Position, e.Payload[64<<10:])
			}
		}
	})
}

func TestPruneLeavesAGapThatReadersSee(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		o := open(d)
		for i := range 5 {
			appendTo(t, d, o, fmt.Sprint(i))
		}
		before := time.Now().Add(time.Millisecond)
		update(t, d, "UPDATE feed SET at = at - 3600000000 WHERE position <= 3")
		if n, err := o.Prune(t.Context(), before.Add(-time.Hour)); err != nil || n != 3 {
			t.Fatalf("Prune: %d, %v; want 3", n, err)
		}
		for after, want := range map[feed.Position]error{0: feed.ErrGap, 2: feed.ErrGap, 3: nil, 5: nil, 6: feed.ErrGap} {
			if _, err := o.Read(t.Context(), "t", after, 10); !errors.Is(err, want) {
				t.Errorf("Read after %d: %v, want %v", after, err, want)
			}
		}
		if p := appendTo(t, d, o, "x"); p != 6 {
			t.Errorf("position after pruning: %d, want 6", p)
		}
		if n, err := o.Prune(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 3 {
			t.Errorf("Prune of everything: %d, %v; want 3", n, err)
		}
		if h, err := o.Head(t.Context()); err != nil || h != 6 {
			t.Errorf("head after pruning everything: %d, %v; want 6", h, err)
		}
		if _, err := o.Read(t.Context(), "t", 6, 10); err != nil {
			t.Errorf("Read at the head after pruning everything: %v", err)
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

// TestWaitAsksNothingOfTheDatabase waits by fake time, without any database.
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
			t.Errorf("Wait of a caller that gave up: %v", err)
		}
	})
}

// TestCommitWakesReaders uses a poll interval so long that only a wake-up can end the wait in time: of a commit in the
// same process, and on PostgreSQL of one in another (here, over another handle).
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
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		go func() {
			for {
				if err := reader.Wait(ctx, head); err != nil {
					woken <- err
					return
				}
				es, err := reader.Read(ctx, "t", head, 1)
				if err != nil || len(es) > 0 {
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

func TestReadSaysThatTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	c := db.Default()
	c.Driver, c.URL = db.Postgres, "postgres://postgres@/nothing?host="+t.TempDir()
	o := open(testkit.Open(t, c))
	if _, err := o.Read(t.Context(), "t", 0, 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Read: %v, want Unavailable", err)
	}
	if err := o.Wait(t.Context(), 0); err != nil {
		t.Errorf("Wait: %v", err)
	}
}
