// Package node wires everything together: it is the only package that knows all others. It builds them from a
// configuration in the right order, hands each the dependencies that it declares, and runs them until the process is
// asked to stop.
//
// It holds no business rules. Main functions: Serve, which is "tandem serve"; Offline, which serves the commands when
// no server runs; Restore. They differ in the roles that they build (role.go). Only package cli and cmd/tandem may
// import it.
//
// # Life of a process
//
//	lock the data directory ─▶ build each role ─▶ open every part in order ─▶ ready ─▶ (first signal) drain ─▶ cut
//	          │                       │                    │
//	          └───────────────────────┴────────────────────┴─▶ any error here ends the process
//
// Afterwards a part that fails is restarted on its own, with growing pauses (supervisor). No part that the edge needs
// depends on the database: the replica serves what it has, from memory or from disk.
package node
