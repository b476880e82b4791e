package restore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
)

// operator runs commands on one data directory.
type operator struct {
	t     *testing.T
	data  string
	extra []string // flags of every command
}

// run runs one command and returns its exit code and output.
func (o *operator) run(stdin string, args ...string) (code int, out, errs string) {
	o.t.Helper()
	var stdout, stderr bytes.Buffer
	file := filepath.Join(o.t.TempDir(), "in.json")
	if err := os.WriteFile(file, []byte(stdin), 0o600); err != nil {
		o.t.Fatal(err)
	}
	for i := range args {
		if args[i] == "-" {
			args[i] = file
		}
	}
	args = append(append([]string{"--data", o.data}, o.extra...), args...)
	code = cli.Run(o.t.Context(), cli.Program{Version: "test", Args: args, Env: []string{"HOME=" + o.data},
		Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

// must runs a command that must succeed and returns its output.
func (o *operator) must(stdin string, args ...string) string {
	o.t.Helper()
	code, out, errs := o.run(stdin, args...)
	if code != 0 {
		o.t.Fatalf("tandem %s: exit code %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// serve runs the program until stop is called, and returns when it is ready.
func (o *operator) serve() (ready node.Ready, stop func()) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	r, w := io.Pipe()
	ended := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		args := append(append([]string{"--data", o.data, "--output", "json"}, o.extra...), "serve", "--free-ports")
		code := cli.Run(ctx, cli.Program{Version: "test", Args: args, Env: []string{"HOME=" + o.data},
			Stdout: w, Stderr: &log})
		w.Close()
		ended <- code
	}()
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	stop = func() {
		o.t.Helper()
		cancel()
		go func() { _, _ = io.Copy(io.Discard, r) }()
		if code := <-ended; code != 0 {
			o.t.Errorf("tandem serve: exit code %d\n%s", code, &log)
		}
	}
	if err != nil {
		stop()
		o.t.Fatalf("tandem serve is not ready: %v\n%s", err, &log)
	}
	return ready, stop
}

func (o *operator) put(numbers ...string) {
	o.t.Helper()
	var list []client.Number
	for _, n := range numbers {
		list = append(list, client.Number{TelephoneNumber: n, AccountName: "northwind",
			ServiceDetails: client.NumberServices{ZoomPhoneCloudPeering: &client.NumberService{Enabled: true}}})
	}
	b, err := json.Marshal(list)
	if err != nil {
		o.t.Fatal(err)
	}
	o.must(string(b), "number", "put", "-")
}

func (o *operator) account() {
	o.t.Helper()
	o.must(`{"name":"northwind","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false}}}`,
		"account", "put", "-")
}

// routed reports whether a running Tandem knows a number.
func (o *operator) routed(number string) bool {
	o.t.Helper()
	var e api.Explanation
	out := o.must("", "--output", "json", "explain", "--from", "+15550100", "--to", number, "--peer", "core")
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		o.t.Fatal(err)
	}
	return e.Account == "northwind"
}

func (o *operator) index() *api.Replica {
	o.t.Helper()
	var r api.Replica
	if err := json.Unmarshal([]byte(o.must("", "--output", "json", "index")), &r); err != nil {
		o.t.Fatal(err)
	}
	return &r
}

// until waits for a state of the index.
func (o *operator) until(what string, ok func(*api.Replica) bool) *api.Replica {
	o.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r := o.index()
		if ok(r) {
			return r
		}
		select {
		case <-tick.C:
		case <-deadline:
			o.t.Fatalf("%s: not reached; %+v", what, r)
		}
	}
}

// follows matches an index that is level and holds n numbers.
func follows(n int64) func(*api.Replica) bool {
	return func(r *api.Replica) bool { return r.Current && r.Position == r.Head && r.Numbers == n }
}

func held(r *api.Replica) bool { return r.Held != nil }

func nth(i int) string { return fmt.Sprintf("+1202555%04d", i) }

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readyz returns the status and the warnings of /readyz.
func readyz(t *testing.T, r node.Ready) (status int, warnings string) {
	t.Helper()
	res, err := http.Get(strings.TrimSuffix(r.Metrics, "/metrics") + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestOlderCopyWithoutTheCommand replaces the database file by an older copy, writes to it without the server, and
// starts the edge. An index that reports that it follows the database must answer as the database does, also after the
// next restart.
func TestOlderCopyWithoutTheCommand(t *testing.T) {
	t.Parallel()
	o := &operator{t: t, data: t.TempDir()}
	file := filepath.Join(o.data, "tandem.db")
	_, stop := o.serve()
	o.account()
	o.put(nth(1))
	stop()
	older := filepath.Join(t.TempDir(), "older.db")
	copyFile(t, file, older)
	_, stop = o.serve()
	o.put(nth(2))
	o.until("level", follows(2))
	stop()

	copyFile(t, older, file)
	o.put(nth(3)) // takes the position that number 2 had
	for range 2 {
		_, stop = o.serve()
		o.until("level", follows(2))
		for i, want := range []bool{1: true, 2: false, 3: true} {
			if i > 0 && o.routed(nth(i)) != want {
				t.Errorf("number %d is routed: %v, want %v as in the database", i, !want, want)
			}
		}
		stop()
	}
}

// TestRestore installs a backup with the command. Every edge keeps its index until the restored database is accepted.
func TestRestore(t *testing.T) {
	t.Parallel()
	o := &operator{t: t, data: t.TempDir()}
	file := filepath.Join(o.data, "tandem.db")
	_, stop := o.serve()
	o.account()
	o.put(nth(1), nth(2))
	if code, _, errs := o.run("", "restore", file); code == 0 || !strings.Contains(errs, "in use by process") {
		t.Errorf("restore under a running server: exit code %d: %s", code, errs)
	}
	stop()
	head := strings.Fields(o.must("", "audit", "verify"))
	backup := filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, file, backup)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, stop = o.serve()
	o.put(nth(3))
	was := o.until("level", follows(3))
	stop()

	// Files that are not backups change nothing.
	other, damaged := filepath.Join(t.TempDir(), "empty.db"), filepath.Join(t.TempDir(), "damaged.db")
	for name, b := range map[string][]byte{other: {}, damaged: damage(before)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := o.run("", "restore", name); code == 0 || len(errs) == 0 {
			t.Errorf("restore %s: exit code %d: %s", name, code, errs)
		} else {
			t.Logf("restore %s: %s", filepath.Base(name), errs)
		}
	}
	_, stop = o.serve()
	if r := o.until("level", follows(3)); r.Database != was.Database || r.Numbers != 3 {
		t.Errorf("after a failed restore: %+v, want %+v", r, was)
	}
	stop()

	said := o.must("", "restore", backup)
	if !strings.Contains(said, "tandem index accept") || longest(said) > 80 && !strings.Contains(said, o.data) {
		t.Errorf("restore printed:\n%s", said)
	}
	kept, err := filepath.Glob(file + ".replaced-*Z")
	if err != nil || len(kept) != 1 {
		t.Errorf("kept files %v (%v), want one", kept, err)
	}
	if left, _ := filepath.Glob(file + ".restoring*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	ready, stop := o.serve()
	r := o.until("held back", held)
	if r.Current || r.Numbers != 3 || r.Held.Numbers != 2 || r.Database != was.Database ||
		r.Held.Database == was.Database {
		t.Errorf("index %+v, held %+v", r, r.Held)
	}
	if !o.routed(nth(3)) {
		t.Error("the old index does not serve")
	}
	if status, text := readyz(t, ready); status != 200 || !strings.Contains(text, "tandem index accept") {
		t.Errorf("/readyz: %d %s", status, text)
	}
	if out := o.must("", "status"); !strings.Contains(out, "held back") {
		t.Errorf("status:\n%s", out)
	}
	if out := o.must("", "index"); !strings.Contains(out, "held back") || !strings.Contains(out, r.Held.Database) {
		t.Errorf("index:\n%s", out)
	} else {
		t.Logf("tandem index:\n%s", out)
	}
	stop()
	ready, stop = o.serve() // a restart changes nothing
	o.until("held back", held)
	o.must("", "index", "accept")
	if r := o.until("level", follows(2)); r.Numbers != 2 || r.Held != nil {
		t.Errorf("after accept: %+v", r)
	}
	if o.routed(nth(3)) || !o.routed(nth(1)) {
		t.Error("the index is not the restored database's")
	}
	if status, text := readyz(t, ready); status != 200 || strings.Contains(text, "tandem index accept") {
		t.Errorf("/readyz: %d %s", status, text)
	}
	if code, _, errs := o.run("", "index", "accept"); code != 5 {
		t.Errorf("accept with nothing to accept: exit code %d: %s", code, errs)
	}
	o.must("", "audit", "verify", "--head", head[len(head)-1])
	stop()
	var actions []string
	audited(t, file, func(r db.AuditRecord) { actions = append(actions, r.Action+" "+r.Actor.Kind) })
	if n := len(actions); n < 2 || actions[n-2] != "database.restore administrator" ||
		actions[n-1] != "index.accept administrator" {
		t.Errorf("the audit log ends with %v", actions)
	}

	// On a new machine there is no database to keep, and no index for which anything must be accepted.
	o = &operator{t: t, data: t.TempDir()}
	o.must("", "restore", backup)
	_, stop = o.serve()
	o.until("level", follows(2))
	stop()
}

// audited calls fn with the rows of a database's audit log.
func audited(t *testing.T, file string, fn func(db.AuditRecord)) {
	t.Helper()
	c := db.Default()
	c.File = file
	d, err := db.Open(t.Context(), c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range testkit.AuditLog(t, d) {
		fn(r)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreWithALog restores a copy of the files of a database that is in use: what is only in its write-ahead log is
// restored too, and the log of the replaced database is kept with it.
func TestRestoreWithALog(t *testing.T) {
	t.Parallel()
	o := &operator{t: t, data: t.TempDir()}
	file, backup := filepath.Join(o.data, "tandem.db"), filepath.Join(t.TempDir(), "copy.db")
	_, stop := o.serve()
	o.account()
	o.put(nth(1), nth(2))
	for _, end := range []string{"", "-wal"} {
		copyFile(t, file+end, backup+end)
	}
	stop()
	copyFile(t, backup, file) // as after a crash
	copyFile(t, backup+"-wal", file+"-wal")
	o.must("", "restore", backup)
	kept, err := filepath.Glob(file + ".replaced-*Z")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept files %v (%v), want one", kept, err)
	}
	for _, f := range []string{file, kept[0]} {
		rows := 0
		audited(t, f, func(db.AuditRecord) { rows++ })
		if rows < 2 {
			t.Errorf("%s has %d audit rows: its log is missing", filepath.Base(f), rows)
		}
	}
	_, stop = o.serve()
	o.until("held back", held)
	o.must("", "index", "accept")
	o.until("level", follows(2))
	stop()
}

// damage breaks pages in the middle of a database file.
func damage(b []byte) []byte {
	b = bytes.Clone(b)
	for i := len(b) / 3; i < len(b)*2/3; i++ {
		b[i] ^= 0xa5
	}
	return b
}

func longest(text string) (n int) {
	for line := range strings.Lines(text) {
		n = max(n, len(line))
	}
	return n
}

// TestLostDatabase deletes the database file, so that the server creates an empty one. The node stays ready and
// continues to route calls by its index.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	o := &operator{t: t, data: t.TempDir()}
	file := filepath.Join(o.data, "tandem.db")
	_, stop := o.serve()
	o.account()
	o.put(nth(1))
	o.until("level", follows(1))
	stop()
	backup := filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, file, backup)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, stop = o.serve()
		if r := o.until("held back", held); r.Numbers != 1 || r.Held.Numbers != 0 || !o.routed(nth(1)) {
			t.Errorf("index %+v, held %+v", r, r.Held)
		}
		stop()
	}
	// When the right file is installed again, nothing needs to be accepted.
	copyFile(t, backup, file)
	_, stop = o.serve()
	if r := o.until("level", follows(1)); r.Numbers != 1 {
		t.Errorf("index %+v", r)
	}
	stop()
}

// TestRestorePostgres gives a new identity to a database that was restored with PostgreSQL's own tools.
func TestRestorePostgres(t *testing.T) {
	t.Parallel()
	c := testkit.PostgresConfig(t)
	set := func(url string) []string {
		return []string{"--set", "database.driver=postgres", "--set", "database.url=" + url,
			"--set", "database.allowUnsafeDurability=true"}
	}
	o := &operator{t: t, data: t.TempDir(), extra: set(c.URL)}
	if code, _, errs := o.run("", "restore"); code == 0 || !strings.Contains(errs, "no change was ever written") {
		t.Errorf("restore of an empty database: exit code %d: %s", code, errs)
	}
	_, stop := o.serve()
	o.account()
	o.put(nth(1))
	o.until("level", follows(1))
	stop()
	dump := testkit.Clone(t, c)
	_, stop = o.serve()
	o.put(nth(2))
	o.until("level", follows(2))
	stop()

	o.extra = set(dump.URL)
	if code, _, errs := o.run("", "restore", "some.dump"); code != 2 || !strings.Contains(errs, "pg_restore") {
		t.Errorf("restore with a file: exit code %d: %s", code, errs)
	}
	o.must("", "restore")
	_, stop = o.serve()
	o.until("held back", held)
	if !o.routed(nth(2)) {
		t.Error("the old index does not serve")
	}
	o.must("", "index", "accept")
	o.until("level", follows(1))
	if o.routed(nth(2)) || !o.routed(nth(1)) {
		t.Error("the index is not the restored database's")
	}
	stop()
}
