package onboard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// What a tenant still has is told when nothing is to be removed any more, while the tenant can be reached; again if
// that fails. It is not told of a tenant that is onboarded.
func TestLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, settings(plan.Derived))
		told := 0
		p := &process{rows: r.rows, cloud: r.cloud}
		o := &onboard.Onboarder{Store: p,
			Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) { return session{p}, nil },
			Left: func(context.Context, *onboard.Tenant, []plan.Note) error {
				told++
				got, want := dump(r.cloud), dump(newCloud(foreign()...))
				if got != want || !r.consented || len(r.rows.ledger) == 0 {
					t.Errorf("told when the tenant has %s, consented %t, ledger %v", got, r.consented, r.rows.ledger)
				}
				if told == 1 {
					return errors.New("the report cannot be stored")
				}
				return nil
			}}
		until := func() (failures int) {
			for range 100 {
				result, err := o.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "contoso"}})
				switch {
				case err != nil:
					failures++
				case !r.rows.tenant.Pending:
					return failures
				}
				time.Sleep(max(time.Until(result.Again), time.Second))
			}
			t.Fatalf("not done: %+v", r.rows.tenant)
			return 0
		}
		if failures := until(); failures > 0 || told > 0 {
			t.Errorf("onboarded with %d failures, told %d times", failures, told)
		}
		r.rows.tenant.Target, r.rows.tenant.Pending, r.rows.tenant.RemoveConsent = nil, true, true
		if failures := until(); failures != 1 || told != 2 || r.consented || len(r.rows.ledger) > 0 {
			t.Errorf("left with %d failures, told %d times, consented %t, ledger %v", failures, told, r.consented,
				r.rows.ledger)
		}
	})
}
