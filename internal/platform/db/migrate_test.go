package db_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/store"
	"github.com/tandemgw/tandem/internal/store/auth"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

// testdata/schema3 holds dumps (sqlite3 .dump; pg_dump --inserts, without comments) of databases that the last program
// with one sequence of migrations wrote: rows in every table, a deleted account, a pruned feed, a revoked client.

// connector returns what opens connections to a database, without any of our settings.
func connector(t *testing.T, c db.Config) driver.Connector {
	t.Helper()
	if c.Driver == db.Postgres {
		pc, err := pgx.ParseConfig(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		return stdlib.GetConnector(*pc)
	}
	d, err := sql.Open("sqlite", "file:"+c.File+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return dsn{d.Driver(), "file:" + c.File + "?_txlock=immediate"}
}

type dsn struct {
	driver driver.Driver
	name   string
}

func (c dsn) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.name) }
func (c dsn) Driver() driver.Driver                        { return c.driver }

// blank returns the configuration of a database without any table.
func blank(t *testing.T, driver string) db.Config {
	t.Helper()
	if driver == db.SQLite {
		return testkit.SQLiteConfig(t)
	}
	c := testkit.PostgresConfig(t)
	execute(t, c, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
	return c
}

// old returns the configuration of a database of schema 3.
func old(t *testing.T, driver string) db.Config {
	t.Helper()
	dump, err := os.ReadFile("testdata/schema3/" + driver + ".sql")
	if err != nil {
		t.Fatal(err)
	}
	c := blank(t, driver)
	execute(t, c, string(dump))
	return c
}

func execute(t *testing.T, c db.Config, statements string) {
	t.Helper()
	if c.Driver == db.SQLite {
		d := sql.OpenDB(connector(t, c))
		defer d.Close()
		if _, err := d.ExecContext(t.Context(), statements); err != nil {
			t.Fatal(err)
		}
		return
	}
	conn, err := pgx.Connect(t.Context(), c.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
}

// table returns the result of a query as text, one string for each row, sorted.
func table(t *testing.T, c db.Config, query string) []string {
	t.Helper()
	d := sql.OpenDB(connector(t, c))
	defer d.Close()
	rows, err := d.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
		var row []string
		for i := range values {
			row = append(row, fmt.Sprintf("%s=%v", columns[i], *values[i].(*any)))
		}
		all = append(all, strings.Join(row, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// catalogue describes all tables, indexes, constraints and views, and says which migrations were applied.
func catalogue(t *testing.T, c db.Config) []string {
	t.Helper()
	queries := []string{"SELECT type, name, tbl_name, sql FROM sqlite_master"}
	if c.Driver == db.Postgres {
		queries = []string{
			`SELECT table_name, column_name, ordinal_position, data_type, collation_name, is_nullable, column_default,
				is_identity FROM information_schema.columns WHERE table_schema = 'public'`,
			"SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
			`SELECT c.relname, c.relkind::text, c.relpersistence::text FROM pg_class c
				JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'`,
			`SELECT conname, pg_get_constraintdef(c.oid) AS def FROM pg_constraint c
				JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = 'public'`,
			"SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
			"SELECT tgname, pg_get_triggerdef(oid) AS def FROM pg_trigger WHERE NOT tgisinternal",
			"SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
		}
	}
	queries = append(queries, "SELECT * FROM schemas", "SELECT version_id, is_applied FROM goose_db_version")
	for _, s := range store.Schemas() {
		queries = append(queries, "SELECT version_id, is_applied, '"+s.Package+"' AS package FROM goose_"+s.Package)
	}
	var all []string
	for _, q := range queries {
		all = append(all, table(t, c, q)...)
	}
	return all
}

// added are the columns that later migrations have added, with the values of rows from before.
var added = strings.NewReplacer(" pending_key=<nil> pending= second_active=0", "", " slot=0", "")

// content returns all rows of the tables of schema 3 that programs write, with the columns of that time.
func content(t *testing.T, c db.Config) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, name := range []string{"account_counts", "accounts", "api_clients", "audit", "audit_head",
		"capability_plans", "civic_addresses", "feed", "feed_head", "nodes", "numbers", "rate_limits",
		"repeatability", "requests", "signing_keys"} {
		all[name] = table(t, c, "SELECT * FROM "+name)
		for i, row := range all[name] {
			all[name][i] = added.Replace(row)
		}
		if len(all[name]) == 0 {
			t.Errorf("the table %s is empty", name)
		}
	}
	return all
}

// fresh returns the catalogue of a new database.
func fresh(t *testing.T, driver string) []string {
	t.Helper()
	c := blank(t, driver)
	shut(t, start(t, c))
	return catalogue(t, c)
}

// start opens a database as the program does.
func start(t *testing.T, c db.Config) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), c, discard, nil, store.Schemas()...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func shut(t *testing.T, d *db.DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func drivers(t *testing.T, fn func(t *testing.T, driver string)) {
	t.Parallel()
	for _, driver := range []string{db.SQLite, db.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			fn(t, driver)
		})
	}
}

// TestUpgrade starts a program on a database from the time of one sequence of migrations.
func TestUpgrade(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		c := old(t, driver)
		before := content(t, c)
		d := start(t, c)
		if rep, err := d.VerifyAudit(t.Context()); err != nil || rep.Break != nil || rep.Rows != 14 {
			t.Errorf("audit chain: %+v, %v; want 14 rows", rep, err)
		}
		feed := outbox.New(d, outbox.Default(), discard, nil)
		if head, err := feed.Head(t.Context()); err != nil || head.Position != 6 || len(head.Database) != 36 {
			t.Errorf("feed: %+v, %v; want 6 entries", head, err)
		}
		dir := directory.New(provisioning.New(d, feed, services.All().Services()), directory.Config{}, discard, nil)
		a, err := dir.Account(t.Context(), "contoso")
		if err != nil || a.CorrelationID != "crm żółw" || len(a.Services) != 2 {
			t.Errorf("account: %+v, %v", a, err)
		}
		clients, err := auth.New(d).Clients(t.Context(), "", 10)
		if err != nil || len(clients) != 2 || clients[0].Name != "BSS" || clients[1].Revoked.IsZero() {
			t.Errorf("clients: %+v, %v", clients, err)
		}
		shut(t, d)
		labels := table(t, c, "SELECT subdomain_key AS label, name AS account FROM accounts WHERE subdomain_key <> ''")
		if diff := cmp.Diff(labels, table(t, c, "SELECT label, account FROM labels")); diff != "" || len(labels) == 0 {
			t.Errorf("labels differ from those of the accounts (-accounts +labels):\n%s", diff)
		}
		if diff := cmp.Diff(before, content(t, c)); diff != "" {
			t.Errorf("rows differ (-before the upgrade +after):\n%s", diff)
		}
		if diff := cmp.Diff(fresh(t, driver), catalogue(t, c)); diff != "" {
			t.Errorf("schema differs (-new database +upgraded):\n%s", diff)
		}
	})
}

// TestOldProgramOnUpgradedDatabase: nodes are upgraded one after the other. A program with one sequence of migrations
// finds migration 4, and asks which programs may use the schema.
func TestOldProgramOnUpgradedDatabase(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		c := old(t, driver)
		shut(t, start(t, c))
		const question = "SELECT version, oldest FROM schema_info WHERE id = 1"
		if got := table(t, c, question); !slices.Equal(got, []string{"version=4 oldest=1"}) {
			t.Errorf("%s: %q; want version 4 for programs that know 1", question, got)
		}
	})
}

// TestEverySchemaNamesItsLastMigration: each migration says in "schemas" which programs may use the result.
func TestEverySchemaNamesItsLastMigration(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		tables := map[string]string{"platform": "goose_db_version"}
		for _, s := range store.Schemas() {
			tables[s.Package] = "goose_" + s.Package
		}
		for name, versions := range tables {
			query := "SELECT version, version >= oldest AND oldest >= 0 AS ordered FROM schemas WHERE package = '" +
				name + "' AND version = (SELECT MAX(version_id) FROM " + versions + ")"
			if got := table(t, c, query); len(got) != 1 || strings.Contains(got[0], "ordered=0") ||
				strings.Contains(got[0], "ordered=false") {
				t.Errorf("%s does not say which programs may use its last version: %q", name, got)
			}
		}
		if got := table(t, c, "SELECT package FROM schemas"); len(got) != len(tables) {
			t.Errorf("packages that say which programs may use them: %q, want %d", got, len(tables))
		}
	})
}

// errCut is the error of every statement after the cut.
var errCut = errors.New("killed")

// cut makes all statements after the first n fail, as if the process had been killed between two of them. A commit
// counts as a statement.
type cut struct {
	driver.Connector
	left    int
	commits int
	kill    context.CancelFunc // ends attempts to repeat a statement
}

func (c *cut) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	return &cutConn{conn, c}, err
}

func (c *cut) step() error {
	if c.left == 0 {
		c.kill()
		return errCut
	}
	c.left--
	return nil
}

type cutConn struct {
	driver.Conn
	c *cut
}

func (c *cutConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.c.step(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *cutConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.c.step(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *cutConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	return cutTx{tx, c.c}, err
}

type cutTx struct {
	driver.Tx
	c *cut
}

func (x cutTx) Commit() error {
	if err := x.c.step(); err != nil {
		return errors.Join(err, x.Rollback())
	}
	x.c.commits++
	return x.Tx.Commit()
}

// TestInterruptedUpgrade cuts the upgrade at every cutStep-th statement, from every state that an earlier cut left.
func TestInterruptedUpgrade(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		databases := []db.Config{old(t, driver)}
		if driver == db.SQLite { // PostgreSQL takes a second to release the lock of a killed session
			databases = append(databases, blank(t, driver))
		}
		for _, c := range databases {
			attempts, states := 0, 1
			for n := 0; ; n += cutStep {
				attempts++
				ctx, kill := context.WithCancel(t.Context())
				cut := &cut{connector(t, c), n, 0, kill}
				d := sql.OpenDB(cut)
				err := db.Migrate(ctx, d, driver, store.Schemas())
				_ = d.Close()
				kill()
				if err == nil {
					break
				}
				if cut.left > 0 || attempts > 2000 {
					t.Fatalf("attempt %d, cut after %d statements: %v", attempts, n, err)
				}
				if cut.commits > 0 {
					n = states%cutStep - cutStep // another state: cut that too, at other statements
					states++
				}
			}
			t.Logf("%d attempts, %d states", attempts, states)
			if cutStep == 1 && states < len(store.Schemas())+2 || states < 3 {
				t.Errorf("the upgrade went through %d states only", states)
			}
			if diff := cmp.Diff(fresh(t, driver), catalogue(t, c)); diff != "" {
				t.Errorf("schema differs (-new database +after interruptions):\n%s", diff)
			}
		}
	})
}

// TestNodesUpgradeTogether starts several nodes on one database at once.
func TestNodesUpgradeTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []db.Config{old(t, db.Postgres), blank(t, db.Postgres)} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				d, err := db.Open(t.Context(), c, discard, nil, store.Schemas()...)
				if err != nil {
					t.Error(err)
					return
				}
				if s := d.Status(); !s.Available {
					t.Errorf("after the start: %+v", s)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff(fresh(t, db.Postgres), catalogue(t, c)); diff != "" {
			t.Errorf("schema differs (-new database +started together):\n%s", diff)
		}
	}
}
