package zone

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Customers reads the accounts that have Direct Routing labels.
type Customers interface {
	// Customer returns an account; it has no labels if it does not exist.
	Customer(ctx context.Context, account string) (Customer, error)
	// Customers returns up to limit accounts whose name follows after, by name; fewer only at the end.
	Customers(ctx context.Context, after string, limit int) ([]Customer, error)
}

// Sources of records.
const (
	sourceFixed   = "configuration"
	sourceProvapi = "provapi"
	sourceAccount = "account:" // and the account's name
)

// keepBatch is how many accounts are published in one version.
const keepBatch = 200

// Keeper keeps the records of the configuration and of all accounts in the zone. Several may run at a time, on several
// nodes with the same configuration: what is there already makes no version.
type Keeper struct {
	contents
	store     Store
	customers Customers
	log       *slog.Logger
}

// NewKeeper returns a keeper of the zone of a base domain. regions are the labels of Direct Routing, fronts those of
// the hosts of the public front. The names have been validated.
func NewKeeper(n *Names, base string, regions, fronts []string, s Store, c Customers, log *slog.Logger) *Keeper {
	return &Keeper{newContents(n, base, regions, fronts), s, c, log}
}

// Run publishes everything, then follows the changes of accounts, until ctx ends or the database cannot be used.
func (k *Keeper) Run(ctx context.Context) error {
	var at feed.Cursor
	err := k.store.View(ctx, func(ctx context.Context, r Reader) (err error) {
		at, err = r.Cursor(ctx) // what changes during the pass is read again after it
		return err
	})
	if err == nil {
		err = k.all(ctx)
	}
	for err == nil {
		var page feed.Page
		if page, err = k.store.Read(ctx, feed.Provisioning, at, 1000); err != nil {
			break
		}
		if err = k.follow(ctx, page.Entries); err != nil {
			break
		}
		at = page.Next
		if len(page.Entries) == 0 {
			err = k.store.Wait(ctx, at.Position)
		}
	}

	return end(ctx, err)
}

func (k *Keeper) publish(ctx context.Context, sources map[string][]Record) error {
	return Publish(ctx, k.store, k.origin, sources)
}

// all publishes the configuration and every account, and removes accounts that no longer exist.
func (k *Keeper) all(ctx context.Context) error {
	err := k.publish(ctx, map[string][]Record{sourceFixed: k.fixed()})
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	err = k.store.View(ctx, func(ctx context.Context, r Reader) error {
		sources, err := r.Sources(ctx, sourceAccount)
		for _, s := range sources {
			gone[strings.TrimPrefix(s, sourceAccount)] = true
		}
		return err
	})
	if err != nil {
		return err
	}

	for after, more := "", true; more; {
		page, err := k.customers.Customers(ctx, after, keepBatch)
		if err != nil {
			return err
		}
		batch := map[string][]Record{}
		for i := range page {
			after = page[i].Account
			batch[sourceAccount+after] = k.customer(&page[i])
			delete(gone, after)
		}
		if err := k.publish(ctx, batch); err != nil {
			return err
		}
		more = len(page) == keepBatch
	}

	// One that was created meanwhile is not among them, and one that was deleted and created again is read.
	return k.accounts(ctx, gone)
}

// accounts publishes some accounts, by name, as they are now.
func (k *Keeper) accounts(ctx context.Context, all map[string]bool) error {
	for names := range slices.Chunk(slices.Collect(maps.Keys(all)), keepBatch) {
		batch := map[string][]Record{}
		for _, name := range names {
			c, err := k.customers.Customer(ctx, name)
			if err != nil {
				return err
			}
			batch[sourceAccount+name] = k.customer(&c)
		}
		if err := k.publish(ctx, batch); err != nil {
			return err
		}
	}

	return nil
}

// follow publishes the accounts that feed entries name.
func (k *Keeper) follow(ctx context.Context, entries []feed.Entry) error {
	changed := map[string]bool{}
	for _, e := range entries {
		var changes []domain.Change
		if err := json.Unmarshal(e.Payload, &changes); err != nil {
			return fmt.Errorf("zone: feed entry %d: %w", e.Position, err)
		}
		for _, c := range changes {
			if c.Account != nil && !c.Observed {
				changed[c.Account.Name] = true
			}
		}
	}

	return k.accounts(ctx, changed)
}
