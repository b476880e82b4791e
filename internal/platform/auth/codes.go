package auth

// Error codes of this package's faults, in the contract's error vocabulary.
const (
	CodeMissingToken      = "MissingAuthenticationToken" // no Authorization header, or not a Bearer one
	CodeInvalidToken      = "InvalidAuthenticationToken" // malformed, wrongly signed, or a claim is wrong
	CodeExpiredToken      = "ExpiredAuthenticationToken" // was good once
	CodeIssuerUnavailable = "IssuerUnavailable"          // the token cannot be checked: its issuer's keys were never had
	CodeInvalidRole       = "InvalidRole"                // management API: a role that does not exist, or none
	CodeInvalidClientName = "InvalidClientName"          // management API: not 1–100 printable characters
	CodeClientNotFound    = "ClientNotFound"             // management API: no client has that id
	CodeNotAClient        = "NotAClient"                 // management API: tokens are made for clients of the embedded issuer only
)
