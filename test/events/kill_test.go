// Package events tests the event stream of the real program.
package events

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// TestKilledServer kills the program with signal 9 three times while accounts are created and events are followed. The
// follower gets every event once: positions have no gap, and every account that was acknowledged is there.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	binary := rig.Binary(t)
	for _, driver := range []string{db.SQLite, db.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			args := []string{"--data", dir, "--free-ports"}
			if driver == db.Postgres {
				args = append(args, "--set", "database.driver=postgres", "--set", "database.allowUnsafeDurability=true",
					"--set", "database.url="+testkit.PostgresConfig(t).URL)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			var p *child.Process
			start := func() (err error) {
				if p, err = child.Start(t.Output(), []string{binary}, args...); err == nil {
					_, err = p.Ready(ctx)
				}
				return err
			}
			if err := start(); err != nil {
				t.Fatal(err)
			}
			defer func() { p.Kill() }()
			c, err := client.NewSocket(filepath.Join(dir, node.SocketName), client.Options{Attempts: 50})
			if err != nil {
				t.Fatal(err)
			}

			const total = 60
			acknowledged := make(chan int, total)
			following := make(chan struct{})
			go func() {
				defer close(acknowledged)
				<-following
				for i := range total {
					name := fmt.Sprintf("account-%02d", i)
					a := &client.Account{Name: name, ServiceDetails: &client.AccountServices{}}
					if _, err := c.PutAccount(ctx, a, client.Condition{}); err != nil {
						t.Errorf("create account %d: %v", i, err)
						return
					}
					acknowledged <- i
				}
			}()
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				for i := range acknowledged {
					if i%20 == 10 {
						p.Kill()
						if err := start(); err != nil {
							t.Error(err)
						}
					}
				}
			}()
			seen, position := map[string]int{}, int64(-1)
			for e, err := range c.Events(ctx, "") {
				if err != nil {
					t.Fatal(err)
				}
				n, err := strconv.ParseInt(strings.Split(e.ID, ".")[1], 10, 64)
				if err != nil || position >= 0 && n != position+1 {
					t.Fatalf("event %s follows position %d", e.ID, position)
				}
				position = n
				if e.Kind == "stream.start" {
					close(following)
				}
				if e.Kind == "account.put" {
					seen[e.Subject]++
				}
				if e.Subject == fmt.Sprintf("account-%02d", total-1) {
					break
				}
			}
			<-killed
			for i := range total {
				if n := seen[fmt.Sprintf("account-%02d", i)]; n != 1 {
					t.Errorf("%d events of account %d, want 1", n, i)
				}
			}
		})
	}
}
