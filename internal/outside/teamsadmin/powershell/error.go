package powershell

import (
	"net/http"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
)

// refusals are what errors of cmdlets mean, as statuses of HTTP: the first whose text is in the error's code or message
// counts, without regard to case. Codes begin with the status of the service behind the module, such as
// "Forbidden,Microsoft.Teams.ConfigApi.Cmdlets…" (seen in public reports [C]); other texts are assumed [K].
var refusals = []struct {
	text   string
	status int
}{
	{"toomanyrequests", http.StatusTooManyRequests}, {"too many requests", http.StatusTooManyRequests},
	{"throttl", http.StatusTooManyRequests},
	{"unauthorized", http.StatusUnauthorized}, {"expiredtoken", http.StatusUnauthorized},
	{"token has expired", http.StatusUnauthorized}, {"token is expired", http.StatusUnauthorized},
	{"lifetime validation failed", http.StatusUnauthorized},
	{"difference in the time range of expiration", http.StatusUnauthorized}, // both tokens are renewed [C]
	{"forbidden", http.StatusForbidden}, {"access denied", http.StatusForbidden},
	{"already exists", http.StatusConflict}, {"conflict,", http.StatusConflict},
	{"management object not found", http.StatusNotFound}, {"was not found", http.StatusNotFound},
	{"user does not exist", http.StatusNotFound}, {"notfound,", http.StatusNotFound},
	{"internalservererror", http.StatusInternalServerError}, {"badgateway", http.StatusBadGateway},
	{"serviceunavailable", http.StatusServiceUnavailable}, {"gatewaytimeout", http.StatusGatewayTimeout},
	{"sending the request", http.StatusBadGateway}, {"timed out", http.StatusGatewayTimeout},
	{"was canceled", http.StatusGatewayTimeout},
	{"badrequest", http.StatusBadRequest}, {"clienterror", http.StatusBadRequest},
	{"parameter", http.StatusBadRequest},
	{"already been assigned", http.StatusBadRequest}, {"appropriate licenses", http.StatusBadRequest}, // numbers [C]
	{"on-premises active directory", http.StatusBadRequest},
	{"that tandem uses", http.StatusBadRequest}, // worker.ps1
}

// retryAfter is when to repeat what was throttled: cmdlets do not say.
const retryAfter = 30 * time.Second

// refused returns the fault of an error that a cmdlet reported. One that is not known may have come after the change.
func refused(cmdlet string, e *cmdletError) error {
	status := http.StatusInternalServerError
	for _, r := range refusals {
		if strings.Contains(strings.ToLower(e.Code+" "+e.Text), r.text) {
			status = r.status
			break
		}
	}
	if status >= 500 && changes(cmdlet) {
		return unknown(cmdlet, e)
	}
	m := teamsadmin.Meaning(&teamsadmin.Error{Status: status, Message: e.Text})
	f := fault.New(m.Kind, m.Code, "%s was refused: %s; %s", cmdlet, e.Text, m.What).Because(e)
	if m.Kind == fault.Limited || m.Kind == fault.Unavailable {
		f.After(max(m.Wait, retryAfter))
	}
	return f
}

// unknown returns the fault of a change that may have taken effect.
func unknown(cmdlet string, cause error) error {
	return fault.New(fault.Unavailable, teamsadmin.CodeUnknown, "whether %s took effect is unknown, because its "+
		"answer is lost; read the object back before repeating it", cmdlet).Because(cause)
}
