// Package graph is a typed client of the part of Microsoft Graph v1.0 that onboarding uses, on the pipeline of azcore.
// What to do with the answers (free seats, which licence, what is ours) is up to the jobs.
//
// An operation is a value: a [Call], sent alone by [Call.Do] or with up to 19 others by [Client.Batch], or a [List],
// read page by page by [List.Pages]. The fields of types are those that are used.
//
// One layer repeats requests. What Graph throttled is repeated after the stated wait, in a batch only the parts
// concerned. Reads are also repeated after 5xx and lost connections, with jittered back-off. A 401 renews the token
// once. A change is never repeated blindly: if its answer is lost, or is 5xx, the error has the code [CodeUnknown] and
// the caller reads the object back. Long waits are returned as fault.Limited or fault.Unavailable with RetryAfter.
//
// A [Budget], shared by all clients of the process, keeps each tenant below its throttle.
//
// Errors are *fault.Error with Graph's own code, and an [*Error] with the request ids as the cause.
package graph
