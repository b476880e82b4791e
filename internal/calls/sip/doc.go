// Package sip holds SIP messages (RFC 3261): it parses, edits, prints and
// validates them, finds message boundaries on streams, and makes the identifiers
// a user agent needs. It keeps what it is given: every header line, in its order
// and with its bytes (odd case, compact form, folding, spacing), prints exactly
// as it came unless that very line was changed.
//
// It is not a transaction machine, a transport or a resolver (packages
// transaction, transport and resolve below this folder), knows no dialogs or
// calls, and decides no routing.
//
// # Ownership
//
// A message is parsed from a string. Strings are immutable, so every view
// (header value, URI, tag, body …) is a substring of the message, costs no copy,
// may be kept, compared, used as a map key, and handed to other goroutines or put
// into another message without any rule to remember. The one price: a substring
// keeps the whole message text alive. Use strings.Clone for a short text kept
// much longer than the message (per-call state that outlives its INVITE).
//
// A *Message may be read by many goroutines at once. Editing needs the message to
// oneself. Nothing is pooled.
//
// # Types
//
//	Message   a request or response: start line, Header lines, body
//	Header    one header line; Kind names the known ones
//	URI, NameAddr, Via, CSeq, Params   values, parsed when asked for
//	Problem   why a message cannot be accepted, and the answer it deserves
//	Validator the checks of RFC 3261 beyond what Parse needs to split the message
//	Limits    sizes; Reader finds messages on TCP and TLS streams
//
// # Reading and answering
//
//	m, p := validator.Read(string(datagram)) // Parse and Check
//	if p != nil {
//		if answer := p.Answer(m, sip.NewTag(), "gw.example.net"); answer != nil {
//			send(answer.AppendTo(nil))
//		}
//		return
//	}
package sip
