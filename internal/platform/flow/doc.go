// Package flow runs reconciliations durably. Work is a key, reconcile(kind, id); the truth is in the rows of the job
// that owns the kind, so the whole queue may be lost: a sweep enqueues every row that is not at its desired state.
//
// A job's store calls [Queue.Enqueue] in the transaction of the change. A [Worker] on some node then calls the kind's
// Reconcile, which reads, compares, acts and records what it observed. It may be ended at any point and run again. One
// worker at a time runs a key, over all nodes; a change that arrives during a run causes another run.
//
// A key is a row of the table work, deleted when it is done:
//
//	             change, sweep             claim: owner and token set
//	(no row) ──────────────────▶ queued ─────────────────────────────▶ running ──▶ (no row)  done
//	                              ▲ ▲ ▲   changed meanwhile, again,    │  │  │
//	                              │ │ └── failed (back-off), stopped, ─┘  │  │
//	                              │ │     worker lost                     │  │
//	               resume, change │ └──────────────── waiting ◀───────────┘  │  for a person
//	                retry, change └────────────────── parked ◀───────────────┘  permanent error, or failed too often
//
// Each change increases the key's generation; a run that ends with another generation than it began with is followed by
// another run, whatever its outcome. A key has one due time, the earliest that was asked for.
//
// A worker's lease is its row in the table workers. On PostgreSQL it increases the row's beat; one that could not for
// 2 s cancels its runs, and one whose beat the others have seen unchanged for 3 s is dead: its keys are queued. No
// wall clocks are compared. On SQLite the lock on the file is the lease: a worker that starts queues all keys. What a
// run writes is fenced by owner and token ([Run.Step]).
//
// The keys of a kind that the configuration has lost are removed, by the sweeps of nodes that know this.
//
// It is no workflow engine: it keeps no history, inputs or results. The reasons are in
// docs/decisions/0020-work-queue.md. Main types: Queue, Kind, Run, Worker, Limit.
package flow
