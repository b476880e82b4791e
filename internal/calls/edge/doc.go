// Package edge is the back-to-back user agent: it takes calls from the operator's core and from the communications services, asks
// route where each goes, places the other leg, and owns both until the call is over. It watches the peers, fails over between them, and refuses what
// would be too much. docs/sip-behaviour.md says, row by row, what it does with every method, answer and situation.
//
// It does not decide routes (calls/route), shape a service's messages (calls/leg and services/…), touch media, or keep
// records (calls/record). It reads memory only while a call is set up.
//
// # A call
//
// The near leg is the one the call came in on, the far leg the one we placed. Solid states of a call:
//
//	       INVITE, routed
//	            │
//	            ▼            408 503 504 silence, and nothing but 100 yet: next peer
//	       ┌─ trying ──────┐◀──────────────────────────────────────────┐
//	       │    │          └───────────────────────────────────────────┘
//	       │    │ 101–199 from a fork
//	       │    ▼
//	       │  ringing ─────────────── CANCEL, ring time, drain ──▶ canceling ──▶ over
//	       │    │                                                     │ 2xx crossed: ACK, BYE
//	       │    │ 2xx (the first fork wins; others get ACK, BYE)      ▼
//	       └────┴──────▶ answered ── ACK near ──▶ ACK far            over
//	3xx–6xx: over           │
//	                        │ BYE from a side, time, probe, session timer, drain, no ACK
//	                        ▼
//	                      over
//
// # Concurrency
//
// Messages are handled on the goroutine that read them. A call's mutex guards everything of the call; no goroutine ever holds two calls' mutexes,
// and no callback of the transaction layer runs with a lock of that layer held. There is no goroutine per call.
//
// # Types
//
//	Config   the edge's part of the configuration file
//	Edge     the agent: New, Run, Ready, Drain, Peers
//	Deps     what it is given: routing, header rules, profiles, the number index, a record sink
package edge
