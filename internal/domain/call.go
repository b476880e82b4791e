package domain

import "strings"

// CallFacts holds what the routing decision may use of a call's INVITE. calls/leg reads it from the message once, and
// it does not change afterwards. The strings may be parts of the message; nothing here is parsed again.
type CallFacts struct {
	// PeerGroup is the name of the peer group the INVITE came from. Whether that is the operator's core or a service
	// is configuration, not a fact of the call.
	PeerGroup string
	// Called is the Request-URI's number as dialled: "+442079460123", "999", or empty if it has none. Parameters such
	// as ";rn=" are not part of it; visual separators are left out.
	Called string
	// CalledContext is the phone-context of a called number without "+" where that is a global prefix such as "+44".
	CalledContext string
	// Host is the Request-URI's host in lower case, without port and without a final dot; empty for a tel: URI.
	Host string
	// HostUnknown is set only by explain, for a query that names no host: where the host would determine the account,
	// the caller's own account is used. It is never set for a call received from the network.
	HostUnknown bool
	// Asserted holds the P-Asserted-Identity values in the order of the message (RFC 3325 allows at most one sip: and
	// one tel:; more occur in practice).
	Asserted []Party
	// From is the From header's party.
	From Party
	// History holds the History-Info entries in the order of their indexes, oldest first (RFC 7044). Entries marked as
	// private are included, because the peers are in the trust domain.
	History []Party
	// ReferredBy is the Referred-By header's party (RFC 3892).
	ReferredBy Party
	// Anchored is set when the INVITE carries X-MS-FMC; AnchoredBy is its value (APP, MO, MT or another).
	Anchored   bool
	AnchoredBy string
}

// Party is one party of a call as a header names it.
type Party struct {
	// Number is set if the header's URI holds an E.164 number.
	Number E164
	// Text is the URI's user part as received, or the whole URI if it has none; for explanations.
	Text string
	// Context is the phone-context of a number without "+" where that is a global prefix such as "+44".
	Context string
}

// Numeric reports whether the party is a number, E.164 or not, rather than a name.
func (p Party) Numeric() bool {
	return p.Number != "" || p.Text != "" && strings.IndexByte("+0123456789*#", p.Text[0]) >= 0
}

// IdentitySource names the header that a call's identity was taken from.
type IdentitySource uint8

// The sources, strongest first.
const (
	IdentityNone IdentitySource = iota
	IdentityAsserted
	IdentityFrom
	IdentityHistory
	IdentityReferredBy
)

var identitySources = [...]string{"none", "P-Asserted-Identity", "From", "History-Info", "Referred-By"}

// String returns the header's name, or "none".
func (s IdentitySource) String() string { return identitySources[s] }
