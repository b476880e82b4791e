package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresCopy is the number of rows above which COPY into a temporary table is worth its overhead.
const postgresCopy = 200

type postgresBulk struct{}

func (postgresBulk) Upsert(ctx context.Context, tx *Tx, t *Table, n int, row func(int, []any)) (int64, error) {
	if n <= postgresCopy {
		return upsertValues(ctx, tx, t, n, max(n, 1), row)
	}
	cols := strings.Join(t.Columns, ", ")
	temp := "tandem_bulk_" + t.Name
	// The temporary table copies the columns without keys or defaults, and is dropped with the transaction.
	if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE "+temp+" ON COMMIT DROP AS "+
		"SELECT "+cols+" FROM "+t.Name+" WITH NO DATA"); err != nil {
		return 0, fmt.Errorf("create temporary table: %w", err)
	}
	// Rows are inserted in key order, so that two loads of the same keys wait for each other instead of deadlocking.
	values := make([]any, len(t.Columns))
	src := pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		row(i, values)
		return values, nil
	})
	err := tx.conn.Raw(func(dc any) error {
		c, ok := dc.(*stdlib.Conn)
		if !ok {
			return errors.New("not a PostgreSQL connection")
		}
		_, err := c.Conn().CopyFrom(ctx, pgx.Identifier{temp}, t.Columns, src)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("copy rows: %w", err)
	}
	total, err := tx.Exec(ctx, "INSERT INTO "+t.Name+" ("+cols+") SELECT "+cols+" FROM "+temp+
		" ORDER BY "+strings.Join(t.Columns[:t.Keys], ", ")+t.conflict())
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, "DROP TABLE "+temp)
	return total, err
}

func (postgresBulk) Find(ctx context.Context, tx *Tx, t *Table, keys []string, lock bool,
	scan func(*sql.Rows) error) error {
	q := "SELECT " + strings.Join(t.Columns, ", ") + " FROM " + t.Name + " WHERE " + t.Columns[0] + " = ANY($1)"
	if lock {
		q += " ORDER BY " + t.Columns[0] + tx.ForUpdate()
	}
	return tx.Query(ctx, scan, q, keys)
}

func (postgresBulk) Delete(ctx context.Context, tx *Tx, t *Table, keys []string) (int64, error) {
	return tx.Exec(ctx, "DELETE FROM "+t.Name+" WHERE "+t.Columns[0]+" = ANY($1)", keys)
}
