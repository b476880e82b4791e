// Package crash_test kills the program while it works and checks what is left.
//
// The test process is an outside witness: it sends a stream of batch writes to a running tandem over HTTP and records
// what was acknowledged. At a random moment the program, or the database server, is killed with SIGKILL. After the
// restart every acknowledged write must exist, no batch may be stored in part, the audit chain must be intact and
// contain every head recorded before, the request in flight must take effect exactly once when it is repeated, and the
// change feed must have no gap and lead to what is stored.
//
// A killed process leaves the operating system's cache intact, so this does not replace a power failure; that commits
// wait for the disk is asserted by the settings.
//
// It takes some minutes and has the build tag "deep".
package crash_test
