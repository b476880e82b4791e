// Package replica is the number index in the memory of an edge: what calls need to know of every account and number,
// fed by the provisioning change feed, kept on the edge's own disk so that calls route with the database away and after
// a restart without it.
//
// It is not the directory: it stores nothing that was not provisioned elsewhere, answers by exact number and label only,
// and decides nothing; see calls/route.
//
// # Life
//
//	Open      reads the newest good snapshot and the journals after it; a damaged file is set aside and the one before is used
//	Run       without a snapshot loads everything from the source; follows the feed; writes snapshots; at the end one more
//	View      the index, nil as long as none was ever loaded: the edge then answers 503
//
// A change is applied in memory, then appended to the journal and synced with the others of its batch. So a process
// killed at any moment comes back with every change it has routed by, whether or not the database answers.
//
// Every read of the feed verifies that the index is a state of the database's history (see package feed). If it is not,
// because entries were pruned or the database was set back, everything is loaded beside the old view, which serves
// until the new one is complete:
//
//	same database, cursor found        follow, whatever the changes delete
//	same database, pruned or set back  load and swap, unless the index would shrink by more than a bound
//	another database, or shrunk        keep the old index, and warn, until Accept or until the first case holds again
//
// An index without an account has nothing to lose and takes any database.
//
// # Memory
//
// Numbers lie in pages of 100 consecutive ones. A page is never changed once it is published: a change builds another and
// swaps a pointer, so readers never wait and never see half a change. Pages are packed: one value for all numbers of a
// page that have the same account and services (the usual case: numbers come in blocks), else four bytes per number.
// Custom header values lie beside their page with their common beginning written once.
//
// # Files
//
// Snapshots and journals are streams of chunks sealed with AES-256-GCM under a key of their own, which lies in the
// file's head sealed by the Sealer. The tag is the checksum; order and end of the chunks are sealed as well.
package replica
