package teamsadmin

import (
	"net/http"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Codes of faults.
const (
	// CodeUnknown: a change was sent and its answer is lost. Read the object back before repeating it.
	CodeUnknown      = wire.CodeUnknown
	CodeUnreadable   = wire.CodeUnreadable // the service may have changed
	CodeTokenRefused = wire.CodeTokenRefused
	CodeRoleMissing  = "TeamsRoleMissing" // the account, or the application, may not do this
	CodeExists       = "ObjectExists"
	// CodeNotReady: what the change refers to is not known yet (a domain that is not activated, an object made a moment
	// ago), or the change is not visible yet.
	CodeNotReady   = "NotReady"
	CodeInUse      = "ObjectInUse"
	CodeUsagesLost = "UsagesLost" // PSTN usages that were not to be changed are gone
	CodeNoNumbers  = "NumbersUnsupported"
)

// Error is a request that the service refused or did not answer. Its ids are correlation ids.
type Error = wire.Error

// meanings are by status; 403 is a missing role and no matter of the token (teams-tenant §4 [C]).
var meanings = map[int]wire.Meaning{
	http.StatusUnauthorized: wire.TokenRefused,
	http.StatusForbidden: {Kind: fault.Forbidden, Code: CodeRoleMissing, What: "a Global Administrator or Privileged " +
		"Role Administrator gives the account that signed in, or the application if it acts on its own, the role " +
		"Teams Administrator; the application also needs the permission Organization.Read.All. Then " +
		wire.TokenRefused.What + ", or waits an hour"},
	http.StatusNotFound: {Kind: fault.NotFound, Code: "NotFound",
		What: "it does not exist, or is not visible yet"},
	http.StatusConflict:        {Kind: fault.Conflict, Code: CodeExists, What: "read it back"},
	http.StatusTooManyRequests: {Kind: fault.Limited, Code: "TooManyRequests", What: "retry"},
}

const passingRetry = time.Minute

// passing are refusals that end when the tenant's state has propagated (teams-tenant §8), by a part of their text. Only
// the first text is documented [P]; the others are assumed [K].
var passing = map[string]wire.Meaning{
	"was not configured for this tenant": {Kind: fault.Unavailable, Code: CodeNotReady, Wait: passingRetry,
		What: "the domain is not activated in Teams yet; this can take 24 hours from the first licensed user in it"},
	"cannot find specified": {Kind: fault.Unavailable, Code: CodeNotReady, Wait: passingRetry,
		What: "what it refers to is not known yet; retry"},
	"cannot be removed": {Kind: fault.Unavailable, Code: CodeInUse, Wait: passingRetry,
		What: "it is in use; remove what refers to it, then retry"},
}

// Meaning says what callers can do about a refusal, by its status and its text.
func Meaning(e *Error) wire.Meaning {
	if m, known := meanings[e.Status]; known {
		return m
	}
	if e.Status >= 500 {
		return wire.Meaning{Kind: fault.Unavailable, Code: "TeamsUnavailable", What: "retry"}
	}
	for text, m := range passing {
		if strings.Contains(strings.ToLower(e.Message), text) {
			return m
		}
	}
	return wire.Meaning{Kind: fault.Invalid, Code: "TeamsRefused", What: "correct the settings"}
}
