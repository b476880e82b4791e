package replica

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// pageSize is the number of consecutive numbers in a page.
const pageSize = 100

// denseFrom is the count of numbers from which a page with differing values is a plain array: a look-up then reads one
// cache line of it, and the array is not larger than a bitmap with packed values would be.
const denseFrom = 84

// A value is what the index holds for a number in four bytes: the id of a pair of account and services (see pairs). Ids
// start at 1, so no value is 0.

// dense is a page with differing values and nearly all numbers present. 0 means no number.
type dense [pageSize]uint32

// sparse is any other page: a bitmap of the numbers present, and their values in order, or one value if all are the
// same.
type sparse struct {
	there  bitmap
	same   uint32   // the value of all, if values is nil
	values []uint32 // one per number present
}

// bitmap holds one bit per number of a page.
type bitmap [2]uint64

func (b *bitmap) has(i int) bool { return b[i>>6]>>(i&63)&1 != 0 }
func (b *bitmap) set(i int)      { b[i>>6] |= 1 << (i & 63) }
func (b *bitmap) clear(i int)    { b[i>>6] &^= 1 << (i & 63) }
func (b *bitmap) count() int     { return bits.OnesCount64(b[0]) + bits.OnesCount64(b[1]) }

// append appends the bitmap, as in headers and files.
func (b *bitmap) append(to []byte) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(to, b[0]), b[1])
}

// rank counts the bits below i.
func (b *bitmap) rank(i int) int {
	if i < 64 {
		return bits.OnesCount64(b[0] & (1<<i - 1))
	}
	return bits.OnesCount64(b[0]) + bits.OnesCount64(b[1]&(1<<(i-64)-1))
}

// value returns the value of number i of the page, or 0 if it is not present.
func (p *sparse) value(i int) uint32 {
	if !p.there.has(i) {
		return 0
	}
	if p.values == nil {
		return p.same
	}
	return p.values[p.there.rank(i)]
}

// headers holds the custom header values of a page: bitmap (16 bytes, little-endian), length of the common prefix,
// length of every rest (or varied), the common prefix, then the rests in order, each preceded by its length if the
// lengths vary.
type headers struct{ data string }

const (
	headersHead = 18
	varied      = 0xff
	// maxHeader is the longest custom header value (provisioning contract: 1–100 characters).
	maxHeader = 100
)

func (h *headers) there() bitmap {
	return bitmap{binary.LittleEndian.Uint64([]byte(h.data[:8])), binary.LittleEndian.Uint64([]byte(h.data[8:16]))}
}

// value returns the header value of number i, or "" if it has none.
func (h *headers) value(i int) string {
	there := h.there()
	if !there.has(i) {
		return ""
	}
	common, each := int(h.data[16]), int(h.data[17])
	prefix, rest := h.data[headersHead:headersHead+common], h.data[headersHead+common:]
	n := there.rank(i)
	if each != varied {
		rest = rest[n*each : n*each+each]
	} else {
		for range n {
			rest = rest[1+int(rest[0]):]
		}
		rest = rest[1 : 1+int(rest[0])]
	}
	if prefix == "" {
		return rest
	}
	if rest == "" {
		return prefix
	}
	return prefix + rest
}

// each calls do for every number that has a value, in order, with the two parts of the value.
func (h *headers) each(do func(i int, prefix, rest string)) {
	there := h.there()
	common, size := int(h.data[16]), int(h.data[17])
	prefix, rest := h.data[headersHead:headersHead+common], h.data[headersHead+common:]
	for i := range pageSize {
		if !there.has(i) {
			continue
		}
		n := size
		if size == varied {
			n, rest = int(rest[0]), rest[1:]
		}
		do(i, prefix, rest[:n])
		rest = rest[n:]
	}
}

// valid reports whether data read from a file has the form that buildHeaders makes.
func (h *headers) valid() bool {
	d := h.data
	if len(d) < headersHead {
		return false
	}
	there := h.there()
	n := there.count()
	common, each := int(d[16]), int(d[17])
	if n == 0 || there[1]>>(pageSize-64) != 0 || common > maxHeader || len(d) < headersHead+common {
		return false
	}
	rest := d[headersHead+common:]
	if each != varied {
		return common+each <= maxHeader && len(rest) == n*each
	}
	for range n {
		if len(rest) == 0 || common+int(rest[0]) > maxHeader || len(rest) < 1+int(rest[0]) {
			return false
		}
		rest = rest[1+int(rest[0]):]
	}
	return rest == ""
}

// draft is a page being changed.
type draft struct {
	there   bitmap
	values  [pageSize]uint32
	headers [pageSize]string
	any     bool // some header may be set
	buf     []byte
}

// read makes d a copy of a published page; any of the parts may be nil.
func (d *draft) read(full *dense, part *sparse, h *headers) {
	if d.any {
		clear(d.headers[:])
	}
	d.there, d.any = bitmap{}, h != nil
	switch {
	case full != nil:
		d.values = *full
		for i, v := range d.values {
			if v != 0 {
				d.there.set(i)
			}
		}
	case part != nil:
		d.there = part.there
		n := 0
		for i := range d.values {
			d.values[i] = 0
			if !d.there.has(i) {
				continue
			}
			if part.values == nil {
				d.values[i] = part.same
			} else {
				d.values[i] = part.values[n]
				n++
			}
		}
	default:
		clear(d.values[:])
	}
	if h == nil {
		return
	}
	// All values share one string: a page of 100 values is read for each change to it.
	there, b := h.there(), d.buf[:0]
	var ends [pageSize]int
	h.each(func(i int, prefix, rest string) {
		b = append(append(b, prefix...), rest...)
		ends[i] = len(b)
	})
	d.buf = b
	text, from := string(b), 0
	for i := range d.headers {
		if there.has(i) {
			d.headers[i], from = text[from:ends[i]], ends[i]
		}
	}
}

// put sets number i; value 0 removes it.
func (d *draft) put(i int, value uint32, header string) {
	d.values[i] = value
	if value == 0 {
		d.there.clear(i)
		header = ""
	} else {
		d.there.set(i)
	}
	if header != "" || d.any {
		d.headers[i], d.any = header, true
	}
}

// build returns what can be published: either full or part is set, h may be nil. A dense page is taken from the slab
// from, or allocated if from is nil.
func (d *draft) build(from *slab) (full *dense, part *sparse, h *headers) {
	n := d.there.count()
	same, first := true, uint32(0)
	for i, v := range d.values {
		if !d.there.has(i) {
			continue
		}
		if first == 0 {
			first = v
		} else if v != first {
			same = false
			break
		}
	}
	switch {
	case same:
		part = &sparse{there: d.there, same: first}
	case n >= denseFrom:
		if from != nil {
			full = from.page(0)
		} else {
			full = new(dense)
		}
		*full = d.values
	default:
		part = &sparse{there: d.there, values: make([]uint32, 0, n)}
		for i, v := range d.values {
			if d.there.has(i) {
				part.values = append(part.values, v)
			}
		}
	}
	if d.any {
		h = d.buildHeaders()
	}
	return full, part, h
}

func (d *draft) buildHeaders() *headers {
	var there bitmap
	common, each, n := "", -1, 0
	for i, s := range d.headers {
		if s == "" {
			continue
		}
		there.set(i)
		if n == 0 {
			common, each = s, len(s)
		} else {
			for !strings.HasPrefix(s, common) {
				common = common[:len(common)-1]
			}
			if len(s) != each {
				each = varied
			}
		}
		n++
	}
	if n == 0 {
		return nil
	}
	if each != varied {
		each -= len(common)
	}
	b := there.append(d.buf[:0])
	b = append(append(b, byte(len(common)), byte(each)), common...)
	for _, s := range d.headers {
		if s == "" {
			continue
		}
		rest := s[len(common):]
		if each == varied {
			b = append(b, byte(len(rest)))
		}
		b = append(b, rest...)
	}
	d.buf = b
	return &headers{data: string(b)}
}
