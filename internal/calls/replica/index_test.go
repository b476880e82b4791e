package replica

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

// model is the simplest implementation of the index.
type model struct {
	accounts map[string]domain.AccountRouting
	numbers  map[uint64]domain.NumberRouting
}

func newModel() *model {
	return &model{map[string]domain.AccountRouting{}, map[uint64]domain.NumberRouting{}}
}

func (m *model) apply(changes []domain.Change) {
	for _, c := range changes {
		if a := c.Account; a != nil {
			m.accounts[a.Name] = *a
			if a.Deleted {
				m.accounts[a.Name] = domain.AccountRouting{Name: a.Name, Deleted: true}
			}
			continue
		}
		if c.Number.Deleted {
			delete(m.numbers, c.Number.Key)
		} else {
			m.numbers[c.Number.Key] = *c.Number
		}
	}
}

// forget removes the deleted accounts that no number names.
func (m *model) forget() {
	named := map[string]bool{}
	for _, n := range m.numbers {
		named[n.Account] = true
	}
	for name, a := range m.accounts {
		if a.Deleted && !named[name] {
			delete(m.accounts, name)
		}
	}
}

// compare compares every number of keys and every label with the model.
func (m *model) compare(t failer, v *View, keys []uint64, labels []string) {
	t.Helper()
	count := 0
	for _, k := range keys {
		n := domain.E164FromKey(k)
		got, ok := v.Number(n)
		want, there := m.numbers[k]
		if there {
			count++
		}
		a, known := m.accounts[want.Account]
		if !known {
			a = domain.AccountRouting{Name: want.Account}
		}
		if a.Deleted {
			there = false
		}
		if ok != there {
			t.Fatalf("Number(%s) found = %v, want %v", n, ok, there)
		}
		if h := v.CustomHeader(n); h != want.CustomHeader {
			t.Fatalf("CustomHeader(%s) = %q, want %q", n, h, want.CustomHeader)
		}
		if !ok {
			continue
		}
		if want.Services == 0 {
			want.Slot = domain.NoSlot // it takes no calls
		}
		if got.Services != want.Services || got.Slot != want.Slot || !reflect.DeepEqual(*got.Account, a) {
			t.Fatalf("Number(%s) = %v of %+v, want %v of %+v", n, got.Services, *got.Account, want.Services, a)
		}
	}
	if got := v.Numbers(); got != int64(len(m.numbers)) || count != len(m.numbers) {
		t.Fatalf("Numbers() = %d, model has %d, %d of them compared", got, len(m.numbers), count)
	}
	for _, l := range labels {
		var want *domain.AccountRouting
		for _, a := range m.accounts {
			if a.Subdomain == l || a.Pending == l {
				want = &a
			}
		}
		if got := v.AccountByLabel(l); !reflect.DeepEqual(got, want) {
			t.Fatalf("AccountByLabel(%s) = %+v, want %+v", l, got, want)
		}
		gateway := want != nil && (want.Subdomain == l && want.Gateway || want.Pending == l && want.PendingGateway)
		if got := slices.Contains(v.Gateways(), l); got != gateway {
			t.Fatalf("Gateways() has %s: %t, want %t", l, got, gateway)
		}
	}
}

var (
	testKeys = func() (keys []uint64) {
		for _, base := range []uint64{10, 4420794600, 4420794601_00 / 100 * 100, 999_999_999_999_900} {
			for i := range uint64(230) {
				if k := base + i; domain.E164FromKey(k) != "" {
					keys = append(keys, k)
				}
			}
		}
		return keys
	}()
	testLabels = []string{"a", "b", "c"}
)

func drawChange(t *rapid.T, keys []uint64) domain.Change {
	name := rapid.SampledFrom([]string{"alpha", "beta", "gamma", "delta"}).Draw(t, "account")
	if rapid.IntRange(0, 19).Draw(t, "what") == 0 {
		a := &domain.AccountRouting{Name: name, Enabled: domain.ServiceSet(rapid.Uint32().Draw(t, "enabled") &^ 1)}
		a.SecondActive = rapid.Bool().Draw(t, "second")
		a.Deleted = rapid.IntRange(0, 4).Draw(t, "deleted") == 0
		if !a.Deleted {
			// Labels are unique in the directory: alpha and gamma draw from separate sets, beta and delta have none.
			switch name {
			case "alpha":
				labels := rapid.Permutation([]string{"", "a", "b"}).Draw(t, "labels")
				a.Subdomain, a.Pending = labels[0], labels[1]
			case "gamma":
				a.Pending = rapid.SampledFrom([]string{"", "c"}).Draw(t, "label")
			}
			a.CallScreening = rapid.Bool().Draw(t, "screening")
			a.Gateway, a.PendingGateway = rapid.Bool().Draw(t, "gateway"), rapid.Bool().Draw(t, "pending gateway")
		}
		return domain.Change{Account: a}
	}
	n := &domain.NumberRouting{Key: rapid.SampledFrom(keys).Draw(t, "key")}
	if rapid.IntRange(0, 5).Draw(t, "deleted") == 0 {
		n.Deleted = true
		return domain.Change{Number: n}
	}
	n.Account = name
	n.Services = domain.ServiceSet(rapid.Uint32Max(1<<30-1).Draw(t, "services") &^ 1)
	n.Slot = domain.Slot(rapid.IntRange(0, 2).Draw(t, "slot"))
	n.CustomHeader = rapid.OneOf(rapid.Just(""), rapid.Just("SAME-1"), rapid.StringMatching(`C-00000[0-9]{2}`),
		rapid.StringMatching(`[A-Za-z0-9_-]{1,100}`)).Draw(t, "header")
	return domain.Change{Number: n}
}

// TestAgainstModel applies batches of changes to index and model and compares all look-ups after each.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, m := newView(0), newModel()
		few := testKeys[:rapid.IntRange(1, len(testKeys)).Draw(t, "keys")]
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			var batch []domain.Change
			for range rapid.IntRange(0, 120).Draw(t, "size") {
				batch = append(batch, drawChange(t, few))
			}
			if err := v.apply(batch, nil); err != nil {
				t.Fatal(err)
			}
			m.apply(batch)
			m.compare(t, v, few, testLabels)
			if rapid.Bool().Draw(t, "sweep") {
				v.sweep()
				m.forget()
				m.compare(t, v, few, testLabels)
			}
		}
	})
}

// TestFullPages fills and empties pages with every count and mix, so that each of the three forms is used in both
// directions.
func TestFullPages(t *testing.T) {
	v, m := newView(0), newModel()
	r := rand.New(rand.NewPCG(1, 2))
	keys := make([]uint64, 300)
	for i := range keys {
		keys[i] = 442079460000 + uint64(i)
	}
	step := func(c domain.Change) {
		if err := v.apply([]domain.Change{c}, nil); err != nil {
			t.Fatal(err)
		}
		m.apply([]domain.Change{c})
	}
	for i, k := range r.Perm(len(keys)) {
		n := &domain.NumberRouting{Key: keys[k], Account: "block",
			Services: domain.ServiceSet(0).With(directrouting.Service)}
		if k >= 200 { // third page: all differ
			n.Account, n.CustomHeader = fmt.Sprintf("single-%d", k), fmt.Sprintf("C-%07d", k)
		}
		step(domain.Change{Number: n})
		if i%13 == 0 {
			m.compare(t, v, keys, nil)
		}
	}
	m.compare(t, v, keys, nil)
	forms := map[string]bool{}
	for i := range v.content.Load().table.slots {
		s := &v.content.Load().table.slots[i]
		switch p := s.part.Load(); {
		case s.key.Load() == 0:
		case s.full.Load() != nil:
			forms["dense"] = true
		case p.values == nil:
			forms["same"] = true
		}
	}
	if !forms["dense"] || !forms["same"] {
		t.Errorf("forms used: %v, want dense and same", forms)
	}
	for i, k := range r.Perm(len(keys)) {
		step(domain.Change{Number: &domain.NumberRouting{Key: keys[k], Deleted: true}})
		if i%13 == 0 {
			m.compare(t, v, keys, nil)
		}
	}
	m.compare(t, v, keys, nil)
}

// TestLabelChangesHands: a label moves from one account to another in either order of the changes.
func TestLabelChangesHands(t *testing.T) {
	for name, batch := range map[string][]domain.Change{
		"released first": {{Account: &domain.AccountRouting{Name: "a", Subdomain: "y"}},
			{Account: &domain.AccountRouting{Name: "b", Subdomain: "x"}}},
		"taken first": {{Account: &domain.AccountRouting{Name: "b", Subdomain: "x"}},
			{Account: &domain.AccountRouting{Name: "a", Subdomain: "y"}}},
		"owner deleted": {{Account: &domain.AccountRouting{Name: "a", Deleted: true}},
			{Account: &domain.AccountRouting{Name: "b", Subdomain: "x"}}},
	} {
		v := newView(0)
		if err := v.apply(append([]domain.Change{{Account: &domain.AccountRouting{Name: "a", Subdomain: "x"}}},
			batch...), nil); err != nil {
			t.Fatal(err)
		}
		if a := v.AccountByLabel("x"); a == nil || a.Name != "b" {
			t.Errorf("%s: label x belongs to %+v, want b", name, a)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for name, c := range map[string]domain.Change{
		"nothing": {},
		"both": {Account: &domain.AccountRouting{Name: "a"},
			Number: &domain.NumberRouting{Key: 12, Account: "a"}},
		"no name":     {Account: &domain.AccountRouting{}},
		"no account":  {Number: &domain.NumberRouting{Key: 12}},
		"no number":   {Number: &domain.NumberRouting{Key: 1, Account: "a"}},
		"long number": {Number: &domain.NumberRouting{Key: 1e15, Account: "a"}},
		"long header": {Number: &domain.NumberRouting{Key: 12, Account: "a", CustomHeader: strings.Repeat("x", 101)}},
	} {
		v := newView(0)
		bad := 0
		batch := []domain.Change{{Number: &domain.NumberRouting{Key: 13, Account: "a"}}, c,
			{Number: &domain.NumberRouting{Key: 14, Account: "a"}}}
		if err := v.apply(batch, func(error) { bad++ }); err != nil || bad != 1 {
			t.Errorf("%s: error %v, %d bad changes reported, want none and 1", name, err, bad)
		}
		if v.Numbers() != 2 {
			t.Errorf("%s: %d numbers, want those of the changes before and after it", name, v.Numbers())
		}
	}
}

// TestReadersNeverSeeHalfAChange runs readers against a writer that keeps an invariant: account and header always name
// their number, and once added, a number is never missing.
func TestReadersNeverSeeHalfAChange(t *testing.T) {
	v := newView(0)
	const numbers = 500
	change := func(i, gen int) domain.Change {
		return domain.Change{Number: &domain.NumberRouting{Key: 442079460000 + uint64(i),
			Account:  fmt.Sprintf("acc-%d-%d", i, gen%7),
			Services: domain.ServiceSet(2 << (gen % 5)), CustomHeader: fmt.Sprintf("H%d-%d", i, gen%3)}}
	}
	var all []domain.Change
	for i := range numbers {
		all = append(all, change(i, 0))
	}
	if err := v.apply(all, nil); err != nil {
		t.Fatal(err)
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
				e := domain.E164FromKey(442079460000 + uint64(i))
				n, ok := v.Number(e)
				if !ok || !strings.HasPrefix(n.Account.Name, fmt.Sprintf("acc-%d-", i)) || n.Services == 0 {
					t.Errorf("number %d reads as %+v, found %v", i, n, ok)
					return
				}
				if h := v.CustomHeader(e); !strings.HasPrefix(h, fmt.Sprintf("H%d-", i)) {
					t.Errorf("number %d has header %q", i, h)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(4, 4))
	for gen := range 400 {
		var batch []domain.Change
		for range 50 {
			batch = append(batch, change(r.IntN(numbers), gen))
		}
		// New pages make the table grow under the readers.
		for i := range 20 {
			batch = append(batch, domain.Change{Number: &domain.NumberRouting{
				Key: 300_000_000_000 + uint64(gen*20+i)*100, Account: "grow"}})
		}
		if err := v.apply(batch, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(slot{}); n != slotBytes {
		t.Errorf("a slot takes %d bytes, the estimate says %d", n, slotBytes)
	}
	if n := unsafe.Sizeof(sparse{}); n != 48 {
		t.Errorf("a sparse page takes %d bytes, the estimate says 48", n)
	}
}
