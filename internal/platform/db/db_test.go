package db_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
)

// scratch creates a table for bulk tests.
func scratch(t *testing.T, d *db.DB) *db.Table {
	t.Helper()
	key := "TEXT"
	if d.Driver() == db.Postgres {
		key = `TEXT COLLATE "C"`
	}
	update(t, d, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "CREATE TABLE scratch (k "+key+" NOT NULL PRIMARY KEY, n BIGINT NOT NULL, s TEXT)")
		return err
	})
	return &db.Table{Name: "scratch", Columns: []string{"k", "n", "s"}, Keys: 1}
}

func update(t *testing.T, d *db.DB, fn func(ctx context.Context, tx *db.Tx) error) {
	t.Helper()
	if err := d.Update(t.Context(), fn); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

type row struct {
	K string
	N int64
	S sql.NullString
}

func all(t *testing.T, d *db.DB) []row {
	t.Helper()
	var rows []row
	err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		rows = nil
		return tx.Query(ctx, func(r *sql.Rows) error {
			var x row
			if err := r.Scan(&x.K, &x.N, &x.S); err != nil {
				return err
			}
			rows = append(rows, x)
			return nil
		}, "SELECT k, n, s FROM scratch ORDER BY k")
	})
	if err != nil {
		t.Fatalf("View: %v", err)
	}
	return rows
}

func upsert(ctx context.Context, tx *db.Tx, tab *db.Table, rows []row) (int64, error) {
	return tx.Upsert(ctx, tab, len(rows), func(i int, dst []any) {
		dst[0], dst[1], dst[2] = rows[i].K, rows[i].N, rows[i].S
	})
}

func TestBulk(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		tab := scratch(t, d)
		// Sizes around both engines' chunk borders, and keys whose order shows the collation.
		for _, n := range []int{0, 1, 2, 199, 200, 201, 400, 1003} {
			rows := make([]row, n)
			for i := range rows {
				rows[i] = row{K: fmt.Sprintf("%c%05d", "aB_é-Z"[i%6], i), N: int64(i),
					S: sql.NullString{String: strings.Repeat("x", 1-min(1, i%3)), Valid: i%3 == 0}}
			}
			rand.Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			for range 2 { // the second run replaces every row with itself
				update(t, d, func(ctx context.Context, tx *db.Tx) error {
					got, err := upsert(ctx, tx, tab, rows)
					if err == nil && got != int64(n) {
						t.Errorf("Upsert of %d rows reports %d", n, got)
					}
					return err
				})
			}
			want := slices.Clone(rows)
			slices.SortFunc(want, func(a, b row) int { return strings.Compare(a.K, b.K) })
			if diff := cmp.Diff(want, all(t, d)); n > 0 && diff != "" {
				t.Fatalf("%d rows: stored rows differ (-want +got):\n%s", n, diff)
			}
			keys := []string{"not there"}
			for _, r := range rows {
				keys = append(keys, r.K)
			}
			found := map[string]int64{}
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				return tx.Find(ctx, tab, keys, true, func(r *sql.Rows) error {
					var x row
					err := r.Scan(&x.K, &x.N, &x.S)
					found[x.K] = x.N
					return err
				})
			})
			if len(found) != n {
				t.Errorf("Find of %d rows found %d", n, len(found))
			}
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				got, err := tx.Delete(ctx, tab, keys)
				if err == nil && got != int64(n) {
					t.Errorf("Delete of %d rows reports %d", n, got)
				}
				return err
			})
			if left := all(t, d); len(left) != 0 {
				t.Fatalf("%d rows left after Delete", len(left))
			}
		}
	})
}

func TestBulkGuardLeavesRowsAlone(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		tab := scratch(t, d)
		tab.Guard = "scratch.n < excluded.n"
		for _, n := range []int{10, 1000} { // VALUES and COPY
			var old, new []row
			for i := range n {
				old = append(old, row{K: fmt.Sprintf("%d-%05d", n, i), N: 5})
				new = append(new, row{K: fmt.Sprintf("%d-%05d", n, i), N: int64(5 + i%2)})
			}
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				_, err := upsert(ctx, tx, tab, old)
				return err
			})
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				got, err := upsert(ctx, tx, tab, new)
				if err == nil && got != int64(n/2) {
					t.Errorf("guarded Upsert of %d rows wrote %d, want %d", n, got, n/2)
				}
				return err
			})
		}
	})
}

func TestUpdateRollsBackOnErrorAndPanic(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		scratch(t, d)
		insert := func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO scratch (k, n) VALUES ('a', 1)")
			return err
		}
		want := fault.New(fault.Conflict, "Nope", "no")
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if err := insert(ctx, tx); err != nil {
				return err
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("Update: %v, want the function's own error", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				if err := insert(ctx, tx); err != nil {
					return err
				}
				panic("oops")
			})
		}()
		if rows := all(t, d); len(rows) != 0 {
			t.Errorf("rows stored by transactions that failed: %v", rows)
		}
		update(t, d, insert) // the connection is still good
	})
}

func TestConcurrentIncrementsAreAllCounted(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		scratch(t, d)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO scratch (k, n) VALUES ('a', 0), ('b', 0)")
			return err
		})
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 40 {
					first, second := "a", "b"
					if w == 0 && i%20 == 0 {
						first, second = second, first // provokes a deadlock, which a repetition must resolve
					}
					err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
						for _, k := range []string{first, second} {
							var n int64
							_, err := tx.QueryRow(ctx, "SELECT n FROM scratch WHERE k = $1"+tx.ForUpdate(),
								[]any{k}, &n)
							if err != nil {
								return err
							}
							if _, err := tx.Exec(ctx, "UPDATE scratch SET n = $1 WHERE k = $2", n+1, k); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Errorf("Update: %v", err)
					}
				}
			})
		}
		wg.Wait()
		for _, r := range all(t, d) {
			if r.N != 160 {
				t.Errorf("%s counted %d of 160 increments", r.K, r.N)
			}
		}
	})
}

func TestConcurrentInsertOfOneKeyIsRetried(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		scratch(t, d)
		taken := fault.New(fault.Conflict, "Taken", "taken")
		var wg sync.WaitGroup
		results := make([]error, 8)
		for i := range results {
			wg.Go(func() {
				results[i] = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
					var n int64
					found, err := tx.QueryRow(ctx, "SELECT n FROM scratch WHERE k = 'a'", nil, &n)
					if err != nil {
						return err
					}
					if found {
						return taken
					}
					_, err = tx.Exec(ctx, "INSERT INTO scratch (k, n) VALUES ('a', 1)")
					return err
				})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range results {
			if err == nil {
				won++
			} else if !errors.Is(err, taken) {
				t.Errorf("Update: %v, want the rule's own error", err)
			}
		}
		if won != 1 {
			t.Errorf("%d transactions stored the key, want 1", won)
		}
	})
}

func TestLastStepsRunInTheirOrder(t *testing.T) {
	t.Parallel()
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	var got []string
	update(t, d, func(ctx context.Context, tx *db.Tx) error {
		step := func(s string) func(context.Context) error {
			return func(context.Context) error { got = append(got, s); return nil }
		}
		tx.OnCommit(func() { got = append(got, "commit") })
		tx.Last(db.LastAudit, step("audit"))
		tx.Last(db.LastFeed, step("feed"))
		tx.Last(db.LastFeed, step("again")) // not taken: there is one of this rank
		got = append(got, "body")
		return nil
	})
	if want := []string{"body", "feed", "audit", "commit"}; !slices.Equal(got, want) {
		t.Errorf("steps ran as %v, want %v", got, want)
	}
}

func TestViewCannotWrite(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE feed_head SET position = 99")
			return err
		})
		if err == nil {
			t.Error("a View changed the database")
		}
	})
}

func TestDurabilityIsAsserted(t *testing.T) {
	t.Parallel()
	t.Run("sqlite syncs on every connection", func(t *testing.T) {
		t.Parallel()
		d := testkit.Open(t, testkit.SQLiteConfig(t))
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			var sync int
			var mode string
			if _, err := tx.QueryRow(ctx, "PRAGMA synchronous", nil, &sync); err != nil {
				return err
			}
			if _, err := tx.QueryRow(ctx, "PRAGMA journal_mode", nil, &mode); err != nil {
				return err
			}
			if sync != 2 || mode != "wal" {
				t.Errorf("synchronous %d, journal mode %q; want 2 (FULL) and wal", sync, mode)
			}
			return nil
		})
	})
	t.Run("postgres without fsync is refused", func(t *testing.T) {
		t.Parallel()
		c := testkit.PostgresConfig(t) // its server runs with fsync off
		c.AllowUnsafeDurability = false
		d, err := db.Open(t.Context(), c, discard, nil)
		if err == nil {
			d.Close()
			t.Fatal("a server with fsync off was accepted")
		}
		if !strings.Contains(err.Error(), "fsync") {
			t.Errorf("error %q does not name fsync", err)
		}
	})
	t.Run("postgres commits synchronously whatever the database's default", func(t *testing.T) {
		t.Parallel()
		c := testkit.PostgresConfig(t)
		d := testkit.Open(t, c)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			var name string
			if _, err := tx.QueryRow(ctx, "SELECT current_database()", nil, &name); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "ALTER DATABASE "+name+" SET synchronous_commit = off")
			return err
		})
		d = testkit.Open(t, c)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			var v string
			_, err := tx.QueryRow(ctx, "SHOW synchronous_commit", nil, &v)
			if v != "on" {
				t.Errorf("synchronous_commit is %q, want on", v)
			}
			return err
		})
	})
}

func TestOneProcessPerFile(t *testing.T) {
	t.Parallel()
	c := testkit.SQLiteConfig(t)
	testkit.Open(t, c)
	_, err := db.Open(t.Context(), c, discard, nil)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", pid())) {
		t.Errorf("opening a file twice: %v; want an error that names this process", err)
	}
	// A file that is not a database is refused and left as it is.
	dir := t.TempDir()
	c.File = filepath.Join(dir, "x")
	if err := exec.Command("sh", "-c", "head -c 20000 /dev/urandom > "+c.File).Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Open(t.Context(), c, discard, nil); err == nil {
		t.Error("a file of random bytes was opened as a database")
	}
}

func TestLockDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := db.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.LockDir(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("second LockDir: %v, want an error that names the directory", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = db.LockDir(dir); err != nil {
		t.Fatalf("LockDir after Close: %v", err)
	}
	l.Close()
}

func TestCancelledCallerGetsItsOwnError(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			cancel()
			_, err := tx.Exec(ctx, "UPDATE feed_head SET position = 7")
			return err
		})
		if !errors.Is(err, context.Canceled) || fault.Is(err, fault.Unavailable) {
			t.Errorf("Update of a caller that cancelled: %v, want context.Canceled", err)
		}
		if s := d.Status(); !s.Available || !s.Writable {
			t.Errorf("the status after a caller cancelled: %+v", s)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*db.Config)
		target string
	}{
		"unknown driver":      {func(c *db.Config) { c.Driver = "oracle" }, "driver"},
		"postgres, no url":    {func(c *db.Config) { c.Driver = db.Postgres }, "url"},
		"url of another kind": {func(c *db.Config) { c.Driver, c.URL = db.Postgres, "http://x:secret@y" }, "url"},
		"sqlite with url":     {func(c *db.Config) { c.URL = "postgres://" }, "url"},
		"postgres with file": {func(c *db.Config) {
			c.Driver, c.URL, c.File = db.Postgres, "postgres://127.0.0.1", "f"
		}, "file"},
		"no connections": {func(c *db.Config) { c.MaxConnections = 0 }, "maxConnections"},
		"no time":        {func(c *db.Config) { c.ProbeTimeout = 0 }, "probeTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := db.Default()
			if errs := conf.Validate(); len(errs) != 0 {
				t.Fatalf("the default is refused: %v", errs)
			}
			c.change(&conf)
			errs := conf.Validate()
			if len(errs) != 1 || fault.As(errs[0]).Target != c.target {
				t.Errorf("Validate: %v, want one error at %s", errs, c.target)
			}
			if strings.Contains(fmt.Sprint(errs), "secret") {
				t.Errorf("the error shows the password: %v", errs)
			}
		})
	}
}
