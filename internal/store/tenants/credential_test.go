package tenants_test

import (
	"context"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/testkit"
)

// events keeps the events of transactions that committed.
type events []api.Event

func (l *events) Append(_ context.Context, tx *db.Tx, e api.Event) error {
	tx.OnCommit(func() { *l = append(*l, e) })
	return nil
}

// TestCredentialExpiresOnce: one event for each certificate and number of days.
func TestCredentialExpiresOnce(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		log := &events{}
		s := tenants.New(d, nil, nil, log)
		for range 2 {
			for _, c := range []struct {
				thumbprint string
				days       int
			}{{"a", 30}, {"a", 14}, {"b", 30}} {
				err := s.CredentialExpires(t.Context(), c.thumbprint, c.days, time.Unix(0, 0))
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		var got []string
		for _, e := range *log {
			got = append(got, e.Kind+" "+e.Subject)
		}
		if s := strings.Join(got, ", "); s != "tenant.credentialExpires a, tenant.credentialExpires a, "+
			"tenant.credentialExpires b" {
			t.Errorf("events: %s", s)
		}
		if data := (*log)[1].Data; data["days"] != 14 || data["expires"] != "1970-01-01T00:00:00Z" {
			t.Errorf("data: %v", data)
		}
	})
}
