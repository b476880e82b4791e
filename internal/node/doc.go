// Package node wires everything: it is the only package that knows every room, builds them from a configuration in the
// right order, hands each what it declared it needs, and runs them until the process is asked to end.
//
// It holds no rule of the business. Main functions: Serve, which is "tandem serve"; Offline, which does what the commands
// need when no server runs. Nothing may import it but package cli and cmd/tandem.
//
// # Life of a process
//
//	lock the data directory ─▶ build ─▶ open every part in order ─▶ ready ─▶ (first signal) drain ─▶ cut
//	          │                  │               │
//	          └──────────────────┴───────────────┴─▶ any error here ends the process
//
// Afterwards a part that fails is started again alone, with growing pauses (supervisor). No part that the edge needs
// depends on the database: the replica serves what it has, from memory or from the disk.
package node
