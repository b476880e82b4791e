package replica

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// BenchmarkApply applies single changes to full pages in which every number has an account and a header value of its
// own: the most expensive case.
func BenchmarkApply(b *testing.B) {
	const numbers = 100_000
	v := newView(0)
	change := func(i int, header string) domain.Change {
		return domain.Change{Number: &domain.NumberRouting{Key: 442079460000 + uint64(i),
			Account: fmt.Sprint("a", i%1000), Services: 2, CustomHeader: header}}
	}
	var all []domain.Change
	for i := range numbers {
		all = append(all, change(i, fmt.Sprintf("C-%07d", i)))
	}
	if err := v.apply(all, nil); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	entries := make([]feed.Entry, 1000)
	for i := range entries {
		p, err := json.Marshal([]domain.Change{change(r.IntN(numbers), fmt.Sprintf("C-%07d", r.IntN(1e6)))})
		if err != nil {
			b.Fatal(err)
		}
		entries[i].Payload = p
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := v.applyEntry(entries[i%len(entries)], nil); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
