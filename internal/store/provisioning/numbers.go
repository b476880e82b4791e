package provisioning

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

var numberColumns = []string{"number", "account", "present", "enabled", "has_config", "custom_header", "details",
	"status", "errors", "version", "modified", "slot"}

var (
	numberList = strings.Join(numberColumns, ", ")

	// changedNumbers are rows that exist and are locked by the transaction.
	changedNumbers = db.Table{Name: "numbers", Columns: numberColumns, Keys: 1}
	// newNumbers are rows that did not exist when the transaction looked. If one exists by now it is left alone, and
	// the row missing from the count shows it.
	newNumbers = db.Table{Name: "numbers", Columns: numberColumns, Keys: 1, Guard: "1=0"}
)

// numberService is the part of a number's service object that has no column: a member of the details document, by the
// contract's service name.
type numberService struct {
	AssignmentStatus string                    `json:"assignmentStatus,omitempty"`
	Configuration    *domain.TeamsNumberConfig `json:"configuration,omitempty"`
}

func (s *Store) scanNumber(rows *sql.Rows) (n domain.Number, err error) {
	var present, enabled, has, modified int64
	var details, errs string
	if err := rows.Scan(&n.TelephoneNumber, &n.AccountName, &present, &enabled, &has, &n.CustomSIPHeader, &details,
		&n.State.Status, &errs, &n.Version, &modified, &n.Slot); err != nil {
		return n, err
	}
	n.HasConfiguration, n.Modified = has != 0, db.Time(modified)
	var more map[string]numberService
	if err := decodeSome(details, &more); err != nil {
		return n, fmt.Errorf("number: %w", err)
	}
	if present != 0 {
		n.Services = make(map[domain.Service]domain.NumberService)
	}
	for _, s := range s.services.In(domain.ServiceSet(present)) {
		d := domain.NumberService{Enabled: domain.ServiceSet(enabled).Has(s)}
		if m, ok := more[s.String()]; ok {
			d.AssignmentStatus, d.Teams = m.AssignmentStatus, m.Configuration
		}
		n.Services[s] = d
	}
	err = decodeSome(errs, &n.State.Errors)
	return n, err
}

// numberRow sets dst to the values of n in the order of numberColumns.
func numberRow(n *domain.Number, dst []any) error {
	var present domain.ServiceSet
	var more map[string]numberService
	for s, d := range n.Services {
		present = present.With(s)
		if d.AssignmentStatus != "" || d.Teams != nil {
			if more == nil {
				more = map[string]numberService{}
			}
			more[s.String()] = numberService{d.AssignmentStatus, d.Teams}
		}
	}
	details, err := encodeSome(more, len(more))
	if err != nil {
		return err
	}
	errs, err := encodeSome(n.State.Errors, len(n.State.Errors))
	if err != nil {
		return err
	}
	dst[0], dst[1], dst[2], dst[3], dst[4], dst[5] = string(n.TelephoneNumber), n.AccountName, int64(present),
		int64(n.Enabled()), flag(n.HasConfiguration), n.CustomSIPHeader
	dst[6], dst[7], dst[8], dst[9], dst[10] = details, string(n.State.Status), errs, n.Version, db.Micros(n.Modified)
	dst[11] = int64(n.Slot)
	return nil
}

// FindNumbers implements directory.Reader.
func (t *transaction) FindNumbers(ctx context.Context, ns []domain.E164) ([]domain.Number, error) {
	keys := make([]string, 0, len(ns))
	for _, n := range ns {
		if storable(string(n)) {
			keys = append(keys, string(n))
		}
	}
	var found []domain.Number
	err := t.tx.Find(ctx, &changedNumbers, keys, true, func(rows *sql.Rows) error {
		n, err := t.s.scanNumber(rows)
		found = append(found, n)
		return err
	})
	return found, wrap(err, "find numbers")
}

// Numbers implements directory.Reader.
func (t *transaction) Numbers(ctx context.Context, account string, q directory.Query) ([]domain.Number, error) {
	c := compiler{s: t.s, fields: numberFields}
	conds := []string{"number > " + c.param(q.After)}
	if account != "" {
		conds = append(conds, "account = "+c.param(account))
	}
	where := c.where(q.Filter, conds...)
	query := "SELECT " + numberList + " FROM numbers" + where + " ORDER BY number" + c.limit(q)
	return list(ctx, t.tx, "list numbers", t.s.scanNumber, query, c.args...)
}

// CountNumbers implements directory.Reader.
func (t *transaction) CountNumbers(ctx context.Context, account string, q directory.Query) (int64, error) {
	c := compiler{s: t.s, fields: numberFields}
	var conds []string
	if account != "" {
		conds = append(conds, "account = "+c.param(account))
	}
	if q.Filter == nil {
		// The counts by account make the unfiltered count cheap, however many numbers there are.
		conds = append(conds, "service = 0")
		return t.count(ctx, "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM account_counts"+
			c.where(nil, conds...), c.args)
	}
	return t.count(ctx, "SELECT COUNT(*) FROM numbers"+c.where(q.Filter, conds...), c.args)
}

// SlotNumbers implements directory.Reader. "slot > 0" names the index.
func (t *transaction) SlotNumbers(ctx context.Context, account string, s domain.Slot, after domain.E164,
	limit int) ([]domain.E164, error) {
	return list(ctx, t.tx, "list the numbers of a label", db.Column[domain.E164], "SELECT number FROM numbers WHERE "+
		"account = $1 AND slot = $2 AND slot > 0 AND number > $3 ORDER BY number LIMIT $4", account, int64(s),
		string(after), int64(limit))
}

// PutNumbers implements directory.Tx.
func (t *transaction) PutNumbers(ctx context.Context, ns []domain.Number, old map[domain.E164]*domain.Number) error {
	if len(ns) == 0 {
		return nil
	}
	var fresh, changed []*domain.Number
	var delta counts
	for i := range ns {
		n := &ns[i]
		if o := old[n.TelephoneNumber]; o != nil {
			changed = append(changed, n)
			delta.add(o, -1)
		} else {
			fresh = append(fresh, n)
		}
		delta.add(n, 1)
	}
	for _, part := range []struct {
		table *db.Table
		ns    []*domain.Number
	}{{&changedNumbers, changed}, {&newNumbers, fresh}} {
		var failed error
		got, err := t.tx.Upsert(ctx, part.table, len(part.ns), func(i int, dst []any) {
			if err := numberRow(part.ns[i], dst); err != nil {
				failed = err
			}
		})
		if err != nil {
			return fmt.Errorf("store numbers: %w", err)
		}
		if failed != nil {
			return failed
		}
		if got != int64(len(part.ns)) {
			return db.ErrRetry // another transaction stored one of them after we looked
		}
	}
	return t.addCounts(ctx, ns[0].AccountName, &delta)
}

// DeleteNumbers implements directory.Tx.
func (t *transaction) DeleteNumbers(ctx context.Context, ns []domain.Number) error {
	if len(ns) == 0 {
		return nil
	}
	keys := make([]string, len(ns))
	var delta counts
	for i := range ns {
		keys[i] = string(ns[i].TelephoneNumber)
		delta.add(&ns[i], -1)
	}
	n, err := t.tx.Delete(ctx, &changedNumbers, keys)
	if err != nil {
		return fmt.Errorf("delete numbers: %w", err)
	}
	if n != int64(len(ns)) {
		return db.ErrRetry
	}
	return t.addCounts(ctx, ns[0].AccountName, &delta)
}

// TakeNumbers implements directory.Tx.
func (t *transaction) TakeNumbers(ctx context.Context, account string, after domain.E164,
	limit int) ([]domain.E164, error) {
	keys, err := list(ctx, t.tx, "delete numbers", db.Column[domain.E164], "SELECT number FROM numbers "+
		"WHERE account = $1 AND number > $2 ORDER BY number LIMIT $3", account, string(after), int64(limit))
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	// The account is locked, so the range still contains the same numbers.
	n, err := t.tx.Exec(ctx, "DELETE FROM numbers WHERE account = $1 AND number > $2 AND number <= $3", account,
		string(after), string(keys[len(keys)-1]))
	if err == nil && n != int64(len(keys)) {
		err = db.ErrRetry
	}
	return keys, wrap(err, "delete numbers")
}

// counts is a change of an account's counts by the service's ID; index 0 counts all numbers.
type counts [domain.MaxServiceID + 1]int64

func (c *counts) add(n *domain.Number, sign int64) {
	c[0] += sign
	for s, d := range n.Services {
		if d.Enabled {
			c[s.ID()] += sign
		}
	}
}

func (t *transaction) addCounts(ctx context.Context, account string, delta *counts) error {
	for s, n := range delta {
		if n == 0 {
			continue
		}
		_, err := t.tx.Exec(ctx, "INSERT INTO account_counts (account, service, n) VALUES ($1, $2, $3) ON CONFLICT "+
			"(account, service) DO UPDATE SET n = account_counts.n + excluded.n",
			account, int64(s), n)
		if err != nil {
			return fmt.Errorf("update number counts: %w", err)
		}
	}
	return nil
}

// encodeChanges encodes a feed entry. Numbers are encoded by hand: an import writes tens of thousands a second.
func encodeChanges(cs []domain.Change) ([]byte, error) {
	b := make([]byte, 0, 16+96*len(cs))
	b = append(b, '[')
	for i := range cs {
		if i > 0 {
			b = append(b, ',')
		}
		n := cs[i].Number
		if n == nil || cs[i].Account != nil || !plain(n.Account) || !plain(n.CustomHeader) {
			j, err := json.Marshal(cs[i])
			if err != nil {
				return nil, fmt.Errorf("encode a feed entry: %w", err)
			}
			b = append(b, j...)
			continue
		}
		b = append(b, `{"number":{"key":`...)
		b = strconv.AppendUint(b, n.Key, 10)
		if n.Deleted {
			b = append(b, `,"deleted":true`...)
		}
		if n.Account != "" {
			b = append(b, `,"account":"`...)
			b = append(b, n.Account...)
			b = append(b, '"')
		}
		if n.Services != 0 {
			b = append(b, `,"services":`...)
			b = strconv.AppendUint(b, uint64(n.Services), 10)
		}
		if n.CustomHeader != "" {
			b = append(b, `,"customHeader":"`...)
			b = append(b, n.CustomHeader...)
			b = append(b, '"')
		}
		if n.Slot != domain.NoSlot {
			b = append(b, `,"slot":`...)
			b = strconv.AppendUint(b, uint64(n.Slot), 10)
		}
		b = append(b, `}}`...)
	}
	return append(b, ']'), nil
}

// plain reports whether s can be in a JSON string without escaping.
func plain(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&'
	})
}
