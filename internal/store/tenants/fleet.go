package tenants

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// Fleet returns up to limit tenants after an account, in order.
func (s *Store) Fleet(ctx context.Context, f onboard.Filter, after string, limit int) ([]onboard.Listed, error) {
	args := []any{after, limit}
	where := "t.account > $1"
	and := func(condition string, value any) {
		args = append(args, value)
		where += " AND " + strings.ReplaceAll(condition, "?", fmt.Sprint("$", len(args)))
	}
	for column, value := range map[string]string{"state": string(f.State), "waits": string(f.Waiting),
		"template": f.Template} {
		if value != "" {
			and("t."+column+" = ?", value)
		}
	}
	if f.Drift != nil {
		and("CASE WHEN COALESCE(d.differences, 0) > 0 THEN 1 ELSE 0 END = ?", bit(*f.Drift))
	}

	return list(ctx, s, "tenants", scanListed, "SELECT t.account, t.pending, t.tenant, COALESCE(d.differences, 0), "+
		"COALESCE(d.checked, 0), COALESCE(a.access, ''), "+
		"COALESCE((SELECT MAX(s.ended) FROM tenant_syncs s WHERE s.account = t.account AND s.failure = ''), 0), "+
		"(SELECT COUNT(*) FROM tenant_users u WHERE u.account = t.account AND u.wanted <> '' AND u.state = 'active') "+
		"FROM tenants t LEFT JOIN tenant_drift d ON d.account = t.account LEFT JOIN tenant_access a ON "+
		"a.account = t.account WHERE "+where+" ORDER BY t.account LIMIT $2", args...)
}

func scanListed(rows *sql.Rows) (x onboard.Listed, err error) {
	x.Tenant = &onboard.Tenant{}
	var pending, checked, synced int64
	var tenant, access string
	err = rows.Scan(&x.Account, &pending, &tenant, &x.Drift, &checked, &access, &synced, &x.Active)
	if err != nil {
		return x, err
	}
	x.Pending, x.Compared, x.Synced = pending == 1, db.Time(checked), db.Time(synced)
	if err := json.Unmarshal([]byte(tenant), x.Tenant); err != nil || access == "" {
		return x, err
	}

	var a invite.Access
	if err := json.Unmarshal([]byte(access), &a); err != nil {
		return x, err
	}
	x.Consented = a.Consented
	if a.Integrated != nil {
		x.SignedIn = a.Integrated.At
	}
	if a.Lost != nil {
		a.Account = x.Account
		if x.Problem = a.Problem(); a.Lost.Consent {
			x.ConsentLost = a.Lost.Since
		} else {
			x.Lost = a.Lost.Since
		}
	}
	return x, nil
}

// Sums returns sums over all tenants.
func (s *Store) Sums(ctx context.Context) (sums onboard.Sums, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		sums = onboard.Sums{States: map[onboard.State]int{}, Waits: map[onboard.Party]int{}}
		sums.Oldest = map[onboard.Party]time.Time{}
		err := tx.Query(ctx, func(rows *sql.Rows) error {
			var state onboard.State
			var party onboard.Party
			var n int
			var since int64
			err := rows.Scan(&state, &party, &n, &since)
			sums.States[state] += n
			if party != "" {
				sums.Waits[party], sums.Oldest[party] = n, db.Time(since)
			}
			return err
		}, "SELECT state, waits, COUNT(*), MIN(since) FROM tenants GROUP BY state, waits")
		if err != nil {
			return err
		}
		_, err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM tenant_access WHERE access LIKE '%"lost":{%'`, nil, &sums.Lost)
		return err
	})
	return sums, wrap(err, "sum up the tenants")
}
