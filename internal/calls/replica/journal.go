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
	journalMagic   = "TNDMJRN1"
	journalPurpose = "replica/journal"
)

// A journal holds the feed entries applied after a snapshot was taken, or after the process started: one sealed chunk
// for each batch, synced before the next batch is read. A chunk holds
//
//	after    8 bytes, the index's position before the batch
//	to       8 bytes, its position after it
//	entries  each: position (8), time in Unix microseconds (8), length (4), payload
//
// A batch too large for a chunk is cut into several; each is a batch of its own.

// journalInfo is what a journal says about itself, in the clear.
type journalInfo struct {
	After feed.Position `json:"after"` // the index's position when it was begun
	At    time.Time     `json:"at"`
}

// journalFile is the file under a journal.
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

func newJournal(f journalFile, after feed.Position, at time.Time, s Sealer) (*journal, error) {
	info, err := json.Marshal(journalInfo{After: after, At: at})
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

// append writes a batch and syncs it: after it returns nil the batch survives whatever happens to process and machine.
func (j *journal) append(after feed.Position, entries []feed.Entry) error {
	for len(entries) > 0 {
		b := binary.LittleEndian.AppendUint64(j.buf[:0], uint64(after))
		b = append(b, make([]byte, 8)...)
		n := 0
		for ; n < len(entries); n++ {
			e := &entries[n]
			if len(b)+20+len(e.Payload) > maxChunk || n > 0 && len(b) > chunkBytes {
				break
			}
			b = binary.LittleEndian.AppendUint64(b, uint64(e.Position))
			b = binary.LittleEndian.AppendUint64(b, uint64(e.At.UnixMicro()))
			b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Payload)))
			b = append(b, e.Payload...)
		}
		j.buf = b
		if n == 0 {
			return fmt.Errorf("a feed entry of %d bytes does not fit into the journal", len(entries[0].Payload))
		}
		to := entries[n-1].Position
		binary.LittleEndian.PutUint64(b[8:], uint64(to))
		if err := j.w.write(b, false); err != nil {
			return err
		}
		after, entries = to, entries[n:]
	}
	return j.sync()
}

func (j *journal) sync() error {
	if err := j.w.flush(); err != nil {
		return err
	}
	return j.f.Sync()
}

func (j *journal) close() error { return j.f.Close() }

// errMissing is a journal that begins after the position reached: something between is missing.
var errMissing = errors.New("changes before the journal are missing")

// replayJournal applies to v what a journal holds beyond pos and returns the position reached and the entries applied. The
// error says why it stopped: errTorn at the end (a journal has no last chunk; its file just ends), errMissing, errDamaged.
func replayJournal(r io.Reader, sealer Sealer, v *View, pos feed.Position) (feed.Position, int, error) {
	sr, err := newSealedReader(r, journalMagic, journalPurpose, sealer)
	if err != nil {
		return pos, 0, err
	}
	applied := 0
	for {
		b, err := sr.next()
		if err == io.EOF {
			return pos, applied, nil
		}
		if err != nil {
			return pos, applied, err
		}
		n := 0
		pos, n, err = replayBatch(b, v, pos)
		applied += n
		if err != nil {
			return pos, applied, err
		}
	}
}

// replayBatch applies the entries of one chunk beyond pos.
func replayBatch(b []byte, v *View, pos feed.Position) (feed.Position, int, error) {
	if len(b) < 16 {
		return pos, 0, fmt.Errorf("%w: a short batch", errDamaged)
	}
	after, to := feed.Position(binary.LittleEndian.Uint64(b)), feed.Position(binary.LittleEndian.Uint64(b[8:]))
	if after > pos {
		return pos, 0, fmt.Errorf("%w: from %d to %d", errMissing, pos, after)
	}
	applied := 0
	for b = b[16:]; len(b) > 0; {
		if len(b) < 20 {
			return pos, applied, fmt.Errorf("%w: a short entry", errDamaged)
		}
		e := feed.Entry{Position: feed.Position(binary.LittleEndian.Uint64(b)), At: time.UnixMicro(int64(binary.LittleEndian.Uint64(b[8:])))}
		n := binary.LittleEndian.Uint32(b[16:])
		if uint64(len(b)-20) < uint64(n) {
			return pos, applied, fmt.Errorf("%w: a short entry", errDamaged)
		}
		e.Payload, b = b[20:20+n], b[20+n:]
		if e.Position <= pos {
			continue
		}
		// Changes that make no sense were reported when they were first met.
		if err := v.applyEntry(e, nil); err != nil {
			return pos, applied, fmt.Errorf("%w: entry %d: %w", errDamaged, e.Position, err)
		}
		pos = e.Position
		applied++
	}
	return max(pos, to), applied, nil
}
