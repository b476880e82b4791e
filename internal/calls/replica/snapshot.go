package replica

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

const (
	snapshotMagic   = "TNDMIDX1"
	snapshotPurpose = "replica/snapshot"
)

// snapshotInfo is the description of a snapshot, stored in the clear.
type snapshotInfo struct {
	// The state of the index is that at this cursor. Versions before the feed had identities wrote only its position.
	feed.Cursor
	Load     string    `json:"load"`  // id of the last load from the database; empty before the feed had identities
	At       time.Time `json:"at"`    // when it was taken
	Pages    int       `json:"pages"` // for sizing the table
	Accounts int       `json:"accounts"`
	Numbers  int64     `json:"numbers"`
}

// still is a frozen state of the index: the copied table shares the pages, which never change.
type still struct {
	snapshotInfo
	table    *table
	accounts []*domain.AccountRouting // by id; the first is nil
}

// hold returns the present state of the view. The caller must be the only writer; it waits only while the table is
// copied.
func (v *View) hold(cur feed.Cursor, load string, at time.Time) *still {
	t := v.table.Load()
	s := &still{table: t.copy(t.used)}
	s.accounts = make([]*domain.AccountRouting, max(v.accounts.next, 1))
	for name, id := range v.names {
		if s.accounts[id] = v.accounts.get(id); s.accounts[id] == nil {
			s.accounts[id] = &domain.AccountRouting{Name: name, Deleted: true}
		}
	}
	s.snapshotInfo = snapshotInfo{Cursor: cur, Load: load, At: at, Pages: s.table.used, Accounts: len(s.accounts) - 1,
		Numbers: v.numbers.Load()}
	return s
}

// The first byte of a snapshot's records.
const (
	recAccount = 1 + iota // id (4), length (4), domain.AccountRouting as JSON
	recDense              // page (8), 100 values (4 each)
	recSame               // page (8), bitmap (16), value (4)
	recSparse             // page (8), bitmap (16), values (4 each)
	recHeaders            // length (4), as in memory; belongs to the page before it
)

// writeSnapshot writes a snapshot. Accounts come first, so that a reader knows every account that a page refers to.
func writeSnapshot(w io.Writer, s *still, sealer Sealer) (int64, error) {
	info, err := json.Marshal(s.snapshotInfo)
	if err != nil {
		return 0, err
	}
	sw, err := newSealedWriter(w, snapshotMagic, snapshotPurpose, info, sealer)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 0, chunkBytes)
	room := func(n int) error {
		if len(buf)+n <= chunkBytes {
			return nil
		}
		err := sw.write(buf, false)
		buf = buf[:0]
		return err
	}
	for id, a := range s.accounts {
		if a == nil {
			continue
		}
		j, err := json.Marshal(a)
		if err != nil {
			return 0, err
		}
		if len(j)+9 > chunkBytes {
			return 0, fmt.Errorf("account %s does not fit into a chunk", a.Name)
		}
		if err := room(len(j) + 9); err != nil {
			return 0, err
		}
		buf = binary.LittleEndian.AppendUint32(append(buf, recAccount), uint32(id))
		buf = append(binary.LittleEndian.AppendUint32(buf, uint32(len(j))), j...)
	}
	for i := range s.table.slots {
		sl := &s.table.slots[i]
		key := sl.key.Load()
		if key == 0 {
			continue
		}
		full, part, h := sl.full.Load(), sl.part.Load(), sl.headers.Load()
		need := 9 + 16 + 4*pageSize
		if h != nil {
			need += 5 + len(h.data)
		}
		if err := room(need); err != nil {
			return 0, err
		}
		switch {
		case full != nil:
			buf = binary.LittleEndian.AppendUint64(append(buf, recDense), key-1)
			buf = appendValues(buf, full[:])
		case part.values == nil:
			buf = binary.LittleEndian.AppendUint64(append(buf, recSame), key-1)
			buf = appendLE64(appendLE64(buf, part.there[0]), part.there[1])
			buf = binary.LittleEndian.AppendUint32(buf, part.same)
		default:
			buf = binary.LittleEndian.AppendUint64(append(buf, recSparse), key-1)
			buf = appendLE64(appendLE64(buf, part.there[0]), part.there[1])
			buf = appendValues(buf, part.values)
		}
		if h != nil {
			buf = binary.LittleEndian.AppendUint32(append(buf, recHeaders), uint32(len(h.data)))
			buf = append(buf, h.data...)
		}
	}
	if err := sw.write(buf, true); err != nil {
		return 0, err
	}
	return sw.bytes, sw.flush()
}

func appendValues(b []byte, values []uint32) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// readSnapshot reads a snapshot into a new view. It returns errDamaged for anything that writeSnapshot has not written:
// it trusts no byte before its chunk has been opened, and returns the view only after the last one has been opened.
func readSnapshot(r io.Reader, sealer Sealer) (*View, snapshotInfo, error) {
	var info snapshotInfo
	sr, err := newSealedReader(r, snapshotPurpose, sealer, snapshotMagic)
	if err != nil {
		return nil, info, err
	}
	if err := json.Unmarshal(sr.info, &info); err != nil {
		return nil, info, fmt.Errorf("%w: its description cannot be read", errDamaged)
	}
	// The head is authentic only once a chunk has been opened; until then it determines no sizes.
	first, err := sr.next()
	if err != nil {
		return nil, info, err
	}
	if info.Pages < 0 || info.Pages > 1<<31 || info.Accounts < 0 || info.Accounts > maxAccounts {
		return nil, info, fmt.Errorf("%w: its description is invalid", errDamaged)
	}
	v := newView(info.Pages)
	v.slab = &slab{}
	defer func() { v.slab = nil }()

	// One goroutine reads and opens chunks while this one builds the view.
	type chunk struct {
		plain []byte
		err   error
	}
	chunks := make(chan chunk, 4)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(chunks)
		for c := (chunk{plain: first}); ; {
			select {
			case chunks <- c:
			case <-stop:
				return
			}
			if c.err != nil {
				return
			}
			c.plain, c.err = sr.next()
		}
	}()
	var last *slot
	for c := range chunks {
		if c.err == io.EOF {
			break
		}
		if c.err != nil {
			return nil, info, c.err
		}
		if last, err = v.load(c.plain, info.Pages, last); err != nil {
			return nil, info, err
		}
	}
	if v.numbers.Load() != info.Numbers || v.table.Load().used != info.Pages || len(v.names) != info.Accounts {
		return nil, info, fmt.Errorf("%w: %d numbers, %d pages and %d accounts do not match its description",
			errDamaged, v.numbers.Load(), v.table.Load().used, len(v.names))
	}
	return v, info, nil
}

// load applies the records of a chunk of a snapshot with the given number of pages. The chunk is authentic by now, so
// an invalid record is a mistake of ours rather than an attack; it is checked nevertheless, because a bad value would
// crash a look-up later.
func (v *View) load(b []byte, pages int, last *slot) (*slot, error) {
	bad := func(what string) (*slot, error) { return nil, fmt.Errorf("%w: %s", errDamaged, what) }
	t := v.table.Load()
	goodValue := func(x uint32) bool { return x>>serviceBits >= 1 && x>>serviceBits < v.accounts.next }
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch kind {
		case recAccount:
			if len(b) < 8 {
				return bad("account record too short")
			}
			id, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
			if uint64(len(b)-8) < uint64(n) {
				return bad("account record too short")
			}
			a := new(domain.AccountRouting)
			if err := json.Unmarshal(b[8:8+n], a); err != nil || a.Name == "" || id == 0 ||
				id != max(v.accounts.next, 1) || v.names[a.Name] != 0 {
				return bad("invalid account record")
			}
			v.names[a.Name], v.accounts.next = id, id+1
			if a.Deleted {
				v.accounts.set(id, nil)
			} else {
				v.accounts.set(id, a)
				if a.Subdomain != "" {
					v.labels.Store(a.Subdomain, id)
				}
			}
			b = b[8+n:]
		case recDense, recSame, recSparse:
			if len(b) < 8 {
				return bad("page record too short")
			}
			page := binary.LittleEndian.Uint64(b)
			b = b[8:]
			if page > 999_999_999_999_999/pageSize || t.find(page) != nil || !t.room() {
				return bad("invalid page record")
			}
			var full *dense
			var part *sparse
			n := 0
			if kind == recDense {
				if len(b) < 4*pageSize {
					return bad("page record too short")
				}
				full = v.slab.page(pages - t.used)
				for i := range full {
					x := binary.LittleEndian.Uint32(b[4*i:])
					if x != 0 && !goodValue(x) {
						return bad("number of an unknown account")
					}
					full[i] = x
				}
				n, b = pageCount(full, nil), b[4*pageSize:]
			} else {
				if len(b) < 16 {
					return bad("page record too short")
				}
				part = &sparse{there: bitmap{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}}
				b = b[16:]
				n = part.there.count()
				if n == 0 || part.there[1]>>(pageSize-64) != 0 {
					return bad("invalid page record")
				}
				if kind == recSame {
					if len(b) < 4 {
						return bad("page record too short")
					}
					part.same, b = binary.LittleEndian.Uint32(b), b[4:]
					if !goodValue(part.same) {
						return bad("number of an unknown account")
					}
				} else {
					if len(b) < 4*n {
						return bad("page record too short")
					}
					part.values = make([]uint32, n)
					for i := range part.values {
						part.values[i] = binary.LittleEndian.Uint32(b[4*i:])
						if !goodValue(part.values[i]) {
							return bad("number of an unknown account")
						}
					}
					b = b[4*n:]
				}
			}
			t.insert(page, full, part, nil)
			last = t.find(page)
			v.numbers.Add(int64(n))
			v.bytes.Add(int64(pageBytes(full, part, nil)))
		case recHeaders:
			if len(b) < 4 {
				return bad("header record too short or misplaced")
			}
			n := binary.LittleEndian.Uint32(b)
			if uint64(len(b)-4) < uint64(n) || last == nil || last.headers.Load() != nil {
				return bad("header record too short or misplaced")
			}
			h := &headers{data: string(b[4 : 4+n])}
			if !h.valid() {
				return bad("invalid header record")
			}
			last.headers.Store(h)
			v.bytes.Add(int64(pageBytes(nil, nil, h)))
			b = b[4+n:]
		default:
			return bad("unknown record")
		}
	}
	return last, nil
}
