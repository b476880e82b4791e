// Package onboard brings a tenant to what its settings ask for, one step at a time, and removes everything again.
//
// A person approves a plan (package plan). Its objects are then the tenant's target, and a run of the tenant's key
// (package flow) does this until nothing differs from the target:
//
//	read the tenant ─▶ compare with the target ─▶ first step: record what it makes and what was there before
//	       ▲                                                    │
//	       └──────── read back, until it is there ◀──────── do it
//
// No step is remembered as done: what the tenant has is what counts. So a process may be killed anywhere, an answer may
// be lost, and a step may be done twice. What Tandem has made is in the ledger before it is made; leaving is the target
// without objects.
//
// A step that waits for Microsoft, for name servers or for a person ends the run, with the reason in the tenant's row.
// Later runs continue there. What Microsoft does not do now is waited for, however long that takes; only what no wait
// and no person can end is a failure.
//
// Users are not part of the target: each is brought to what it should have by a run of its own (package user). What
// users have is not removed before their runs have put back what they had before.
package onboard
