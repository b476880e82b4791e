package zone_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/zone"
)

// bulk is a store in whose feed many accounts change at once. It notes how many sources each transaction changes.
type bulk struct {
	memory
	entries []feed.Entry // not yet read
	sources []int
}

var errEnd = errors.New("the end of the test")

func (b *bulk) Read(context.Context, string, feed.Cursor, int) (feed.Page, error) {
	page := feed.Page{Entries: b.entries}
	b.entries = nil

	return page, nil
}

func (b *bulk) Wait(context.Context, feed.Position) error { return errEnd }

func (b *bulk) Update(ctx context.Context, fn func(context.Context, zone.Tx) error) error {
	b.sources = append(b.sources, 0)
	return fn(ctx, b)
}

func (b *bulk) View(ctx context.Context, fn func(context.Context, zone.Reader) error) error {
	return fn(ctx, b)
}

func (b *bulk) Sources(context.Context, string) ([]string, error) { return nil, nil }

func (b *bulk) Add(context.Context, string, []zone.Record) error {
	b.sources[len(b.sources)-1]++
	return nil
}

func (b *bulk) Customers(context.Context, string, int) ([]zone.Customer, error) { return nil, nil }

func (b *bulk) Customer(_ context.Context, account string) (zone.Customer, error) {
	return zone.Customer{Account: account}, nil
}

// Many accounts that change at once do not hold the database for one long transaction.
func TestKeeperBulk(t *testing.T) {
	var changes []domain.Change
	for i := range 1000 {
		changes = append(changes, domain.Change{Account: &domain.AccountRouting{Name: fmt.Sprint("a", i)}})
	}
	payload, err := json.Marshal(changes)
	if err != nil {
		t.Fatal(err)
	}
	b := &bulk{entries: []feed.Entry{{Payload: payload}}}
	k := zone.NewKeeper(&zone.Names{}, "gw.example.com", nil, nil, b, b, slog.New(slog.DiscardHandler))
	if err := k.Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	sum := 0
	for _, n := range b.sources {
		if sum += n; n > 200 {
			t.Errorf("%d accounts in one transaction", n)
		}
	}
	if sum < 1000 {
		t.Errorf("%d accounts were published", sum)
	}
}
