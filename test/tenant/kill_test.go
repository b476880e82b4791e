//go:build deep

package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/testkit"
)

const kills = 40 // TANDEM_CRASH_ROUNDS overrides it

// setting returns a number from the environment.
func setting(t *testing.T, name string, or int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return or
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// The program is killed at random moments while it sets up the operator's tenant, onboards, activates users, leaves and
// restores. After each of these both tenants and the rows are as without that.
func TestKilled(t *testing.T) {
	seed := setting(t, "TANDEM_CRASH_SEED", rand.IntN(1_000_000))
	t.Logf("TANDEM_CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	all := setting(t, "TANDEM_CRASH_ROUNDS", kills)
	for _, trunk := range []api.TenantSettingsTrunk{"derived", "gateways"} {
		t.Run(string(trunk), func(t *testing.T) {
			var want []stage
			t.Run("undisturbed", func(t *testing.T) { want = journey(t, &killer{}, trunk, nil) })
			done := 0
			for round := 0; done < (all+1)/2 && !t.Failed(); round++ {
				t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
					var set []string
					if round%2 == 1 {
						c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
						c.CreateDatabase(t, "tandem")
						set = []string{"database.driver=postgres", "database.url=" + c.URL("tandem")}
					}
					k := &killer{random: random}
					for i, got := range journey(t, k, trunk, want, set...) {
						if diff := cmp.Diff(want[i], got, cmp.AllowUnexported(stage{}),
							cmpopts.IgnoreFields(stage{}, "requests")); diff != "" {
							t.Errorf("after the stage %s (-undisturbed +killed):\n%s", got.name, diff)
						}
					}
					t.Logf("%d kills at %v", k.kills, k.done)
					done += k.kills
				})
			}
			t.Logf("%d kills", done)
		})
	}
}

// killer kills the program at some of the requests that arrive at Microsoft, or a little later.
type killer struct {
	random *rand.Rand
	kill   func()
	kills  int // that a running program met, set at the end

	mu    sync.Mutex // guards what follows
	stage string
	n     int   // requests of the stage
	at    []int // those at which the program is killed
	done  []string
}

// begin begins a stage with two kills, of which so many requests are expected; none if that is 0.
func (k *killer) begin(stage string, requests int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stage, k.n, k.at = stage, 0, nil
	if requests > 0 {
		k.at = []int{1 + k.random.IntN(requests), 1 + k.random.IntN(requests)}
		slices.Sort(k.at)
	}
}

// end ends a stage and returns how many requests it had.
func (k *killer) end() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = nil
	return k.n
}

// observe is called after the effect of a request and before its answer.
func (k *killer) observe(microsoft.Exchange) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n++; len(k.at) == 0 || k.n < k.at[0] {
		return
	}
	k.at = k.at[1:]
	later := time.Duration(k.random.IntN(2)*k.random.IntN(30)) * time.Millisecond
	k.done = append(k.done, fmt.Sprintf("%s %d+%v", k.stage, k.n, later))
	if later == 0 {
		k.kill()
		return
	}
	time.AfterFunc(later, k.kill) // the moment is random: this is not synchronisation
}

// stage is what is there after a stage.
type stage struct {
	name               string
	requests           int
	operator, customer map[string]map[string]any
	rows               map[string]any
}

// journey goes all the way and returns what is there after each stage. The program is killed in each if there are
// stages without that to compare with.
func journey(t *testing.T, k *killer, trunk api.TenantSettingsTrunk, undisturbed []stage,
	set ...string) (stages []stage) {
	t.Helper()
	w := start(t, set...)
	w.settings(func(s *microsoft.Settings) {
		s.Propagation, s.TeamsPropagation = 50*time.Millisecond, 100*time.Millisecond
		s.OperationDelay, s.ActivationDelay = 100*time.Millisecond, 500*time.Millisecond
	})
	k.kill = w.kill
	observe := k.observe
	w.observe.Store(&observe)
	during := func(name string, do func()) {
		requests := 0
		if len(undisturbed) > 0 {
			requests = undisturbed[len(stages)].requests
		}
		k.begin(name, requests)
		do()
		n := k.end()
		w.alive()
		stages = append(stages, stage{name, n, w.state(w.Operator), w.state(w.Customer), w.rows()})
	}

	w.signIn(carrier, w.Operator.Admin, w.Operator.Admin)
	during("carrier", w.setUpCarrier)
	w.account()
	w.signIn(customer, w.Customer.Admin, w.ServiceUser())
	before := w.Customer.Dump()
	w.choose(api.TenantSettings{Trunk: trunk})
	during("onboard", func() {
		w.carry(customer, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}, api.TenantStateOnboarded)
	})
	names := free(w.sync(customer), 8)
	during("activate", func() { w.activate(customer, names) })
	during("leave", func() { w.leave(before) })

	w.signIn(customer, w.Customer.Admin, w.ServiceUser())
	var snapshot string
	w.do("snapshots", func(ctx context.Context) error {
		all, err := w.p.Manage.Snapshots(ctx, customer)
		if err == nil && len(all) == 0 {
			err = neverf("there is none")
		}
		if err == nil {
			snapshot = all[0].ID
		}
		return err
	})
	during("restore", func() {
		w.carry(customer, api.PlanRequest{Purpose: api.PlanRequestPurposeRestore, Snapshot: snapshot},
			api.TenantStateOnboarded)
		w.active(customer, wanted(names))
	})
	k.kills = w.restarts
	return stages
}

// rows returns what the management API and the Provisioning API say of the tenants and the account.
func (w *world) rows() map[string]any {
	w.t.Helper()
	rows := map[string]any{}
	w.do("rows", func(ctx context.Context) error {
		t, _, err := w.p.Manage.Tenant(ctx, carrier)
		if err != nil {
			return err
		}
		rows[carrier] = t
		t, _, err = w.p.Manage.Tenant(ctx, customer)
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
			return nil
		} else if err != nil {
			return err
		}
		rows[customer] = t
		account, err := w.p.API.Account(ctx, customer)
		if err != nil {
			return err
		}
		rows["account"] = account.ServiceDetails
		users, err := w.p.Manage.Users(ctx, customer, api.ListUsersParams{})
		for _, u := range users {
			if u.Activation != nil {
				rows["user "+u.User] = *u.Activation
			}
		}
		return err
	})
	return rows
}
