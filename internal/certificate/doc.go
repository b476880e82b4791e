// Package certificate obtains and renews public certificates by ACME (RFC 8555) with DNS challenges, and serves them.
//
// A [Manager] runs on every node that serves TLS. It reads the certificates from the [Store] that all nodes share and
// keeps a copy of those that the node uses in its [Cache], from which it starts and serves while the store is
// unavailable. Orders are work for package flow ([Manager.Kind]): one node at a time orders, and another takes over if
// that one ends.
//
//	             order: Kind                              read every minute
//	authority ─────────────────────────▶ Store (database) ─────────────────▶ every node: GetCertificate
//	             TXT values: Challenger                                           │ ▲ start
//	             name servers: Checker                                            ▼ │
//	                                                                            Cache (disk)
//
// What the ACME library lacks is here: only the configured directory is ever asked; rate limits and failures are
// stored, so that neither a restart nor another node repeats what an authority refused; a challenge is offered only
// when no name server answers without its value; values that a killed process left in the DNS are removed. A failed
// order changes nothing: the old certificate stays in service.
//
// The package publishes nothing in the DNS and stores nothing itself, and it does not watch certificates in files.
package certificate
