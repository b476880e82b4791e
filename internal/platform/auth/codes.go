package auth

// Error codes of this package's faults, in the contract's error vocabulary.
const (
	CodeInvalidToken      = "InvalidAuthenticationToken" // malformed, wrongly signed, or a claim is wrong
	CodeExpiredToken      = "ExpiredAuthenticationToken" // no longer valid
	CodeIssuerUnavailable = "IssuerUnavailable"          // no keys of the issuer to check the token with
	CodeInvalidRole       = "InvalidRole"                // management API: no role, or one that does not exist
	CodeInvalidClientName = "InvalidClientName"          // management API: not 1–100 printable characters
	CodeClientNotFound    = "ClientNotFound"             // management API: no client has that id
	CodeNotAClient        = "NotAClient"                 // management API: not a client of the embedded issuer
)
