// Package db is the base of every store: it opens SQLite or PostgreSQL, maintains the schema, runs transactions, and
// provides what differs between the two (bulk loading) behind one interface.
//
// An acknowledged write must be durable, so the durability settings are checked at the start: SQLite in WAL mode with
// synchronous=FULL, PostgreSQL with synchronous_commit, fsync and full_page_writes on. A database that does not
// guarantee durability is refused.
//
// PostgreSQL may be unavailable at the start or at any time later. Open then succeeds, View and Update fail at once
// with fault.Unavailable and a RetryAfter, and work resumes when the server is available again: nothing needs a
// restart. Run monitors the server; it also detects one that accepts connections but no longer answers.
//
// Locks that every writer needs (the change feed's counter, the head of the audit chain) are taken at the very end of a
// transaction: code registers them with Tx.Last, in whatever order it calls. See audit.go for the audit chain.
//
// Each package that stores something has migrations of its own, a [Schema], in migrations/ with one directory per
// dialect; those of this package create the change feed, the audit log and the list of nodes. They are forward-only.
// Times are Unix microseconds, booleans are integers, documents are JSON text, and keys compare byte by byte on both
// databases, so that pages are the same.
//
// This is the only package that imports SQL drivers, and it does not depend on any job's tables. It is not an ORM:
// stores write SQL with $1-style parameters, which both databases accept.
package db
