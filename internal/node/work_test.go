package node

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
)

// TestWorkBecomesEvents: a step and the end of a run are events; reasons, which may quote outside services, are not.
func TestWorkBecomesEvents(t *testing.T) {
	t.Parallel()
	c := buildNode(t).core
	start, err := c.events.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := flow.Key{Kind: "tenant", ID: "t1"}
	err = c.db.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return errors.Join(
			c.progress(ctx, tx, flow.Item{Key: key, State: flow.Running, Reason: "3 of 10 domains"}),
			c.progress(ctx, tx, flow.Item{Key: key, State: flow.Parked, Reason: "the tenant said no"}),
			c.progress(ctx, tx, flow.Item{Key: key}))
	})
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := c.events.Read(t.Context(), start, false, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, e := range found {
		got = append(got, e.Kind, e.Subject, e.Data["step"])
	}
	want := []any{"work.running", "tenant/t1", "3 of 10 domains", "work.parked", "tenant/t1", nil, "work.done",
		"tenant/t1", nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}
