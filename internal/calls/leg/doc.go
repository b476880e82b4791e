// Package leg defines the contract between the edge and the communications services: how a service shapes the messages
// on its own leg and on the leg to the operator's core, and which header lines pass from one leg to the other.
//
// It holds no dialogs, sends nothing and makes no routing decisions. It knows no particular service: each implements
// Profile in services/<name>. The edge writes the hop-by-hop lines (Via, Route, Record-Route, Max-Forwards, Call-ID,
// CSeq, tags).
//
// # How a message passes from leg to leg
//
//	dst := the edge's new message: start line, Via, From, To, Call-ID, CSeq, Max-Forwards
//	rules.Relay(dst, src)            // what passes end to end, line by line, byte for byte
//	profile.ToService(dst, &leg)     // or ToCore: what this service needs
//
// docs/sip-headers.md is the table of what passes.
//
// # Types
//
//	Config, Rules   the operator's settings; the header policy compiled from them
//	Profile         what a service implements
//	Leg, Addr       the leg a message is about to leave on
//	Facts           the facts of an INVITE that routing decides by
package leg
