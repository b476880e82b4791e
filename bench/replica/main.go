// Command replica measures the number index (internal/calls/replica) as the edge uses it: memory per number, lookup
// time while changes stream in through the feed, snapshot, and start from the snapshot. The peer in the same run is the
// obvious alternative, a sharded Go map with locks.
//
//	bench/replica/run [-n 1000000,10000000,100000000] [-values blocks|mixed] [-headers none|same|distinct]
//		[-changes 10000]
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// log is the log of the index.
var log = slog.New(slog.DiscardHandler)

func main() {
	sizes := flag.String("n", "1000000,10000000", "number of numbers; several, separated by commas")
	values := flag.String("values", "mixed,blocks",
		"mixed: neighbours belong to different accounts; blocks: a block belongs to one account")
	headers := flag.String("headers", "none,distinct",
		"custom header values: none, same (one per account) or distinct (one per number)")
	changes := flag.Int("changes", 10_000,
		"changes per second that stream in while lookups and the start are measured")
	lookups := flag.Duration("time", 5*time.Second, "how long lookups are measured")
	peers := flag.Int("peer", 10_000_000,
		"largest number of numbers for which the map is measured too; beyond, it takes minutes and gigabytes")
	verbose := flag.Bool("v", false, "print the index's own log, for example how long a snapshot delayed changes")
	flag.Parse()
	if *verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	fmt.Printf("# %s, %d cores, %s\n", time.Now().UTC().Format("2006-01-02"), runtime.GOMAXPROCS(0), runtime.Version())
	for _, size := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1000 {
			fail(fmt.Errorf("-n %q: must be a number of at least 1000", size))
		}
		b := makeBlocks(n)
		for _, v := range strings.Split(*values, ",") {
			for _, h := range strings.Split(*headers, ",") {
				if err := measure(&plan{blocks: b, mixed: v == "mixed", headers: h}, *changes, *lookups); err != nil {
					fail(err)
				}
			}
		}
		if n <= *peers {
			measureMap(&plan{blocks: b, mixed: true}, *changes, *lookups)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench replica:", err)
	os.Exit(1)
}

// blocks are the numbers: blocks of 10 to 10,000 consecutive ones, as operators get them, over 80 country codes.
type blocks struct {
	base  []uint64
	first []int // index of the block's first number
	n     int
}

func makeBlocks(n int) *blocks {
	r := mrand.New(mrand.NewPCG(1, 2))
	sizes := []uint64{10, 10, 100, 100, 100, 1000, 1000, 10000}
	type block struct{ base, size uint64 }
	var all []block
	for have := 0; have < n+n/20; {
		s := sizes[r.IntN(len(sizes))]
		cc := uint64(r.IntN(80)+1) * 10_000_000_000
		all = append(all, block{(cc + r.Uint64N(10_000_000_000)) / s * s, s})
		have += int(s)
	}
	slices.SortFunc(all, func(a, b block) int { return int(int64(a.base) - int64(b.base)) })
	b := &blocks{}
	end := uint64(0)
	for _, x := range all {
		if x.base < end {
			continue // two blocks overlap
		}
		size := min(x.size, uint64(n-b.n))
		if size == 0 {
			break
		}
		b.base, b.first = append(b.base, x.base), append(b.first, b.n)
		b.n += int(size)
		end = x.base + x.size
	}
	return b
}

// key returns the i-th number and its block.
func (b *blocks) key(i int) (uint64, int) {
	k, ok := slices.BinarySearch(b.first, i)
	if !ok {
		k--
	}
	return b.base[k] + uint64(i-b.first[k]), k
}

// accountCount is the number of accounts.
const accountCount = 100_000

// plan says what is provisioned.
type plan struct {
	*blocks
	mixed   bool
	headers string
}

func accountName(i int) string { return "customer-" + strconv.Itoa(i) }

func (p *plan) number(i int, key uint64, block int, names []string) domain.NumberRouting {
	a := block
	if p.mixed {
		a = i
	}
	a %= accountCount
	n := domain.NumberRouting{Key: key, Account: names[a], Services: 1 << (1 + a%4)}
	switch p.headers {
	case "same":
		n.CustomHeader = "A-" + strconv.Itoa(a)
	case "distinct":
		n.CustomHeader = fmt.Sprintf("C-%07d", i%10_000_000)
	}
	return n
}

// source is a store with the numbers of a plan, and a feed that grows.
type source struct {
	p     *plan
	names []string

	mu      sync.Mutex
	entries []feed.Entry // of the positions from base+1
	base    feed.Position
	head    feed.Position
	wake    chan struct{}
}

func newSource(p *plan) *source {
	s := &source{p: p, wake: make(chan struct{})}
	for i := range accountCount {
		s.names = append(s.names, accountName(i))
	}
	return s
}

func cursor(p feed.Position) feed.Cursor {
	return feed.Cursor{Database: "bench", Position: p, Entry: int64(p)} // one history: any id works
}

func (s *source) Head(context.Context) (feed.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cursor(s.head), nil
}

func (s *source) Read(_ context.Context, _ string, after feed.Cursor, limit int) (feed.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page := feed.Page{Head: cursor(s.head), Next: cursor(s.head)}
	if err := after.Verify(feed.State{Head: page.Head, Pruned: s.base, Entry: int64(after.Position)}); err != nil {
		return page, err
	}
	from := int(after.Position - s.base)
	page.Entries = slices.Clone(s.entries[from:min(len(s.entries), from+limit)])
	if len(page.Entries) == limit {
		page.Next = cursor(page.Entries[limit-1].Position)
	}
	return page, nil
}

func (s *source) Wait(ctx context.Context, after feed.Position) error {
	s.mu.Lock()
	head, wake := s.head, s.wake
	s.mu.Unlock()
	if head > after {
		return nil
	}
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *source) Scan(ctx context.Context, apply func([]domain.Change) error) (feed.Cursor, error) {
	at, _ := s.Head(ctx)
	batch, numbers := make([]domain.Change, 0, 5000), make([]domain.NumberRouting, 5000)
	for i, name := range s.names {
		a := domain.AccountRouting{Name: name, Enabled: 0x1e, Subdomain: "c" + strconv.Itoa(i), SubdomainLive: true,
			CallScreening: true,
			TenantID:      "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"}
		batch = append(batch, domain.Change{Account: &a})
		if len(batch) == cap(batch) {
			if err := apply(batch); err != nil {
				return feed.Cursor{}, err
			}
			batch = batch[:0]
		}
	}
	for b := range s.p.base {
		end := s.p.n
		if b+1 < len(s.p.first) {
			end = s.p.first[b+1]
		}
		for i := s.p.first[b]; i < end; i++ {
			numbers[len(batch)] = s.p.number(i, s.p.base[b]+uint64(i-s.p.first[b]), b, s.names)
			batch = append(batch, domain.Change{Number: &numbers[len(batch)]})
			if len(batch) == cap(batch) {
				if err := apply(batch); err != nil {
					return feed.Cursor{}, err
				}
				batch = batch[:0]
			}
		}
	}
	return at, apply(batch)
}

// payloads makes feed entries of ten changes: existing numbers get another account or another header, are deleted and
// created again, and new ones appear beside them.
func (s *source) payloads(n int) [][]byte {
	r := mrand.New(mrand.NewPCG(3, 4))
	out := make([][]byte, n)
	for i := range out {
		var c []domain.Change
		for range 10 {
			k := r.IntN(s.p.n)
			key, block := s.p.key(k)
			x := s.p.number(k, key, block, s.names)
			switch r.IntN(8) {
			case 0:
				x.Key += 1 + r.Uint64N(50)
			case 1:
				x = domain.NumberRouting{Key: key, Deleted: true}
			case 2, 3:
				x.CustomHeader = "NEW-" + strconv.Itoa(r.IntN(1e6))
			default:
				x.Account = s.names[r.IntN(accountCount)]
			}
			c = append(c, domain.Change{Number: &x})
		}
		b, err := json.Marshal(c)
		if err != nil {
			fail(err)
		}
		out[i] = b
	}
	return out
}

// stream appends entries at the given rate of changes per second until ctx ends, and returns the number of changes.
func (s *source) stream(ctx context.Context, payloads [][]byte, perSecond int) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start, made := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return made
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * float64(perSecond))
		s.mu.Lock()
		for ; made < due; made += 10 {
			s.head++
			s.entries = append(s.entries, feed.Entry{Position: s.head, ID: int64(s.head), Topic: feed.Provisioning,
				At: time.Now(), Payload: payloads[int(s.head)%len(payloads)]})
		}
		close(s.wake)
		s.wake = make(chan struct{})
		s.mu.Unlock()
	}
}

// sealer seals file keys under a random key.
type sealer struct{ cipher.AEAD }

func newSealer() sealer {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		fail(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		fail(err)
	}
	return sealer{g}
}

func (s sealer) Seal(purpose string, plain []byte) ([]byte, error) {
	nonce := make([]byte, s.NonceSize())
	rand.Read(nonce)
	return s.AEAD.Seal(nonce, nonce, plain, []byte(purpose)), nil
}

func (s sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	return s.AEAD.Open(nil, sealed[:s.NonceSize()], sealed[s.NonceSize():], []byte(purpose))
}

func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// accountBytes measures the memory of the accounts alone: an index without numbers.
func accountBytes() int64 {
	dir, err := os.MkdirTemp("", "bench-replica-")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(dir)
	src := newSource(&plan{blocks: &blocks{}})
	before := heap()
	r, err := replica.Open(replica.Config{}, dir, src, newSealer(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		fail(err)
	}
	run := running(r)
	if err := wait(r, 0); err != nil {
		fail(err)
	}
	run.stop()
	mem := heap() - before
	runtime.KeepAlive(r)
	return mem
}

func measure(p *plan, changes int, lookups time.Duration) error {
	accounts := accountBytes()
	dir, err := os.MkdirTemp("", "bench-replica-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src, sl := newSource(p), newSealer()
	payloads := src.payloads(20_000)
	// Load everything from the source, and wait for the snapshot.
	before := heap()
	r, err := replica.Open(replica.Config{SnapshotEvery: time.Hour, SnapshotAfterChanges: 1 << 40}, dir,
		src, sl, log, nil)
	if err != nil {
		return err
	}
	start := time.Now()
	run := running(r)
	if err := wait(r, 0); err != nil {
		return err
	}
	scan := time.Since(start)
	for r.Status().Snapshot.IsZero() {
		time.Sleep(10 * time.Millisecond) // until the first snapshot is on disk; no figure depends on it
	}
	mem := heap() - before - accounts
	numbers, estimate := r.Status().Numbers, r.Status().Bytes
	run.stop()
	size := dirSize(dir)
	r = nil

	// Start from the snapshot while changes stream in, then look numbers up.
	runtime.GC()
	ctx, cancel := context.WithCancel(context.Background())
	made := make(chan int, 1)
	go func() { made <- src.stream(ctx, payloads, changes) }()
	start = time.Now()
	r, err = replica.Open(replica.Config{}, dir, src, sl, log, nil)
	if err != nil {
		cancel()
		return err
	}
	load := time.Since(start)
	if r.Route() == nil || r.Status().Numbers != numbers {
		cancel()
		return fmt.Errorf("the snapshot yielded %+v, want %d numbers", r.Status(), numbers)
	}
	run = running(r)
	head, _ := src.Head(ctx)
	if err := wait(r, head.Position); err != nil {
		cancel()
		return err
	}
	level := time.Since(start)
	v := r.Route().(*replica.View)
	ns, text := lookUp(p, lookups, func(key uint64) bool { _, ok := v.ByKey(key); return ok },
		func(n domain.E164) bool { _, ok := v.Number(n); return ok })
	hdr, _ := lookUp(p, lookups/4, func(key uint64) bool { return v.CustomHeader(domain.E164FromKey(key)) != "" }, nil)
	lag := src.lag(r)
	cancel()
	n := <-made
	rate := float64(n) / time.Since(start).Seconds()
	run.stop()
	kind := "blocks"
	if p.mixed {
		kind = "mixed"
	}
	fmt.Printf("replica n=%d values=%s headers=%s bytes_per_number=%.2f estimated=%.2f lookup_ns=%.0f "+
		"lookup_p99_ns=%.0f lookup_best_ns=%.0f text_lookup_ns=%.0f header_ns=%.0f load_s=%.2f level_s=%.2f "+
		"scan_s=%.2f disk_bytes_per_number=%.2f changes_per_s=%.0f lag_entries=%d accounts=%d bytes_per_account=%.0f\n",
		numbers, kind, p.headers, float64(mem)/float64(numbers), float64(estimate)/float64(numbers),
		ns.median, ns.p99, ns.best, text.median, hdr.median, load.Seconds(), level.Seconds(), scan.Seconds(),
		float64(size)/float64(numbers), rate, lag, accountCount, float64(accounts)/accountCount)
	return nil
}

func (s *source) lag(r *replica.Replica) int64 {
	head, _ := s.Head(context.Background())
	return int64(head.Position - r.Status().Position)
}

type runner struct{ stop func() }

func running(r *replica.Replica) runner {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			fail(err)
		}
	}()
	return runner{func() { cancel(); <-done }}
}

func wait(r *replica.Replica, p feed.Position) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for {
		if s := r.Status(); s.Loaded && s.Position >= p {
			return nil
		}
		select {
		case <-time.After(100 * time.Microsecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func dirSize(dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fail(err)
	}
	for _, e := range entries {
		if i, err := e.Info(); err == nil {
			n += i.Size()
		}
	}
	return n
}

// figures are of rounds of lookups: nanoseconds of CPU time per lookup. CPU time, not wall-clock time, because the
// machine may have other work.
type figures struct{ median, p99, best float64 }

// cpu returns the CPU time of the calling thread. The goroutine must be locked to the thread.
func cpu() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		fail(err)
	}
	return t.Nano()
}

var sink atomic.Int64

// lookUp looks up random numbers, one in ten of them unknown, in rounds of 20,000, from as many goroutines as there are
// cores.
func lookUp(p *plan, d time.Duration, byKey func(uint64) bool, byText func(domain.E164) bool) (key, text figures) {
	const probes, round = 1 << 20, 20_000
	run := func(do func(keys []uint64, texts []domain.E164, from int) int) figures {
		var mu sync.Mutex
		var rounds []float64
		var wg sync.WaitGroup
		for g := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				r := mrand.New(mrand.NewPCG(9, uint64(g)))
				keys := make([]uint64, probes)
				var texts []domain.E164
				for i := range keys {
					keys[i], _ = p.key(r.IntN(p.n))
					if i%10 == 0 {
						keys[i] += 90_000_000_000_000
					}
				}
				if byText != nil {
					for _, k := range keys {
						texts = append(texts, domain.E164FromKey(k))
					}
				}
				found, from := 0, 0
				for end := time.Now().Add(d); time.Now().Before(end); from = (from + round) % (probes - round) {
					t := cpu()
					found += do(keys, texts, from)
					ns := float64(cpu()-t) / round
					mu.Lock()
					rounds = append(rounds, ns)
					mu.Unlock()
				}
				sink.Add(int64(found))
			})
		}
		wg.Wait()
		slices.Sort(rounds)
		return figures{rounds[len(rounds)/2], rounds[len(rounds)*99/100], rounds[0]}
	}
	key = run(func(keys []uint64, _ []domain.E164, from int) (found int) {
		for _, k := range keys[from : from+round] {
			if byKey(k) {
				found++
			}
		}
		return found
	})
	if byText != nil {
		text = run(func(_ []uint64, texts []domain.E164, from int) (found int) {
			for _, n := range texts[from : from+round] {
				if byText(n) {
					found++
				}
			}
			return found
		})
	}
	return key, text
}

// measureMap measures 256 Go maps, each behind its own lock.
func measureMap(p *plan, changes int, lookups time.Duration) {
	type shard struct {
		sync.RWMutex
		m map[uint64]uint32
		_ [64]byte
	}
	before := heap()
	shards := make([]shard, 256)
	at := func(k uint64) *shard { return &shards[k*0x9E3779B97F4A7C15>>56] }
	for i := range shards {
		shards[i].m = make(map[uint64]uint32, p.n/256)
	}
	start := time.Now()
	for i := range p.n {
		k, _ := p.key(i)
		at(k).m[k] = uint32(i%accountCount+1)<<7 | 1
	}
	build := time.Since(start)
	mem := heap() - before
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		r := mrand.New(mrand.NewPCG(5, 6))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range changes / 100 {
				k, _ := p.key(r.IntN(p.n))
				s := at(k)
				s.Lock()
				s.m[k]++
				s.Unlock()
			}
		}
	})
	ns, _ := lookUp(p, lookups, func(key uint64) bool {
		s := at(key)
		s.RLock()
		_, ok := s.m[key]
		s.RUnlock()
		return ok
	}, nil)
	cancel()
	wg.Wait()
	fmt.Printf("peer map-256shards-rwmutex n=%d bytes_per_number=%.2f lookup_ns=%.0f lookup_p99_ns=%.0f "+
		"lookup_best_ns=%.0f build_s=%.2f (values of 4 bytes; no accounts, headers, snapshot)\n",
		p.n, float64(mem)/float64(p.n), ns.median, ns.p99, ns.best, build.Seconds())
}
