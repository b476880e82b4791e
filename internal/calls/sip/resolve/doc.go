// Package resolve finds where a SIP request can be sent (RFC 3263) without ever making a call wait for DNS.
//
// The call path asks [Resolver.Lookup], which only reads memory: it returns every candidate [Target] in the order in which
// to try them, priorities first and weights drawn anew for each look-up (RFC 2782). Records past their time to live are
// refreshed in the background, and while the name servers are away the last good answer stays in use: a DNS outage must
// not stop calls. [Resolver.Resolve] is the same with a bounded wait, for start-up and for tools.
//
// It does not judge targets: which of them are healthy, how long to leave one alone, and when to go to the next is the
// caller's business. NAPTR records are not asked for; transports are tried in the configured order instead, which
// RFC 3263 §4.1 provides for when no NAPTR record exists.
//
// Main types: [Resolver], [Query], [Target], and [DNS], the interface to a name server client, which [Servers]
// and [System] implement.
package resolve
