package replica

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

// memSource is a provisioning store in memory that can be made to fail.
type memSource struct {
	mu       sync.Mutex
	database string
	state    *model
	entries  []feed.Entry
	head     feed.Position
	pruned   feed.Position // entries up to here were removed
	ids      map[feed.Position]int64
	down     error         // returned by every call while set
	slow     time.Duration // delay before a read returns its result
	poll     time.Duration // the longest time that Wait blocks
	scans    int
	wake     chan struct{}
	scanHook func() // called between two pieces of a scan
}

func newSource() *memSource {
	return &memSource{database: "d1", state: newModel(), ids: map[feed.Position]int64{}, wake: make(chan struct{}),
		poll: 20 * time.Millisecond}
}

// lastID gives every entry a unique id across all sources: the histories of two sources differ.
var lastID atomic.Int64

// cursor returns the cursor at a position. The caller holds mu.
func (s *memSource) cursor(p feed.Position) feed.Cursor {
	return feed.Cursor{Database: s.database, Position: p, Entry: s.ids[p]}
}

// commit applies changes and writes them to the feed as one entry.
func (s *memSource) commit(changes ...domain.Change) feed.Position {
	payload, err := json.Marshal(changes)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.apply(changes)
	s.append(payload)
	s.signal()
	return s.head
}

// append adds an entry. The caller holds mu.
func (s *memSource) append(payload []byte) {
	s.head++
	s.ids[s.head] = lastID.Add(1)
	s.entries = append(s.entries, feed.Entry{Position: s.head, ID: s.ids[s.head], Topic: feed.Provisioning,
		At: time.Now().UTC(), Payload: payload})
}

// back returns the source as it was at a position, as after a restore of a backup or a failover to a lagging standby.
func (s *memSource) back(t testing.TB, to feed.Position) *memSource {
	t.Helper()
	old := newSource()
	old.database, old.head = s.database, to
	for _, e := range s.entries {
		if e.Position <= to {
			old.entries, old.ids[e.Position] = append(old.entries, e), e.ID
			old.state.apply(changesOf(t, e))
		}
	}
	return old
}

// become turns s into the other source while it is being read.
func (s *memSource) become(o *memSource) {
	s.set(func() {
		s.database, s.state, s.entries, s.head, s.pruned, s.ids = o.database, o.state, o.entries,
			o.head, o.pruned, o.ids
	})
}

// other uses n positions for another topic.
func (s *memSource) other(n int) feed.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.head++
		s.ids[s.head] = lastID.Add(1)
	}
	s.signal()
	return s.head
}

func (s *memSource) signal() {
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *memSource) set(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.signal()
}

func (s *memSource) Read(_ context.Context, topic string, after feed.Cursor, limit int) (feed.Page, error) {
	page, err := s.read(topic, after, limit)
	s.mu.Lock()
	slow := s.slow
	s.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow) // of a bubble's clock
	}
	return page, err
}

func (s *memSource) read(topic string, after feed.Cursor, limit int) (feed.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return feed.Page{}, s.down
	}
	if topic != feed.Provisioning {
		return feed.Page{}, errors.New("no such topic")
	}
	page := feed.Page{Head: s.cursor(s.head), Next: s.cursor(s.head)}
	if err := after.Verify(feed.State{Head: page.Head, Pruned: s.pruned, Entry: s.ids[after.Position]}); err != nil {
		return page, err
	}
	i, _ := slices.BinarySearchFunc(s.entries, after.Position+1,
		func(e feed.Entry, p feed.Position) int { return int(e.Position - p) })
	page.Entries = slices.Clone(s.entries[i:min(len(s.entries), i+limit)])
	if len(page.Entries) == limit {
		page.Next = s.cursor(page.Entries[limit-1].Position)
	}
	return page, nil
}

func (s *memSource) Wait(ctx context.Context, after feed.Position) error {
	s.mu.Lock()
	head, wake, down, every := s.head, s.wake, s.down, s.poll
	s.mu.Unlock()
	if head > after || down != nil {
		return down
	}
	poll := time.NewTimer(every) // the wake-up may have happened since the read
	defer poll.Stop()
	select {
	case <-wake:
		return nil
	case <-poll.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memSource) Scan(_ context.Context, apply func([]domain.Change) error) (feed.Cursor, error) {
	s.mu.Lock()
	s.scans++
	at, down, hook := s.cursor(s.head), s.down, s.scanHook
	var all []domain.Change // one consistent state
	for _, k := range slices.Sorted(maps.Keys(s.state.numbers)) {
		n := s.state.numbers[k]
		all = append(all, domain.Change{Number: &n})
	}
	for _, name := range slices.Sorted(maps.Keys(s.state.accounts)) {
		a := s.state.accounts[name]
		all = append(all, domain.Change{Account: &a})
	}
	s.mu.Unlock()
	if down != nil {
		return feed.Cursor{}, down
	}
	for piece := range slices.Chunk(all, 7) {
		if err := apply(piece); err != nil {
			return feed.Cursor{}, err
		}
		if hook != nil {
			hook()
		}
	}
	return at, nil
}

// testSealer seals everything with one key.
type testSealer struct{ cipher.AEAD }

func newSealer() testSealer {
	block, err := aes.NewCipher([]byte("0123456789abcdef"))
	if err != nil {
		panic(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return testSealer{g}
}

func (s testSealer) Seal(purpose string, plain []byte) ([]byte, error) {
	n := make([]byte, s.NonceSize())
	rand.Read(n)
	return s.AEAD.Seal(n, n, plain, []byte(purpose)), nil
}

func (s testSealer) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < s.NonceSize() {
		return nil, errors.New("too short")
	}
	return s.AEAD.Open(nil, sealed[:s.NonceSize()], sealed[s.NonceSize():], []byte(purpose))
}

// node is one replica in a directory, with its source.
type node struct {
	t    testing.TB
	dir  string
	src  *memSource
	r    *Replica
	stop func()
	cfg  Config
}

// start opens a replica over dir and runs it; stop, or the end of the test, shuts it down.
func start(t testing.TB, dir string, src *memSource, cfg Config, prepare ...func(*Replica)) *node {
	t.Helper()
	n := &node{t: t, dir: dir, src: src, cfg: cfg}
	n.r = open(t, dir, src, cfg)
	for _, p := range prepare {
		p(n.r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.r.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.stop)
	return n
}

func open(t testing.TB, dir string, src *memSource, cfg Config) *Replica {
	t.Helper()
	r, err := Open(cfg, dir, src, newSealer(), discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wait waits until the replica holds position p.
func (n *node) wait(p feed.Position) {
	n.t.Helper()
	n.until(fmt.Sprintf("position %d", p), func(s Status) bool { return s.Loaded && s.Position >= p })
}

// until waits for a status.
func (n *node) until(what string, ok func(Status) bool) {
	n.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok(n.r.Status()) {
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("%s: not reached; status %+v", what, n.r.Status())
		}
	}
}

// check compares the view with the source's state.
func (n *node) check() { n.t.Helper(); check(n.t, n.r.View(), n.src.state) }

func check(t testing.TB, v *View, m *model) {
	t.Helper()
	if v == nil {
		t.Fatal("there is no view")
	}
	keys := slices.Collect(maps.Keys(m.numbers))
	keys = append(keys, 442079469999, 12, 13)
	var labels []string
	for _, a := range m.accounts {
		if a.Subdomain != "" {
			labels = append(labels, a.Subdomain)
		}
	}
	m.compare(t, v, slices.Compact(slices.Sorted(slices.Values(keys))), labels)
}

func number(i int, account, header string) domain.Change {
	return domain.Change{Number: &domain.NumberRouting{Key: 442079460000 + uint64(i), Account: account,
		Services: domain.ServiceSet(0).With(directrouting.Service), CustomHeader: header}}
}

func gone(i int) domain.Change {
	return domain.Change{Number: &domain.NumberRouting{Key: 442079460000 + uint64(i), Deleted: true}}
}

func account(name, label string) domain.Change {
	return domain.Change{Account: &domain.AccountRouting{Name: name, Subdomain: label, SubdomainLive: label != "",
		CallScreening: true, Enabled: domain.ServiceSet(0).With(directrouting.Service)}}
}

// seed provisions three accounts and 260 numbers in three pages, one of them mixed.
func seed(s *memSource) feed.Position {
	s.commit(account("contoso", "contoso"), account("fabrikam", "fab"))
	var batch []domain.Change
	for i := range 260 {
		who, header := "contoso", ""
		if i >= 100 && i < 200 {
			who, header = []string{"contoso", "fabrikam", "newco"}[i%3], fmt.Sprintf("C-%07d", i)
		}
		batch = append(batch, number(i, who, header))
	}
	s.commit(batch...)
	return s.commit(account("newco", ""))
}

func jsonUnmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
