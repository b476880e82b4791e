package flow_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/flowtest"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

// victimEnv makes TestVictim a process that is going to be killed; its value is the database's driver and place.
const victimEnv = "TANDEM_FLOW_VICTIM"

// TestKilledProcess kills processes with signal 9 while they change and reconcile things. The next process must
// reconcile what the previous one left within the time of a recovery, and no acknowledged change may be missing in the
// end.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{db.SQLite, db.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := testkit.SQLiteConfig(t)
			place := c.File
			if driver == db.Postgres {
				cluster := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
				cluster.CreateDatabase(t, "tandem")
				place = cluster.URL("tandem")
				c = db.Default()
				c.Driver, c.URL = db.Postgres, place
			}
			acked := map[string]int64{}
			var slowest, slowestRan time.Duration
			left := 0
			for round := range killRounds + 1 {
				took, ran, behind := victim(t, driver+" "+place, acked, round < killRounds)
				slowest, slowestRan, left = max(slowest, took), max(slowestRan, ran), left+behind
				if t.Failed() {
					t.Fatalf("round %d failed", round)
				}
			}
			t.Logf("%d kills left %d things behind; slowest recovery %v, of which the process ran %v; %d things",
				killRounds, left, slowest.Round(time.Millisecond), slowestRan.Round(time.Millisecond), len(acked))
			if slowestRan > flowtest.Recovery {
				t.Errorf("slowest recovery %v, want at most %v", slowestRan, flowtest.Recovery)
			}
			d := testkit.Open(t, c)
			err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				return tx.Query(ctx, func(rows *sql.Rows) error {
					var id string
					var desired, observed int64
					if err := rows.Scan(&id, &desired, &observed); err != nil {
						return err
					}
					if desired < acked[id] || observed != desired {
						t.Errorf("%s: version %d acknowledged, %d stored, %d reconciled", id, acked[id], desired,
							observed)
					}
					return nil
				}, "SELECT id, desired, observed FROM things")
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// victim runs a process until it has recovered and then worked for a while, and kills it, or lets it finish. It returns
// how long the recovery took, for how much of that the process ran, and how many things had been left behind.
func victim(t *testing.T, database string, acked map[string]int64, kill bool) (took, ran time.Duration, behind int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), victimEnv+"="+database)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	}()
	recovered := false
	changes := 1 + rand.IntN(40) // until it is killed
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "recovered":
			if _, err := fmt.Sscan(rest, (*int64)(&took), (*int64)(&ran), &behind); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			recovered = true
			if !kill {
				in.Close()
			}
		case "changed":
			var id string
			var version int64
			if _, err := fmt.Sscan(rest, &id, &version); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			acked[id] = version
			if changes--; changes <= 0 && kill {
				return took, ran, behind
			}
		case "settled":
			return took, ran, behind
		}
	}
	t.Errorf("the process ended by itself (recovered: %v): %s", recovered, stderr.String())
	return 0, 0, 0
}

// TestVictim is the process that TestKilledProcess kills. It prints "recovered" when what the previous process left is
// reconciled, "changed" for each change that was committed, and, when its standard input ends, "settled".
func TestVictim(t *testing.T) {
	driver, place, ok := strings.Cut(os.Getenv(victimEnv), " ")
	if !ok {
		t.Skip("run by TestKilledProcess")
	}
	began, clock := time.Now(), pace.Start(t)
	c := db.Default()
	if c.Driver = driver; driver == db.SQLite {
		c.File = place
	} else {
		c.URL = place
		c.ConnectTimeout, c.ProbeTimeout = 20*time.Second, 20*time.Second
	}
	w := flowtest.NewWorld(t, testkit.Open(t, c))
	w.Act = func(ctx context.Context, _ *flowtest.Node, _ *flow.Run) (flow.Result, error) {
		select { // so that there are runs to be killed
		case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
			return flow.Result{}, nil
		case <-ctx.Done():
			return flow.Result{}, ctx.Err()
		}
	}
	behind := w.Behind()
	n := w.NewNode()
	n.Start()
	for !w.Settled() {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("recovered", int64(time.Since(began)), int64(clock.Now()), behind)

	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
		close(done)
	}()
	for open := true; open; {
		id := fmt.Sprint("t", rand.IntN(20))
		w.Change(id)
		fmt.Println("changed", id, w.Desired(id))
		select {
		case <-done:
			open = false
		case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
		}
	}
	for !w.Settled() {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("settled")
	w.Close()
}
