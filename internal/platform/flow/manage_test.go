package flow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/testkit"
)

// TestOperations lists work in pages and runs it by hand, as the management API does.
func TestOperations(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ring, err := secret.Ephemeral()
		if err != nil {
			t.Fatal(err)
		}
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, discard, nil)
		o := flow.Operations{Queue: q, Sealer: ring}
		if l := list(t, o, api.ListWorkParams{}); l.Work == nil || len(l.Work) > 0 || l.Next != "" {
			t.Errorf("an empty queue is listed as %+v, want an empty list", l)
		}
		due := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		err = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(q.Enqueue(ctx, tx, "tenant", due, "1", "2", "3"),
				q.Enqueue(ctx, tx, "number", due, "+1/2"))
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var next *string
		for range 2 {
			l := list(t, o, api.ListWorkParams{Limit: new(2), Cursor: next})
			for _, w := range l.Work {
				got = append(got, w.Kind+" "+w.ID)
				if w.State != api.WorkStateQueued || !w.Due.Equal(due) || time.Since(w.Since) > time.Hour {
					t.Errorf("listed as %+v", w)
				}
			}
			next = &l.Next
		}
		want := []string{"number +1/2", "tenant 1", "tenant 2", "tenant 3"}
		if diff := cmp.Diff(want, got); diff != "" || *next != "" {
			t.Errorf("pages differ (-want +got), next %q:\n%s", *next, diff)
		}
		l := list(t, o, api.ListWorkParams{Kind: new("number"), State: new(api.WorkStateQueued)})
		if len(l.Work) != 1 {
			t.Errorf("filtered by kind and state: %+v", l)
		}

		run := func(kind, id string, action api.RunWorkParamsAction) error {
			_, err := o.RunWork(t.Context(), api.RunWorkRequestObject{Kind: kind, ID: id, Action: action})
			return err
		}
		if err := run("number", "+1/2", api.RunWorkParamsActionRetry); err != nil {
			t.Errorf("retry: %v", err)
		}
		l = list(t, o, api.ListWorkParams{Kind: new("number")})
		if len(l.Work) != 1 || l.Work[0].Due.After(time.Now()) {
			t.Errorf("after the retry: %+v, want it to be due", l)
		}
		if err := run("tenant", "1", api.RunWorkParamsActionResume); !fault.HasCode(err, "WorkState") {
			t.Errorf("resume of queued work: %v", err)
		}
		if err := run("tenant", "1", "drop"); !fault.Is(err, fault.NotFound) {
			t.Errorf("an unknown action: %v", err)
		}
		if err := run("tenant", "9", api.RunWorkParamsActionRetry); !fault.HasCode(err, "WorkNotFound") {
			t.Errorf("retry of unknown work: %v", err)
		}
		forged := api.ListWorkRequestObject{Params: api.ListWorkParams{Cursor: new("forged")}}
		if _, err := o.ListWork(t.Context(), forged); err == nil {
			t.Error("a forged cursor is accepted")
		}
		if rows := testkit.AuditLog(t, d); len(rows) != 1 || rows[0].Action != "work.retry" ||
			rows[0].Target != "number/+1/2" {
			t.Errorf("audit log: %+v, want one retry", rows)
		}
	})
}

func list(t *testing.T, o flow.Operations, q api.ListWorkParams) api.ListWork200JSONResponse {
	t.Helper()
	r, err := o.ListWork(t.Context(), api.ListWorkRequestObject{Params: q})
	if err != nil {
		t.Fatal(err)
	}
	return r.(api.ListWork200JSONResponse)
}
