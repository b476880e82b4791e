package db

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// Table describes the rows that a Bulk handles.
type Table struct {
	Name    string
	Columns []string // all columns written, the key first
	Keys    int      // how many of the columns, from the first, are the primary key
	// Guard is a condition on the current row (named by the table) and the new one (named excluded). An existing row
	// for which it does not hold is left unchanged. Empty for none.
	Guard string
}

// Bulk handles many rows at once, in the fastest way of each database and with the same result.
type Bulk interface {
	// Upsert stores n rows; row(i, dst) fills in the values of the i-th row in the order of t.Columns. Rows whose key
	// exists are replaced, if t.Guard allows. It returns the number of rows inserted or replaced. The keys must be
	// distinct.
	Upsert(ctx context.Context, tx *Tx, t *Table, n int, row func(i int, dst []any)) (int64, error)
	// Find calls scan for every row of the table whose first key column is among keys; columns are those of t.Columns.
	// With lock the rows stay locked until the transaction ends. Keys are locked in ascending order.
	Find(ctx context.Context, tx *Tx, t *Table, keys []string, lock bool, scan func(*sql.Rows) error) error
	// Delete removes the rows whose first key column is among keys and returns how many it removed.
	Delete(ctx context.Context, tx *Tx, t *Table, keys []string) (int64, error)
}

var (
	_ Bulk = sqliteBulk{}
	_ Bulk = postgresBulk{}
)

// conflict returns the clause that turns an INSERT into an upsert.
func (t *Table) conflict() string {
	clause := " ON CONFLICT (" + strings.Join(t.Columns[:t.Keys], ", ") + ") DO "
	var set []string
	for _, c := range t.Columns[t.Keys:] {
		set = append(set, c+" = excluded."+c)
	}
	if set == nil {
		return clause + "NOTHING"
	}
	clause += "UPDATE SET " + strings.Join(set, ", ")
	if t.Guard != "" {
		clause += " WHERE " + t.Guard
	}
	return clause
}

// insertValues returns an upsert of n rows by multi-row VALUES. SQLite takes $1 for a name and looks up the name of
// each value it binds, so it gets bare question marks.
func (t *Table) insertValues(n int, numbered bool) string {
	rows := strings.Repeat(", ("+marks(len(t.Columns))+")", n)[2:]
	if numbered {
		var b strings.Builder
		for i, text := range strings.Split(rows, "?") {
			if i > 0 {
				b.WriteString("$" + strconv.Itoa(i))
			}
			b.WriteString(text)
		}
		rows = b.String()
	}
	return "INSERT INTO " + t.Name + " (" + strings.Join(t.Columns, ", ") + ") VALUES " + rows + t.conflict()
}

// upsertValues stores rows by multi-row VALUES, chunk rows at a time.
func upsertValues(ctx context.Context, tx *Tx, t *Table, n, chunk int, row func(int, []any)) (int64, error) {
	numbered := tx.d.cfg.Driver == Postgres
	var total int64
	var stmt *sql.Stmt
	args := make([]any, chunk*len(t.Columns))
	for at := 0; at < n; at += chunk {
		k := min(chunk, n-at)
		for i := range k {
			row(at+i, args[i*len(t.Columns):(i+1)*len(t.Columns)])
		}
		var r sql.Result
		var err error
		if k == chunk && n >= 2*chunk {
			if stmt == nil {
				if stmt, err = tx.tx.PrepareContext(ctx, t.insertValues(chunk, numbered)); err != nil {
					return 0, err
				}
				defer stmt.Close()
			}
			r, err = stmt.ExecContext(ctx, args...)
		} else {
			r, err = tx.tx.ExecContext(ctx, t.insertValues(k, numbered), args[:k*len(t.Columns)]...)
		}
		if err != nil {
			return 0, err
		}
		c, err := r.RowsAffected()
		if err != nil {
			return 0, err
		}
		total += c
	}
	return total, nil
}

// marks returns "?,?,…" for n parameters, for SQLite.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }
