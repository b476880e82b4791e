// Package teamsadmin configures Teams in a customer's tenant as the cmdlets of the MicrosoftTeams module do: dial
// plans, PSTN usages, gateways, routes, policies and their grants, for which Microsoft Graph has no API.
//
// [Admin] is the contract. Its objects are named and have parameters as in the cmdlets ([Object]: type, identity,
// settings), so that a worker with the PowerShell module, which Microsoft supports, can implement it as well.
//
// [Client] implements it by the HTTPS service that the module itself uses. That service is undocumented, may change
// without notice, and is not supported by Microsoft: it is off unless [Config].Enabled is set. What is known of it is
// teams-tenant §4, read in the code of others [C]; each assumption [I] is in one place. An answer that is not
// understood is an error, never an empty list.
//
// One layer repeats requests: what was throttled after the stated wait; reads also after 5xx and lost connections. A
// 401 renews the token once. A change is never repeated blindly: if its answer is lost, or is 5xx, the error has the
// code [CodeUnknown] and the caller reads back. Reads may show the state before a change for a minute or more.
//
// Errors are *fault.Error, with an [*Error] as the cause where the service refused or did not answer.
package teamsadmin
