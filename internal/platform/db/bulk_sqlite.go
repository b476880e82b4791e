package db

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

// sqliteChunk is the number of rows or keys in one statement. Larger statements were measured to be no faster.
const sqliteChunk = 200

type sqliteBulk struct{}

func (sqliteBulk) Upsert(ctx context.Context, tx *Tx, t *Table, n int, row func(int, []any)) (int64, error) {
	return upsertValues(ctx, tx, t, n, sqliteChunk, row)
}

func (sqliteBulk) Find(ctx context.Context, tx *Tx, t *Table, keys []string, _ bool, scan func(*sql.Rows) error) error {
	q := "SELECT " + strings.Join(t.Columns, ", ") + " FROM " + t.Name + " WHERE " + t.Columns[0] + " IN ("
	return eachChunk(keys, func(args []any) error {
		return tx.Query(ctx, scan, q+marks(len(args))+")", args...)
	})
}

func (sqliteBulk) Delete(ctx context.Context, tx *Tx, t *Table, keys []string) (int64, error) {
	var total int64
	err := eachChunk(keys, func(args []any) error {
		n, err := tx.Exec(ctx, "DELETE FROM "+t.Name+" WHERE "+t.Columns[0]+" IN ("+marks(len(args))+")", args...)
		total += n
		return err
	})
	return total, err
}

// eachChunk calls fn with the keys, as many at once as one statement takes.
func eachChunk(keys []string, fn func([]any) error) error {
	for chunk := range slices.Chunk(keys, sqliteChunk) {
		args := make([]any, len(chunk))
		for i, key := range chunk {
			args[i] = key
		}
		if err := fn(args); err != nil {
			return err
		}
	}
	return nil
}
