// Package transport carries SIP messages over UDP, TCP and TLS (RFC 3261 §18).
//
// A [Stack] owns [Endpoint]s. An endpoint is one local address with one protocol. Messages sent from it carry its
// address, its advertised name and, for TLS, its certificates and trust roots. Two peer groups with different
// certificates or trust have two endpoints and never share a connection.
//
// # Receiving
//
// Each message is parsed and passed to the [Handler] on the goroutine that read it. Messages from one connection, or
// from one source address and port over UDP, are handled one at a time in the order of arrival. The handler must
// therefore not block. A message from a source that the endpoint's Accept hook does not know is dropped before it is
// parsed, and counted. Top Via lines get received and rport (RFC 3261 §18.2.1, RFC 3581) before the handler sees them.
//
// # Sending
//
// [Stack.Send] sends an encoded request to a [Target], [Stack.Reply] a response along the [Flow] of its request.
// Neither blocks: making connections and waiting for slow peers happens in the background, within bounds. A [Waiter]
// reports to the sender of a request that the request was lost with its connection. A response whose connection has
// closed is sent over a new one, to the address in the request's Via (RFC 3261 §18.2.2).
//
// # Connection reuse
//
// A connection is reused only for the same endpoint, the same local certificate and a far side whose certificate was
// verified for the same name. A connection opened by the far side is used for requests if the far side asked for that
// with "alias" (RFC 5923) and presented a certificate, or if the target names that flow; the same conditions apply.
//
// Transactions, retransmission and DNS are in the packages transaction and resolve.
package transport
