package provisioning

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Sizes of a scan's pages.
const (
	scanAccounts = 1000
	scanNumbers  = 10_000
)

// Source is what a call replica starts from and follows: the change feed, and a scan of the whole present state.
type Source struct {
	feed.Reader
	d *db.DB
}

// Source returns the replica's source on this store.
func (s *Store) Source() *Source { return &Source{s.feed, s.d} }

// Scan calls fn with the whole state in pages, accounts first, and returns a feed position: every change after it is in
// the feed. The pages are read one after the other while changes go on, so they may hold some of those changes already;
// applying them again is harmless. fn must not keep the slice.
func (s *Source) Scan(ctx context.Context, fn func([]domain.Change) error) (feed.Position, error) {
	// The position comes first: every change up to it was committed before the first page is read.
	head, err := s.Head(ctx)
	if err != nil {
		return 0, err
	}
	page := make([]domain.Change, 0, scanNumbers)
	for after := ""; ; {
		err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
			page = page[:0]
			return tx.Query(ctx, func(rows *sql.Rows) error {
				a, err := scanAccount(rows)
				page = append(page, domain.Change{Account: a.Routing()})
				return err
			}, "SELECT "+accountColumns+" FROM accounts WHERE name > $1 ORDER BY name LIMIT $2", after, int64(scanAccounts))
		})
		if err != nil {
			return 0, fmt.Errorf("scan accounts: %w", err)
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].Account.Name
		if err := fn(page); err != nil {
			return 0, err
		}
	}
	rows := make([]domain.NumberRouting, scanNumbers)
	for after := ""; ; {
		var last string
		err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
			page = page[:0]
			return tx.Query(ctx, func(r *sql.Rows) error {
				n := &rows[len(page)]
				*n = domain.NumberRouting{}
				var number string
				var enabled int64
				if err := r.Scan(&number, &n.Account, &enabled, &n.CustomHeader); err != nil {
					return err
				}
				last = number
				n.Key, n.Services = domain.E164(number).Key(), domain.ServiceSet(enabled)
				page = append(page, domain.Change{Number: n})
				return nil
			}, "SELECT number, account, enabled, custom_header FROM numbers WHERE number > $1 ORDER BY number LIMIT $2", after, int64(scanNumbers))
		})
		if err != nil {
			return 0, fmt.Errorf("scan numbers: %w", err)
		}
		if len(page) == 0 {
			return head, nil
		}
		after = last
		if err := fn(page); err != nil {
			return 0, err
		}
	}
}
