// Package auth identifies the callers of an API and limits their rate: bearer tokens of any configured OpenID issuer,
// an embedded issuer for operators without one of their own, source addresses, and a rate limit shared by all nodes.
//
//   - [Verifier] checks bearer tokens (RFC 6750, RFC 7519, RFC 9068 profile where claims allow) and returns a
//     [Principal]. Key sets are kept in memory and, sealed, on disk, so that clients are not affected by an issuer's
//     outage, even across a restart.
//   - [Issuer] is the embedded issuer: a signing key sealed in the store, a discovery document, a key set and the
//     client-credentials grant (RFC 6749 §4.4). [Clients] manages the clients that may use it.
//   - [Sources] determines the real source address of a request and reports whether it may use a server.
//   - [Limiter] is a GCRA limit whose state all nodes share through the store, with a local limit while the store is
//     unavailable.
//
// What a role permits is not decided here: each front end has its own table. The package has no HTTP routes except its
// own issuer's, and stores nothing except key-set files: clients, signing keys and limit states go through the
// interfaces [ClientStore], [KeyStore] and [LimitStore], which the store implements.
package auth
