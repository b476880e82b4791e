// Package testkit gives tests the real databases they must run on.
//
// PostgreSQL is private to the tests: its own cluster in a temporary directory, reachable only over a Unix socket, with
// locale C, run by an unprivileged user when the tests run as root. All test programs of one user that run at the same
// time share one cluster, which the first one starts and a watchdog stops a few seconds after the last has ended, for
// whatever reason. Each test gets its own database, copied from a template that already has the schema. The shared
// cluster does not wait for the disk; a crash test starts its own Cluster that does, and may kill it.
//
// Without the PostgreSQL programs tests are skipped with the reason, or fail if TANDEM_REQUIRE_PG is set, as it is in
// CI.
//
// It is imported by tests only.
package testkit
