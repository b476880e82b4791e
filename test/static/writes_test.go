//go:build deep

package static

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/test/rig"
)

// fault is one way in which a database stops accepting writes, and the cause that must be named.
type fault struct {
	name, cause string
	begin       func(t *testing.T) (end func())
}

// TestReadyzFollowsWrites causes every fault with the real program: /readyz?role=api must be 503 with the cause within
// 5 s, a write must be answered 503 with Retry-After, calls must still be routed, and within 5 s after the end of the
// fault everything must be as before.
func TestReadyzFollowsWrites(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		disk := testkit.SmallDisk(t, 250)
		pg := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true, Parent: disk})
		s := newSite(t, fmt.Sprintf("driver: postgres, url: %q", pg.CreateOwned(t, "tandem", "tandem")))
		sql := func(statements ...string) func(*testing.T) func() {
			return func(t *testing.T) func() {
				pg.Admin(t, "tandem", statements[0])
				pg.Admin(t, "tandem", "SELECT pg_reload_conf()")
				return func() {
					pg.Admin(t, "tandem", statements[1])
					pg.Admin(t, "tandem", "SELECT pg_reload_conf()")
				}
			}
		}
		follow(t, s, []fault{
			{"read-only", "read-only transaction", sql(
				"ALTER SYSTEM SET default_transaction_read_only = on",
				"ALTER SYSTEM RESET default_transaction_read_only")},
			{"permissions withdrawn", "permission denied", sql(
				"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tandem",
				"GRANT ALL ON ALL TABLES IN SCHEMA public TO tandem")},
			{"permission for numbers withdrawn", "numbers", sql(
				"REVOKE ALL ON numbers FROM tandem",
				"GRANT ALL ON numbers TO tandem")},
			{"disk full", "No space left on device", func(t *testing.T) func() { return testkit.FillDisk(t, disk) }},
			{"stopped (SIGSTOP)", "", func(t *testing.T) func() { pg.Pause(t); return func() { pg.Resume(t) } }},
			{"killed", "", func(t *testing.T) func() { pg.Kill(t); return func() { pg.Start(t) } }},
		})
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		disk := testkit.SmallDisk(t, 16)
		file := filepath.Join(disk, "tandem.db")
		s := newSite(t, "file: "+file)
		damage := func(first, last int64) func(*testing.T) func() {
			return func(t *testing.T) func() {
				f, err := os.OpenFile(file, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				good, err := io.ReadAll(f)
				if err != nil {
					t.Fatal(err)
				}
				last := min(last, int64(len(good)))
				if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, int(last-first)), first); err != nil {
					t.Fatal(err)
				}
				return func() {
					defer f.Close()
					if _, err := f.WriteAt(good[first:last], first); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		follow(t, s, []fault{
			{"disk full", "no space left on device", func(t *testing.T) func() { return testkit.FillDisk(t, disk) }},
			{"header damaged", "damaged", damage(0, 16)},
			{"file damaged", "", damage(0, 1<<30)},
			{"file removed", "removed or replaced", func(t *testing.T) func() {
				if err := os.Rename(file, file+".away"); err != nil {
					t.Fatal(err)
				}
				return func() {
					if err := os.Rename(file+".away", file); err != nil {
						t.Fatal(err)
					}
				}
			}},
		})
	})
}

func follow(t *testing.T, s *site, faults []fault) {
	s.start(t)
	s.provision(t)
	c := s.api(t)
	write := func() error {
		return put(t.Context(), c, nth(firstDR, 1), route{dr, fmt.Sprint("W-", time.Now().UnixNano())})
	}
	ready := func(want int) answer {
		var a answer
		eventually(t, 60*time.Second, fmt.Sprintf("/readyz?role=api is %d", want), func() (err error) {
			if a, err = s.readyz(t.Context(), "api"); err == nil && a.status != want {
				err = errors.New(a.String())
			}
			return err
		})
		return a
	}
	for _, f := range faults {
		end := f.begin(t)
		at := time.Now()
		a := ready(503)
		bad := time.Since(at)
		if !strings.Contains(a.body, f.cause) || !strings.Contains(a.body, "since 20") ||
			strings.Contains(a.body, "Repeatability") {
			t.Errorf("%s: /readyz?role=api is %s, want a cause with %q and its start time", f.name, a.body, f.cause)
		}
		var e *client.Error
		if err := write(); !errors.As(err, &e) || e.Status != 503 || e.RetryAfter == 0 {
			t.Errorf("%s: a write got %v, want 503 with Retry-After", f.name, err)
		}
		if a, err := s.readyz(t.Context(), "edge"); err != nil || a.status != 200 {
			t.Errorf("%s: /readyz?role=edge %v %v", f.name, a, err)
		}
		if r, err := s.routed(t.Context(), nth(firstOC, 1)); err != nil || r.service != oc {
			t.Errorf("%s: a call is routed %+v %v", f.name, r, err)
		}
		if v := s.metric(t, "tandem_db_writable"); v != 0 {
			t.Errorf("%s: tandem_db_writable %v", f.name, v)
		}
		end()
		at = time.Now()
		ready(200)
		good := time.Since(at)
		if err := write(); err != nil {
			t.Errorf("%s: a write afterwards: %v", f.name, err)
		}
		if v := s.metric(t, "tandem_db_writable"); v != 1 {
			t.Errorf("%s: tandem_db_writable %v afterwards", f.name, v)
		}
		t.Logf("%s: 503 after %v, 200 %v after its end; %s", f.name, bad.Round(10*time.Millisecond),
			good.Round(10*time.Millisecond), a.body)
		if bad > 5*time.Second || good > 5*time.Second {
			t.Errorf("%s: 503 after %v, 200 again after %v; want at most 5 s", f.name, bad, good)
		}
	}
	if out, err := s.local.VerifyAudit(t.Context()); err != nil || !out.OK {
		t.Errorf("audit: %+v %v", out, err)
	}
}

// TestRestartAfterKillIsNeverRefused kills a node with signal 9 and starts it again at once, and tries to start a
// second one with its id.
func TestRestartAfterKillIsNeverRefused(t *testing.T) {
	t.Parallel()
	_, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	for range 10 {
		s.kill()
		s.start(t)
		if n := s.metric(t, "tandem_node_id_conflict"); n != 0 {
			t.Error("the node is in conflict with its killed process")
		}
	}
	other := newSite(t, database)
	other.writeConfig(t)
	out, err := exec.CommandContext(t.Context(), rig.Binary(t), "serve", "--data", other.dir,
		"--config", other.config).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), `node id "n1" is held on this database by`) ||
		!strings.Contains(string(out), "calls.node") {
		t.Errorf("a second node with the same id: %v\n%s", err, out)
	}
	if a, err := s.readyz(t.Context(), ""); err != nil || a.status != 200 {
		t.Errorf("the first node: %v %v", a, err)
	}
}
