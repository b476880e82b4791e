package nameserver

import (
	"encoding/binary"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"
)

const headerSize = 12

// accept implements dns.MsgAcceptFunc. The server itself answers what the library's own function rejects, because the
// response has an OPT record if the request has one (RFC 6891 §6.1.1).
func accept(h dns.Header) dns.MsgAcceptAction {
	opcode := int(h.Bits>>11) & 0xf
	switch {
	case h.Bits>>15 == 1: // a response
		return dns.MsgIgnore
	case h.Arcount == 0 && opcode != dns.OpcodeQuery && opcode != dns.OpcodeNotify:
		return dns.MsgRejectNotImplemented // unread: nobody knows how it continues
	}

	return dns.MsgAccept
}

// hideOptions implements dns.DecorateReader.
func hideOptions(r dns.Reader) dns.Reader { return reader{r} }

// reader hides EDNS options from the library, which refuses a message because of the content of one that it knows. This
// server uses none, and must ignore them (RFC 6891 §6.1.2).
type reader struct{ dns.Reader }

// ReadTCP implements dns.Reader.
func (r reader) ReadTCP(c net.Conn, timeout time.Duration) ([]byte, error) {
	m, err := r.Reader.ReadTCP(c, timeout)
	return plain(m), err
}

// ReadUDP implements dns.Reader.
func (r reader) ReadUDP(c *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	m, s, err := r.Reader.ReadUDP(c, timeout)
	return plain(m), s, err
}

// plain returns a message with the codes of its EDNS options replaced by one for local use; m itself if it has none, or
// if it is signed. Of a message that ends before what it counts, or whose question is compressed, it returns the header
// alone, which is answered with FORMERR: the library would take it for one with fewer records, or another question.
func plain(m []byte) []byte {
	if len(m) < headerSize {
		return m
	}
	number := func(at int) int { return int(binary.BigEndian.Uint16(m[at:])) }
	at, compressed := headerSize, false
	for range number(4) {
		if at, compressed = skip(m, at); compressed || at+4 > len(m) {
			return m[:headerSize]
		}
		at += 4
	}

	var codes []int // where they are
	for range number(6) + number(8) + number(10) {
		if at, _ = skip(m, at); at+10 > len(m) {
			return m[:headerSize]
		}
		kind, data := number(at), at+10
		if at = data + number(at+8); at > len(m) {
			return m[:headerSize]
		}
		if kind == int(dns.TypeTSIG) {
			return m
		}
		for kind == int(dns.TypeOPT) && data+4 <= at {
			codes = append(codes, data)
			data += 4 + number(data+2)
		}
	}
	if len(codes) == 0 {
		return m
	}

	m = slices.Clone(m)
	for _, at := range codes {
		binary.BigEndian.PutUint16(m[at:], dns.EDNS0LOCALSTART)
	}

	return m
}

// skip returns where the name at a place in a message ends, more than the message has if it does not, and whether it
// is compressed.
func skip(m []byte, at int) (int, bool) {
	for at < len(m) {
		switch n := int(m[at]); {
		case n == 0:
			return at + 1, false
		case n >= 0xc0: // a pointer
			return at + 2, true
		default:
			at += 1 + n
		}
	}

	return at + 1, false
}
