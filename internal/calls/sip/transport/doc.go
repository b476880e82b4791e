// Package transport carries SIP messages over UDP, TCP and TLS (RFC 3261 §18).
//
// A [Stack] owns [Endpoint]s. An endpoint is one local address with one protocol: it receives there, and what is sent from it
// leaves with its address, its advertised name and, for TLS, its certificates and trust roots. Two peer groups with different
// certificates or trust have two endpoints, and never share a connection.
//
// # Receiving
//
// Each message is parsed and handed to the [Handler] on the goroutine that read it, one after the other, in the order of arrival: from one
// connection, or from one source address and port over UDP. The handler must therefore not block. A message from a source that the
// endpoint's Accept hook does not know is dropped before it is parsed, and counted. Top Via lines get received and rport
// (RFC 3261 §18.2.1, RFC 3581) before the handler sees them.
//
// # Sending
//
// [Stack.Send] sends an encoded request to a [Target], [Stack.Reply] a response along the [Flow] its request came by. Neither
// blocks: connections are made, and slow peers waited for, in the background, within bounds. Whoever sent a request over a
// connection learns through [Waiter] that it was lost with the connection. A response whose connection is gone goes to a new
// one, to the address in the request's Via (RFC 3261 §18.2.2).
//
// # Connection reuse
//
// A connection is used again only for the same endpoint, the same local certificate and a remote side whose certificate was verified
// for the same name. A connection that the far side opened is used for requests if the far side asked for it with
// "alias" (RFC 5923) and showed a certificate, or if the target names that very flow, and then under the same
// conditions.
//
// The package is not for transactions, retransmission or DNS; see the packages transaction and resolve.
package transport
