// Package zone holds the DNS zone of the base domain, and answers questions from it.
//
// The records of a zone are a set, which changes from one [Version] to the next. A [Zone] applies the versions in
// order, answers from memory, and remembers recent versions so that secondaries can transfer the difference (RFC
// 1995). Package nameserver puts it on the network; [Files] keeps it on disk.
//
// A zone has the types that Tandem publishes: SOA, NS, A, AAAA, TXT, SRV and CAA. It has no wildcards, aliases or
// delegations, so each name means what it says.
package zone
