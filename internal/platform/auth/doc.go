// Package auth answers who is asking and how often: bearer tokens of any configured OpenID issuer, an issuer of our own
// for operators who have none, source addresses, and a rate limit shared by all nodes.
//
//   - [Verifier] checks bearer tokens (RFC 6750, RFC 7519, RFC 9068 profile where claims allow) and returns a [Principal].
//     Key sets are kept in memory and, sealed, on disk, so that an issuer's outage stops nobody, even over a restart.
//   - [Issuer] is the embedded issuer: a signing key sealed in the store, a discovery document, a key set and the
//     client-credentials grant (RFC 6749 §4.4). [Clients] manages who may use it.
//   - [Sources] finds the address a request really came from and tells whether it may talk to us.
//   - [Limiter] is a GCRA limit whose state all nodes share through the store, with a local one when the store is away.
//
// What a role may do is not decided here: each front end has its own table. The package knows no HTTP route but its own
// issuer's, and stores nothing but key-set files: clients, signing keys and limit states go through the interfaces
// [ClientStore], [KeyStore] and [LimitStore], which the store implements.
package auth
