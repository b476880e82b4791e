// Package testkit gives tests the real databases they must run on.
//
// PostgreSQL is private to the tests: a cluster of its own in a temporary directory, reachable over a Unix socket only,
// with locale C, run by an unprivileged user when the tests run as root. All test programs of one user that run at the
// same time share one cluster, started by the first and stopped by a watchman a few seconds after the last has ended,
// however it ended. Each test gets a database of its own, copied from a template that already has the schema. That shared
// cluster does not wait for the disk; what is about crashes starts a Cluster of its own that does, and may kill it.
//
// Without the PostgreSQL programs tests are skipped with the reason, or fail if TANDEM_REQUIRE_PG is set, as it is in CI.
//
// It is imported by tests only.
package testkit
