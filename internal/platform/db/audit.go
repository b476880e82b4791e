package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
)

// AuditRecord is one row of the audit log.
//
// Rows form a chain: each holds the hash of the row before it, and its own hash is SHA-256 over all its fields and that
// hash, so a row cannot be altered, removed, added or moved without breaking every hash after it. The last hash is also
// kept in a row of its own (the head), so that rows missing at the end are detected. Whoever can write both the log and
// the head can cut off the end or rewrite the whole log. To detect that, store an AuditHead outside this database from
// time to time and pass it to VerifyAudit.
type AuditRecord struct {
	Seq     int64 // 1 for the first row, no gaps
	At      time.Time
	Actor   domain.Actor
	Action  string // e.g. "account.put"
	Target  string // what was changed
	Items   int64  // how many resources
	Digest  [32]byte
	Summary string // JSON for readers of the log
	Prev    [32]byte
	Hash    [32]byte

	unreadable string // which column of the stored row has a value of the wrong type
}

// sum computes the row's hash. Every string is preceded by its length and all other fields have a fixed length, so that
// no two different rows have the same encoding.
func (r *AuditRecord) sum() [32]byte {
	var b []byte
	str := func(s string) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	str("tandem audit 1") // the encoding's version
	b = binary.BigEndian.AppendUint64(b, uint64(r.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMicro()))
	str(r.Actor.Kind)
	str(r.Actor.ID)
	str(r.Actor.RequestID)
	str(r.Action)
	str(r.Target)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Items))
	b = append(b, r.Digest[:]...)
	str(r.Summary)
	b = append(b, r.Prev[:]...)
	return sha256.Sum256(b)
}

// Audit appends r to the audit log when the transaction commits. Seq, Prev and Hash are filled in then; At is
// truncated to microseconds.
func (t *Tx) Audit(r AuditRecord) {
	r.At = r.At.UTC().Truncate(time.Microsecond)
	for _, f := range []*string{&r.Actor.Kind, &r.Actor.ID, &r.Actor.RequestID, &r.Action, &r.Target, &r.Summary} {
		// PostgreSQL would refuse the row, and with it the change.
		*f = strings.ReplaceAll(strings.ToValidUTF8(*f, "\uFFFD"), "\x00", "\uFFFD")
	}
	t.audits = append(t.audits, r)
	t.Last(LastAudit, t.appendAudit)
}

// AuditOf appends a row about an action of the actor of ctx. what, as JSON, is its summary and must not contain
// secrets.
func (t *Tx) AuditOf(ctx context.Context, action, target string, items int, what any) error {
	summary, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode for the audit log: %w", err)
	}
	t.Audit(AuditRecord{At: time.Now(), Actor: domain.ActorFrom(ctx), Action: action, Target: target,
		Items: int64(items), Digest: sha256.Sum256(summary), Summary: string(summary)})
	return nil
}

// OnAudit makes fn run at the end of each transaction that appends to the audit log, for each row that it appends. An
// error rolls the transaction back. OnAudit is called at most once, before the database is used.
func (d *DB) OnAudit(fn func(context.Context, *Tx, *AuditRecord) error) { d.audited = fn }

func (t *Tx) appendAudit(ctx context.Context) error {
	var seq int64
	var prev []byte
	ok, err := t.QueryRow(ctx, "SELECT seq, hash FROM audit_head WHERE id = 1"+t.ForUpdate(), nil, &seq, &prev)
	if err != nil {
		return fmt.Errorf("lock the audit chain: %w", err)
	}
	if !ok || len(prev) != 32 {
		return fmt.Errorf("lock the audit chain: its head is missing or damaged")
	}
	for _, r := range t.audits {
		seq++
		r.Seq, r.Prev = seq, [32]byte(prev)
		r.Hash = r.sum()
		_, err := t.Exec(ctx,
			`INSERT INTO audit
				(seq, at, actor_kind, actor_id, request_id, action, target, items, digest, summary, prev, hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			r.Seq, r.At.UnixMicro(), r.Actor.Kind, r.Actor.ID, r.Actor.RequestID, r.Action, r.Target, r.Items,
			r.Digest[:], r.Summary, r.Prev[:], r.Hash[:])
		if err != nil {
			return fmt.Errorf("append to the audit chain: %w", err)
		}
		prev = r.Hash[:]
	}
	if _, err := t.Exec(ctx, "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1", seq, prev); err != nil {
		return fmt.Errorf("append to the audit chain: %w", err)
	}
	return nil
}

// AuditHead names the last row of the chain at some point in time.
type AuditHead struct {
	Seq  int64
	Hash [32]byte
}

// String prints the head in the form that ParseAuditHead reads.
func (h AuditHead) String() string { return fmt.Sprintf("%d:%x", h.Seq, h.Hash) }

// ParseAuditHead reads what String printed.
func ParseAuditHead(s string) (AuditHead, error) {
	var h AuditHead
	var text string
	_, err := fmt.Sscanf(s, "%d:%s", &h.Seq, &text)
	b, err2 := hex.DecodeString(text)
	if errors.Join(err, err2) != nil || len(b) != 32 || h.Seq < 0 {
		return h, errors.New("not an audit head; want <row>:<64 hexadecimal digits>")
	}
	h.Hash = [32]byte(b)
	return h, nil
}

// AuditReport is the result of VerifyAudit.
type AuditReport struct {
	Rows  int64       // rows whose hash was checked and is correct
	Head  AuditHead   // the chain's end
	Break *AuditBreak // nil if the chain is intact
}

// AuditBreak is the first place where the chain is broken.
type AuditBreak struct {
	Seq    int64  // the row
	Reason string // what is wrong with it
}

// VerifyAudit checks the whole chain and reports the first break. Heads stored outside the database earlier, if given,
// must be on the chain. It may run while changes are made. An error means that the log could not be read.
func (d *DB) VerifyAudit(ctx context.Context, noted ...AuditHead) (AuditReport, error) {
	var rep AuditReport
	broken := func(seq int64, format string, args ...any) (AuditReport, error) {
		rep.Break = &AuditBreak{seq, fmt.Sprintf(format, args...)}
		return rep, nil
	}
	var end any
	var hash []byte
	var before *int64
	err := d.View(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT seq, hash, (SELECT MIN(seq) FROM audit WHERE seq < 1) "+
			"FROM audit_head WHERE id = 1", nil, &end, &hash, &before)
		return err
	})
	if err != nil {
		return rep, err
	}
	last, isNumber := end.(int64)
	switch {
	case !isNumber || len(hash) != 32:
		return broken(0, "the chain's head is missing or damaged")
	case before != nil:
		return broken(*before, "it was added outside the chain, which begins with row 1")
	}
	want := make(map[int64][32]byte, len(noted))
	for _, n := range noted {
		if n.Seq > 0 {
			want[n.Seq] = n.Hash
		}
	}
	for rep.Rows < last {
		var rows []AuditRecord
		err := d.View(ctx, func(ctx context.Context, tx *Tx) (err error) {
			rows, err = Rows(ctx, tx, scanAudit, "SELECT seq, at, actor_kind, actor_id, request_id, action, target, "+
				"items, digest, summary, prev, hash FROM audit WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT 500",
				rep.Rows, last)
			return err
		})
		if err != nil {
			return rep, err
		}
		if len(rows) == 0 {
			return broken(rep.Rows+1, "rows %d to %d are missing at the end", rep.Rows+1, last)
		}
		for i := range rows {
			r := &rows[i]
			switch h, ok := want[r.Seq]; {
			case r.Seq != rep.Rows+1:
				return broken(rep.Rows+1, "the row is missing; the next is %d", r.Seq)
			case r.Prev != rep.Head.Hash:
				return broken(r.Seq, "it does not follow the row before it (its copy of the previous hash differs)")
			case r.unreadable != "":
				return broken(r.Seq, "its content was altered (%s)", r.unreadable)
			case r.sum() != r.Hash:
				return broken(r.Seq, "its content was altered (its hash differs)")
			case ok && h != r.Hash:
				return broken(r.Seq, "it is not the row noted earlier (the log was rewritten)")
			}
			rep.Rows++
			rep.Head = AuditHead{r.Seq, r.Hash}
		}
	}
	if rep.Head.Hash != [32]byte(hash) {
		return broken(last, "the chain's head does not match it (the hash differs)")
	}
	for seq := range want {
		if seq > last {
			return broken(last+1, "row %d was noted earlier but the log ends before it", seq)
		}
	}
	// Rows beyond the head: one statement, because changes continue meanwhile.
	var named, stored int64
	err = d.View(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT h.seq, COALESCE((SELECT MAX(seq) FROM audit), 0) "+
			"FROM audit_head h WHERE h.id = 1", nil, &named, &stored)
		return err
	})
	if err == nil && stored != named {
		return broken(min(stored, named)+1, "the log ends at row %d but its head names row %d", stored, named)
	}
	return rep, err
}

func scanAudit(rows *sql.Rows) (r AuditRecord, err error) {
	var at, items any // SQLite stores what it is given, whatever the column's type
	var digest, prev, hash []byte
	if err := rows.Scan(&r.Seq, &at, &r.Actor.Kind, &r.Actor.ID, &r.Actor.RequestID, &r.Action, &r.Target, &items,
		&digest, &r.Summary, &prev, &hash); err != nil {
		return r, err
	}
	if n, ok := items.(int64); ok {
		r.Items = n
	} else {
		r.unreadable = "its count is not a number"
	}
	if t, ok := at.(int64); ok {
		r.At = time.UnixMicro(t).UTC() // 0 is a time too: the hash covers what is stored
	} else {
		r.unreadable = "its time is not a number"
	}
	// A value of the wrong length cannot be a hash; it stays zero and breaks the chain at this row.
	for _, f := range []struct {
		dst *[32]byte
		src []byte
	}{{&r.Digest, digest}, {&r.Prev, prev}, {&r.Hash, hash}} {
		if len(f.src) == 32 {
			*f.dst = [32]byte(f.src)
		}
	}
	return r, nil
}
