package provisioning

import (
	"context"
	"database/sql"
	"errors"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
)

// Sizes of a scan's pages.
const (
	scanAccounts = 1000
	scanNumbers  = 10_000
)

// Source is what a call replica loads from and follows: the change feed, and a scan of the whole present state.
type Source struct {
	feed.Reader
	s *Store
}

// Source returns the replica's source on this store.
func (s *Store) Source() *Source { return &Source{s.feed, s} }

// Scan calls fn with the whole state in pages, accounts first, and returns the cursor of that state. All of it comes
// from one consistent read, so every change after the cursor is in the feed and none of them is in the pages. fn must
// not keep the slice.
func (s *Source) Scan(ctx context.Context, fn func([]domain.Change) error) (at feed.Cursor, err error) {
	begun := false
	err = s.s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		if begun {
			return errors.New("the scan was interrupted") // the pages that fn got so far belong to another state
		}
		begun = true

		if at, err = outbox.HeadIn(ctx, tx); err != nil {
			return err
		}
		if err := s.s.scanAllAccounts(ctx, tx, fn); err != nil {
			return err
		}
		return wrap(scanAllNumbers(ctx, tx, fn), "scan numbers")
	})
	return at, err
}

func (s *Store) scanAllAccounts(ctx context.Context, tx *db.Tx, fn func([]domain.Change) error) error {
	for after := ""; ; {
		page, err := list(ctx, tx, "scan accounts", func(rows *sql.Rows) (domain.Change, error) {
			a, err := s.scanAccount(rows)
			after = a.Name
			return domain.Change{Account: a.Routing()}, err
		}, "SELECT "+accountColumns+" FROM accounts WHERE name > $1 ORDER BY name LIMIT $2", after, int64(scanAccounts))
		if err != nil || len(page) == 0 {
			return err
		}
		if err := fn(page); err != nil {
			return err
		}
	}
}

func scanAllNumbers(ctx context.Context, tx *db.Tx, fn func([]domain.Change) error) error {
	page := make([]domain.Change, 0, scanNumbers)
	rows := make([]domain.NumberRouting, scanNumbers)
	for last := ""; ; {
		page = page[:0]
		err := tx.Query(ctx, func(r *sql.Rows) error {
			n := &rows[len(page)]
			*n = domain.NumberRouting{}
			var enabled int64
			if err := r.Scan(&last, &n.Account, &enabled, &n.CustomHeader, &n.Slot); err != nil {
				return err
			}
			n.Key, n.Services = domain.E164(last).Key(), domain.ServiceSet(enabled)
			page = append(page, domain.Change{Number: n})
			return nil
		}, "SELECT number, account, enabled, custom_header, slot FROM numbers WHERE number > $1 ORDER BY number "+
			"LIMIT $2", last, int64(scanNumbers))
		if err != nil || len(page) == 0 {
			return err
		}
		if err := fn(page); err != nil {
			return err
		}
	}
}
