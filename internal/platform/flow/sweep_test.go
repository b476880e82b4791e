package flow_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
)

// away is a database that cannot be reached until a time.
type away struct{ until time.Time }

func (a away) Driver() string { return db.SQLite }

func (a away) View(context.Context, func(context.Context, *db.Tx) error) error { return a.fails() }

func (a away) Update(context.Context, func(context.Context, *db.Tx) error) error { return a.fails() }

func (a away) fails() error {
	if time.Now().Before(a.until) {
		return errors.New("connection refused")
	}
	return nil
}

// A node that has no work of its own, only kinds of an earlier configuration, does not fill the log while the database
// is unavailable.
func TestAFailingSweepIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		q := flow.New(away{time.Now().Add(10 * time.Minute)}, nil, slog.New(slog.NewTextHandler(&text, nil)), nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- q.Run(ctx, nil, "former") }()
		time.Sleep(20 * time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := strings.Count(text.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1:\n%s", n, text.String())
		}
	})
}
