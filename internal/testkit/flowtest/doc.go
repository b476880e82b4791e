// Package flowtest has what tests of durable work share: databases on which a worker can be killed at every step, an
// example job that notices two workers at once, and the conformance suite of package flow, which runs on every
// database.
//
// It works inside testing/synctest bubbles, where leases and back-offs take no time. It is imported by tests only.
package flowtest
