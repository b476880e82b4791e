package auth

// Error codes of this package's faults, in the contract's error vocabulary.
const (
	CodeMissingToken      = "MissingAuthenticationToken" // no Authorization header, or not a Bearer one
	CodeInvalidToken      = "InvalidAuthenticationToken" // malformed, wrongly signed, or a claim is wrong
	CodeExpiredToken      = "ExpiredAuthenticationToken" // was good once
	CodeIssuerUnavailable = "IssuerUnavailable"          // the token cannot be checked: its issuer's keys were never had
	CodeInvalidRole       = "InvalidRole"
	CodeInvalidClientName = "InvalidClientName"
	CodeClientNotFound    = "ClientNotFound"
	CodeIssuerDisabled    = "EmbeddedIssuerDisabled"
)
