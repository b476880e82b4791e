package user

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// SyncKind is the kind of the synchronisation's keys in package flow; their ids are names of accounts.
const SyncKind = "tenantSync"

const (
	runFor      = 4 * time.Minute // package flow allows 5
	defaultRest = 15 * time.Minute
	// fullEvery is how often everything is read: changes of numbers and policies are not in the feed of changes.
	fullEvery   = 24 * time.Hour
	maxRestarts = 3   // of a pass, because links had expired
	maxFailures = 3   // of passes over changes in a row, until everything is read
	remembered  = 500 // passes that are looked at for the last complete one
)

// Syncer reads the users of tenants. Its methods are safe for concurrent use.
type Syncer struct {
	Store   Store
	Clouds  Clouds
	Every   time.Duration // between passes; 15 min if 0
	Metrics *Metrics
	Log     *slog.Logger
}

// Kind returns the kind for the worker.
func (s *Syncer) Kind() *flow.Kind {
	return &flow.Kind{Name: SyncKind, Reconcile: s.Reconcile,
		List: func(ctx context.Context, after string, limit int) ([]string, error) {
			return s.Store.Stale(ctx, time.Now().Add(-2*s.rest()), after, limit)
		}}
}

func (s *Syncer) rest() time.Duration {
	if s.Every == 0 {
		return defaultRest
	}
	return s.Every
}

// Reconcile continues the pass that is under way, or begins one if it is time. A pass that is killed continues with the
// pages that are not stored.
func (s *Syncer) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	account := run.ID
	p, tenant, err := s.begin(ctx, run)
	switch {
	case err != nil || p == nil:
		return flow.Result{}, err
	case !p.Ended.IsZero():
		return flow.Result{Again: p.Ended.Add(s.rest())}, nil
	}

	limited, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	cloud, err := s.Clouds(limited, tenant)
	if err == nil {
		w := &pass{Syncer: s, run: run, account: account, cloud: cloud, Pass: p}
		if err = w.read(limited); err == nil {
			return w.end(ctx)
		}
	}

	f := fault.As(err)
	switch {
	case ctx.Err() == nil && limited.Err() != nil:
		return flow.Result{Again: time.Now()}, nil // a large tenant: the next run continues
	case fault.HasCode(err, LostChanges):
		return s.abandon(ctx, run, p, f.Message, &Pass{Mode: Full,
			Why: "Microsoft no longer knows where the last pass ended"})
	case fault.HasCode(err, ExpiredPage):
		return s.abandon(ctx, run, p, f.Message, nil)
	case f.Kind == fault.Unauthenticated || f.Kind == fault.Forbidden || f.Kind == fault.Conflict:
		p.Failure = f.Message
		err = s.Store.Update(ctx, run, account, "", func(ctx context.Context, tx Tx) error {
			return tx.PutPass(ctx, p)
		})
		return flow.Result{Again: time.Now().Add(s.rest())}, err
	}
	return flow.Result{}, err
}

// abandon ends a pass that cannot be completed, and begins another.
func (s *Syncer) abandon(ctx context.Context, run *flow.Run, p *Pass, why string, next *Pass) (flow.Result, error) {
	p.Ended, p.Failure = time.Now(), why
	again := p.Ended.Add(s.rest())
	err := s.Store.Update(ctx, run, run.ID, "", func(ctx context.Context, tx Tx) error {
		if err := tx.PutPass(ctx, p); err != nil || next == nil {
			return err
		}
		next.Number, next.Began, again = p.Number+1, p.Ended, p.Ended
		return tx.PutPass(ctx, next)
	})
	s.Metrics.pass(p)
	s.Log.Warn("synchronisation of a tenant abandoned", "account", run.ID, "pass", p.Number, "mode", p.Mode,
		"reason", why)
	return flow.Result{Again: again}, err
}

// begin returns the pass that is under way, a new one if it is time, or else the last one, which has ended. It returns
// none for a tenant that was left, and forgets its users.
func (s *Syncer) begin(ctx context.Context, run *flow.Run) (p *Pass, t *onboard.Tenant, err error) {
	err = s.Store.Update(ctx, run, run.ID, "", func(ctx context.Context, tx Tx) error {
		var passes []Pass
		if t, err = tx.Tenant(ctx); fault.Is(err, fault.NotFound) || err == nil && !Synchronised(t) {
			p = nil
			return tx.Clear(ctx)
		} else if err != nil {
			return err
		}
		if passes, err = tx.Passes(ctx, remembered); err != nil {
			return err
		}
		if len(passes) > 0 {
			p = &passes[0]
			if p.Ended.IsZero() || p.Failure == "" && time.Since(p.Ended) < s.rest() {
				return nil
			}
		}
		p = next(passes)
		return tx.PutPass(ctx, p)
	})
	return p, t, err
}

// next returns the pass that follows others, of which the newest is the first.
func next(passes []Pass) *Pass {
	p := &Pass{Number: 1, Mode: Full, Why: "first pass", Began: time.Now()}
	if len(passes) > 0 {
		p.Number = passes[0].Number + 1
	}

	failures := 0
	for _, old := range passes {
		switch {
		case old.Failure != "" || old.Ended.IsZero():
			if p.UserPage == "" {
				failures++
			}
		case old.Mode == Full && time.Since(old.Ended) > fullEvery:
			p.Why, p.UserPage = "a day has passed since the last one", ""
			return p
		case p.UserPage == "":
			p.Mode, p.Why, p.UserPage = Delta, "changes since the last pass", old.DeltaLink
		}
		if old.Mode == Full && old.Failure == "" {
			break
		}
	}
	if p.Mode == Delta && failures >= maxFailures {
		p.Mode, p.Why, p.UserPage = Full, fmt.Sprintf("%d passes over the changes failed", failures), ""
	}
	return p
}

// pass is a pass under way.
type pass struct {
	*Syncer
	run     *flow.Run
	account string
	cloud   Cloud

	mu sync.Mutex // guards what follows
	*Pass
}

func (p *pass) read(ctx context.Context) error {
	if p.Mode == Delta {
		return p.changes(ctx)
	}
	if p.DeltaLink == "" { // taken before the first page, so that no change is lost
		link, err := p.cloud.Latest(ctx)
		if err != nil {
			return err
		}
		p.DeltaLink = link
		err = p.Store.Update(ctx, p.run, p.account, "", func(ctx context.Context, tx Tx) error {
			return tx.PutPass(ctx, p.Pass)
		})
		if err != nil {
			return err
		}
	}

	// Links lead from page to page, so the two lists are the most that can be read at the same time.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lists sync.WaitGroup
	var errs [2]error
	lists.Go(func() {
		errs[0] = list(ctx, p, false, p.cloud.Profiles, Tx.PutProfiles)
		if errs[0] != nil {
			cancel()
		}
	})
	lists.Go(func() {
		errs[1] = list(ctx, p, true, p.cloud.Voices, Tx.PutVoices)
		if errs[1] != nil {
			cancel()
		}
	})
	lists.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs[:]...)
}

// list stores the pages of a list from where the pass stands. If a link has expired it begins again, a few times.
func list[T any](ctx context.Context, p *pass, voices bool,
	pages func(context.Context, string, func([]T, string) error) error,
	put func(Tx, context.Context, int64, []T) error) error {
	link, count := &p.UserPage, &p.Users
	if voices {
		link, count = &p.VoicePage, &p.Voices
	}
	for *link != lastPage {
		err := pages(ctx, *link, func(page []T, next string) error {
			return p.store(ctx, voices, func(ctx context.Context, tx Tx) error {
				return put(tx, ctx, p.Number, page)
			}, func() {
				*count += int64(len(page))
				if *link = next; next == "" {
					*link = lastPage
				}
			})
		})
		if fault.HasCode(err, ExpiredPage) && p.restart(func() { *link, *count = "", 0 }) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restart runs reset and reports true, unless the pass has begun again too often.
func (p *pass) restart(reset func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Restarts >= maxRestarts {
		return false
	}
	p.Restarts++
	reset()
	return true
}

// store stores a page with fn, and how far the list is after advance.
func (p *pass) store(ctx context.Context, voices bool, fn func(context.Context, Tx) error, advance func()) error {
	p.mu.Lock()
	advance()
	at := *p.Pass
	p.mu.Unlock()
	progress := fmt.Sprintf("%s pass: %s, %s", at.Mode, domain.Count(at.Users, "user"),
		domain.Count(at.Voices, "voice configuration"))
	return p.Store.Update(ctx, p.run, p.account, progress, func(ctx context.Context, tx Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		return tx.SetPage(ctx, &at, voices)
	})
}

// changes stores what changed since the last pass.
func (p *pass) changes(ctx context.Context) error {
	if p.UserPage == lastPage {
		return nil
	}
	return p.cloud.Changes(ctx, p.UserPage, func(page []Change, next, latest string) error {
		var profiles []Profile
		var voices []Voice
		var binned, gone []string
		for _, c := range page {
			switch {
			case c.Gone:
				gone = append(gone, c.Profile.ID)
			case c.Binned:
				binned = append(binned, c.Profile.ID)
			default:
				profiles = append(profiles, c.Profile)
				if c.Voice != nil {
					voices = append(voices, *c.Voice)
				}
			}
		}
		return p.store(ctx, false, func(ctx context.Context, tx Tx) error {
			if err := tx.PutProfiles(ctx, p.Number, profiles); err != nil {
				return err
			}
			if err := tx.PutVoices(ctx, p.Number, voices); err != nil {
				return err
			}
			return tx.Remove(ctx, binned, gone)
		}, func() {
			p.Users += int64(len(profiles))
			p.Voices += int64(len(voices))
			p.Removed += int64(len(binned) + len(gone))
			if p.UserPage = next; next == "" {
				p.UserPage, p.DeltaLink = lastPage, latest
			}
		})
	})
}

// end ends a complete pass. Only now users that were not listed count as deleted.
func (p *pass) end(ctx context.Context) (flow.Result, error) {
	p.Ended, p.Failure = time.Now(), ""
	removed := p.Removed
	err := p.Store.Update(ctx, p.run, p.account, "", func(ctx context.Context, tx Tx) error {
		p.Removed = removed
		if p.Mode == Full {
			n, err := tx.Sweep(ctx, p.Number)
			if err != nil {
				return err
			}
			p.Removed += n
		}
		if err := tx.Wake(ctx); err != nil {
			return err
		}
		if err := tx.PutPass(ctx, p.Pass); err != nil {
			return err
		}
		return tx.Event(ctx, "tenant.users.synced", p.account, nil)
	})
	if err != nil {
		return flow.Result{}, err
	}
	if p.Mode == Full {
		p.cloud.Sized(int(p.Users))
	}
	p.Metrics.pass(p.Pass)
	return flow.Result{Again: p.Ended.Add(p.rest())}, nil
}
