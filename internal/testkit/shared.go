package testkit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// The shared cluster's files are in one directory per user. start.lock is held while the cluster is started, stopped or
// given its template; users.lock is shared by all test programs that use the cluster; watch.lock belongs to the
// watchdog; cluster names the cluster's directory.
//
// The watchdog is a shell loop in its own session. As soon as no process holds users.lock, it stops the cluster and
// ends. A test program cannot do this itself: it may be killed.
const watchdog = `
exec 7>watch.lock
flock -n -x 7 || exit 0
while :; do
	sleep 3
	(
		flock -n -x 8 || exit 1
		flock -n -x 9 || exit 1
		dir=$(cat cluster) && [ -n "$dir" ] || exit 0
		if [ -f "$dir/data/postmaster.pid" ]; then
			kill -QUIT "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null
			n=0
			while [ -f "$dir/data/postmaster.pid" ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
		fi
		rm -rf "$dir" cluster
		exit 0
	) 8>>start.lock 9>>users.lock && exit 0
done
`

var shared struct {
	once sync.Once
	c    *Cluster
	err  error
	hold *os.File // users.lock, held until the process ends
	n    atomic.Int64
}

// sharedCluster returns the cluster that all tests of this user share, and starts it if necessary.
func sharedCluster(t testing.TB) *Cluster {
	t.Helper()
	bin, run := binaries(t), serverUser(t)
	shared.once.Do(func() { shared.c, shared.err = joinShared(bin, run) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.c
}

func sharedDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("tandem-testpg-%d", os.Geteuid()))
}

// startLock takes start.lock until the returned function is called.
func startLock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(sharedDir(), "start.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func joinShared(bin string, run credential) (*Cluster, error) {
	dir := sharedDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the shared cluster: %w", err)
	}
	unlock, err := startLock()
	if err != nil {
		return nil, fmt.Errorf("lock the shared cluster: %w", err)
	}
	defer unlock()
	if shared.hold, err = os.OpenFile(filepath.Join(dir, "users.lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("join the shared cluster: %w", err)
	}
	if err := flock(shared.hold, syscall.LOCK_SH); err != nil {
		return nil, fmt.Errorf("join the shared cluster: %w", err)
	}
	name := filepath.Join(dir, "cluster")
	if b, err := os.ReadFile(name); err == nil {
		c := &Cluster{Dir: strings.TrimSpace(string(b)), bin: bin, run: run}
		if c.command("pg_ctl", "-D", c.data(), "status").Run() == nil {
			return c, watch(dir)
		}
		// It ended with the machine or was killed; what is left of it is useless.
		os.RemoveAll(c.Dir)
	}
	cdir, err := os.MkdirTemp("", "tandem-pg")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the shared cluster: %w", err)
	}
	c := &Cluster{Dir: cdir, bin: bin, run: run}
	if err := os.WriteFile(name, []byte(cdir), 0o600); err != nil {
		return nil, err
	}
	if err := c.init(false); err != nil {
		return nil, err
	}
	if err := c.start(); err != nil {
		return nil, err
	}
	return c, watch(dir)
}

// watch starts a watchdog. A watchdog ends at once if another one is running.
func watch(dir string) error {
	cmd := exec.Command("sh", "-c", watchdog)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the shared cluster's watchdog: %w", err)
	}
	return cmd.Process.Release()
}

// fromTemplate makes a database from the template for the given key and returns its URL. The first time, fill fills the
// template.
func (c *Cluster) fromTemplate(t testing.TB, key string, fill func(url string) error) string {
	t.Helper()
	sum := sha256.Sum256([]byte(key))
	template := "template_" + hex.EncodeToString(sum[:8])
	if err := c.template(template, fill); err != nil {
		t.Fatal(err)
	}
	return c.copy(t, pgx.Identifier{template}.Sanitize())
}

// clone makes a copy of the database at the URL and returns the copy's URL.
func (c *Cluster) clone(t testing.TB, url string) string {
	t.Helper()
	pc, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatalf("copy the database: %v", err)
	}
	return c.copy(t, pgx.Identifier{pc.Database}.Sanitize())
}

// copy makes a database from a template that is not in use, and drops it at the end of the test.
func (c *Cluster) copy(t testing.TB, template string) string {
	t.Helper()
	name := fmt.Sprintf("t%d_%d", os.Getpid(), shared.n.Add(1))
	id := pgx.Identifier{name}.Sanitize()
	if err := admin(c.URL("postgres"), "CREATE DATABASE "+id+" TEMPLATE "+template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin(c.URL("postgres"), "DROP DATABASE "+id+" WITH (FORCE)"); err != nil {
			t.Errorf("remove the test's database: %v", err)
		}
	})
	return c.URL(name)
}

var templates sync.Map // names of templates known to exist

func (c *Cluster) template(name string, fill func(url string) error) error {
	if _, ok := templates.Load(name); ok {
		return nil
	}
	unlock, err := startLock()
	if err != nil {
		return fmt.Errorf("lock the shared cluster: %w", err)
	}
	defer unlock()
	// A template is made under another name and renamed when it is complete, so that a template that a killed test left
	// incomplete is not used.
	id := pgx.Identifier{name}.Sanitize()
	part := pgx.Identifier{name + "_part"}.Sanitize()
	if admin(c.URL(name), "SELECT 1") == nil {
		templates.Store(name, true)
		return nil
	}
	for _, s := range []string{"DROP DATABASE IF EXISTS " + part + " WITH (FORCE)",
		"CREATE DATABASE " + part + " TEMPLATE template0"} {
		if err := admin(c.URL("postgres"), s); err != nil {
			return err
		}
	}
	if err := fill(c.URL(name + "_part")); err != nil {
		return fmt.Errorf("fill the template database: %w", err)
	}
	if err := admin(c.URL("postgres"), "ALTER DATABASE "+part+" RENAME TO "+id); err != nil {
		return err
	}
	templates.Store(name, true)
	return nil
}
