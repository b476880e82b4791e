package zone

import (
	"strings"

	"github.com/miekg/dns"
)

// Result is the kind of an [Answer].
type Result int

// The results of a look-up.
const (
	NotLoaded Result = iota // no version is loaded: the server must not say that a name does not exist
	Outside                 // the name is not in the zone
	NoName                  // nothing is at or below the name
	NoData                  // the name exists, but has no record of that type
	Found
)

// Answer is what a zone says about a name and type. The records are shared: they must not be changed.
type Answer struct {
	Result  Result
	Records []dns.RR
	Extra   []dns.RR // addresses in the zone of hosts that the records name
	SOA     dns.RR   // for the authority section, with NoName and NoData
}

// Look returns the records of a name that have a type. The name is absolute and may be in any case. With type ANY, the
// answer has the records of one type (RFC 8482 §4.1).
func (z *Zone) Look(name string, kind uint16) Answer {
	name = strings.ToLower(name)
	if name != z.origin {
		head, below := strings.CutSuffix(name, "."+z.origin)
		escapes := len(head) - len(strings.TrimRight(head, `\`))
		if !below || escapes%2 == 1 { // `\.` is no end of a label
			return Answer{Result: Outside}
		}
	}

	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.serial == 0 {
		return Answer{Result: NotLoaded}
	}
	n := z.names[name]
	if n == nil && name != z.origin {
		return Answer{Result: NoName, SOA: z.at(z.serial)}
	}

	var records []dns.RR
	switch {
	case kind == dns.TypeSOA && name == z.origin, kind == dns.TypeANY && name == z.origin:
		records = []dns.RR{z.at(z.serial)}
	case kind == dns.TypeANY && n != nil && len(n.sets) > 0:
		records = n.sets[0].records
	default:
		records = n.set(kind)
	}
	if len(records) == 0 {
		return Answer{Result: NoData, SOA: z.at(z.serial)}
	}

	return Answer{Result: Found, Records: records, Extra: z.hosts(records)}
}

// at returns the SOA record of a serial.
func (z *Zone) at(s Serial) dns.RR {
	soa := z.soa
	soa.Serial = uint32(s)

	return &soa
}

// hosts returns the addresses of the hosts that NS and SRV records name.
func (z *Zone) hosts(records []dns.RR) []dns.RR {
	var extra []dns.RR
	named := map[string]bool{}
	for _, x := range records {
		var host string
		switch x := x.(type) {
		case *dns.NS:
			host = x.Ns
		case *dns.SRV:
			host = x.Target
		default:
			return nil
		}
		if host = strings.ToLower(host); !named[host] {
			named[host] = true
			n := z.names[host]
			extra = append(append(extra, n.set(dns.TypeA)...), n.set(dns.TypeAAAA)...)
		}
	}

	return extra
}
