//go:build deep

package static

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandemgw/tandem/internal/testkit"
)

// TestFailoverThatLosesTransactions cuts the replication to a standby, continues to write, lets one node follow and
// pauses it, promotes the standby, and writes there as many entries as were lost, fewer, or more. The paused node is
// resumed: at no moment may it report that it is level and answer differently from the database, nor after its next
// restart. Then the same without a loss: the new timeline alone changes nothing.
func TestFailoverThatLosesTransactions(t *testing.T) {
	for _, c := range []struct {
		name       string
		lost, more int // writes that are lost, and writes made on the promoted standby
	}{{"as many since", 20, 20}, {"fewer since", 20, 3}, {"more since", 5, 40}, {"nothing lost", 0, 10}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			primary, _ := cluster(t)
			standby := primary.Standby(t)
			database := fmt.Sprintf("driver: postgres, url: %q", "postgres://postgres@/tandem?host="+
				primary.Dir+","+standby.Dir+"&target_session_attrs=read-write")
			writer, paused := newSite(t, database), newSite(t, database)
			writer.id, paused.id, paused.roles = "writer", "paused", "[edge]"
			writer.start(t)
			paused.start(t)
			want := writer.provision(t)
			paused.waitRoutes(t, want)
			standby.Replayed(t, primary)
			standby.CutReplication(t)

			before := map[string]route{}
			for n, r := range want {
				before[n] = r
			}
			api := writer.api(t)
			write := func(header string, count int) {
				t.Helper()
				for i := range count {
					n := nth(firstZoom, i%perKind)
					want[n] = route{[]service{zoom, oc}[i%2], fmt.Sprintf("%s-%d", header, i)}
					if err := put(t.Context(), api, n, want[n]); err != nil {
						t.Fatal(err)
					}
				}
			}
			write("lost", c.lost)
			paused.waitRoutes(t, want)
			if err := paused.n.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			primary.Kill(t)
			standby.Promote(t)

			want = before
			first := want[nth(firstDR, 0)]
			first.header = "new-primary"
			eventually(t, 30*time.Second, "writes succeed on the promoted standby", func() error {
				return put(t.Context(), api, nth(firstDR, 0), first)
			})
			want[nth(firstDR, 0)] = first
			write("since", c.more-1)
			head := feedHead(t, standby)

			woken := time.Now()
			if err := paused.n.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			paused.levelOnlyWhenRight(t, want, head, woken)
			writer.levelOnlyWhenRight(t, want, head, woken)
			paused.kill()
			paused.start(t)
			paused.levelOnlyWhenRight(t, want, head, woken)
			few := map[string]route{}
			for n, r := range want {
				if few[n] = r; len(few) == 40 {
					break
				}
			}
			paused.callThem(t, few)
		})
	}
}

// levelOnlyWhenRight waits until the node reports that it is level with the database, as of a time after since.
// Whatever it answers between two such reports must be right.
func (s *site) levelOnlyWhenRight(t *testing.T, want map[string]route, head int64, since time.Time) {
	t.Helper()
	level := func() bool {
		h, err := s.local.Health(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return h.Replica.Current && h.Replica.Position == head && h.Replica.Synced.After(since)
	}
	deadline := time.Now().Add(time.Minute)
	for right := 0; right < 3; {
		before := level()
		err := s.compare(t.Context(), want)
		switch after := level(); {
		case before && after && err != nil:
			t.Fatalf("node %s reports that it is level: %v", s.id, err)
		case before && after:
			right++
		case time.Now().After(deadline):
			h, herr := s.local.Health(t.Context())
			t.Fatalf("node %s does not become level with position %d: %+v, %v; %v", s.id, head, h.Replica, herr, err)
		}
	}
}

// feedHead returns the newest position in the database.
func feedHead(t *testing.T, c *testkit.Cluster) (head int64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("tandem"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT position FROM feed_head").Scan(&head); err != nil {
		t.Fatal(err)
	}
	return head
}
