// Package crash_test kills the program in the middle of its work and looks at what is left.
//
// The test process is the outside witness: it sends a stream of batch writes to a running tandem over HTTP and notes
// what was acknowledged. At a random moment the program, or the database server, is killed with SIGKILL. After the
// restart every acknowledged write must be there, no batch may be there in part, the audit chain must hold and contain
// every head noted before, the request in flight must be done exactly once when it is repeated, and the change feed must
// have no hole and lead to what is stored.
//
// A killed process leaves the operating system's cache in place, so this does not replace pulling the plug; that commits
// wait for the disk is asserted by the settings.
//
// It takes some minutes and has the build tag "deep".
package crash_test
