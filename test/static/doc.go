// Package static shows static stability (design section 2): with the database away calls go on as if nothing had happened,
// also after a restart, and when it is back everything converges by itself.
//
// Its tests are tagged deep. Each runs the real program as a child process on a private PostgreSQL that it kills, hangs and
// starts again, between SIPp processes that place and take real calls over UDP. They look from outside only: at what the
// callers and the called get, at HTTP answers, call records, health and explanations.
//
//	go test -tags deep -v ./test/static
//
// TANDEM_STATIC_FOR is how long the test under load runs; 2m unless set.
package static
