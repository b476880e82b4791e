// Package directory is the system of record for customers and their numbers: every change to an account, a number or a
// request for information goes through it, whatever its source (Provisioning API, management API, import, lab seed).
//
// All rules are here, and only here: what a valid account or number is, which services exclude each other, what is
// frozen while numbers depend on it, conditional requests, repeatability and the atomicity of batches. A rule that
// differs by service asks the service's domain.Traits; the package never compares a service with a constant.
//
// Every change writes its rows, one or more entries of the provisioning feed (each a JSON array of domain.Change) and
// one hash-chained audit row in a single transaction. A write that would leave a resource exactly as it is writes
// nothing: its version, its ETag and the feed stay as they were.
//
// It does not deal with wire formats (provapi renders), authorisation (the caller has done it; the actor is in the
// context, domain.WithActor) or pushing data to back-end services. Storage is an interface declared in store.go and
// implemented by store/provisioning on both databases.
//
// The main types are Directory (the operations), Write (what a contract write may carry besides its body), Condition,
// Once and Result. Errors are *fault.Error with a code from codes.go. All methods are safe for concurrent use.
package directory
