// Package leg is the contract between the edge and the communications services: what a service does to the messages of
// the leg that faces it and of the leg that faces the operator's core, and which header lines pass from one leg to the
// other at all.
//
// It holds no dialogs, sends nothing and decides no routes. It does not know any one service: each implements Profile
// in services/<name>. Lines that belong to the hop (Via, Route, Record-Route, Max-Forwards, Call-ID, CSeq, tags) are the
// edge's.
//
// # How a message crosses
//
//	dst := the edge's new message: start line, Via, From, To, Call-ID, CSeq, Max-Forwards
//	rules.Relay(dst, src)            // what passes end to end, line by line, byte for byte
//	profile.ToService(dst, &leg)     // or ToCore: what this service needs
//
// docs/sip-headers.md is the table of what passes.
//
// # Types
//
//	Config, Rules   the operator's settings; the header policy made of them
//	Profile         what a service implements
//	Leg, Addr       the leg a message is about to leave on
//	Facts           what routing may know of an INVITE
package leg
