// Package route decides where a call goes: from the facts of its INVITE, a view of the provisioned numbers and the
// operator's policy to a target, a header value, an identity, or a rejection that names the rule.
//
// It is pure: no I/O, no clock, no logging, no state. The live call and `tandem explain` run the same code; Decide
// keeps no record of the rules it tried, Explain does, and nothing else differs.
//
// It does not choose a peer within a group, which depends on the peers' health, nor shape a message; see calls/edge and
// calls/leg.
//
// # Types
//
//	Config    the operator's settings; Compile makes a Policy of it and the peer groups
//	View      what the decision asks of the number index
//	Decide    facts, view and policy to a Decision
//	Explain   the same, with one Step for each rule tried
//
// # The rules
//
// From the core, in order: the called number must not be an emergency number; it must be E.164; a service-verification
// number goes to its service; a provisioned number goes to the service enabled on it, if the account has that service
// too and the service carries calls; another number goes to the peer group's default service, or nowhere; a call that is
// already anchored in Phone System (X-MS-FMC) does not go there again.
//
// From a service: always to the core and never to another service; the account is found, the caller is screened where
// the account asks for it, and the identity found decides the custom header. Emergency calls are never screened away.
package route
