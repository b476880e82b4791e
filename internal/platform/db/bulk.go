package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// perStatement is the number of rows or keys in one statement. On SQLite larger ones were measured to be no faster; on
// PostgreSQL, COPY into a temporary table is worth its overhead for more rows.
const perStatement = 200

// Table describes the rows that Upsert, Find and Delete handle, many at once, in the fastest way of each database and
// with the same result.
type Table struct {
	Name    string
	Columns []string // all columns written, the key first
	Keys    int      // how many of the columns, from the first, are the primary key
	// Guard is a condition on the current row (named by the table) and the new one (named excluded). An existing row
	// for which it does not hold is left unchanged. Empty for none.
	Guard string
}

// Upsert stores n rows; row(i, dst) fills in the values of the i-th row in the order of the table's columns. Rows whose
// key exists are replaced, if the table's guard allows. It returns the number of rows inserted or replaced. The keys
// must be distinct.
func (t *Tx) Upsert(ctx context.Context, table *Table, n int, row func(i int, dst []any)) (int64, error) {
	if t.d.cfg.Driver == Postgres && n > perStatement {
		return t.copyRows(ctx, table, n, row)
	}
	return t.insertRows(ctx, table, n, row)
}

// Find calls scan for every row of the table whose first key column is among keys; columns are those of the table. With
// lock the rows stay locked until the transaction ends. Keys are locked in ascending order.
func (t *Tx) Find(ctx context.Context, table *Table, keys []string, lock bool, scan func(*sql.Rows) error) error {
	order := ""
	if lock && t.d.cfg.Driver == Postgres {
		order = " ORDER BY " + table.Columns[0] + t.ForUpdate()
	}
	return t.eachKeys(table, keys, func(where string, args []any) error {
		return t.Query(ctx, scan, "SELECT "+strings.Join(table.Columns, ", ")+" FROM "+table.Name+where+order, args...)
	})
}

// Delete removes the rows whose first key column is among keys and returns how many it removed.
func (t *Tx) Delete(ctx context.Context, table *Table, keys []string) (int64, error) {
	var total int64
	err := t.eachKeys(table, keys, func(where string, args []any) error {
		n, err := t.Exec(ctx, "DELETE FROM "+table.Name+where, args...)
		total += n
		return err
	})
	return total, err
}

// eachKeys calls fn with the clause that selects rows by keys, for as many keys at once as one statement takes.
func (t *Tx) eachKeys(table *Table, keys []string, fn func(where string, args []any) error) error {
	where := " WHERE " + table.Columns[0]
	if t.d.cfg.Driver == Postgres {
		return fn(where+" = ANY($1)", []any{keys})
	}
	for chunk := range slices.Chunk(keys, perStatement) {
		args := make([]any, len(chunk))
		for i, key := range chunk {
			args[i] = key
		}
		if err := fn(where+" IN ("+marks(len(args))+")", args); err != nil {
			return err
		}
	}
	return nil
}

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

// insertRows stores rows by multi-row VALUES.
func (t *Tx) insertRows(ctx context.Context, table *Table, n int, row func(int, []any)) (int64, error) {
	numbered := t.d.cfg.Driver == Postgres
	chunk, width := min(n, perStatement), len(table.Columns)
	var total int64
	var stmt *sql.Stmt
	args := make([]any, chunk*width)
	for at := 0; at < n; at += chunk {
		k := min(chunk, n-at)
		for i := range k {
			row(at+i, args[i*width:(i+1)*width])
		}
		var r sql.Result
		var err error
		if k == chunk && n >= 2*chunk {
			if stmt == nil {
				if stmt, err = t.tx.PrepareContext(ctx, table.insertValues(chunk, numbered)); err != nil {
					return 0, err
				}
				defer stmt.Close()
			}
			r, err = stmt.ExecContext(ctx, args...)
		} else {
			r, err = t.tx.ExecContext(ctx, table.insertValues(k, numbered), args[:k*width]...)
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

// copyRows stores rows by COPY into a temporary table. PostgreSQL only.
func (t *Tx) copyRows(ctx context.Context, table *Table, n int, row func(int, []any)) (int64, error) {
	cols := strings.Join(table.Columns, ", ")
	temp := "tandem_bulk_" + table.Name
	// The temporary table copies the columns without keys or defaults, and is dropped with the transaction.
	if _, err := t.Exec(ctx, "CREATE TEMPORARY TABLE "+temp+" ON COMMIT DROP AS "+
		"SELECT "+cols+" FROM "+table.Name+" WITH NO DATA"); err != nil {
		return 0, fmt.Errorf("create temporary table: %w", err)
	}
	// Rows are inserted in key order, so that two loads of the same keys wait for each other instead of deadlocking.
	values := make([]any, len(table.Columns))
	src := pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		row(i, values)
		return values, nil
	})
	err := t.conn.Raw(func(dc any) error {
		c, ok := dc.(*stdlib.Conn)
		if !ok {
			return errors.New("not a PostgreSQL connection")
		}
		_, err := c.Conn().CopyFrom(ctx, pgx.Identifier{temp}, table.Columns, src)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("copy rows: %w", err)
	}
	total, err := t.Exec(ctx, "INSERT INTO "+table.Name+" ("+cols+") SELECT "+cols+" FROM "+temp+
		" ORDER BY "+strings.Join(table.Columns[:table.Keys], ", ")+table.conflict())
	if err != nil {
		return 0, err
	}
	_, err = t.Exec(ctx, "DROP TABLE "+temp)
	return total, err
}

// marks returns "?,?,…" for n parameters, for SQLite.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }
