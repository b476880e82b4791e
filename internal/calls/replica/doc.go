// Package replica is the number index in the memory of an edge: everything that calls need to know about accounts and
// numbers. The provisioning change feed updates it, and the edge's own disk keeps it, so that calls are routed while
// the database is unavailable and after a restart without it.
//
// It is not the directory: it stores nothing that was not provisioned elsewhere, answers by exact number and label
// only, and decides nothing; see calls/route.
//
// # Life cycle
//
//	Open      reads the newest usable snapshot and the journals after it; sets a damaged file aside and uses the one
//	          before it
//	Run       without a snapshot, loads everything from the source; follows the feed; writes snapshots, and a last one
//	          at the end
//	View      the index, nil as long as none was ever loaded: the edge then answers 503
//
// A change is applied in memory, then appended to the journal and synced with the others of its batch. So a process
// killed at any moment restarts with every change that it has routed by, whether or not the database answers.
//
// Every read of the feed verifies that the index is a state of the database's history (see package feed). If it is not,
// because entries were pruned or the database was set back, the index is reloaded into a new view; the old one serves
// until the new one is complete:
//
//	same database, cursor found        follow, however much the changes delete
//	same database, pruned or set back  reload and swap, unless the index would shrink beyond a limit
//	another database, or shrunk        keep the old index and warn until Accept, or until the first case applies again
//
// An index without an account has nothing to lose and accepts any database.
//
// # Memory
//
// Numbers are stored in pages of 100 consecutive numbers. A published page never changes: a change builds a new one and
// swaps a pointer, so readers never wait and never see half a change. Pages are packed: one value if all numbers of the
// page have the same account and services (the usual case: numbers are assigned in blocks), else four bytes per number.
// A value is the id of an account with a set of services and the slot of a label, which is stored once. Custom header
// values are stored next to their page, their common prefix only once.
//
// # Files
//
// Snapshots and journals are streams of chunks sealed with AES-256-GCM. Each file has its own key, stored in its head
// and sealed by the Sealer. The tag is the checksum; order and end of the chunks are sealed too.
package replica
