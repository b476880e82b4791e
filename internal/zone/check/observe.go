package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/zone"
)

// Observed is what the name servers answer for the names of an account.
type Observed struct {
	Account string
	Label   domain.Label // the active one, which was checked
	Status  domain.SubdomainStatus
}

// Accounts are the accounts whose names are observed. Its methods are safe for concurrent use.
type Accounts interface {
	zone.Customers
	// Observed stores the status of accounts. One that has another active label or other tokens by now stays as it is.
	Observed(ctx context.Context, all []Observed) error
}

// Feed is the change feed.
type Feed interface {
	feed.Reader
	// Head returns the newest place.
	Head(ctx context.Context) (feed.Cursor, error)
}

const (
	runFor = 4 * time.Minute // a run ends, so that another node can take over; package flow allows 5 minutes
	batch  = 500             // accounts stored in one transaction
	slice  = 20              // accounts checked together
	// queriesPerSecond bounds what all name servers together are asked.
	queriesPerSecond = 1000
	// sweepEvery is how often each account is checked at least.
	sweepEvery = time.Hour
	// An account that has changed is checked this often, for this long, until all is well.
	freshEvery = 1500 * time.Millisecond
	freshFor   = time.Minute
	// doubtful is how many times in a row a name server must fail before it counts.
	doubtful = 2
	// handover is how long another node may have observed without making this one's knowledge doubtful.
	handover = 10 * time.Second
)

// Observer keeps the subdomainStatus of all accounts true: it asks every name server for the names of every account. It
// is the kind of one key of package flow, so that one node observes at a time. What it knows is in memory; another node
// that takes over asks again.
//
//	provisioned     every name server answers the token and the addresses, in every region
//	notProvisioned  none does
//	inconsistent    some do
//
// A name server that is unreachable or lame does not answer as it should; one whose serial is old may.
type Observer struct {
	names    *names
	every    time.Duration
	servers  *Servers
	accounts Accounts
	feed     Feed
	log      *slog.Logger
	checks   *prometheus.CounterVec
	drained  context.Context
	drain    context.CancelFunc
	shown    atomic.Pointer[snapshot]
	running  atomic.Bool

	// What follows belongs to the run in progress.
	at      feed.Cursor // zero: load all accounts
	ended   time.Time   // of the last run
	probeAt time.Time
	known   map[string]*entry
	targets []*target
	counts  map[domain.SubdomainStatus]int
}

// target is an address of a name server.
type target struct {
	Server
	failures int     // in a row; from doubtful on it is down
	problem  Problem // of the last failure
	text     string
	serial   uint32
}

func (t *target) down() bool { return t.failures >= doubtful }

// verdict is what is known about the answers of one name server about one account.
type verdict uint8

const (
	unknown verdict = iota
	doubt           // wrong once
	wrong
	right
)

// entry is an account that has an active label.
type entry struct {
	account string
	label   domain.Label
	stored  domain.SubdomainStatus
	seen    []verdict // by target
	fresh   time.Time // the end of the time in which it is checked often
	due     time.Time // when it is checked next
	urgent  bool      // it has changed, or is in doubt: it is checked before others that are due
}

// NewObserver returns an observer of the zone of a base domain, which checks the name servers every so often. regions
// are the labels of Direct Routing. The names have been validated.
func NewObserver(n *zone.Names, base string, regions []string, every time.Duration, s *Servers, a Accounts, f Feed,
	log *slog.Logger, reg prometheus.Registerer) *Observer {
	o := &Observer{names: newNames(n, base, regions), every: every, servers: s, accounts: a, feed: f, log: log}
	o.drained, o.drain = context.WithCancel(context.Background())
	o.register(reg)

	return o
}

// Work returns the key of the work that Kind does. There is one, so that one node at a time observes.
func Work() flow.Key { return flow.Key{Kind: "zone", ID: "status"} }

// Kind returns the work of observing, which a worker does.
func (o *Observer) Kind() *flow.Kind {
	return &flow.Kind{Name: Work().Kind, Workers: 1,
		List: func(_ context.Context, after string, _ int) ([]string, error) {
			if after == "" {
				return []string{Work().ID}, nil
			}
			return nil, nil
		},
		Reconcile: func(ctx context.Context, _ *flow.Run) (flow.Result, error) {
			err := o.Run(ctx)
			return flow.Result{Again: time.Now()}, err
		}}
}

// Drain ends the run in progress, and those to come at once.
func (o *Observer) Drain() { o.drain() }

// Run observes for some minutes, or until ctx ends. It returns an error if the database cannot be used. Only one call
// may run at a time.
func (o *Observer) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	defer context.AfterFunc(o.drained, cancel)()
	o.running.Store(true)
	defer func() {
		o.ended = time.Now()
		o.show()
		o.running.Store(false)
	}()

	if o.at != (feed.Cursor{}) && time.Since(o.ended) > handover {
		o.forget()
	}
	for ctx.Err() == nil {
		if err := o.step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}

	return nil
}

// step does what is due, or waits until something is.
func (o *Observer) step(ctx context.Context) error {
	if err := o.follow(ctx); err != nil {
		return err
	}
	if !time.Now().Before(o.probeAt) {
		o.probe(ctx)
	}
	began := time.Now()
	list, next := o.take(began)
	asked := o.check(ctx, list)
	if err := o.store(ctx); err != nil {
		return err
	}
	o.show()

	if len(list) > 0 {
		pause(ctx, time.Until(began.Add(time.Duration(asked)*time.Second/queriesPerSecond)))
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, next)
	defer cancel()
	if err := o.feed.Wait(ctx, o.at.Position); ctx.Err() == nil {
		return err
	}

	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// follow takes over what has changed in the directory.
func (o *Observer) follow(ctx context.Context) error {
	if o.at == (feed.Cursor{}) {
		return o.load(ctx)
	}
	for {
		page, err := o.feed.Read(ctx, feed.Provisioning, o.at, 100)
		switch {
		case errors.Is(err, feed.ErrGap), errors.Is(err, feed.ErrFork), errors.Is(err, feed.ErrOtherDatabase):
			return o.load(ctx)
		case err != nil:
			return err
		}
		changed := map[string]bool{}
		for _, e := range page.Entries {
			var changes []domain.Change
			if err := json.Unmarshal(e.Payload, &changes); err != nil {
				return fmt.Errorf("zone: feed entry %d: %w", e.Position, err)
			}
			for _, c := range changes {
				switch {
				case c.Account == nil:
				case !c.Observed:
					changed[c.Account.Name] = true
				case o.known[c.Account.Name] != nil: // stored by this node, or by one that observed before
					o.keep(o.known[c.Account.Name], cmp.Or(c.Account.SubdomainStatus, domain.SubdomainProvisioned))
				}
			}
		}
		for name := range changed {
			c, err := o.accounts.Customer(ctx, name)
			if err != nil {
				return err
			}
			o.put(&c, time.Now().Add(freshFor))
		}
		if o.at = page.Next; len(page.Entries) == 0 {
			return nil
		}
	}
}

// load reads all accounts.
func (o *Observer) load(ctx context.Context) error {
	at, err := o.feed.Head(ctx) // what changes meanwhile is read again
	if err != nil {
		return err
	}
	o.known, o.counts = map[string]*entry{}, map[domain.SubdomainStatus]int{}
	for after := ""; ; {
		page, err := o.accounts.Customers(ctx, after, batch)
		if err != nil {
			return err
		}
		for i := range page {
			after = page[i].Account
			o.put(&page[i], time.Time{})
		}
		if len(page) < batch {
			o.at = at
			return nil
		}
	}
}

// put takes over an account. If its active label is another one now, it is checked at once, and often until fresh.
func (o *Observer) put(c *zone.Customer, fresh time.Time) {
	e := o.known[c.Account]
	if e != nil && e.label != c.Active {
		o.counts[e.stored]--
		delete(o.known, c.Account)
		e = nil
	}
	if c.Active.Subdomain == "" {
		return
	}
	if e == nil {
		e = &entry{account: c.Account, label: c.Active, seen: make([]verdict, len(o.targets)), stored: c.Status,
			fresh: fresh, due: time.Now(), urgent: !fresh.IsZero()}
		o.known[c.Account] = e
		o.counts[e.stored]++
	}
	o.keep(e, c.Status)
}

// keep notes the status that is stored.
func (o *Observer) keep(e *entry, s domain.SubdomainStatus) {
	o.counts[e.stored]--
	e.stored = s
	o.counts[s]++
}

// forget makes everything unknown: another node has observed meanwhile.
func (o *Observer) forget() {
	for _, t := range o.targets {
		t.failures = 0
	}
	for _, e := range o.known {
		clear(e.seen)
		if e.stored != domain.SubdomainProvisioned {
			e.plan(time.Now(), false)
		}
	}
	o.probeAt = time.Time{}
}

// probe asks each name server for the SOA record. One that has failed before, and does so again, is down.
func (o *Observer) probe(ctx context.Context) {
	o.resolve(ctx)
	servers := make([]Server, len(o.targets))
	for i, t := range o.targets {
		servers[i] = t.Server
	}
	serials, found := versions(ctx, o.names.origin, servers)
	for i, t := range o.targets {
		if !t.Addr.IsValid() {
			found[i] = &Finding{Problem: t.problem, Text: t.text}
		}
	}
	if ctx.Err() != nil {
		return
	}

	changed := false
	for i, t := range o.targets {
		was := t.down()
		if bad := found[i]; bad != nil {
			t.fail(bad)
		} else {
			t.failures, t.problem, t.text, t.serial = 0, "", "", serials[i]
		}
		if t.down() == was {
			continue
		}
		changed = true
		if t.down() {
			o.log.Warn("name server does not answer for the zone; accounts turn inconsistent", "server", t.Name,
				"address", t.Addr, "problem", string(t.problem), "error", t.text)
			continue
		}
		o.log.Info("name server answers for the zone again; checking all accounts", "server", t.Name,
			"address", t.Addr, "serial", t.serial)
		for _, e := range o.known {
			e.seen[i] = unknown // it may have old content
		}
	}
	o.probeAt = time.Now().Add(o.every)
	if changed {
		o.recheck()
	}
}

func (t *target) fail(f *Finding) {
	t.failures, t.problem, t.text, t.serial = t.failures+1, f.Problem, f.Text, 0
}

// resolve makes the targets those of the present addresses.
func (o *Observer) resolve(ctx context.Context) {
	present, unresolved := o.servers.Present(ctx)
	if ctx.Err() != nil {
		return
	}
	same := slices.EqualFunc(present, o.targets, func(s Server, t *target) bool { return s == t.Server })
	before := o.targets
	if !same {
		from := make([]int, len(present))
		o.targets = make([]*target, len(present))
		for i, s := range present {
			from[i] = slices.IndexFunc(before, func(t *target) bool { return t.Server == s })
			if from[i] >= 0 {
				o.targets[i] = before[from[i]]
			} else {
				o.targets[i] = &target{Server: s}
			}
		}
		for _, e := range o.known {
			seen := e.seen
			e.seen = make([]verdict, len(present))
			for i, j := range from {
				if j >= 0 {
					e.seen[i] = seen[j]
				}
			}
		}
	}
	for _, f := range unresolved {
		for _, t := range o.targets {
			if t.Server == f.Server {
				t.problem, t.text = f.Problem, f.Text
			}
		}
	}
	if !same {
		o.recheck()
	}
}

// recheck checks the accounts whose status is not certain now.
func (o *Observer) recheck() {
	now := time.Now()
	for _, e := range o.known {
		if _, certain := o.status(e); !certain && e.due.After(now) {
			e.plan(now, false)
		}
	}
}

// take returns some of the accounts that are due, and when the next of the others is, or the next probe.
func (o *Observer) take(now time.Time) (list []*entry, next time.Time) {
	next = o.probeAt
	for _, e := range o.known {
		if e.due.After(now) {
			if e.due.Before(next) {
				next = e.due
			}
			continue
		}
		i, _ := slices.BinarySearchFunc(list, e, func(a, b *entry) int {
			switch {
			case a.urgent && !b.urgent:
				return -1
			case b.urgent && !a.urgent:
				return 1
			}
			return a.due.Compare(b.due)
		})
		list = slices.Insert(list, i, e)
		list = list[:min(len(list), slice)]
	}

	return list, next
}

// check asks the name servers that answer about accounts, and plans the next check. It returns the number of questions.
func (o *Observer) check(ctx context.Context, list []*entry) int {
	if len(list) == 0 {
		return 0
	}
	var asked []Name
	for _, e := range list {
		asked = append(asked, o.names.of(e.label)...)
	}
	perAccount, sent := len(asked)/len(list), 0
	good := make([][]bool, len(o.targets))
	silent := make([]*Finding, len(o.targets))
	each(o.targets, func(i int, t *target) {
		if t.failures > 0 {
			return
		}
		var found [][]Finding
		if found, silent[i] = ask(ctx, t.Server, asked); silent[i] != nil {
			return
		}
		good[i] = make([]bool, len(list))
		for j := range list {
			good[i][j] = !slices.ContainsFunc(found[j*perAccount:(j+1)*perAccount],
				func(f []Finding) bool { return len(f) > 0 })
		}
	})
	if ctx.Err() != nil { // what was found says nothing
		return 0
	}

	for i, t := range o.targets {
		if silent[i] != nil {
			t.fail(silent[i])
		}
		if good[i] == nil {
			continue
		}
		sent += questions * len(asked)
		for j, e := range list {
			switch {
			case good[i][j]:
				e.seen[i] = right
			case e.seen[i] == doubt, e.seen[i] == wrong:
				e.seen[i] = wrong
			default:
				e.seen[i] = doubt
			}
		}
	}
	now := time.Now()
	for _, e := range list {
		status, _ := o.status(e)
		o.checks.WithLabelValues(status.String()).Inc()
		o.replan(e, now)
	}

	return sent
}

// replan plans the next check of an account that was just checked.
func (o *Observer) replan(e *entry, now time.Time) {
	well, doubts := true, false
	for i, t := range o.targets {
		doubts = doubts || e.seen[i] == doubt && t.failures == 0
		well = well && (e.seen[i] == right || t.down())
	}
	switch {
	case well && len(o.targets) > 0:
		e.plan(turn(e.account, now), false)
	case doubts || now.Before(e.fresh):
		e.plan(now.Add(freshEvery), true)
	default:
		e.plan(now.Add(o.every), false)
	}
}

// turn returns the next time at which the sweep comes to an account. It is the same on all nodes, so that a node that
// takes over continues the sweep.
func turn(account string, now time.Time) time.Time {
	h := fnv.New32a()
	_, _ = h.Write([]byte(account)) // a hash never fails
	at := now.Truncate(sweepEvery).Add(time.Duration(h.Sum32()%uint32(sweepEvery/time.Millisecond)) * time.Millisecond)
	if !at.After(now) {
		at = at.Add(sweepEvery)
	}

	return at
}

// status returns the status of an account, and whether everything that it depends on is known. What is not known leaves
// the status as it is.
func (o *Observer) status(e *entry) (domain.SubdomainStatus, bool) {
	good, bad := 0, 0
	for i, t := range o.targets {
		switch {
		case t.down() || e.seen[i] == wrong:
			bad++
		case e.seen[i] == right:
			good++
		}
	}
	certain := good+bad == len(o.targets) && good+bad > 0
	switch {
	case good > 0 && bad > 0:
		return domain.SubdomainInconsistent, certain
	case !certain:
		return e.stored, false
	case bad == 0:
		return domain.SubdomainProvisioned, true
	}

	return domain.SubdomainNotProvisioned, true
}

// store stores the status of the accounts for which it has changed.
func (o *Observer) store(ctx context.Context) error {
	var all []Observed
	for _, e := range o.known {
		if s, _ := o.status(e); s != e.stored {
			all = append(all, Observed{e.account, e.label, s})
		}
	}
	for part := range slices.Chunk(all, batch) {
		if err := o.accounts.Observed(ctx, part); err != nil {
			return err
		}
		for _, x := range part {
			o.keep(o.known[x.Account], x.Status)
		}
	}
	if len(all) > batch {
		o.log.Warn("subdomainStatus of many accounts has changed", "accounts", len(all),
			"provisioned", o.counts[domain.SubdomainProvisioned],
			"inconsistent", o.counts[domain.SubdomainInconsistent],
			"notProvisioned", o.counts[domain.SubdomainNotProvisioned])
	}

	return nil
}

func (e *entry) plan(due time.Time, urgent bool) { e.due, e.urgent = due, urgent }
