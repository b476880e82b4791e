// Package plan compares what a tenant should have with what it has, and lists what to change. It is pure: package
// onboard reads the tenant, stores plans and carries them out.
//
// Everything in a tenant is an [Object] of a [Type] with a name and fields; what is special about a type is in the
// table types. So a change of the settings, the removal of everything (nothing is desired), a restore (the objects of a
// snapshot are desired) and the search for drift (a plan that is not carried out) are all [Compare].
//
// Ownership is what the ledger says, never what a name looks like: an object that Tandem has not made is not changed,
// and not deleted.
package plan
