package replica

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tandemgw/tandem/internal/platform/feed"
)

const (
	journalMagic   = "TNDMJRN2"
	journalPurpose = "replica/journal"
)

// A journal holds the feed entries applied after a snapshot was taken or after the process started: one sealed chunk
// for each batch, synced before the next batch is read. A chunk contains
//
//	after    8 bytes, the position of the entry before the batch
//	entries  each: position (8), id (8), time in Unix microseconds (8), length (4), payload
//
// A batch too large for a chunk is split into several batches.

// journalInfo is the description of a journal, stored in the clear.
type journalInfo struct {
	// Load is the id of the load from the database that the journal continues. Positions order entries only within one
	// load: another load may belong to a history that diverged from this one, even if it begins at the same position.
	Load string    `json:"load"`
	At   time.Time `json:"at"`
}

// journalFile is the file of a journal.
type journalFile interface {
	io.Writer
	Sync() error
	Close() error
}

// journal appends batches to a file.
type journal struct {
	f   journalFile
	w   *sealedWriter
	buf []byte
}

func newJournal(f journalFile, load string, at time.Time, s Sealer) (*journal, error) {
	info, err := json.Marshal(journalInfo{Load: load, At: at})
	if err != nil {
		return nil, err
	}
	w, err := newSealedWriter(f, journalMagic, journalPurpose, info, s)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, w: w}
	return j, j.sync()
}

// append writes a batch and syncs it: once it has returned nil, the batch survives a crash of the process or the
// machine.
func (j *journal) append(after feed.Position, entries []feed.Entry) error {
	for len(entries) > 0 {
		b := binary.LittleEndian.AppendUint64(j.buf[:0], uint64(after))
		n := 0
		for ; n < len(entries); n++ {
			e := &entries[n]
			if len(b)+28+len(e.Payload) > maxChunk || n > 0 && len(b) > chunkBytes {
				break
			}
			b = binary.LittleEndian.AppendUint64(b, uint64(e.Position))
			b = binary.LittleEndian.AppendUint64(b, uint64(e.ID))
			b = binary.LittleEndian.AppendUint64(b, uint64(e.At.UnixMicro()))
			b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Payload)))
			b = append(b, e.Payload...)
		}
		j.buf = b
		if n == 0 {
			return fmt.Errorf("a feed entry of %d bytes does not fit into the journal", len(entries[0].Payload))
		}
		if err := j.w.write(b, false); err != nil {
			return err
		}
		after, entries = entries[n-1].Position, entries[n:]
	}
	return j.sync()
}

func (j *journal) sync() error {
	if err := j.w.flush(); err != nil {
		return err
	}
	return j.f.Sync()
}

// errMissing is returned for a journal that begins after the position reached: changes in between are missing.
var errMissing = errors.New("changes before the journal are missing")

// errOtherLoad is returned for a journal that continues another load: the process ended before a snapshot of that load
// was written.
var errOtherLoad = errors.New("the journal belongs to another load of the index, which has no snapshot")

// replayJournal applies to v the entries of a journal of this load beyond cur and returns the cursor reached and the
// number of entries applied. The error says why it stopped: errTorn at the end (a journal has no last chunk; its file
// simply ends), errMissing, errOtherLoad or errDamaged.
func replayJournal(r io.Reader, sealer Sealer, v *View, load string, cur feed.Cursor) (feed.Cursor, int, error) {
	sr, err := newSealedReader(r, journalPurpose, sealer, journalMagic)
	if err != nil {
		return cur, 0, err
	}
	var info journalInfo
	if err := json.Unmarshal(sr.info, &info); err != nil {
		return cur, 0, fmt.Errorf("%w: its description cannot be read", errDamaged)
	}
	if info.Load != load {
		return cur, 0, errOtherLoad
	}
	applied := 0
	for {
		b, err := sr.next()
		if err == io.EOF {
			return cur, applied, nil
		}
		if err != nil {
			return cur, applied, err
		}
		n := 0
		cur, n, err = replayBatch(b, v, cur)
		applied += n
		if err != nil {
			return cur, applied, err
		}
	}
}

// replayBatch applies the entries of one chunk that are beyond cur.
func replayBatch(b []byte, v *View, cur feed.Cursor) (feed.Cursor, int, error) {
	r := fields{left: b}
	if after := feed.Position(r.uint64()); after > cur.Position {
		return cur, 0, fmt.Errorf("%w: from %d to %d", errMissing, cur.Position, after)
	}
	applied := 0
	for !r.short && len(r.left) > 0 {
		e := feed.Entry{Position: feed.Position(r.uint64()), ID: int64(r.uint64())}
		r.uint64() // its time
		e.Payload = r.take(r.uint32())
		if r.short || e.Position <= cur.Position {
			continue
		}
		// Invalid changes were reported when they were first applied.
		if err := v.applyEntry(e, nil); err != nil {
			return cur, applied, fmt.Errorf("%w: entry %d: %w", errDamaged, e.Position, err)
		}
		cur.Position, cur.Entry = e.Position, e.ID
		applied++
	}
	if r.short {
		return cur, applied, fmt.Errorf("%w: entry too short", errDamaged)
	}
	return cur, applied, nil
}

// fields reads the fields of records. short is set, and zeros are returned, once one is missing.
type fields struct {
	left  []byte
	short bool
}

func (r *fields) take(n uint32) []byte {
	if uint64(len(r.left)) < uint64(n) {
		r.short, r.left = true, nil
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *fields) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *fields) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
