// Package update publishes the records of the zone in a zone that the operator runs, by DNS UPDATE (RFC 2136) or
// through a provider of github.com/libdns.
//
// The operator's zone has records of others, which are never touched: an [Updater] adds single records and removes
// single records. A record is Tandem's only if the table of published records says so. It is entered there before it is
// sent, and removed after the record was, so that a process that is killed at any point leaves neither a record
// that nobody owns nor one that is missing:
//
//	          wanted, not in the operator's zone           seen there
//	(no row) ────────────────────────────────▶ intended ─────────────▶ there
//	   ▲                                         │    ▲                  │
//	   │  refused for certain, or no longer      │    └──────────────────┤ another TTL, or removed by somebody
//	   └─────────────────────────────────────────┴───────────────────────┘
//	                wanted and removed
//
// A record that is wanted, has no row and is in the operator's zone belongs to somebody else. It is left alone, and no
// row is made. Decision 29 has the reasons.
//
// [Aliases] puts the values of ACME challenges where the operator's CNAMEs lead, in any zone of the same server. They
// have no rows: the state of the orders remembers them.
package update
