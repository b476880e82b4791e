package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a PostgreSQL cluster that one test owns.
type Cluster struct {
	Dir string // holds the data, the log and the socket
	bin string
	run credential
}

// credential is the user as whom the server runs. A nil attr means the current user.
type credential struct {
	attr *syscall.SysProcAttr
	uid  int
	gid  int
}

// ClusterOptions configures a Cluster.
type ClusterOptions struct {
	// Durable leaves fsync and full_page_writes on, which crash tests need.
	Durable bool
	// Parent is the directory in which the cluster's directory is made; the system's for temporary files if empty.
	Parent string
}

// NewCluster starts a cluster for one test and removes it afterwards.
func NewCluster(t testing.TB, o ClusterOptions) *Cluster {
	t.Helper()
	bin := binaries(t)
	// Not t.TempDir: the server's user must be able to enter it, and a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp(o.Parent, "tandem-pg")
	if err != nil {
		t.Fatalf("make a directory for PostgreSQL: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{Dir: dir, bin: bin, run: serverUser(t)}
	if err := c.init(o.Durable); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.shut)
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// URL returns the connection string of a database of the cluster.
func (c *Cluster) URL(database string) string {
	return "postgres://postgres@/" + database + "?host=" + c.Dir
}

// Kill ends the server's processes at once, as a power failure would (but the disk's cache is not lost).
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	ps := c.halt(t)
	signal(t, syscall.SIGKILL, ps...)
	await(t, "end", "Z", ps)
	// The next server would take a process that has not been reaped for a running one.
	for _, f := range []string{filepath.Join(c.data(), "postmaster.pid"), filepath.Join(c.Dir, ".s.PGSQL.5432.lock")} {
		if err := os.Remove(f); err != nil {
			t.Fatalf("kill PostgreSQL: %v", err)
		}
	}
}

// Pause makes the server hang: connections stay open, the kernel accepts new ones, and nothing answers.
func (c *Cluster) Pause(t testing.TB) { t.Helper(); c.halt(t) }

// Resume ends Pause.
func (c *Cluster) Resume(t testing.TB) {
	t.Helper()
	pid, err := c.postmaster()
	if err != nil {
		t.Fatalf("resume PostgreSQL: %v", err)
	}
	signal(t, syscall.SIGCONT, append(childrenOf(pid), pid)...)
}

// halt stops every process of the server with SIGSTOP and returns them. The postmaster is stopped before its children
// are listed: it forks one for each connection.
func (c *Cluster) halt(t testing.TB) []int {
	t.Helper()
	pid, err := c.postmaster()
	if err != nil {
		t.Fatalf("stop PostgreSQL's processes: %v", err)
	}
	signal(t, syscall.SIGSTOP, pid)
	await(t, "stop", "TZ", []int{pid})
	children := childrenOf(pid)
	signal(t, syscall.SIGSTOP, children...)
	await(t, "stop", "TZ", children)
	return append(children, pid)
}

// signal sends a signal to the processes that have not ended.
func signal(t testing.TB, s syscall.Signal, pids ...int) {
	t.Helper()
	for _, p := range pids {
		if err := syscall.Kill(p, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("signal PostgreSQL process %d: %v", p, err)
		}
	}
}

// Start starts the server again after Kill or Stop.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
}

// Stop shuts the server down and disconnects its clients.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	if out, err := c.command("pg_ctl", "-D", c.data(), "-m", "fast", "-w", "stop").CombinedOutput(); err != nil {
		t.Fatalf("stop PostgreSQL: %v: %s", err, out)
	}
}

// Standby starts a standby of the cluster, which must be Durable, and removes it afterwards. It streams,
// asynchronously, until CutReplication or Promote.
func (c *Cluster) Standby(t testing.TB) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "tandem-pg")
	if err != nil {
		t.Fatalf("make a directory for PostgreSQL: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Cluster{Dir: dir, bin: c.bin, run: c.run}
	if err := os.Chown(dir, c.run.uid, c.run.gid); err != nil {
		t.Fatalf("give %s to the server's user: %v", dir, err)
	}
	out, err := s.command("pg_basebackup", "-D", s.data(), "-h", c.Dir, "-U", "postgres", "-R", "-X", "stream", "-c",
		"fast").CombinedOutput()
	if err != nil {
		t.Fatalf("copy the primary: %v: %s", err, out)
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("unix_socket_directories = '" + dir + "'\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatalf("configure the standby: %v", err)
	}
	t.Cleanup(s.shut)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// CutReplication stops a standby from receiving anything more from its primary.
func (c *Cluster) CutReplication(t testing.TB) {
	t.Helper()
	for _, q := range []string{"ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"} {
		if err := admin(c.URL("postgres"), q); err != nil {
			t.Fatal(err)
		}
	}
	c.until(t, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)", "the standby still receives")
}

// Replayed waits until a standby has replayed everything that its primary has committed.
func (c *Cluster) Replayed(t testing.TB, primary *Cluster) {
	t.Helper()
	var lsn string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := pgx.Connect(ctx, primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	if err := p.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	c.until(t, "SELECT pg_last_wal_replay_lsn() >= '"+lsn+"'::pg_lsn", "the standby does not catch up")
}

// Promote makes a standby a primary, on a new timeline.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	if out, err := c.command("pg_ctl", "-D", c.data(), "-w", "-t", "120", "promote").CombinedOutput(); err != nil {
		t.Fatalf("promote the standby: %v: %s", err, out)
	}
}

// until waits until a query returns true.
func (c *Cluster) until(t testing.TB, query, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for yes := false; !yes; <-tick.C {
		if err := conn.QueryRow(ctx, query).Scan(&yes); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// CreateDatabase creates an empty database.
func (c *Cluster) CreateDatabase(t testing.TB, name string) {
	t.Helper()
	if err := admin(c.URL("postgres"), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
}

// Admin runs one statement as the superuser, who may write even if default_transaction_read_only is on.
func (c *Cluster) Admin(t testing.TB, database, statement string) {
	t.Helper()
	if err := admin(c.URL(database)+"&default_transaction_read_only=off", statement); err != nil {
		t.Fatal(err)
	}
}

// CreateOwned creates an empty database that belongs to an ordinary role, and returns that role's connection string.
func (c *Cluster) CreateOwned(t testing.TB, name, role string) string {
	t.Helper()
	c.Admin(t, "postgres", "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
	c.Admin(t, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" OWNER "+pgx.Identifier{role}.Sanitize())
	return strings.Replace(c.URL(name), "postgres@", role+"@", 1)
}

func (c *Cluster) data() string { return filepath.Join(c.Dir, "data") }

func (c *Cluster) init(durable bool) error {
	if err := os.Chown(c.Dir, c.run.uid, c.run.gid); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", c.Dir, err)
	}
	args := []string{"-D", c.data(), "-U", "postgres", "-A", "trust", "--locale=C", "--encoding=UTF8"}
	if !durable {
		args = append(args, "-N")
	}
	if out, err := c.command("initdb", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	conf := "listen_addresses = ''\nunix_socket_directories = '" + c.Dir + "'\nmax_connections = 400\n" +
		"shared_buffers = 64MB\nmax_wal_size = 512MB\nautovacuum_naptime = 10s\ndeadlock_timeout = 100ms\n"
	if !durable {
		conf += "fsync = off\nfull_page_writes = off\n"
	}
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(conf); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	return nil
}

func (c *Cluster) start() error {
	out, err := c.command("pg_ctl", "-D", c.data(), "-l", filepath.Join(c.Dir, "log"), "-w", "-t", "120",
		"start").CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(c.Dir, "log")) // optional detail
		return fmt.Errorf("start PostgreSQL: %w: %s%s", err, out, log)
	}
	return nil
}

// shut stops the server if it runs. It ignores errors: the directory is removed afterwards in any case.
func (c *Cluster) shut() {
	if pid, err := c.postmaster(); err == nil {
		for _, p := range append([]int{pid}, childrenOf(pid)...) {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	}
	_ = c.command("pg_ctl", "-D", c.data(), "-m", "immediate", "-w", "stop").Run()
}

func (c *Cluster) postmaster() (int, error) {
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strconv.Atoi(string(line))
}

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.Dir
	cmd.SysProcAttr = c.run.attr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	var ps []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name, in parentheses, may hold anything; the state and the parent follow it.
		_, rest, ok := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if p, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// await waits until each process is in one of the states of proc(5), or is gone.
func await(t testing.TB, what, states string, pids []int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for _, p := range pids {
		for {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
			_, state, _ := strings.Cut(string(b), ") ")
			if err != nil || state == "" || strings.Contains(states, state[:1]) {
				break
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("process %d does not %s", p, what)
			}
		}
	}
}

// binaries finds PostgreSQL's programs, the newest version first.
func binaries(t testing.TB) string {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	sort.Slice(dirs, func(i, j int) bool { return version(dirs[i]) > version(dirs[j]) })
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "pg_ctl")); err == nil {
			return d
		}
	}
	const why = "PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/pg_ctl): apt-get install postgresql"
	if os.Getenv("TANDEM_REQUIRE_PG") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

// findUser returns the user as whom the server can run: it refuses to run as root.
var findUser = sync.OnceValues(func() (credential, error) {
	if os.Geteuid() != 0 {
		return credential{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return credential{}, err
		}
		attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return credential{attr, uid, gid}, nil
	}
	return credential{}, errors.New("PostgreSQL does not run as root, and neither user postgres nor user nobody exists")
})

func serverUser(t testing.TB) credential {
	t.Helper()
	c, err := findUser()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admin runs one statement.
func admin(url, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the test cluster: %w", err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
