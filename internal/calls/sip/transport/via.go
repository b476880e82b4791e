package transport

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// viaInfo is what the transport needs from a request's top Via.
type viaInfo struct {
	sentPort uint16 // 0: none
	name     string // the sent-by host if it is a name
	rport    bool
	alias    bool
}

// port returns the port for a response that does not go to the source port.
func (v viaInfo) port(p Proto) uint16 {
	if v.sentPort != 0 {
		return v.sentPort
	}
	return p.DefaultPort()
}

// stampVia adds received and rport to a request's top Via: received if its host is not the source address of the
// request or if rport is requested, rport if it is requested (RFC 3261 §18.2.1, RFC 3581 §4). It returns false for a
// Via that cannot be parsed: then the answer can only go to the source of the request.
func stampVia(m *sip.Message, src netip.AddrPort) (viaInfo, bool) {
	i := m.Find(sip.KindVia)
	if i < 0 {
		return viaInfo{}, false
	}
	value := m.At(i).Value()
	first := value
	if strings.IndexByte(value, ',') >= 0 {
		first = m.First(sip.KindVia)
	}
	v, err := sip.ParseVia(first)
	if err != nil {
		return viaInfo{}, false
	}
	info := viaInfo{sentPort: uint16(v.Port)}
	addr, isAddr := parseHost(v.Host)
	if !isAddr {
		info.name = v.Host
	}
	received := !isAddr || addr != src.Addr()
	if v.Params != "" {
		_, info.rport = v.RPort()
		info.alias = v.Params.Has("alias")
		// A received parameter in the message is not ours: trust the packet's source, not the text.
		received = received || info.rport || v.Params.Has("received")
	}
	if !received {
		return info, true
	}
	stamped := sip.WithParam(first, "received", src.Addr().String())
	if info.rport {
		stamped = sip.WithParam(stamped, "rport", strconv.Itoa(int(src.Port())))
	}
	if len(first) < len(value) {
		if j := strings.Index(value, first); j >= 0 {
			stamped = value[:j] + stamped + value[j+len(first):]
		}
	}
	m.SetAt(i, stamped)
	return info, true
}

// parseHost parses a Via host that may be an address. It recognises names without the cost of a parser error.
func parseHost(h string) (netip.Addr, bool) {
	if h == "" {
		return netip.Addr{}, false
	}
	if h[0] == '[' && h[len(h)-1] == ']' {
		h = h[1 : len(h)-1]
	} else if c := h[len(h)-1]; c < '0' || c > '9' {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(h)
	return a.Unmap(), err == nil
}
