// Package edge is the back-to-back user agent: it accepts calls from the operator's core and from the communications
// services, asks package route where each goes, places the outbound leg, and owns both legs until the call ends. It
// monitors the peers, fails over between them, and refuses what exceeds its limits. docs/sip-behaviour.md lists, row by
// row, what it does with every method, response and situation.
//
// It does not decide routes (calls/route), shape a service's messages (calls/leg and services/…), touch media, or keep
// records (calls/record). While a call is set up it reads from memory only.
//
// # A call
//
// The near leg is the inbound leg, on which the call arrived; the far leg is the outbound leg, which the edge placed.
// The states of a call:
//
//	       INVITE, routed
//	            │
//	            ▼            408 503 504 silence, and only 100 so far: next peer
//	       ┌─ trying ──────┐◀──────────────────────────────────────────┐
//	       │    │          └───────────────────────────────────────────┘
//	       │    │ 101–199 from a fork
//	       │    ▼
//	       │  ringing ─────────────── CANCEL, ring time, drain ──▶ cancelling ─▶ over
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
// Messages are handled on the goroutine that read them. A call's mutex guards everything of the call; no goroutine ever
// holds the mutexes of two calls, and no callback of the transaction layer runs with a lock of that layer held. There
// is no goroutine per call.
//
// # Types
//
//	Config   the edge's part of the configuration file
//	Edge     the agent: New, Run, Ready, Drain, Peers
//	Deps     its dependencies: routing, header rules, profiles, the number index, a record sink
package edge
