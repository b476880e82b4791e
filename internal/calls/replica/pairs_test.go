package replica

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// sets is a number with a set of services.
func sets(i int, account string, set domain.ServiceSet) domain.Change {
	return domain.Change{Number: &domain.NumberRouting{Key: 442079460000 + uint64(i), Account: account, Services: set}}
}

// failer is a test, or one try of a property.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func apply(t failer, v *View, changes ...domain.Change) {
	t.Helper()
	if err := v.apply(changes, func(err error) { t.Fatalf("%v", err) }); err != nil {
		t.Fatalf("%v", err)
	}
}

// again returns a view as it comes back from a snapshot.
func again(t failer, v *View) *View {
	t.Helper()
	var b bytes.Buffer
	if _, err := writeSnapshot(&b, v.hold(feed.Cursor{Database: "d1"}, "", time.Time{}), newSealer()); err != nil {
		t.Fatalf("%v", err)
	}
	back, _, err := readSnapshot(&b, newSealer())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return back
}

// manyAccounts provisions four numbers for each account, each with another set of services, then changes every account.
func manyAccounts(t *testing.T, accounts int) {
	set := func(i int) domain.ServiceSet { return 2<<(i%4*2) | 1<<29 }
	name := func(i int) string { return fmt.Sprintf("customer-%d", i) }
	v := newView(0)
	for i := range accounts {
		apply(t, v, sets(4*i, name(i), set(0)), sets(4*i+1, name(i), set(1)), sets(4*i+2, name(i), set(2)),
			sets(4*i+3, name(i), set(3)))
	}
	check := func(v *View, tenant string) {
		t.Helper()
		for i := range 4 * accounts {
			n, ok := v.ByKey(442079460000 + uint64(i))
			if !ok || n.Account.Name != name(i/4) || n.Account.TenantID != tenant || n.Services != set(i) {
				t.Fatalf("number %d reads as %+v, %v; want account %s, tenant %q and services %b", i, n, ok, name(i/4),
					tenant, set(i))
			}
		}
		if got := v.ids.used(); got != 4*accounts {
			t.Errorf("%d pairs, want %d", got, 4*accounts)
		}
	}
	check(v, "")
	for i := range accounts {
		apply(t, v, domain.Change{Account: &domain.AccountRouting{Name: name(i), TenantID: "t"}})
	}
	v.sweep() // finds nothing: all pairs are in use
	check(v, "t")
	check(again(t, v), "t")
}

func TestFourSetsOfServicesPerAccount(t *testing.T) { manyAccounts(t, 2000) }

// TestPairsAreUsedAgain: accounts come and go, and a number goes through many sets of services; the ids stay few.
func TestPairsAreUsedAgain(t *testing.T) {
	v, m := newView(0), newModel()
	step := func(changes ...domain.Change) {
		apply(t, v, changes...)
		m.apply(changes)
	}
	var keys []uint64
	for i := range 100 {
		keys = append(keys, 442079460000+uint64(i))
	}
	const each, rounds = firstSweep / 4, 6
	for round := range rounds {
		for i := range each {
			name := fmt.Sprintf("account-%d-%d", round, i)
			step(sets(i%100, name, 2), sets(i%100, name, domain.ServiceSet(2*i)), account(name, ""))
			if i >= 100 { // its number went to another account just before
				gone := fmt.Sprintf("account-%d-%d", round, i-100)
				step(domain.Change{Account: &domain.AccountRouting{Name: gone, Deleted: true}})
				delete(m.accounts, gone)
			}
		}
		m.compare(t, v, keys, nil)
		if round == 3 {
			v = again(t, v)
			m.compare(t, v, keys, nil)
		}
	}
	if got := int(v.ids.next); got > 2*firstSweep {
		t.Errorf("%d ids for %d accounts that came and went, want at most %d", got, rounds*each, 2*firstSweep)
	}
	v.sweep()
	if got := len(v.names); got > (rounds+1)*100 {
		t.Errorf("%d accounts are left, want those that were not deleted", got)
	}
}

// TestALookUpInProgressKeepsItsPairs: a look-up that has read a number's id before the id is used again still finds the
// account and the services that the number had.
func TestALookUpInProgressKeepsItsPairs(t *testing.T) {
	v := newView(0)
	apply(t, v, sets(1, "before", 1<<3))
	c := v.content.Load()
	id := c.table.value(442079460001)
	apply(t, v, sets(1, "after", 1<<4), domain.Change{Account: &domain.AccountRouting{Name: "before", Deleted: true}})
	v.sweep()
	for i := range 3 {
		apply(t, v, sets(10+i, fmt.Sprintf("other-%d", i), 1<<5))
	}
	if a := v.pair(id).account.Load(); a == nil || !strings.HasPrefix(a.Name, "other-") {
		t.Fatalf("id %d is one of %+v, want it used again", id, a)
	}
	old := &c.pairs[id/pairsPerBlock][id%pairsPerBlock]
	if old.services != 1<<3|taken || old.account.Load() != nil {
		t.Errorf("the look-up in progress finds services %b of %+v, want those of the deleted account", old.services,
			old.account.Load())
	}
	if got := c.table.value(442079460001); got == id {
		t.Errorf("the number still has id %d of the deleted account", id)
	}
}

// TestReadersNeverSeeAnotherAccount: ids are used again for other accounts as fast as possible, while readers look up
// numbers that belong to an account of their own and have services that go with it.
func TestReadersNeverSeeAnotherAccount(t *testing.T) {
	const numbers = 8
	v := newView(0)
	change := func(i, gen int) domain.Change {
		return sets(i, fmt.Sprintf("acc-%d-%d", i, gen), domain.ServiceSet(2*(gen*numbers+i+1)))
	}
	for i := range numbers {
		apply(t, v, change(i, 0))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(g)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := r.IntN(numbers)
				n, ok := v.ByKey(442079460000 + uint64(i))
				var of, gen int
				if ok {
					_, _ = fmt.Sscanf(strings.ReplaceAll(n.Account.Name, "-", " "), "acc %d %d", &of, &gen)
				}
				if !ok || of != i || n.Services != domain.ServiceSet(2*(gen*numbers+i+1)) {
					t.Errorf("number %d reads as %+v, found %v", i, n, ok)
					return
				}
			}
		})
	}
	for gen := range 1000 {
		i := gen % numbers
		apply(t, v, change(i, gen))
		for _, old := range []int{gen - numbers, 0} {
			if old >= 0 && old != gen {
				name := fmt.Sprintf("acc-%d-%d", i, old)
				apply(t, v, domain.Change{Account: &domain.AccountRouting{Name: name, Deleted: true}})
			}
		}
		v.sweep()
	}
	close(stop)
	wg.Wait()
	if got := v.ids.next; got > 4*numbers {
		t.Errorf("%d ids, want few: they were used again", got)
	}
}

// beforePairs provisions what the files in testdata/format2 and format3 hold; between is called when their snapshot is
// taken.
func beforePairs(src *memSource, between func()) {
	src.commit(account("contoso", "contoso"), account("fabrikam", "fab"), account("gone", "gone"))
	for i := range 320 {
		who, set := []string{"contoso", "fabrikam", "newco"}[i/7%3], domain.ServiceSet(2<<(i%6))
		switch {
		case i < 100: // a page of one value
			who, set = "contoso", 1<<1|1<<5
		case i >= 300: // a page that is nearly empty
			who = "gone"
		}
		src.commit(sets(i, who, set))
	}
	src.commit(sets(90, "contoso", 0), number(91, "fabrikam", "H-1"), number(120, "newco", "H-2"), gone(92), gone(130))
	src.commit(domain.Change{Account: &domain.AccountRouting{Name: "gone", Deleted: true}})
	between()
	src.commit(account("newco", ""), sets(7, "fabrikam", 1<<6), gone(200))
	src.commit(sets(299, "late", 0xfe&^0x80))
}

// TestFilesOfVersionsBefore: a snapshot and the journal after it read as what they held when a version before pairs
// wrote them (format2), or one before slots (format3); they are then written in the present format.
func TestFilesOfVersionsBefore(t *testing.T) {
	t.Parallel()
	src := newSource()
	beforePairs(src, func() {})
	for _, format := range []string{"format2", "format3"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", format))); err != nil {
			t.Fatal(err)
		}
		v := open(t, dir, away(), Config{}).View()
		check(t, v, src.state)
		v = again(t, v)
		check(t, v, src.state)
		v.sweep()
		check(t, v, src.state)
	}
}

// TestChangesOfOneEntryAreSeenInTheirOrder: a number that moves away before its account is deleted, or deleted and
// created again, is seen with its new account or not at all, also between two changes of one entry.
func TestChangesOfOneEntryAreSeenInTheirOrder(t *testing.T) {
	deleted := domain.Change{Account: &domain.AccountRouting{Name: "old", Deleted: true}}
	created := domain.Change{Account: &domain.AccountRouting{Name: "old", TenantID: "of another customer"}}
	for name, c := range map[string]struct {
		entry []domain.Change
		want  string
	}{
		"moved, then deleted":   {[]domain.Change{sets(1, "new", 2), deleted}, "new"},
		"moved, then created":   {[]domain.Change{sets(1, "new", 2), deleted, created}, "new"},
		"removed, then created": {[]domain.Change{gone(1), deleted, created}, ""},
	} {
		v := newView(0)
		apply(t, v, account("old", ""), sets(1, "old", 2), account("new", ""))
		looked := false
		err := v.apply(append(c.entry, domain.Change{}), func(error) { // called at the empty change
			looked = true
			n, ok := v.ByKey(442079460001)
			if ok != (c.want != "") || ok && n.Account.Name != c.want {
				t.Errorf("%s: the number reads as %+v, %v; want account %q", name, n, ok, c.want)
			}
		})
		if err != nil || !looked {
			t.Errorf("%s: error %v, looked up %v", name, err, looked)
		}
	}
}

// checkIDs checks that each id is free or one of one account, that no account has a set of services twice, and that
// numbers have no free id.
func checkIDs(t failer, v *View) {
	t.Helper()
	owner := map[uint32]string{}
	own := func(id uint32, name string) {
		if id == 0 || id >= v.ids.next || owner[id] != "" {
			t.Fatalf("id %d of %s: below %d, and already one of %q", id, name, v.ids.next, owner[id])
		}
		owner[id] = name
	}
	for name, account := range v.names {
		chain := map[uint32]bool{}
		for id := account; id != 0; id = v.pair(id).next {
			own(id, "account "+name)
			p := v.pair(id)
			if p.account.Load() != v.pair(account).account.Load() || p.services != 0 && chain[p.services] {
				t.Fatalf("account %s has pair %d of %+v with services %b, twice %v", name, id, p.account.Load(),
					p.services, chain[p.services])
			}
			chain[p.services] = true
		}
	}
	for _, id := range v.ids.free {
		own(id, "free")
	}
	if len(owner) != int(v.ids.next)-1 {
		t.Fatalf("%d ids are free or of an account, want all %d", len(owner), v.ids.next-1)
	}
	slots := v.content.Load().table.slots
	for i := range slots {
		for j := range pageSize {
			if slots[i].key.Load() == 0 {
				break
			}
			if id := slots[i].value(j); id != 0 && (owner[id] == "free" || v.pair(id).services == 0) {
				t.Fatalf("a number has id %d, which is free or has no services: %q", id, owner[id])
			}
		}
	}
}

// TestPairsAgainstModel: few numbers go through many sets of services of accounts that are deleted and created again,
// with ids made available and snapshots read at any moment.
func TestPairsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, m := newView(0), newModel()
		keys := testKeys[:rapid.IntRange(1, 130).Draw(t, "keys")]
		accounts := []string{"alpha", "beta", "gamma"}
		for step := range rapid.IntRange(1, 40).Draw(t, "steps") {
			name := rapid.SampledFrom(accounts).Draw(t, "account")
			var entry []domain.Change
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0: // as DELETE of an account with its numbers does
				for _, k := range keys {
					if m.numbers[k].Account == name {
						entry = append(entry, domain.Change{Number: &domain.NumberRouting{Key: k, Deleted: true}})
					}
				}
				entry = append(entry, domain.Change{Account: &domain.AccountRouting{Name: name, Deleted: true}})
				if rapid.Bool().Draw(t, "created again") {
					entry = append(entry, domain.Change{Account: &domain.AccountRouting{Name: name,
						TenantID: fmt.Sprint("tenant-", step)}})
				}
			case 1:
				v.sweep()
				m.forget()
			case 2:
				v = again(t, v)
			default:
				for range rapid.IntRange(1, 30).Draw(t, "numbers") {
					entry = append(entry, domain.Change{Number: &domain.NumberRouting{
						Key: rapid.SampledFrom(keys).Draw(t, "key"), Account: name,
						Services: domain.ServiceSet(rapid.IntRange(0, 9).Draw(t, "services")) << 1}})
				}
			}
			apply(t, v, entry...)
			m.apply(entry)
			m.compare(t, v, keys, nil)
			checkIDs(t, v)
		}
	})
}

// TestFilesCutAnywhere: a snapshot without its last byte or any more is refused, and a journal gives the state after
// one of its batches.
func TestFilesCutAnywhere(t *testing.T) {
	v, m := newView(0), newModel()
	f := &memFile{}
	j, err := newJournal(f, "load", time.Time{}, newSealer())
	if err != nil {
		t.Fatal(err)
	}
	states := map[feed.Position]*model{0: m}
	ends := []int{f.Len()} // of the journal after each batch
	for p := feed.Position(1); p <= 12; p++ {
		changes := []domain.Change{sets(int(p)%3, fmt.Sprint("account-", p%2), domain.ServiceSet(p)<<1)}
		if p%5 == 0 {
			changes = []domain.Change{gone(0), gone(1), gone(2),
				{Account: &domain.AccountRouting{Name: "account-1", Deleted: true}}, account("account-1", "")}
		}
		apply(t, v, changes...)
		payload, err := json.Marshal(changes)
		if err == nil {
			err = j.append(p-1, []feed.Entry{{Position: p, ID: int64(p), Payload: payload}})
		}
		if err != nil {
			t.Fatal(err)
		}
		m = &model{maps.Clone(m.accounts), maps.Clone(m.numbers)}
		m.apply(changes)
		states[p], ends = m, append(ends, f.Len())
	}
	keys := []uint64{442079460000, 442079460001, 442079460002}
	for n := range f.Len() + 1 {
		back := newView(0)
		cur, _, err := replayJournal(bytes.NewReader(f.Bytes()[:n]), newSealer(), back, "load", feed.Cursor{})
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= n {
			whole++
		}
		if !errors.Is(err, errTorn) || cur.Position != feed.Position(whole) {
			t.Fatalf("a journal cut at %d: position %d, %v; want %d and %v", n, cur.Position, err, whole, errTorn)
		}
		states[cur.Position].compare(t, back, keys, nil)
		checkIDs(t, back)
	}

	var b bytes.Buffer
	if _, err := writeSnapshot(&b, v.hold(feed.Cursor{Database: "d1"}, "load", time.Time{}), newSealer()); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		if back, _, err := readSnapshot(bytes.NewReader(b.Bytes()[:n]), newSealer()); back != nil ||
			!errors.Is(err, errDamaged) {
			t.Fatalf("a snapshot cut at %d of %d: %v, %v; want %v", n, b.Len(), back, err, errDamaged)
		}
	}
}

// TestEmptyPagesTakeNoMemory: pages that come and go leave nothing in the estimate.
func TestEmptyPagesTakeNoMemory(t *testing.T) {
	v := newView(0)
	apply(t, v, sets(1, "stays", 2))
	before := v.bytes.Load()
	for i := range 1000 {
		apply(t, v, sets(100*i+100, "goes", 2), gone(100*i+100))
	}
	v.sweep()
	if got := v.bytes.Load(); got != before {
		t.Errorf("%d bytes of pages after 1000 came and went, want %d", got, before)
	}
}
