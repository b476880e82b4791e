// Package entra obtains tokens of the Microsoft identity platform (v2) for one app registration, the operator's
// multi-tenant app.
//
// [App] knows the registration and its credential: a certificate, with which each request is signed, or a client
// secret. An administrator of a customer's tenant first opens [App.ConsentURL] (admin consent), then signs in, in a
// browser ([SignIn], [App.AuthoriseURL], [App.Redeem]) or with a device code ([App.StartDevice], [App.PollDevice]).
// The [Grant] says who signed in and holds a refresh token, which the caller seals and stores. [App.Connect] makes the
// tenant's [Connection] from it, or one of the application alone, without a user. A [Source] of the connection gives
// access tokens for one resource: Microsoft Graph, or [TeamsAdmin].
//
// Errors are *fault.Error. Each refusal has a [*Refusal] as its cause and the [Outcome] as its code; the message says
// what the administrator, or the operator, must do. The AADSTS code decides, not the member "error": the same code
// comes with different ones. Microsoft advises against that, because codes may change; an unknown code therefore
// falls back to "error".
//
// The package repeats no request; whoever runs a job does, at the time that the error states. It does not announce the
// client capability cp1: access tokens then live for about an hour, and a plain 401 and a claims challenge are handled
// alike.
//
// azidentity is not used: it keeps refresh tokens in a cache of its own, which cannot be filled from sealed rows or
// shared by nodes, gives no access to the id_token, and reports refusals as text.
package entra
