package zone

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Record is one resource record. The zone is a set of records: two that are equal are one.
type Record struct {
	// Name is relative to the base domain, in lower case; Apex for the base domain itself.
	Name string `json:"name"`
	Type string `json:"type"` // A, AAAA, TXT, SRV, CAA or NS
	TTL  uint32 `json:"ttl"`  // seconds, 0 to MaxTTL; the same for all records of a name and type
	Data string `json:"data"` // as in a zone file (RFC 1035 §5.1); host names are absolute
}

const (
	// Apex is the name of records of the base domain itself.
	Apex = "@"
	// MaxTTL is the longest time, in seconds, that a resolver may keep a record.
	MaxTTL = 86400
	// maxData is the length of the longest data, in characters.
	maxData = 1000
	// maxName is the length of the longest name in text, without the final dot (RFC 1035 §2.3.4).
	maxName = 253
)

// Address returns the A or AAAA record of an address.
func Address(name string, ttl uint32, a netip.Addr) Record {
	a = a.Unmap()
	kind := "AAAA"
	if a.Is4() {
		kind = "A"
	}

	return Record{name, kind, ttl, a.WithZone("").String()}
}

// Text returns a TXT record of one text of any bytes. A text of more than 255 bytes is split into several strings,
// which readers join (RFC 7208 §3.3).
func Text(name string, ttl uint32, text string) Record {
	x := dns.TXT{Txt: []string{""}}
	for i := 0; i < len(text); i += 255 {
		part := strings.ReplaceAll(text[i:min(i+255, len(text))], `\`, `\\`) // \ is an escape there
		x.Txt = append(x.Txt[:i/255], part)
	}

	return Record{name, "TXT", ttl, data(&x)}
}

// Service returns an SRV record (RFC 2782). The target is an absolute host name.
func Service(name string, ttl uint32, priority, weight, port uint16, target string) Record {
	return Record{name, "SRV", ttl, fmt.Sprintf("%d %d %d %s", priority, weight, port, dns.Fqdn(target))}
}

// NameServer returns an NS record. The host is absolute.
func NameServer(name string, ttl uint32, host string) Record {
	return Record{name, "NS", ttl, dns.Fqdn(host)}
}

// Authority returns a CAA record (RFC 8659), for example with tag "issue" and value "letsencrypt.org".
func Authority(name string, ttl uint32, flags uint8, tag, value string) Record {
	return Record{name, "CAA", ttl, strconv.Itoa(int(flags)) + " " + tag + " " + strconv.Quote(value)}
}

// Compare orders records by name, type, data and TTL.
func Compare(a, b Record) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Data, b.Data),
		cmp.Compare(a.TTL, b.TTL))
}

// data returns the data of a record as in a zone file.
func data(x dns.RR) string { return strings.TrimPrefix(x.String(), x.Header().String()) }

// RR returns the record in the zone of an origin, which is lower case and ends with a dot.
func (r Record) RR(origin string) (dns.RR, error) {
	x, err := r.parse(origin)
	if err != nil {
		return nil, fmt.Errorf("record %q %s: %w", r.Name, r.Type, err)
	}

	return x, nil
}

func (r Record) parse(origin string) (dns.RR, error) {
	special := "\r\n;()"
	switch r.Type {
	case "A", "AAAA", "SRV", "NS":
	case "TXT", "CAA":
		special = "\r\n" // the others may be in a quoted string
	default:
		return nil, fmt.Errorf("type %s is not published; use A, AAAA, TXT, SRV, CAA or NS", r.Type)
	}
	if err := checkName(r.Name, origin); err != nil {
		return nil, err
	}
	if r.TTL > MaxTTL {
		return nil, fmt.Errorf("a TTL is at most %d seconds; got %d", MaxTTL, r.TTL)
	}
	if len(r.Data) > maxData {
		return nil, fmt.Errorf("its data has %d characters; at most %d are published", len(r.Data), maxData)
	}
	if strings.ContainsAny(r.Data, special) {
		return nil, fmt.Errorf("%q is not valid data", r.Data)
	}

	x, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", absolute(r.Name, origin), r.TTL, r.Type, r.Data))
	if err == nil && x == nil {
		err = errors.New("no data")
	}
	if err != nil {
		return nil, fmt.Errorf("%q is not valid data: %w", r.Data, err)
	}

	return x, nil
}

// checkName returns an error unless name is one that a zone may have: of lower-case letters, digits, "-" and "_".
func checkName(name, origin string) error {
	if name == Apex {
		return nil
	}
	if len(name)+len(origin) > maxName+1 {
		return fmt.Errorf("the name has %d characters with the base domain; a name has at most %d",
			len(name)+len(origin), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("each label of a name has 1 to 63 characters")
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("a name has lower-case letters, digits, \"-\" and \"_\"; got %q", c)
			}
		}
	}

	return nil
}

// absolute returns the absolute name of a record.
func absolute(name, origin string) string {
	if name == Apex {
		return origin
	}

	return name + "." + origin
}

// relative returns the name of a record by its absolute name, in lower case.
func relative(name, origin string) string {
	if name == origin {
		return Apex
	}

	return strings.TrimSuffix(name, "."+origin)
}
