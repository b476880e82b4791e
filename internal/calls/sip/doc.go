// Package sip parses, edits, prints and validates SIP messages (RFC 3261), finds
// message boundaries on streams, and generates the identifiers a user agent
// needs. It preserves its input: every header line is printed in its original
// order and with its original bytes (letter case, compact form, folding, spacing)
// unless that line was edited.
//
// Transactions, transports and target resolution are in the packages transaction,
// transport and resolve below this directory. This package knows nothing of
// dialogs, calls or routing.
//
// # Ownership
//
// A message is parsed from a string. Strings are immutable, so every view
// (header value, URI, tag, body and so on) is a substring of the message: it costs
// no copy and may be kept, compared, used as a map key, passed to other goroutines
// or put into another message. The one cost: a substring keeps the whole message
// text in memory. Use strings.Clone for a short text kept much longer than the
// message (per-call state that outlives its INVITE).
//
// Multiple goroutines may read a *Message at the same time. Editing needs
// exclusive access. Nothing is pooled.
//
// # Types
//
//	Message   a request or response: start line, Header lines, body
//	Header    one header line; Kind names the known ones
//	URI, NameAddr, Via, CSeq, Params   values, parsed on demand
//	Problem   why a message is rejected, and the response to send
//	Validator the checks of RFC 3261 beyond what Parse needs to split the message
//	Limits    size limits; Reader finds messages on TCP and TLS streams
//
// # Reading and answering
//
//	m, p := sip.Parse(string(datagram), limits)
//	if p == nil {
//		p = validator.Check(m)
//	}
//	if p != nil {
//		if answer := p.Answer(m, sip.NewTag(), "gw.example.net"); answer != nil {
//			send(answer.AppendTo(nil))
//		}
//		return
//	}
package sip
