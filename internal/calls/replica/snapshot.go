package replica

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

const (
	snapshotMagic   = "TNDMIDX3"
	snapshotMagic1  = "TNDMIDX1" // read only; from when the values of numbers were no pairs. 2 was never released
	snapshotPurpose = "replica/snapshot"
)

// snapshotInfo is the description of a snapshot, stored in the clear.
type snapshotInfo struct {
	feed.Cursor           // the state of the index is that at this cursor
	Load        string    `json:"load"`  // id of the last load from the database
	At          time.Time `json:"at"`    // when it was taken
	Pages       int       `json:"pages"` // for sizing the table
	Accounts    int       `json:"accounts"`
	IDs         uint32    `json:"ids"` // ids of pairs are below it; 0 in the format before
	Numbers     int64     `json:"numbers"`
}

// still is a frozen state of the index: the copied table shares the pages, which never change.
type still struct {
	snapshotInfo
	table    *table
	accounts []stillAccount
}

// stillAccount is an account with its pairs, the first of which has its id. The format before has no pairs: accounts
// have the ids from 1 in order, and the value of a number is its account's id in the upper 25 bits and its services,
// without bit 0, in the lower 7.
type stillAccount struct {
	*domain.AccountRouting
	pairs []stillPair
}

type stillPair struct{ id, services uint32 } // services as in pair

const serviceBits1 = 7

// hold returns the present state of the view. The caller must be the only writer; it waits only while the table is
// copied.
func (v *View) hold(cur feed.Cursor, load string, at time.Time) *still {
	t := v.content.Load().table
	s := &still{table: t.copy(t.used), accounts: make([]stillAccount, 0, len(v.names))}
	for name, account := range v.names {
		a := stillAccount{AccountRouting: v.pair(account).account.Load()}
		if a.AccountRouting == nil {
			a.AccountRouting = &domain.AccountRouting{Name: name, Deleted: true}
		}
		for id := account; id != 0; id = v.pair(id).next {
			a.pairs = append(a.pairs, stillPair{id, v.pair(id).services})
		}
		s.accounts = append(s.accounts, a)
	}
	s.snapshotInfo = snapshotInfo{Cursor: cur, Load: load, At: at, Pages: s.table.used, Accounts: len(s.accounts),
		IDs: v.ids.next, Numbers: v.numbers.Load()}
	return s
}

// The first byte of a snapshot's records.
const (
	recAccount = 1 + iota // id (4), length (4), domain.AccountRouting as JSON, count (4), pairs (id, services; 4 each)
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
	// A reader is faster when ids come in order.
	slices.SortFunc(s.accounts, func(a, b stillAccount) int { return cmp.Compare(a.pairs[0].id, b.pairs[0].id) })
	for _, a := range s.accounts {
		j, err := json.Marshal(a.AccountRouting)
		if err != nil {
			return 0, err
		}
		need := 13 + len(j) + 8*len(a.pairs)
		if need > chunkBytes {
			return 0, fmt.Errorf("account %s does not fit into a chunk", a.Name)
		}
		if err := room(need); err != nil {
			return 0, err
		}
		buf = binary.LittleEndian.AppendUint32(append(buf, recAccount), a.pairs[0].id)
		buf = append(binary.LittleEndian.AppendUint32(buf, uint32(len(j))), j...)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(a.pairs)))
		for _, p := range a.pairs {
			buf = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(buf, p.id), p.services)
		}
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
		if full != nil {
			buf = binary.LittleEndian.AppendUint64(append(buf, recDense), key-1)
			buf = appendValues(buf, full[:])
		} else {
			kind, values := byte(recSparse), part.values
			if values == nil {
				kind, values = recSame, []uint32{part.same}
			}
			buf = binary.LittleEndian.AppendUint64(append(buf, kind), key-1)
			buf = part.there.append(buf)
			buf = appendValues(buf, values)
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
	sr, err := newSealedReader(r, snapshotPurpose, sealer, snapshotMagic, snapshotMagic1)
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
	if info.Pages < 0 || info.Pages > 1<<31 || info.Accounts < 0 || info.Accounts > maxPairs || info.IDs > maxPairs {
		return nil, info, fmt.Errorf("%w: its description is invalid", errDamaged)
	}
	if info.Database == "" {
		return nil, info, fmt.Errorf("%w: an early version wrote it, which did not record its database", errDamaged)
	}
	l := newLoader(info, sr.magic == snapshotMagic1)

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
	for c := range chunks {
		if c.err == io.EOF {
			break
		}
		if c.err != nil {
			return nil, info, c.err
		}
		if err = l.load(c.plain); err != nil {
			return nil, info, err
		}
	}
	v := l.done()
	if v.numbers.Load() != info.Numbers || v.content.Load().table.used != info.Pages || len(v.names) != info.Accounts {
		return nil, info, fmt.Errorf("%w: %d numbers, %d pages and %d accounts do not match its description",
			errDamaged, v.numbers.Load(), v.content.Load().table.used, len(v.names))
	}
	return v, info, nil
}

// loader builds a view from the records of a snapshot.
type loader struct {
	v       *View
	info    snapshotInfo
	format1 bool
	ids     []byte // by id: unused, or one of the constants
	last    *slot
	pairs   []stillPair // of the account read last; kept to allocate it once
}

// What is known of an id.
const (
	unused       = iota
	withAccount  // but no number may have it
	withServices // numbers may have it
)

func newLoader(info snapshotInfo, format1 bool) *loader {
	if format1 {
		info.IDs = uint32(info.Accounts) + 1
	}
	l := &loader{v: newView(info.Pages), info: info, format1: format1, ids: make([]byte, info.IDs)}
	l.v.names = make(map[string]uint32, info.Accounts)
	l.v.slab = &slab{}
	l.v.reserve(max(info.IDs, 1))
	return l
}

// done returns the view when all chunks were loaded.
func (l *loader) done() *View {
	for id := uint32(1); id < l.info.IDs; id++ {
		if l.ids[id] == unused {
			l.v.ids.free = append(l.v.ids.free, id)
		}
	}
	l.v.slab = nil
	l.v.ids.settle()
	return l.v
}

// account adds an account with its pairs, and reports whether they are valid.
func (l *loader) account(id uint32, a stillAccount) bool {
	if a.Name == "" || l.v.names[a.Name] != 0 || len(a.pairs) == 0 || a.pairs[0].id != id {
		return false
	}
	routing := a.AccountRouting
	if a.Deleted {
		routing = nil
	}
	l.v.label(id, routing)
	for i, p := range a.pairs {
		if p.id == 0 || p.id >= l.info.IDs || l.ids[p.id] != unused || p.services>>slotBits > 2 {
			return false
		}
		l.ids[p.id] = withAccount
		if p.services != 0 {
			l.ids[p.id] = withServices
		}
		l.v.take(p.id, routing, p.services)
		if i > 0 {
			l.v.link(id, p.id)
		}
	}
	l.v.names[a.Name] = id
	return true
}

// pair returns the id of the pair that a number's value of the format before stands for, and x itself if there is none.
func (l *loader) pair(x uint32) (id uint32, ok bool) {
	account, set := x>>serviceBits1, x&(1<<serviceBits1-1)
	if account == 0 || account >= l.info.IDs || l.ids[account] == unused {
		return x, false
	}
	id, err := l.v.pairOf(account, combine(domain.ServiceSet(set)<<1, domain.NoSlot))
	if err != nil {
		return x, false
	}
	return id, true
}

// load applies the records of a chunk. The chunk is authentic by now, so an invalid record is a mistake of ours rather
// than an attack; it is checked nevertheless, because a bad value would crash a look-up later.
func (l *loader) load(b []byte) error {
	for r := (fields{left: b}); len(r.left) > 0; {
		var err error
		switch kind := r.take(1)[0]; kind {
		case recAccount:
			id := r.uint32()
			a := stillAccount{AccountRouting: new(domain.AccountRouting), pairs: l.pairs[:0]}
			err = json.Unmarshal(r.take(r.uint32()), a.AccountRouting)
			if l.format1 {
				a.pairs = append(a.pairs, stillPair{id: id})
			} else {
				for n := r.uint32(); n > 0 && !r.short; n-- {
					a.pairs = append(a.pairs, stillPair{id: r.uint32(), services: r.uint32()})
				}
			}
			l.pairs = a.pairs
			if err != nil || !l.account(id, a) {
				err = errors.New("invalid account record")
			}
		case recDense, recSame, recSparse:
			err = l.page(kind, &r)
		case recHeaders:
			h := &headers{data: string(r.take(r.uint32()))}
			if l.last == nil || l.last.headers.Load() != nil || !h.valid() {
				err = errors.New("invalid or misplaced header record")
				break
			}
			l.last.headers.Store(h)
			l.v.bytes.Add(int64(pageBytes(nil, nil, h)))
		default:
			err = errors.New("unknown record")
		}
		if r.short {
			err = errors.New("record too short")
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return nil
}

// page adds the page of a record.
func (l *loader) page(kind byte, r *fields) error {
	v := l.v
	t := v.content.Load().table
	page := r.uint64()
	if page > 999_999_999_999_999/pageSize || t.find(page) != nil || !t.room() {
		return errors.New("invalid page record")
	}
	var full *dense
	var part *sparse
	var values []uint32
	var same [1]uint32
	n := 0
	if kind == recDense {
		full = v.slab.page(l.info.Pages - t.used)
		values = full[:]
	} else {
		part = &sparse{there: bitmap{r.uint64(), r.uint64()}}
		n = part.there.count()
		if n == 0 || part.there[1]>>(pageSize-64) != 0 {
			return errors.New("invalid page record")
		}
		values = same[:]
		if kind == recSparse {
			part.values = make([]uint32, n)
			values = part.values
		}
	}
	b := r.take(uint32(4 * len(values)))
	if r.short {
		return nil // load reports it
	}
	ids := l.ids
	if l.format1 {
		ids = nil // values are no ids of pairs
	}
	there := 0
	for i := range values {
		x := binary.LittleEndian.Uint32(b[4*i:])
		if uint(x) >= uint(len(ids)) || ids[x] != withServices {
			ok := false
			if l.format1 {
				x, ok = l.pair(x)
			}
			if !ok && x == 0 && full != nil {
				continue
			}
			if !ok {
				return errors.New("number of an unknown account")
			}
		}
		values[i] = x
		there++
	}
	if kind == recSame {
		part.same = same[0]
	}
	if full != nil {
		n = there
	}
	t.insert(page, full, part, nil)
	l.last = t.find(page)
	v.numbers.Add(int64(n))
	v.bytes.Add(int64(pageBytes(full, part, nil)))
	return nil
}
