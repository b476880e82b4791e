// Package static tests static stability (design section 2): while the database is unavailable, calls continue
// unaffected, also after a restart, and when it is available again everything converges without intervention.
//
// Its tests have the build tag deep. Each runs the real program as a child process with a private PostgreSQL that it
// kills, hangs and starts again, between SIPp processes that place and accept real calls over UDP. They observe only
// from outside: what callers and callees get, HTTP responses, call records, health and explanations.
//
//	go test -tags deep -v ./test/static
//
// TANDEM_STATIC_FOR is how long the tests under load run; default 2m.
package static
