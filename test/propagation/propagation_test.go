// Package propagation tests that calls are routed by what is provisioned: changes go through the directory, the store
// and the feed of a real database into the number index, quickly, completely, and across restarts of the process.
package propagation

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

type sealer struct{ cipher.AEAD }

func newSealer(t *testing.T) sealer {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{g}
}

func (s sealer) Seal(purpose string, plain []byte) ([]byte, error) {
	n := make([]byte, s.NonceSize())
	rand.Read(n)
	return s.AEAD.Seal(n, n, plain, []byte(purpose)), nil
}

func (s sealer) Open(purpose string, b []byte) ([]byte, error) {
	if len(b) < s.NonceSize() {
		return nil, errors.New("too short")
	}
	return s.AEAD.Open(nil, b[:s.NonceSize()], b[s.NonceSize():], []byte(purpose))
}

// away is an unreachable database.
type away struct{}

var errAway = errors.New("connection refused")

func (away) Read(context.Context, string, feed.Cursor, int) (feed.Page, error) {
	return feed.Page{}, errAway
}
func (away) Wait(context.Context, feed.Position) error { return errAway }
func (away) Scan(context.Context, func([]domain.Change) error) (feed.Cursor, error) {
	return feed.Cursor{}, errAway
}

func open(t *testing.T, dir string, src replica.Source) *replica.Replica {
	t.Helper()
	r, err := replica.Open(replica.Config{}, dir, src, newSealer(t), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wait waits until the index holds position p.
func wait(t *testing.T, r *replica.Replica, p feed.Position) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s := r.Status(); !s.Loaded || s.Position < p; s = r.Status() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("position %d does not reach the index: %+v", p, s)
		}
	}
}

func run(t *testing.T, parts ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(parts))
	for _, p := range parts {
		go func() { done <- p(ctx) }()
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range parts {
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func account(name, label string, screening bool) domain.Account {
	return domain.Account{Name: name, HasServiceDetails: true, Services: map[domain.Service]domain.AccountService{
		directrouting.Service: {Enabled: true, DirectRouting: &domain.DirectRoutingConfig{CallScreening: screening,
			Label: domain.Label{Subdomain: label, Region1Token: "MS=ms1", Region2Token: "MS=ms2"}}},
		zoom.Service: {Enabled: true},
	}}
}

func number(i int, account string, s domain.Service, header string) domain.Number {
	return domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+44207946%04d", i)), AccountName: account,
		Services: map[domain.Service]domain.NumberService{s: {Enabled: true}}, HasConfiguration: header != "",
		CustomSIPHeader: header}
}

// compare checks the index against the directory, both ways.
func compare(t *testing.T, r *replica.Replica, dir *directory.Directory) {
	t.Helper()
	ctx := context.Background()
	v, ok := r.Route().(*replica.View)
	if !ok {
		t.Fatal("there is no index")
	}
	var all []domain.Number
	for q := (directory.Query{Limit: 200}); ; {
		page, err := dir.Numbers(ctx, "", q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Items...)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if int64(len(all)) != v.Numbers() || len(all) == 0 {
		t.Errorf("the index holds %d numbers, the directory %d", v.Numbers(), len(all))
	}
	for _, n := range all {
		got, ok := v.Number(n.TelephoneNumber)
		if !ok || got.Account.Name != n.AccountName || got.Services != n.Enabled() ||
			v.CustomHeader(n.TelephoneNumber) != n.CustomSIPHeader {
			t.Errorf("%s reads as %+v with header %q, the directory has %+v", n.TelephoneNumber, got,
				v.CustomHeader(n.TelephoneNumber), n)
		}
	}
	as, err := dir.Accounts(ctx, directory.Query{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range as.Items {
		want := a.Routing()
		if got := v.AccountByLabel(want.Subdomain); got == nil || *got != *want {
			t.Errorf("label %s gives %+v, the directory has %+v", want.Subdomain, got, want)
		}
	}
}

func TestPropagation(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx := context.Background()
		log := slog.New(slog.DiscardHandler)
		o := outbox.New(d, outbox.Default(), log, nil)
		st := provisioning.New(d, o, services.All().Services())
		dir := directory.New(st, directory.Config{BaseDomain: "gw.example.com"}, log, nil)
		run(t, d.Run, o.Run)

		must := func(res *directory.Result, err error) feed.Position {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return res.Position
		}
		accounts := []string{"contoso", "fabrikam"}
		must(dir.PutAccount(ctx, account("contoso", "contoso", true), directory.Write{}))
		must(dir.PutAccount(ctx, account("fabrikam", "fab", false), directory.Write{}))
		for i := range 3 {
			var batch []domain.Number
			for j := range 100 {
				batch = append(batch, number(i*100+j, accounts[i%2], directrouting.Service, fmt.Sprintf("C-%d", j)))
			}
			must(dir.PutNumbers(ctx, accounts[i%2], batch, directory.Write{}))
		}

		// The first index loads everything; a second one starts while changes continue.
		path := t.TempDir()
		r := open(t, path, st.Source())
		stop := run(t, r.Run)
		var late *replica.Replica
		rnd := mrand.New(mrand.NewPCG(1, 1))
		clock := pace.Start(t) // a busy machine is not a slow change
		var delays []time.Duration
		var last feed.Position
		const writes = 250
		for i := range writes {
			if i == writes/2 {
				late = open(t, t.TempDir(), st.Source())
				run(t, late.Run)
			}
			n := rnd.IntN(400)
			e := domain.E164(fmt.Sprintf("+44207946%04d", n))
			owner := accounts[n/100%2]
			begun := clock.Now()
			var res *directory.Result
			var err error
			switch rnd.IntN(4) {
			case 0:
				res, err = dir.DeleteNumber(ctx, owner, e, directory.Write{})
				if fault.HasCode(err, directory.CodeNumberNotFound) {
					continue
				}
			case 1:
				res, err = dir.PutNumber(ctx, number(n, owner, zoom.Service, ""), directory.Write{})
			default:
				res, err = dir.PutNumber(ctx, number(n, owner, directrouting.Service, fmt.Sprintf("W-%d", i)),
					directory.Write{})
			}
			last = max(last, must(res, err))
			wait(t, r, last)
			delays = append(delays, clock.Now()-begun)
		}
		compare(t, r, dir)
		slices.Sort(delays)
		p50, p99 := delays[len(delays)/2], delays[len(delays)*99/100]
		t.Logf("from the call of the directory until it is routed by and on disk: p50 %v, p99 %v of %d changes", p50,
			p99, len(delays))
		if p99 > time.Second {
			t.Errorf("p99 = %v, want at most 1s (design section 5)", p99)
		}
		wait(t, late, last)
		compare(t, late, dir)

		// What a kill at this moment leaves on disk is complete, even without the database.
		image := t.TempDir()
		if err := os.CopyFS(image, os.DirFS(path)); err != nil {
			t.Fatal(err)
		}
		compare(t, open(t, image, away{}), dir)

		// An account is deleted with its numbers; a process that starts after many changes catches up through the feed.
		stop()
		p := must(dir.DeleteAccount(ctx, "fabrikam", true, directory.Write{}))
		r = open(t, path, st.Source())
		run(t, r.Run)
		wait(t, r, p)
		compare(t, r, dir)
		if a := r.Route().AccountByLabel("fab"); a != nil {
			t.Errorf("the deleted account still has its label: %+v", a)
		}
	})
}
