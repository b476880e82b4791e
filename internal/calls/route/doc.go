// Package route decides where a call goes: from the facts of its INVITE, a view of the provisioned numbers and the
// operator's policy, it determines a target, a header value and an identity, or a rejection that names the rule.
//
// It is pure: no I/O, no clock, no logging, no state. Live calls and `tandem explain` run the same code; the only
// difference is that Explain records the rules it tried and Decide does not.
//
// It does not choose a peer within a group, which depends on the peers' health, and it does not shape messages; see
// calls/edge and calls/leg.
//
// # Types
//
//	Config    the operator's settings; Compile makes a Policy from them and the peer groups
//	View      what the decision reads from the number index
//	Decide    facts, view and policy to a Decision
//	Explain   the same, with one Step for each rule tried
//
// # The rules
//
// From the core, in order: the called number must not be an emergency number; it must be E.164; a service-verification
// number goes to its service; a provisioned number goes to the service enabled on it, if the account has that service
// too and the service carries calls; any other number goes to the peer group's default service or, without one, is
// rejected; a call that is already anchored in Phone System (X-MS-FMC) does not go there again.
//
// From a service: always to the core and never to another service; the account is found, the caller is screened if the
// account has call screening, and the identity found selects the custom header. Screening never rejects emergency
// calls.
package route
