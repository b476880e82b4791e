// Package resolve finds where a SIP request can be sent (RFC 3263) without ever making a call wait for DNS.
//
// The call path calls [Resolver.Lookup], which only reads memory. It returns every candidate address in the order in
// which to try them: by priority, then by weight, drawn again for each look-up (RFC 2782). Records past their time to
// live are refreshed in the background. While the name servers are unavailable the last good answer stays in use, so
// that a DNS outage does not stop calls.
//
// The package does not judge addresses: the caller decides which of them are healthy, how long to avoid one, and when
// to try the next. NAPTR records are not queried, as the caller names the transport.
//
// Main types: [Resolver], [Query], and [DNS], the interface of a name server client, implemented by [Servers] and
// [System].
package resolve
