// Package invite lets the administrator of a tenant authorise Tandem and sign in, and keeps what that gives: the access
// to the tenant.
//
// A person gets there by a link, which [Service.CreateInvitation] makes and whose pages [Service.Serve] shows on the
// public front to people without an account in Tandem, or from the command line ([Service.StartSignIn]). Either way the
// person makes up to three trips to Microsoft:
//
//	consent    an administrator accepts the application's permissions for the whole tenant
//	identify   the same person signs in: the redirect of a consent can be forged, the token of a sign-in cannot
//	integrate  an administrator of Teams signs in for good; the sign-in is kept (or the application has the role)
//
// A trip is an [Attempt] in a [Session], which belongs to one browser by a cookie or to one run of the command line.
// Its state is used once. Sessions end after an hour.
//
//	invited ──consent, identify──▶ authorised ──readiness shown──▶ readinessSeen ──integrate──▶ integrated
//	                                                                                  ▲   lost │
//	                                                                        integrate └── needsSignIn
//
// [Service.Reconcile] uses the access each day, so that the sign-in does not lapse and its loss is noticed: disabled
// account, reset password, removed roles, a policy that ends sign-ins. [Service.Check] does so before a job.
//
// The package knows no HTTP client, database or template of another job: Microsoft is a [Login] and an [Inspector], the
// rows are a [Store], and what other jobs show on the pages is a [Readiness] and a [Progress].
package invite
