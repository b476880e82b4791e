// Package powershell implements [teamsadmin.Admin] by Microsoft's MicrosoftTeams module, the supported way to change
// the voice configuration of Teams. It is for deployments that have PowerShell 7 and the module on the machine.
//
// Not verified against the real module: neither could be installed where this was written. What the cmdlets accept is
// from their reference pages [P]; what is assumed about what they return, and the meaning of their errors, is in one
// place each, with its mark. The tests run a simulated child (sim/pwsh).
//
// A [Worker] runs child processes: pwsh with worker.ps1, a script that runs a fixed set of cmdlets and knows nothing
// else. A child belongs to one tenant and signs in once, because the module stays signed in in ways that Disconnect
// does not clean up; it has a home directory of its own for the same reason. With new tokens there is a new child.
// After the sign-in, and before a change if that was a minute ago, the child is asked which tenant it reaches. If that
// is another, it is killed, nothing is written, and [Options].WrongTenant is called with both ids.
//
// A tenant's commands run one after the other. A child that dies, takes too long, or breaks the protocol is killed with
// its process group; the next command starts another one after a back-off. A change that was sent to it has the outcome
// teamsadmin.CodeUnknown. Nothing is repeated, but what was refused with an expired token, once with a new one.
//
// # Protocol
//
// Version 1: one JSON object per line, Tandem's on stdin and the child's on stdout, in UTF-8.
//
//	{"id":1,"protocol":1,"module":"MicrosoftTeams"}                      loads the module
//	{"id":1,"done":true,"protocol":1,"version":"7.9.0"}
//	{"id":2,"cmdlet":"Get-CsTenant","parameters":{},"select":["TenantId"]}
//	{"id":2,"item":{"TenantId":"…"}}                                     for each object that it returns
//	{"id":2,"done":true,"warnings":[]}                                   or
//	{"id":2,"error":{"text":"Access Denied.","code":"Forbidden,Microsoft.Teams…"}}
//
// In parameters, an object {"$cmdlet":"New-CsVoiceNormalizationRule",…} stands for what that cmdlet returns. Tokens are
// parameters of Connect-MicrosoftTeams: they are in no argument and no environment variable, and are cut out of what is
// logged.
//
// Other lines on stdout, and stderr, are logged. Lines, answers and their number are bounded.
package powershell
