package zone

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The times of the SOA record. A resolver keeps "there is no such name" for soaTTL, the record's TTL and MINIMUM (RFC
// 2308 §5): short, because somebody often asks for a customer's name before it is there.
const (
	soaTTL  = 60
	refresh = 900
	retry   = 60
	expire  = 14 * 86400
)

const (
	// maxSet is the size of the records of one name and type, in bytes, so that any answer fits a message over TCP.
	maxSet = 32 << 10
	// keepLeast is how many changed records the versions kept for transfers may have in a small zone. In a larger one
	// they may have as many as the zone: a larger difference is not worth sending.
	keepLeast = 1000
)

// Version is one change of the zone. Applied to the records at serial From, it gives those at serial To.
type Version struct {
	From    Serial    `json:"from"` // 0 for the first version, which has all records
	To      Serial    `json:"to"`
	At      time.Time `json:"at"`
	Removed []Record  `json:"removed,omitempty"`
	Added   []Record  `json:"added,omitempty"`
}

// ErrSerial is returned when a version does not follow the one in the zone.
var ErrSerial = errors.New("zone: the version does not follow the present one")

// Zone holds the records of one zone. All methods are safe for concurrent use; an answer, and a transfer, has the
// records of one version.
type Zone struct {
	origin string // absolute, in lower case
	soa    dns.SOA

	mu      sync.RWMutex
	serial  Serial // 0 while nothing is loaded
	names   map[string]*node
	records int
	history []*delta // oldest first, without a gap; the last one leads to serial
	kept    int      // records in history
}

// node is a name. A name with nothing but names below it is there too: it exists (RFC 4592 §2.2.2).
type node struct {
	sets  []set
	below int // names directly below it
}

// set is the records of a name that have one type. Its records do not change: answers share them.
type set struct {
	kind    uint16
	records []dns.RR
}

// delta is a version as it is transferred.
type delta struct {
	from, to       Serial
	at             time.Time
	removed, added []dns.RR
}

// New returns the zone of a base domain, without records. It serves nothing until a version is applied. primary is the
// host name of the primary name server, and contact the mail address of the person responsible, for the SOA record.
func New(base, primary, contact string) *Zone {
	z := &Zone{origin: dns.CanonicalName(base), names: map[string]*node{}}
	z.soa = dns.SOA{Hdr: dns.RR_Header{Name: z.origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: soaTTL},
		Ns: dns.CanonicalName(primary), Mbox: mailbox(contact),
		Refresh: refresh, Retry: retry, Expire: expire, Minttl: soaTTL}

	return z
}

// mailbox returns a mail address as a name: what is before the "@" is one label (RFC 1035 §8).
func mailbox(contact string) string {
	user, host, _ := strings.Cut(contact, "@")
	return strings.NewReplacer(".", `\.`, `\`, `\\`).Replace(user) + "." + dns.CanonicalName(host)
}

// Origin returns the base domain, absolute and in lower case.
func (z *Zone) Origin() string { return z.origin }

// Serial returns the serial of the present version, 0 if there is none.
func (z *Zone) Serial() Serial {
	z.mu.RLock()
	defer z.mu.RUnlock()

	return z.serial
}

// Records returns the records of the present version, in no order, and its serial.
func (z *Zone) Records() ([]Record, Serial) {
	z.mu.RLock()
	defer z.mu.RUnlock()

	return z.list(z.rrs()), z.serial
}

// rrs returns the records of the present version, those of the base domain first.
func (z *Zone) rrs() []dns.RR {
	list := make([]dns.RR, 0, z.records)
	add := func(n *node) {
		for _, s := range n.sets {
			list = append(list, s.records...)
		}
	}
	if n := z.names[z.origin]; n != nil {
		add(n)
	}
	for name, n := range z.names {
		if name != z.origin {
			add(n)
		}
	}

	return list
}

// Size returns the number of records of the present version, without the SOA record.
func (z *Zone) Size() int {
	z.mu.RLock()
	defer z.mu.RUnlock()

	return z.records
}

// versions returns the oldest version that is kept, with all its records, and those that followed it. It is empty if no
// version is loaded.
func (z *Zone) versions() []Version {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.serial == 0 {
		return nil
	}
	all := map[Record]bool{}
	for _, r := range z.list(z.rrs()) {
		all[r] = true
	}

	list := make([]Version, 1+len(z.history))
	first := z.serial
	for i, d := range slices.Backward(z.history) {
		v := Version{d.from, d.to, d.at, z.list(d.removed), z.list(d.added)}
		for _, r := range v.Added {
			delete(all, r)
		}
		for _, r := range v.Removed {
			all[r] = true
		}
		first, list[i+1] = d.from, v
	}
	list[0] = Version{To: first, Added: slices.Collect(maps.Keys(all))}

	return list
}

// list returns records as they are stored.
func (z *Zone) list(xs []dns.RR) []Record {
	list := make([]Record, 0, len(xs))
	for _, x := range xs {
		h := x.Header()
		list = append(list, Record{relative(h.Name, z.origin), dns.TypeToString[h.Rrtype], h.Ttl, data(x)})
	}

	return list
}

// Apply makes v the present version. It returns ErrSerial if v does not follow the present version, and another error
// if its records are invalid or are not what the zone has; the zone is unchanged then.
func (z *Zone) Apply(v *Version) error {
	d := &delta{from: v.From, to: v.To, at: v.At}
	var err error
	if d.removed, err = z.parse(v.Removed); err != nil {
		return err
	}
	if d.added, err = z.parse(v.Added); err != nil {
		return err
	}

	z.mu.Lock()
	defer z.mu.Unlock()
	if v.From != z.serial || v.To == 0 || z.serial != 0 && !v.To.After(v.From) {
		return fmt.Errorf("%w: it leads from serial %d to %d, and the zone has %d", ErrSerial, v.From, v.To, z.serial)
	}
	if err := z.change(d.removed, d.added); err != nil {
		return err
	}
	z.serial = v.To
	if v.From != 0 {
		z.remember(d)
	}

	return nil
}

func (z *Zone) parse(records []Record) ([]dns.RR, error) {
	list := make([]dns.RR, 0, len(records))
	for _, r := range records {
		x, err := r.RR(z.origin)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}

	return list, nil
}

// change removes and adds records, all or none.
func (z *Zone) change(removed, added []dns.RR) error {
	for i, x := range removed {
		if err := z.remove(x); err != nil {
			z.undo(removed[:i], nil)
			return err
		}
	}
	for i, x := range added {
		if err := z.add(x); err != nil {
			z.undo(removed, added[:i])
			return err
		}
	}

	return nil
}

// undo takes a change back.
func (z *Zone) undo(removed, added []dns.RR) {
	for _, x := range added {
		_ = z.remove(x) // was added
	}
	for _, x := range removed {
		_ = z.add(x) // was there
	}
}

func (n *node) set(kind uint16) []dns.RR {
	if n != nil {
		for _, s := range n.sets {
			if s.kind == kind {
				return s.records
			}
		}
	}

	return nil
}

// put replaces the records of a type.
func (n *node) put(kind uint16, records []dns.RR) {
	i := slices.IndexFunc(n.sets, func(s set) bool { return s.kind == kind })
	switch {
	case i < 0:
		n.sets = append(n.sets, set{kind, records})
	case len(records) > 0:
		n.sets[i].records = records
	default:
		n.sets = slices.Delete(n.sets, i, i+1)
	}
}

func same(a, b dns.RR) bool { return a.Header().Ttl == b.Header().Ttl && a.String() == b.String() }

// add adds a record. Those of one name and type have the same TTL (RFC 2181 §5.2), and fit an answer.
func (z *Zone) add(x dns.RR) error {
	h := x.Header()
	n := z.enter(h.Name)
	old := n.set(h.Rrtype)
	size := dns.Len(x)
	for _, y := range old {
		switch ttl := y.Header().Ttl; {
		case same(x, y):
			return fmt.Errorf("the zone has the record %s already", x)
		case ttl != h.Ttl:
			return fmt.Errorf("the %s records of %s have different TTLs: %d and %d", dns.TypeToString[h.Rrtype], h.Name,
				h.Ttl, ttl)
		}
		size += dns.Len(y)
	}
	if size > maxSet {
		return fmt.Errorf("the %s records of %s have more than %d bytes, which is all that an answer has room for",
			dns.TypeToString[h.Rrtype], h.Name, maxSet)
	}
	n.put(h.Rrtype, append(slices.Clip(old), x))
	z.records++

	return nil
}

func (z *Zone) remove(x dns.RR) error {
	h := x.Header()
	n := z.names[h.Name]
	old := n.set(h.Rrtype)
	i := slices.IndexFunc(old, func(y dns.RR) bool { return same(x, y) })
	if i < 0 {
		return fmt.Errorf("the zone does not have the record %s", x)
	}
	n.put(h.Rrtype, slices.Delete(slices.Clone(old), i, i+1))
	z.records--
	z.leave(h.Name)

	return nil
}

// enter returns the node of a name; it creates it, and those between it and the origin.
func (z *Zone) enter(name string) *node {
	n := z.names[name]
	if n == nil {
		n = &node{}
		z.names[name] = n
		if name != z.origin {
			z.enter(parent(name)).below++
		}
	}

	return n
}

// leave removes the node of a name, and those between it and the origin, if nothing is left at or below them.
func (z *Zone) leave(name string) {
	n := z.names[name]
	if len(n.sets) > 0 || n.below > 0 {
		return
	}
	delete(z.names, name)
	if name != z.origin {
		z.names[parent(name)].below--
		z.leave(parent(name))
	}
}

func parent(name string) string { return name[strings.IndexByte(name, '.')+1:] }

// remember keeps a version for transfers, and drops the oldest ones.
func (z *Zone) remember(d *delta) {
	z.history = append(z.history, d)
	z.kept += len(d.removed) + len(d.added)
	drop := 0
	for z.kept > max(keepLeast, z.records) && drop < len(z.history) {
		z.kept -= len(z.history[drop].removed) + len(z.history[drop].added)
		drop++
	}
	z.history = slices.Delete(z.history, 0, drop)
}
