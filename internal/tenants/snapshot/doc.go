// Package snapshot records what a tenant has by Tandem, so that it can have that again after it was left.
//
// A snapshot is a [Document], signed with the keyring. It has what Tandem had made and how that was found, and what
// users had before Tandem: numbers, policies, dial plans. It can be exported and imported; it is verified whenever it
// is used.
//
// [Plan] compares three states to restore one: the snapshot, what was there before Tandem or what Tandem has set since,
// and the present. What a person has changed in between is reported and stays. [Outcomes] is the report of a leave: of
// each thing that Tandem had made, that it is gone, or why it was kept.
package snapshot
