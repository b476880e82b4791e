package directory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// skew is how far a first-sent time may be in the future, because clocks differ.
const skew = 5 * time.Minute

// pageChanges is the maximum number of changes in one feed entry. It bounds the entries that readers handle.
const pageChanges = 1000

// now returns the time for rows, which hold microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// next returns the version after old. It follows the clock, so that a resource that is deleted and created again does
// not get a version, and with it an ETag, that it had before.
func next(old int64, at time.Time) int64 { return max(old+1, at.UnixMicro()) }

// write runs fn as one change, at most once if w says so.
func (d *Directory) write(ctx context.Context, w Write,
	fn func(ctx context.Context, tx Tx, r *Result) error) (*Result, error) {
	if err := w.Once.check(); err != nil {
		return nil, err
	}
	var r *Result
	err := d.store.Update(ctx, func(ctx context.Context, tx Tx) error {
		r = &Result{}
		if w.Once != nil {
			old, err := tx.Remember(ctx, &Record{Scope: w.Once.Scope, ID: w.Once.ID, FirstSent: w.Once.sent(),
				Digest: w.Once.Digest, Made: now()})
			if err != nil {
				return err
			}
			if old != nil {
				if old.Digest != w.Once.Digest || !old.FirstSent.Equal(w.Once.sent()) {
					return fault.New(fault.Invalid, CodeRepeatabilityMismatch,
						"Repeatability-Request-ID was used before for another request; use a new id for a new "+
							"request").At("Repeatability-Request-ID")
				}
				r.Replayed, r.Response = true, old.Response
				return nil
			}
		}
		if err := fn(ctx, tx, r); err != nil {
			return err
		}
		if w.Once != nil && w.Once.Render != nil {
			var err error
			if r.Response, err = w.Once.Render(r); err != nil {
				return fmt.Errorf("render the answer: %w", err)
			}
			if err := tx.Answer(ctx, w.Once.Scope, w.Once.ID, r.Response); err != nil {
				return err
			}
		}
		done := r
		tx.OnCommit(func(p feed.Position) { done.Position = p })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (o *Once) sent() time.Time { return o.FirstSent.UTC().Truncate(time.Microsecond) }

// check refuses a request that cannot be recorded, or is too old for its record to exist.
func (o *Once) check() error {
	if o == nil {
		return nil
	}
	if o.ID == "" || !text(o.ID, 256) || !text(o.Scope, 1024) {
		return fault.New(fault.Invalid, CodeRepeatabilityInvalid,
			"Repeatability-Request-ID must have 1 to 256 bytes; use a GUID").At("Repeatability-Request-ID")
	}
	if age := time.Since(o.FirstSent); age > Repeatable || age < -skew {
		return fault.New(fault.Precondition, CodeRepeatabilityExpired,
			"Repeatability-First-Sent must be within the last 24 hours; send the request as a new one, with a new "+
				"Repeatability-Request-ID").At("Repeatability-First-Sent")
	}
	return nil
}

// change is what one write did, for the feed and the audit log.
type change struct {
	action string
	target string
	items  int
	state  any // input of the digest and of the summary, unless these are set
	// digest and summary replace state in the audit row, for batches.
	digest  [32]byte
	summary any
	changes []domain.Change
}

// record appends the change to the feed and the audit log.
func (d *Directory) record(ctx context.Context, tx Tx, c change) error {
	state, err := json.Marshal(c.state)
	summary := state
	if err == nil && c.summary != nil {
		summary, err = json.Marshal(c.summary)
	}
	if err != nil {
		return fmt.Errorf("describe the change: %w", err)
	}
	for part := range slices.Chunk(c.changes, pageChanges) {
		if err := tx.Publish(ctx, part); err != nil {
			return err
		}
	}
	tx.Audit(AuditEntry{Actor: domain.ActorFrom(ctx), At: now(), Action: c.action, Target: c.target, Count: c.items,
		Digest: cmp.Or(c.digest, sha256.Sum256(state)), Summary: string(summary)})
	tx.OnCommit(func(feed.Position) { d.changes.WithLabelValues(c.action).Add(float64(c.items)) })
	return nil
}

// Run removes expired records of repeatable requests, and statuses that nothing observes any more. It blocks until ctx
// is done and returns nil.
func (d *Directory) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for settled := d.cfg.Observed; ; {
		if !settled {
			if err := d.forgetStatuses(ctx); err == nil {
				settled = true
			} else if !errors.Is(err, context.Canceled) {
				d.log.Warn("resetting subdomainStatus, which is not observed any more, failed; retrying in an hour",
					"error", err)
			}
		}
		if n, err := d.forget(ctx); err != nil && !errors.Is(err, context.Canceled) {
			d.log.Warn("removing expired records of repeatable requests failed; retrying in an hour", "error", err)
		} else if n > 0 {
			d.log.Debug("expired records of repeatable requests removed", "count", n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Directory) forget(ctx context.Context) (int64, error) {
	var n int64
	err := d.store.Update(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		// A request may be repeated for a day after it was first sent, which may be skew after it was recorded.
		n, err = tx.Forget(ctx, now().Add(-Repeatable-2*skew))
		return err
	})
	return n, err
}

// limits checks a query and returns it with room for one more item, which shows whether another page follows.
func (q Query) limits() (Query, error) {
	if !text(q.After, 1024) {
		return q, fault.New(fault.Invalid, CodeInvalidPageSize,
			"the listing cannot start after that key: it is too long, or has control characters")
	}
	if q.Limit < 1 || q.Limit > MaxPage || q.Skip < 0 {
		return q, fault.New(fault.Invalid, CodeInvalidPageSize, "a page has 1 to %d items, and the number of items "+
			"to skip must not be negative", MaxPage)
	}
	q.Limit++
	return q, nil
}

// list reads one page.
func list[T any](ctx context.Context, d *Directory, q Query, key func(*T) string,
	find func(Reader, context.Context, Query) ([]T, error), count func(Reader, context.Context, Query) (int64, error),
) (p Page[T], err error) {
	if q, err = q.limits(); err != nil {
		return p, err
	}
	err = d.store.View(ctx, func(ctx context.Context, r Reader) error {
		items, err := find(r, ctx, q)
		if err != nil {
			return err
		}
		p = Page[T]{Items: items}
		if len(items) == q.Limit {
			p.Items = items[:q.Limit-1]
			p.Next = key(&p.Items[len(p.Items)-1])
		}
		if q.Count {
			p.Total, err = count(r, ctx, q)
		}
		return err
	})
	return p, err
}

// view reads one resource.
func view[T any](ctx context.Context, d *Directory, get func(context.Context, Reader) (*T, error)) (v T, err error) {
	err = d.store.View(ctx, func(ctx context.Context, r Reader) error {
		found, err := get(ctx, r)
		if err == nil {
			v = *found
		}
		return err
	})
	return v, err
}
