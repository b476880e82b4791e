package teamsadmin

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// The ways in which a list of PSTN usages is changed. It is never replaced: it has those of others.
const (
	Add    = "Add"
	Remove = "Remove"
)

// has returns the place of name in usages, or -1. Case does not count.
func has(usages []string, name string) int {
	return slices.IndexFunc(usages, func(u string) bool { return strings.EqualFold(u, name) })
}

// ChangeUsages is AddUsages and RemoveUsages of implementations of Admin: it reads, changes what is needed, if
// anything, and reads until that is visible, for at most 2 minutes.
func ChangeUsages(ctx context.Context, how string, names []string, read func(context.Context) ([]string, error),
	change func(ctx context.Context, how string, usages []string) error) error {
	before, err := read(ctx)
	if err != nil {
		return err
	}
	var todo []string
	for _, name := range names {
		at := has(before, name)
		if at >= 0 {
			name = before[at]
		}
		if (at < 0) == (how == Add) && has(todo, name) < 0 {
			todo = append(todo, name)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	changed := change(ctx, how, todo)
	if changed != nil && !fault.HasCode(changed, CodeUnknown) {
		return changed
	}

	began := time.Now()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		after, err := read(ctx)
		if err != nil {
			return cmp.Or(changed, err)
		}
		lost := slices.DeleteFunc(slices.Clone(before), func(u string) bool {
			return has(todo, u) >= 0 || has(after, u) >= 0
		})
		if len(lost) > 0 {
			return fault.New(fault.Conflict, CodeUsagesLost, "the PSTN usages %q were there before others were "+
				"changed, and are gone; unless a person removed them, add them again: Set-CsOnlinePstnUsage -Identity "+
				"Global -Usage @{Add=…}", lost)
		}
		if !slices.ContainsFunc(todo, func(u string) bool { return (has(after, u) < 0) == (how == Add) }) {
			return nil
		}
		if time.Since(began) > wire.MaxWait || wire.Sleep(ctx, wait) != nil {
			return cmp.Or(changed, error(fault.New(fault.Unavailable, CodeNotReady, "the change of the PSTN usages %q "+
				"is not visible yet; retry", todo).After(passingRetry)))
		}
	}
}
