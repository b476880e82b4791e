package resolve

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// Query says what to resolve: the parts of a SIP URI that RFC 3263 uses, or a whole SRV record name.
type Query struct {
	// Host is a domain name or a numeric address (IPv6 with or without brackets). With SRV set it is only logged, and
	// may be empty.
	Host string
	// Port is the port written in the URI; 0 means that there is none, so that SRV records are queried.
	Port uint16
	// Proto is the transport. Required.
	Proto transport.Proto
	// SRV, when not empty, is the full name of an SRV record ("_sip._tls.core.example.net") that is used instead of the
	// names RFC 3263 would build.
	SRV string
}

// canonical lower-cases a host and removes its brackets and final dot.
func canonical(host string) string {
	host = strings.TrimSuffix(host, ".")
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(host)
}

// pick returns the hosts of one answer in the order of RFC 2782: the lowest priority value first, and within one
// priority a random draw without replacement, each record's chance in proportion to its weight.
func pick(in []srvHost) []srvHost {
	out := make([]srvHost, 0, len(in))
	for lo := 0; lo < len(in); {
		hi := lo + 1
		for hi < len(in) && in[hi].priority == in[lo].priority {
			hi++
		}
		out = draw(out, in[lo:hi])
		lo = hi
	}
	return out
}

// draw appends the records of one priority to out in a weighted random order. Weight-0 records come first in the
// running sum (RFC 2782), so that they keep a very small chance while any weighted record is left.
func draw(out, same []srvHost) []srvHost {
	if len(same) == 1 {
		return append(out, same[0])
	}
	rest := slices.Clone(same)
	slices.SortStableFunc(rest, func(a, b srvHost) int { return cmp.Compare(a.weight, b.weight) })
	var sum uint32
	for _, s := range rest {
		sum += uint32(s.weight)
	}
	for len(rest) > 0 {
		var i int
		if sum == 0 {
			// All weights are zero: any order is allowed, so share the load.
			i = rand.IntN(len(rest))
		} else {
			at := rand.Uint32N(sum + 1) // a number from 0 to sum, both included
			var run uint32
			for i = range rest {
				run += uint32(rest[i].weight)
				if run >= at {
					break
				}
			}
		}
		out = append(out, rest[i])
		sum -= uint32(rest[i].weight)
		rest = slices.Delete(rest, i, i+1)
	}
	return out
}
