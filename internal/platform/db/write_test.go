package db_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/store"
	"github.com/tandemgw/tandem/internal/testkit"
)

// served is a database as a node uses it: joined and monitored.
type served struct {
	*db.DB
	reg  *prometheus.Registry
	stop func() // stops Run and closes the database
}

func serve(t *testing.T, c db.Config, node string) *served {
	t.Helper()
	s := &served{reg: prometheus.NewRegistry()}
	var err error
	if s.DB, err = db.Open(t.Context(), c, discard, s.reg, store.Schemas()...); err != nil {
		t.Fatal(err)
	}
	if err := s.Join(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		_ = s.Close() // the file may be gone
	})
	t.Cleanup(s.stop)
	return s
}

// until waits until the status is as wanted. The limit is far beyond what is promised: test machines are busy.
func (s *served) until(t *testing.T, what string, ok func(db.Status) bool) db.Status {
	t.Helper()
	at := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(60 * time.Second); ; {
		if x := s.Status(); ok(x) {
			t.Logf("%s: after %v", what, time.Since(at).Round(time.Millisecond))
			return x
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: never; the status is %+v", what, s.Status())
		}
	}
}

// fails waits until the database accepts no writes, for the reason wanted, and checks the metrics.
func (s *served) fails(t *testing.T, what, cause string, available bool) {
	t.Helper()
	x := s.until(t, what, func(x db.Status) bool { return !x.Writable && x.Available == available })
	if !strings.Contains(x.Cause, cause) || x.Where == "" || x.Since.IsZero() {
		t.Errorf("%s: the status is %+v, want a cause with %q", what, x, cause)
	}
	want := fmt.Sprintf(""+
		"# HELP tandem_db_writable 1 while the database accepts writes, checked by a write every 2 s.\n"+
		"# TYPE tandem_db_writable gauge\n"+
		"tandem_db_writable 0\n"+
		"# HELP tandem_db_up 1 while the database answers and is not damaged.\n"+
		"# TYPE tandem_db_up gauge\n"+
		"tandem_db_up %d\n", map[bool]int{true: 1}[available])
	err := testutil.GatherAndCompare(s.reg, strings.NewReader(want), "tandem_db_writable", "tandem_db_up")
	if err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(s.reg, "tandem_db_failing_since_timestamp_seconds"); err != nil || n != 1 {
		t.Errorf("%s: %d samples of the time of the failure (%v)", what, n, err)
	}
}

func (s *served) works(t *testing.T, what string) {
	t.Helper()
	x := s.until(t, what, func(x db.Status) bool { return x.Writable && x.Available })
	if x.Cause != "" {
		t.Errorf("%s: %+v", what, x)
	}
	if n, err := testutil.GatherAndCount(s.reg, "tandem_db_failing_since_timestamp_seconds"); err != nil || n != 0 {
		t.Errorf("%s: %d samples of the time of the failure (%v)", what, n, err)
	}
}

// refuses checks that an insert is refused with Unavailable and a RetryAfter.
func (s *served) refuses(t *testing.T, what string) {
	t.Helper()
	err := s.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO rate_limits (bucket, state) VALUES ($1, 1)",
			what+strings.Repeat("x", 100_000))
		return err
	})
	if f := fault.As(err); f == nil || f.Kind != fault.Unavailable || f.RetryAfter <= 0 {
		t.Errorf("%s: a write got %v, want Unavailable with a RetryAfter", what, err)
	}
}

func TestWritesAreProvedOnSQLite(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*served, string) {
		t.Parallel()
		c := testkit.SQLiteConfig(t)
		return serve(t, c, "n1"), c.File
	}
	for name, bytes := range map[string][2]int64{"header": {0, 16}, "first pages": {0, 8 * 4096},
		"every page but the first": {4096, 1 << 30}} {
		t.Run("damaged "+name, func(t *testing.T) {
			d, file := setup(t)
			d.works(t, "untouched")
			for i := range 200 { // so that the file contains what the log held
				update(t, d.DB, func(ctx context.Context, tx *db.Tx) error {
					_, err := tx.Exec(ctx, "INSERT INTO rate_limits (bucket, state) VALUES ($1, 1)",
						fmt.Sprint(i, strings.Repeat("y", 100_000)))
					return err
				})
			}
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, last := bytes[0], min(bytes[0]+bytes[1], int64(len(good)))
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(strings.Repeat("damage! ", int(last-first)/8)), first); err != nil {
				t.Fatal(err)
			}
			d.fails(t, "damaged", "", false)
			if x := d.Status(); !strings.Contains(x.Cause, "damaged") && !strings.Contains(x.Cause, "malformed") &&
				!strings.Contains(x.Cause, "not a database") {
				t.Errorf("the cause is %q", x.Cause)
			}
			d.refuses(t, "damaged")
			if _, err := f.WriteAt(good[first:last], first); err != nil {
				t.Fatal(err)
			}
			d.works(t, "repaired")
			update(t, d.DB, func(ctx context.Context, tx *db.Tx) error { tx.Audit(record(1)); return nil })
		})
	}
	t.Run("found by a transaction", func(t *testing.T) {
		d, _ := setup(t)
		update(t, d.DB, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "CREATE TABLE other (x)")
			return err
		})
		d.works(t, "untouched")
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "PRAGMA writable_schema = ON; "+
				"UPDATE sqlite_master SET rootpage = 999999 WHERE name = 'other'; "+
				"PRAGMA writable_schema = RESET; SELECT * FROM other")
			return err
		})
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("a transaction that found damage got %v", err)
		}
	})
	t.Run("removed", func(t *testing.T) {
		d, file := setup(t)
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		d.fails(t, "removed", "removed or replaced", false)
		d.refuses(t, "removed")
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
		d.works(t, "put back")
	})
	t.Run("disk full", func(t *testing.T) {
		t.Parallel()
		c := testkit.SQLiteConfig(t)
		disk := testkit.SmallDisk(t, 8)
		c.File = disk + "/tandem.db"
		d := serve(t, c, "n1")
		d.works(t, "empty disk")
		empty := testkit.FillDisk(t, disk)
		d.fails(t, "full disk", "no space left on device", true)
		d.refuses(t, "full disk")
		empty()
		d.works(t, "room again")
	})
}

func TestWritesAreProvedOnPostgres(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	conf := db.Default() // with the timeouts of production
	conf.Driver, conf.URL = db.Postgres, c.CreateOwned(t, "tandem", "tandem")
	d := serve(t, conf, "n1")
	d.works(t, "untouched")

	c.Admin(t, "postgres", "ALTER SYSTEM SET default_transaction_read_only = on")
	c.Admin(t, "postgres", "SELECT pg_reload_conf()")
	d.fails(t, "read-only", "read-only transaction", true)
	d.refuses(t, "read-only")
	c.Admin(t, "postgres", "ALTER SYSTEM RESET default_transaction_read_only")
	c.Admin(t, "postgres", "SELECT pg_reload_conf()")
	d.works(t, "read-write")

	c.Admin(t, "tandem", "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tandem")
	d.fails(t, "everything revoked", "permission denied", true)
	d.refuses(t, "everything revoked")
	c.Admin(t, "tandem", "GRANT ALL ON ALL TABLES IN SCHEMA public TO tandem")
	d.works(t, "granted")
}

// TestProofsAreFew counts what the write check makes: one row, no feed entry, no audit row, at most one write in 2 s.
func TestProofsAreFew(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		if err := d.Join(t.Context(), "n7"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		counting := []string{"CREATE TABLE proofs (id BIGINT)",
			"CREATE TRIGGER proofs AFTER UPDATE ON nodes BEGIN INSERT INTO proofs VALUES (1); END"}
		if d.Driver() == db.Postgres {
			counting = []string{counting[0],
				"CREATE FUNCTION proof() RETURNS trigger LANGUAGE plpgsql AS " +
					"$$BEGIN INSERT INTO proofs VALUES (1); RETURN NEW; END$$",
				"CREATE TRIGGER proofs AFTER UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION proof()"}
		}
		for _, s := range counting {
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				_, err := tx.Exec(ctx, s)
				return err
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := d.Run(ctx); err != nil {
			t.Fatal(err)
		}
		var rows, feed, audit, written, proofs int64
		err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.QueryRow(ctx, "SELECT (SELECT COUNT(*) FROM nodes WHERE id = 'n7'), "+
				"(SELECT COUNT(*) FROM feed), (SELECT COUNT(*) FROM audit), "+
				"(SELECT MAX(written) FROM nodes), (SELECT COUNT(*) FROM proofs)",
				nil, &rows, &feed, &audit, &written, &proofs)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if rows != 1 || feed != 0 || audit != 0 {
			t.Errorf("%d rows of the node, %d feed entries, %d audit rows; want 1, 0, 0", rows, feed, audit)
		}
		if most := int64(time.Since(began)/(2*time.Second)) + 1; proofs > most {
			t.Errorf("%d writes in %v, want at most %d", proofs, time.Since(began), most)
		}
		if !time.UnixMicro(written).After(began) {
			t.Errorf("Run wrote nothing")
		}
	})
}

func TestSecondNodeWithTheSameIDIsRefused(t *testing.T) {
	t.Parallel()
	c := testkit.PostgresConfig(t)
	first := serve(t, c, "n1")
	if x := first.Status(); x.Rival != "" {
		t.Fatalf("alone: %+v", x)
	}
	serve(t, c, "n2") // another id is no conflict

	other := testkit.Open(t, c)
	err := other.Join(t.Context(), "n1")
	for _, want := range []string{`"n1"`, "calls.node", "server process"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the second n1 got %v, want an error that says %q", err, want)
		}
	}
	if x := first.Status(); !x.Writable || x.Rival != "" {
		t.Errorf("the first n1 noticed the refusal: %+v", x)
	}
}

// TestKilledNodeReturnsWhileWritesHang: the server continues with the last write of a node that was killed, possibly
// forever (here it waits for a standby that does not exist). That must not keep the node from starting again.
func TestKilledNodeReturnsWhileWritesHang(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	conf := db.Default()
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	again := testkit.Open(t, conf)

	via, kill := throughSocket(t, filepath.Join(c.Dir, ".s.PGSQL.5432"))
	killed := conf
	killed.URL = strings.Replace(conf.URL, c.Dir, via, 1)
	killed.ProbeTimeout = time.Minute // its write is not cancelled before it is killed
	d := serve(t, killed, "n1")
	d.works(t, "untouched")
	c.Admin(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	c.Admin(t, "postgres", "SELECT pg_reload_conf()")
	hanging := func(db.Status) (yes bool) {
		err := again.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep')",
				nil, &yes)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	d.until(t, "its write hangs", hanging)
	kill()

	if err := again.Join(t.Context(), "n1"); err != nil {
		t.Errorf("the node that starts again got %v", err)
	}
	if !hanging(db.Status{}) {
		t.Error("the killed node's write had ended before")
	}
}

// throughSocket returns a directory with a Unix socket that forwards to another one, until kill cuts it.
func throughSocket(t *testing.T, to string) (dir string, kill func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tandem-socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, filepath.Base(to)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", to)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(ctx, func() { near.Close(); far.Close() })
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1]) // until either end closes
					near.Close()
					far.Close()
				}()
			}
		}
	}()
	return dir, cancel
}

// TestNodeIDIsClaimedLater: a node that starts without the database finds out later that its id is taken, reports it,
// and continues. When the other node has ended, the id is its own.
func TestNodeIDIsClaimedLater(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	conf := db.Default()
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	c.Stop(t)
	one, two := serve(t, conf, "n1"), serve(t, conf, "n1")
	c.Start(t)
	one.works(t, "the database appeared")
	two.works(t, "the database appeared")
	rivals := func() (n int) {
		for _, x := range []db.Status{one.Status(), two.Status()} {
			if x.Rival != "" {
				n++
			}
		}
		return n
	}
	one.until(t, "one of two sees the conflict", func(db.Status) bool { return rivals() == 1 })
	if n, err := testutil.GatherAndCount(one.reg, "tandem_node_id_conflict"); err != nil || n != 1 {
		t.Errorf("conflict metric: %d %v", n, err)
	}
	if err := two.Update(t.Context(),
		func(ctx context.Context, tx *db.Tx) error { tx.Audit(record(1)); return nil }); err != nil {
		t.Errorf("a write of the node in conflict: %v", err)
	}
	holder, rival := two, one
	if holder.Status().Rival != "" {
		holder, rival = one, two
	}
	holder.stop()
	rival.until(t, "the id is free", func(x db.Status) bool { return x.Rival == "" })
}

// TestNewerSchemaIsRefused opens databases in which a newer program has run a migration: of the platform, of another
// package, or of a package that this program lacks. It is named in a refusal.
func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	const (
		ours    = "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, TRUE)"
		theirs  = "INSERT INTO goose_provisioning (version_id, is_applied) VALUES (99, TRUE)"
		says    = "UPDATE schemas SET version = 99, oldest = "
		another = "INSERT INTO schemas (package, version, oldest) VALUES ('unknown', 99, "
	)
	for _, c := range []struct {
		name    string
		newer   []string
		refused string // package; empty if the database is used
	}{
		{"a program that the schema still suits", []string{ours, says + "4 WHERE package = 'platform'"}, ""},
		{"a program older than the schema needs", []string{ours, says + "5 WHERE package = 'platform'"}, "platform"},
		{"a schema that says nothing about its last step", []string{ours}, "platform"},
		{"a schema that no longer says anything", []string{ours, "DROP VIEW schema_info", "DROP TABLE schemas"},
			"platform"},
		{"a package that the program still suits", []string{theirs, says + "1 WHERE package = 'provisioning'"}, ""},
		{"a package that needs a newer program", []string{theirs, says + "98 WHERE package = 'provisioning'"},
			"provisioning"},
		{"a package that says nothing about its last step", []string{theirs}, "provisioning"},
		{"a new package that the program may lack", []string{another + "0)"}, ""},
		{"a new package that the program needs", []string{another + "1)"}, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testkit.Configs(t, func(t *testing.T, conf db.Config) {
				d, err := db.Open(t.Context(), conf, discard, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range c.newer {
					update(t, d, func(ctx context.Context, tx *db.Tx) error {
						_, err := tx.Exec(ctx, s)
						return err
					})
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d, err = db.Open(t.Context(), conf, discard, nil, store.Schemas()...)
				if err == nil {
					_ = d.Close()
				}
				switch {
				case c.refused == "" && err != nil:
					t.Error(err)
				case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused+" is version 99") ||
					!strings.Contains(err.Error(), "start the newer program") || strings.Contains(err.Error(), "\n")):
					t.Errorf("%v, want one line with the package, the version and the remedy", err)
				}
			})
		})
	}
}

// TestNewerSchemaAppearsLater: the server was unavailable at the start, so the node runs; the schema is still refused.
func TestNewerSchemaAppearsLater(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	conf := db.Default()
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	if err := testkit.Open(t, conf).Close(); err != nil {
		t.Fatal(err)
	}
	c.Admin(t, "tandem", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, TRUE)")
	c.Stop(t)
	d := serve(t, conf, "n1")
	c.Start(t)
	d.until(t, "the schema is refused", func(x db.Status) bool {
		return !x.Available && strings.Contains(x.Cause, "start the newer program")
	})
	c.Admin(t, "tandem", "DELETE FROM goose_db_version WHERE version_id = 99")
	d.works(t, "the backup was restored")
}
