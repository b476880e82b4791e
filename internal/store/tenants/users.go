package tenants

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// View implements user.Store.
func (s Users) View(ctx context.Context, account string, fn func(context.Context, user.Tx) error) error {
	return view(ctx, s.Store, account, fn)
}

// Update implements user.Store.
func (s Users) Update(ctx context.Context, run *flow.Run, account, progress string,
	fn func(context.Context, user.Tx) error) error {
	return update(ctx, s.Store, run, account, progress, fn)
}

// In returns the users of the tenant in a transaction of a Store.
func (s Users) In(tx onboard.Tx) user.Tx { return tx.(*transaction) }

// Stale implements user.Store.
func (s Users) Stale(ctx context.Context, since time.Time, after string, limit int) (ids []string, err error) {
	all, err := list(ctx, s.Store, "tenants to synchronise", scanTenant, "SELECT account, pending, tenant "+
		"FROM tenants WHERE account > $1 AND NOT EXISTS (SELECT 1 FROM tenant_syncs s WHERE s.account = "+
		"tenants.account AND s.ended > $2) ORDER BY account", after, db.Micros(since))
	for _, t := range all {
		if user.Synchronised(t) && len(ids) < limit {
			ids = append(ids, t.Account)
		}
	}
	return ids, err
}

// Pending implements user.Store.
func (s Users) Pending(ctx context.Context, after string, limit int) ([]string, error) {
	account, id, _ := strings.Cut(after, "/")
	return list(ctx, s.Store, "users that are pending", db.Column[string], "SELECT account || '/' || id FROM "+
		"tenant_users WHERE pending = 1 AND (account, id) > ($1, $2) ORDER BY account, id LIMIT $3", account, id, limit)
}

// Count implements user.Store.
func (s Users) Count(ctx context.Context) (map[user.State]int64, error) {
	counts := map[user.State]int64{}
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		return tx.Query(ctx, func(rows *sql.Rows) error {
			var state user.State
			var n int64
			err := rows.Scan(&state, &n)
			counts[state] = n
			return err
		}, "SELECT state, COUNT(*) FROM tenant_users GROUP BY state")
	})
	return counts, wrap(err, "count users")
}

// Made implements user.Tx.
func (t *transaction) Made(ctx context.Context, r plan.Ref) (m plan.Made, ok bool, err error) {
	var text string
	ok, err = t.QueryRow(ctx, "SELECT made FROM tenant_made WHERE account = $1 AND type = $2 AND name = $3",
		[]any{t.account, string(r.Type), strings.ToLower(r.Name)}, &text)
	if ok {
		err = json.Unmarshal([]byte(text), &m)
	}
	return m, ok, wrap(err, "read what was made")
}

const userColumns = "id, upn, name, department, location, blocked, facts, deleted, kind, number, policies, " +
	"activation, pending, waiting, state"

func scanUser(rows *sql.Rows) (u user.User, err error) {
	var blocked, deleted, pending int64
	var facts, policies, activation, waiting string
	err = rows.Scan(&u.ID, &u.UPN, &u.Name, &u.Department, &u.Location, &blocked, &facts, &deleted, &u.Voice.Kind,
		&u.Voice.Number, &policies, &activation, &pending, &waiting, &u.State)
	if err != nil {
		return u, err
	}
	u.Voice.ID, u.Voice.UPN = u.ID, u.UPN
	u.Blocked, u.Pending, u.Deleted = blocked == 1, pending == 1, db.Time(deleted)
	for text, into := range map[string]any{facts: &u.Facts, policies: &u.Voice.Policies, activation: &u.Activation,
		waiting: &u.Waiting} {
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return u, fmt.Errorf("user %s: %w", u.ID, err)
		}
	}
	return u, nil
}

// User implements user.Tx.
func (t *transaction) User(ctx context.Context, idOrUPN string) (*user.User, error) {
	name := strings.ToLower(idOrUPN)
	query := "SELECT " + userColumns + " FROM tenant_users WHERE account = $1 AND id = $2" + t.ForUpdate()
	if strings.Contains(name, "@") { // one in the bin can have the same name
		query = "SELECT " + userColumns + " FROM tenant_users WHERE account = $1 AND login = $2 ORDER BY deleted " +
			"LIMIT 1" + t.ForUpdate()
	}
	found, err := db.Rows(ctx, t.Tx, scanUser, query, t.account, name)
	switch {
	case err != nil:
		return nil, wrap(err, "read a user")
	case len(found) == 0:
		return nil, fault.New(fault.NotFound, "UserNotFound", "account %s has no user %s; a new one is known after "+
			"the next synchronisation", t.account, idOrUPN)
	}
	return &found[0], nil
}

// Users implements user.Tx.
func (t *transaction) Users(ctx context.Context, f user.Filter, after user.Key, limit int) ([]user.User, error) {
	args := []any{t.account, after.Login, after.ID, int64(limit)}
	where := "account = $1 AND (login, id) > ($2, $3)"
	and := func(condition string, value any) {
		args = append(args, value)
		where += " AND " + strings.ReplaceAll(condition, "?", fmt.Sprint("$", len(args)))
	}
	for column, value := range map[string]string{"state": string(f.State), "department": f.Department,
		"location": f.Location, "kind": f.Kind} {
		if value != "" {
			and(column+" = ?", value)
		}
	}
	if f.Text != "" {
		prefix := strings.ToLower(f.Text)
		args = append(args, prefix, prefix+"\U0010FFFF")
		low, high := fmt.Sprint("$", len(args)-1), fmt.Sprint("$", len(args))
		where += fmt.Sprintf(" AND (login >= %[1]s AND login < %[2]s OR folded >= %[1]s AND folded < %[2]s)", low, high)
	}
	if f.Number != nil {
		and("CASE WHEN number = '' THEN 0 ELSE 1 END = ?", bit(*f.Number))
	}
	all, err := db.Rows(ctx, t.Tx, scanUser, "SELECT "+userColumns+" FROM tenant_users WHERE "+where+
		" ORDER BY login, id LIMIT $4", args...)
	return all, wrap(err, "list users")
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Size returns how many users the last complete pass has read in a tenant, 0 if there was none.
func (s Users) Size(ctx context.Context, account string) (n int, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT users FROM tenant_syncs WHERE account = $1 AND mode = $2 AND ended > 0 AND "+
			"failure = '' ORDER BY pass DESC LIMIT 1", []any{account, user.Full}, &n)
		return err
	})
	return n, wrap(err, "read how many users a tenant has")
}

// Names implements user.Store. Of users whose rows were forgotten the history of numbers still has a name.
func (s Users) Names(ctx context.Context, account string, ids []string) (map[string]user.Name, error) {
	const size = 500
	names := map[string]user.Name{}
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		for chunk := range slices.Chunk(ids, size) {
			args, places := []any{account}, make([]string, len(chunk))
			for i, id := range chunk {
				args = append(args, strings.ToLower(id))
				places[i] = fmt.Sprint("$", i+2)
			}
			in := " WHERE account = $1 AND upn <> '' AND id IN (" + strings.Join(places, ", ") + ")"
			err := tx.Query(ctx, func(rows *sql.Rows) error {
				var id string
				var n user.Name
				err := rows.Scan(&id, &n.UPN, &n.Display)
				if _, known := names[id]; !known || n.Display != "" {
					names[id] = n
				}
				return err
			}, "SELECT id, upn, name FROM tenant_users"+in+
				" UNION ALL SELECT id, upn, '' FROM tenant_number_history"+in, args...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return names, wrap(err, "read the names of users")
}

// Activated implements user.Tx.
func (t *transaction) Activated(ctx context.Context, after string, limit int) ([]user.User, error) {
	all, err := db.Rows(ctx, t.Tx, scanUser, "SELECT "+userColumns+" FROM tenant_users WHERE account = $1 AND "+
		"wanted <> '' AND id > $2 ORDER BY id LIMIT $3"+t.ForUpdate(), t.account, after, int64(limit))
	return all, wrap(err, "list activated users")
}

// NumbersFrom implements user.Tx.
func (t *transaction) NumbersFrom(ctx context.Context, first, last domain.E164) (map[string]string, error) {
	held := map[string]string{}
	err := t.Query(ctx, func(rows *sql.Rows) error {
		var number, id string
		err := rows.Scan(&number, &id)
		held[number] = cmp.Or(held[number], id)
		return err
	}, "SELECT number, id FROM tenant_users WHERE account = $1 AND number <> '' AND number >= $2 AND number < $3 "+
		"UNION SELECT wanted, id FROM tenant_users WHERE account = $1 AND wanted <> '' AND wanted >= $2 "+
		"AND wanted < $3", t.account, string(first), string(last)+";f") // after each extension
	return held, wrap(err, "find numbers of users")
}

var (
	profiles = &db.Table{Name: "tenant_users", Columns: []string{"account", "id", "upn", "login", "name", "folded",
		"department", "location", "blocked", "licensed", "facts", "seen", "deleted"}, Keys: 2}
	voices = &db.Table{Name: "tenant_users", Columns: []string{"account", "id", "kind", "number", "policies", "heard"},
		Keys: 2}
)

// PutProfiles implements user.Tx. A user that was in the bin and is listed again has its row again.
func (t *transaction) PutProfiles(ctx context.Context, pass int64, ps []user.Profile) error {
	ps = slices.CompactFunc(slices.SortedFunc(slices.Values(ps), func(a, b user.Profile) int {
		return cmp.Compare(a.ID, b.ID)
	}), func(a, b user.Profile) bool { return a.ID == b.ID })
	facts, err := texts(ps, func(p user.Profile) any { return p.Facts })
	if err != nil {
		return err
	}
	_, err = t.Upsert(ctx, profiles, len(ps), func(i int, dst []any) {
		p := &ps[i]
		dst[0], dst[1], dst[2], dst[3] = t.account, p.ID, p.UPN, strings.ToLower(p.UPN)
		dst[4], dst[5], dst[6], dst[7] = p.Name, strings.ToLower(p.Name), p.Department, p.Location
		dst[8], dst[9], dst[10], dst[11], dst[12] = bit(p.Blocked), bit(p.Licensed()), facts[i], pass, int64(0)
	})
	return wrap(err, "store users")
}

// PutVoices implements user.Tx.
func (t *transaction) PutVoices(ctx context.Context, pass int64, vs []user.Voice) error {
	vs = slices.CompactFunc(slices.SortedFunc(slices.Values(vs), func(a, b user.Voice) int {
		return cmp.Compare(a.ID, b.ID)
	}), func(a, b user.Voice) bool { return a.ID == b.ID })
	policies, err := texts(vs, func(v user.Voice) any { return v.Policies })
	if err != nil {
		return err
	}
	_, err = t.Upsert(ctx, voices, len(vs), func(i int, dst []any) {
		v := &vs[i]
		dst[0], dst[1], dst[2], dst[3], dst[4], dst[5] = t.account, v.ID, v.Kind, v.Number, policies[i], pass
	})
	return wrap(err, "store voice configurations")
}

func texts[T any](all []T, of func(T) any) ([]string, error) {
	list := make([]string, len(all))
	for i, x := range all {
		text, err := json.Marshal(of(x))
		if err != nil {
			return nil, err
		}
		list[i] = string(text)
	}
	return list, nil
}

const month = 30 * 24 * time.Hour // Microsoft keeps users in the bin for so long

// Remove implements user.Tx.
func (t *transaction) Remove(ctx context.Context, binned, gone []string) error {
	for _, id := range slices.Concat(binned, gone) {
		_, err := t.Exec(ctx, "UPDATE tenant_users SET deleted = $3 WHERE account = $1 AND id = $2 AND deleted = 0",
			t.account, id, time.Now().UnixMicro())
		if err != nil {
			return wrap(err, "mark a user as deleted")
		}
	}
	for _, id := range gone {
		_, err := t.Exec(ctx,
			"DELETE FROM tenant_users WHERE account = $1 AND id = $2 AND wanted = '' AND pending = 0",
			t.account, id)
		if err != nil {
			return wrap(err, "remove a user")
		}
	}
	return nil
}

// Sweep implements user.Tx.
func (t *transaction) Sweep(ctx context.Context, pass int64) (int64, error) {
	now := time.Now()
	n, err := t.Exec(ctx, "UPDATE tenant_users SET deleted = $3 WHERE account = $1 AND seen > 0 AND seen < $2 AND "+
		"deleted = 0", t.account, pass, now.UnixMicro())
	if err != nil {
		return 0, wrap(err, "mark users as deleted")
	}
	_, err = t.Exec(ctx, "DELETE FROM tenant_users WHERE account = $1 AND deleted > 0 AND deleted < $2 AND "+
		"wanted = '' AND pending = 0", t.account, now.Add(-month).UnixMicro())
	if err != nil {
		return 0, wrap(err, "remove deleted users")
	}
	_, err = t.Exec(ctx, "UPDATE tenant_users SET number = '', policies = '{}' WHERE account = $1 AND heard < $2 "+
		"AND (number <> '' OR policies <> '{}')", t.account, pass)
	return n, wrap(err, "clear voice configurations")
}

// Clear implements user.Tx.
func (t *transaction) Clear(ctx context.Context) error {
	_, err := t.deleteFrom(ctx, "tenant_users", "tenant_syncs")
	return err
}

// Wake implements user.Tx.
func (t *transaction) Wake(ctx context.Context) error {
	_, err := t.Exec(ctx, "UPDATE tenant_users SET pending = 1 WHERE account = $1 AND wanted <> '' AND pending = 0 "+
		"AND deleted > 0", t.account)
	if err != nil {
		return wrap(err, "find activated users that were deleted")
	}
	tenant, err := db.Rows(ctx, t.Tx, db.Column[string], "SELECT account FROM tenants WHERE account = $1 "+
		"AND pending = 1 AND waits = $2", t.account, string(onboard.Person))
	if err != nil {
		return wrap(err, "find work that waits for a person")
	}
	if err := t.enqueue(ctx, onboard.Kind, tenant...); err != nil {
		return err
	}
	return t.enqueueUsers(ctx, t.account)
}

// enqueueUsers makes the work on users of an account run that waits.
func (t *transaction) enqueueUsers(ctx context.Context, account string) error {
	ids, err := db.Rows(ctx, t.Tx, db.Column[string], "SELECT account || '/' || id FROM tenant_users WHERE account "+
		"= $1 AND pending = 1", account)
	if err != nil {
		return wrap(err, "find users that are pending")
	}
	return t.enqueue(ctx, user.Kind, ids...)
}

// Ask implements user.Tx.
func (t *transaction) Ask(ctx context.Context, u *user.User) error {
	if err := t.Settle(ctx, u); err != nil || !u.Pending {
		return err
	}
	return t.enqueue(ctx, user.Kind, t.account+"/"+u.ID)
}

// Settle implements user.Tx.
func (t *transaction) Settle(ctx context.Context, u *user.User) error {
	wanted, activation, waiting := "", "", ""
	if u.Activation != nil {
		text, err := json.Marshal(u.Activation)
		if err != nil {
			return err
		}
		wanted, activation = u.Activation.Number, string(text)
	}
	if u.Waiting != nil {
		text, err := json.Marshal(u.Waiting)
		if err != nil {
			return err
		}
		waiting = string(text)
	}
	_, err := t.Exec(ctx, "UPDATE tenant_users SET wanted = $3, activation = $4, pending = $5, waiting = $6 WHERE "+
		"account = $1 AND id = $2", t.account, u.ID, wanted, activation, bit(u.Pending), waiting)
	return wrap(err, "store what a user is to have")
}

// Owns implements user.Tx.
func (t *transaction) Owns(ctx context.Context, u *user.User, number string) error {
	now := time.Now().UnixMicro()
	_, err := t.Exec(ctx, "UPDATE tenant_number_history SET ended = $4 WHERE account = $1 AND id = $2 AND ended "+
		"= 0 AND number <> $3", t.account, u.ID, number, now)
	if err == nil && number != "" {
		_, err = t.Exec(ctx, "INSERT INTO tenant_number_history (account, number, id, began, ended, upn) "+
			"SELECT $1, $2, $3, $4, 0, $5 WHERE NOT EXISTS (SELECT 1 FROM tenant_number_history WHERE account = $1 "+
			"AND number = $2 AND id = $3 AND ended = 0)", t.account, number, u.ID, now, u.UPN)
	}
	return wrap(err, "store the history of a number")
}

// History implements user.Tx.
func (t *transaction) History(ctx context.Context, number, id string, limit int) ([]user.Owned, error) {
	all, err := db.Rows(ctx, t.Tx, func(rows *sql.Rows) (o user.Owned, err error) {
		var began, ended int64
		err = rows.Scan(&o.Number, &o.ID, &o.UPN, &began, &ended)
		o.Began, o.Ended = db.Time(began), db.Time(ended)
		return o, err
	}, "SELECT number, id, upn, began, ended FROM tenant_number_history WHERE account = $1 AND ($2 = '' OR number "+
		"= $2) AND ($3 = '' OR id = $3) ORDER BY began DESC LIMIT $4", t.account, number, id, int64(limit))
	return all, wrap(err, "read the history of numbers")
}

// Passes implements user.Tx.
func (t *transaction) Passes(ctx context.Context, limit int) ([]user.Pass, error) {
	all, err := db.Rows(ctx, t.Tx, func(rows *sql.Rows) (p user.Pass, err error) {
		var began, ended int64
		err = rows.Scan(&p.Number, &p.Mode, &p.Why, &began, &ended, &p.Failure, &p.Users, &p.Voices, &p.Removed,
			&p.Restarts, &p.UserPage, &p.VoicePage, &p.DeltaLink)
		p.Began, p.Ended = db.Time(began), db.Time(ended)
		return p, err
	}, "SELECT pass, mode, why, began, ended, failure, users, voices, removed, restarts, user_page, voice_page, delta "+
		"FROM tenant_syncs WHERE account = $1 ORDER BY pass DESC LIMIT $2", t.account, int64(limit))
	return all, wrap(err, "read the passes of a synchronisation")
}

var passes = &db.Table{Name: "tenant_syncs", Columns: []string{"account", "pass", "mode", "why", "began", "ended",
	"failure", "users", "voices", "removed", "restarts", "user_page", "voice_page", "delta"}, Keys: 2}

// keptPasses is how many passes of a tenant are remembered: more than a day has.
const keptPasses = 1000

// PutPass implements user.Tx.
func (t *transaction) PutPass(ctx context.Context, p *user.Pass) error {
	_, err := t.Upsert(ctx, passes, 1, func(_ int, dst []any) {
		dst[0], dst[1], dst[2], dst[3] = t.account, p.Number, p.Mode, p.Why
		dst[4], dst[5], dst[6], dst[7] = db.Micros(p.Began), db.Micros(p.Ended), p.Failure, p.Users
		dst[8], dst[9], dst[10], dst[11] = p.Voices, p.Removed, p.Restarts, p.UserPage
		dst[12], dst[13] = p.VoicePage, p.DeltaLink
	})
	if err == nil && !p.Ended.IsZero() {
		_, err = t.Exec(ctx, "DELETE FROM tenant_syncs WHERE account = $1 AND pass <= $2", t.account,
			p.Number-keptPasses)
	}
	return wrap(err, "store a pass of a synchronisation")
}

// SetPage implements user.Tx.
func (t *transaction) SetPage(ctx context.Context, p *user.Pass, voices bool) error {
	set, args := "users = $3, voices = $4, removed = $5, user_page = $6, delta = $7",
		[]any{p.Users, p.Voices, p.Removed, p.UserPage, p.DeltaLink}
	switch {
	case voices:
		set, args = "voices = $3, voice_page = $4", []any{p.Voices, p.VoicePage}
	case p.Mode == user.Full:
		set, args = "users = $3, user_page = $4", []any{p.Users, p.UserPage}
	}
	_, err := t.Exec(ctx, fmt.Sprintf("UPDATE tenant_syncs SET %s, restarts = %d WHERE account = $1 AND pass = $2",
		set, p.Restarts), append([]any{t.account, p.Number}, args...)...)
	return wrap(err, "store how far a pass is")
}

// Sync implements user.Tx.
func (t *transaction) Sync(ctx context.Context) error {
	return t.enqueue(ctx, user.SyncKind, t.account)
}
