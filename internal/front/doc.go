// Package front is the public front: pages and endpoints that strangers on the Internet reach, apart from the APIs. It
// is not for clients with tokens, and keeps no state and no cookies.
//
// Each host of the front is one label in front of the base domain, such as onboard.gw.example.com. A job that serves
// strangers describes what it serves there as a [Site]; package node mounts it. Around every site the front has what
// strangers make necessary: it answers on its own hosts only, limits the requests of each source and the size of
// bodies, sets the security headers, answers errors as a page or as a problem document, and counts and logs requests.
// Every host has a status page at [StatusPath].
//
// Limits of connections and of time are below it, in package listen and in web.NewServer. None of the connections ever
// authenticates, so all are on probation: each may take listen.Probation to send a request.
package front
