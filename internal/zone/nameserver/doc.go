// Package nameserver serves a zone on the network, authoritatively and without recursion: questions over UDP and TCP
// with EDNS(0) (RFC 1035, 6891, 8906), transfers to secondaries (RFC 1995, 5936), their notification (RFC 1996), and
// signatures with shared keys (RFC 8945). Answers over UDP are limited by rate, so that the server is of little use to
// flood somebody else.
//
// A transfer needs a key: a source address alone opens nothing.
package nameserver
