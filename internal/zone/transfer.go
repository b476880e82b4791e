package zone

import (
	"slices"

	"github.com/miekg/dns"
)

// All returns the records of a transfer of the whole zone (RFC 5936 §2.2): all of one version, between two copies of
// its SOA record. It returns nil if no version is loaded.
func (z *Zone) All() []dns.RR {
	z.mu.RLock()
	defer z.mu.RUnlock()

	return z.all()
}

func (z *Zone) all() []dns.RR {
	if z.serial == 0 {
		return nil
	}
	soa := []dns.RR{z.at(z.serial)}

	return slices.Concat(soa, z.rrs(), soa) // the name servers first, as readers expect
}

// Since returns the records of an incremental transfer to a server that has a serial (RFC 1995 §4): the present SOA
// record alone if it is up to date, or has a newer serial; the versions since, if they are kept and smaller than the
// zone; else the whole zone. It returns nil if no version is loaded.
func (z *Zone) Since(serial Serial) []dns.RR {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.serial == 0 {
		return nil
	}
	soa := z.at(z.serial)
	if serial == z.serial || serial.After(z.serial) {
		return []dns.RR{soa}
	}
	i := slices.IndexFunc(z.history, func(d *delta) bool { return d.from == serial })
	if i < 0 {
		return z.all()
	}

	n := 2
	for _, d := range z.history[i:] {
		n += 2 + len(d.removed) + len(d.added)
	}
	list := append(make([]dns.RR, 0, n), soa)
	for _, d := range z.history[i:] {
		list = append(append(list, z.at(d.from)), d.removed...)
		list = append(append(list, z.at(d.to)), d.added...)
	}

	return append(list, soa)
}
