package transport

import (
	"fmt"
	"strings"
)

// Proto is the transport protocol of a SIP message (RFC 3261 §18, the token of a Via header).
// The zero value is Unspecified.
type Proto uint8

const (
	// Unspecified is the zero value: no protocol has been chosen yet.
	Unspecified Proto = iota
	// UDP is plain SIP over UDP.
	UDP
	// TCP is plain SIP over TCP.
	TCP
	// TLS is SIP over TLS over TCP.
	TLS
)

// tokens and params hold the names of the protocols, in a Via header and in the URI parameter "transport".
var (
	tokens = [...]string{Unspecified: "unspecified", UDP: "UDP", TCP: "TCP", TLS: "TLS"}
	params = [...]string{UDP: "udp", TCP: "tcp", TLS: "tls"}
)

// ParseProto parses a protocol token of a Via header or a transport parameter, ignoring case.
func ParseProto(s string) (Proto, error) {
	for p := UDP; p <= TLS; p++ {
		if strings.EqualFold(s, params[p]) {
			return p, nil
		}
	}
	return Unspecified, fmt.Errorf("SIP transport %q is not supported: use udp, tcp or tls", s)
}

// String returns the token used in a Via header.
func (p Proto) String() string { return tokens[p] }

// Param returns the value of the URI parameter "transport" that names this protocol.
func (p Proto) Param() string { return params[p] }

// Reliable reports whether the protocol delivers or reports failure, so that transactions need not retransmit (RFC 3261
// §17).
func (p Proto) Reliable() bool { return p == TCP || p == TLS }

// DefaultPort returns the port used if none is written: 5061 for TLS, 5060 otherwise (RFC 3261 §19.1.2).
func (p Proto) DefaultPort() uint16 {
	if p == TLS {
		return 5061
	}
	return 5060
}
