// Package db is the ground under every store: it opens SQLite or PostgreSQL, keeps the schema, runs transactions, and
// offers what differs between the two (bulk loading) behind one interface.
//
// An acknowledged write is a promise, so durability is asserted at start, not hoped for: SQLite in WAL mode with
// synchronous=FULL, PostgreSQL with synchronous_commit, fsync and full_page_writes on. A database that would break the
// promise is refused.
//
// PostgreSQL may be away, at start or at any time later. Open then succeeds, View and Update fail at once with
// fault.Unavailable and a RetryAfter, and work goes on by itself when it is back: nothing needs a restart. Run watches
// over that; it also finds a server that accepts connections but no longer answers.
//
// Locks that every writer needs (the change feed's counter, the head of the audit chain) are taken at the very end of a
// transaction: code registers them with Tx.Last, whatever the order of its calls. See audit.go for the audit chain.
//
// Migrations of all rooms live in migrations/, one directory per dialect, in one numbered sequence: a database has one
// schema version. They are forward-only. Times are Unix microseconds, booleans are integers, documents are JSON text, and
// keys compare byte by byte on both databases, so that pages are the same.
//
// It is the only package that imports SQL drivers and knows no job's tables. It is not an ORM: stores write SQL with
// $1-style parameters, which both databases take.
package db
