package entra

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Outcome is what a refusal means for the onboarding of a tenant. It is the code of the fault.
type Outcome string

// The outcomes. The first three end without an action or at the operator's; the others wait for a person in the tenant.
const (
	Wait              Outcome = "ConsentPropagating" // our own consent is fresh: retry after the stated time
	Unavailable       Outcome = "EntraUnavailable"   // no usable answer: retry
	OurFault          Outcome = "AppRegistration"    // credential or registration wrong: alarm for the operator
	ConsentNeeded     Outcome = "ConsentNeeded"      // back to admin consent
	SignInNeeded      Outcome = "SignInNeeded"       // an interactive sign-in
	Declined          Outcome = "ConsentDeclined"    // the person refused
	AccountUnsuitable Outcome = "AccountUnsuitable"  // another account must sign in
	DeviceCodeBlocked Outcome = "DeviceCodeBlocked"  // a policy blocks the device code: use the browser
	DeviceCodeExpired Outcome = "DeviceCodeExpired"  // the code was not entered in time
	TenantNotFound    Outcome = "TenantNotFound"     // no such tenant
	Refused           Outcome = "SignInRefused"      // a refusal without a rule of its own
)

// Refusal is the cause of the faults of this package: the identity platform's answer.
type Refusal struct {
	Outcome  Outcome
	Code     int           // the AADSTS code that decided; 0 if there was none
	Lifetime time.Duration // of a sign-in under the tenant's sign-in frequency policy (70043); 0 if not stated

	// Claims are what the next interactive sign-in must ask for (SignIn.Claims); empty if nothing.
	Claims string

	OAuth       string // the member "error"
	Text        string // the member "error_description", cut to 1,000 bytes
	Trace       string // Microsoft's trace id
	Correlation string // Microsoft's correlation id
}

// Error returns Microsoft's text with the ids that its support asks for.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: %s (trace %s, correlation %s)", r.OAuth, r.Text, r.Trace, r.Correlation)
}

// rule is what an AADSTS code means: the outcome, what is wrong and what to do.
type rule struct {
	outcome Outcome
	what    string
}

const (
	interactive = "an administrator signs in again with the link"
	operator    = "; the operator corrects the app registration"
)

// codes says what an AADSTS code means: those of teams-tenant §1 [K], and others that Microsoft's page "Entra
// authentication and authorization error codes" names, with outcomes of ours.
var codes = map[int]rule{
	65001:  {ConsentNeeded, "the tenant has not consented to the app; an administrator gives admin consent (step 1)"},
	90094:  {ConsentNeeded, "only an administrator can consent to these permissions; start with step 1"},
	700016: {ConsentNeeded, "the app does not exist in the tenant; an administrator gives admin consent (step 1)"},
	500011: {ConsentNeeded, "the service asked for does not exist in the tenant: check that the tenant has a Teams " +
		"subscription, then give admin consent again (step 1)"},
	7000112: {ConsentNeeded, "the app is disabled in the tenant; enable sign-in under Enterprise applications"},
	65004:   {Declined, "the consent was declined; open the link again and accept, or ask the operator what it is for"},

	50076: {SignInNeeded, "the tenant requires multi-factor authentication; " + interactive},
	50079: {SignInNeeded, "the account must register for multi-factor authentication; " + interactive},
	50158: {SignInNeeded, "a conditional access policy wants another proof; " + interactive},
	53000: {SignInNeeded, "a conditional access policy wants a compliant device; " + interactive + " from one"},
	53001: {SignInNeeded, "a conditional access policy wants a joined device; " + interactive + " from one"},
	53003: {SignInNeeded, "a conditional access policy blocks the sign-in; exclude the service user from it, then " +
		interactive},
	53004: {SignInNeeded, "the account must complete multi-factor registration first; do so, then " + interactive},
	70043: {SignInNeeded, "a sign-in frequency policy ended the sign-in; exclude the service user from that policy, " +
		"or use the certificate mode, then " + interactive},
	700082: {SignInNeeded, "the sign-in expired because it was not used; " + interactive},
	50173:  {SignInNeeded, "the sign-in was revoked, for example by a password change; " + interactive},
	70008:  {SignInNeeded, "the sign-in expired or was revoked; " + interactive},
	70000:  {SignInNeeded, "the sign-in is not valid any more; " + interactive},
	50132:  {SignInNeeded, "the sign-in ended with a password change; " + interactive},
	50133:  {SignInNeeded, "the sign-in ended with a password change; " + interactive},
	50055:  {SignInNeeded, "the account's password expired; set a new one, then " + interactive},
	50053:  {SignInNeeded, "the account is locked; unlock it, then " + interactive},
	50057:  {SignInNeeded, "the account is disabled; enable it or choose another, then " + interactive},
	50034:  {SignInNeeded, "the account does not exist any more; choose another, then " + interactive},
	50105:  {SignInNeeded, "the account is not assigned to the app; assign it under Enterprise applications"},
	54005:  {SignInNeeded, "the sign-in was already used; " + interactive},

	50020: {AccountUnsuitable, "the account belongs to another organisation or is a personal one; sign in with an " +
		"administrator's account of the tenant"},
	16000:  {AccountUnsuitable, "the account does not exist in the tenant; sign in with one of its administrators"},
	90002:  {TenantNotFound, "the tenant does not exist; check its domain or id, and that it is in this cloud"},
	900023: {TenantNotFound, "the tenant's name is neither a domain nor an id; check it for typing errors"},

	7000215: {OurFault, "the client secret is wrong" + operator},
	7000222: {OurFault, "the client secret expired" + operator},
	7000218: {OurFault, "a client secret or certificate is required" + operator},
	700024:  {OurFault, "the signed assertion is outside its time; check the clock of this machine"},
	700027:  {OurFault, "the certificate is not registered or expired" + operator},
	7000214: {OurFault, "the certificate was revoked" + operator},
	1000502: {OurFault, "the certificate is outside its validity" + operator},
	50011:   {OurFault, "the redirect URI is not registered" + operator},
	50194:   {OurFault, "the app is not multi-tenant" + operator},

	70016: {Wait, "the code has not been entered yet"},
	70018: {DeviceCodeExpired, "the code was not accepted; start again for a new one"},
	70019: {DeviceCodeExpired, "the code expired; start again for a new one"},
	90033: {Unavailable, "the identity platform is temporarily unavailable; retry"},
	90024: {Unavailable, "the identity platform is busy; retry"},
}

// oauthErrors decide where no code is known (RFC 6749 §5.2 and §4.1.2.1, RFC 8628 §3.5, OpenID Connect §3.1.2.6).
var oauthErrors = map[string]rule{
	"invalid_client":          {OurFault, "the app's credential was not accepted" + operator},
	"unauthorized_client":     {OurFault, "the app may not do this" + operator},
	"invalid_grant":           {SignInNeeded, "the sign-in is not valid any more; " + interactive},
	"interaction_required":    {SignInNeeded, "the tenant wants an interactive sign-in; " + interactive},
	"login_required":          {SignInNeeded, "the tenant wants an interactive sign-in; " + interactive},
	"consent_required":        {ConsentNeeded, "the tenant has not consented to the app; start with step 1"},
	"access_denied":           {Declined, "the consent was declined; open the link again and accept"},
	"authorization_declined":  {Declined, "the sign-in was declined; start again"},
	"authorization_pending":   {Wait, "the code has not been entered yet"},
	"slow_down":               {Wait, "the code has not been entered yet"},
	"expired_token":           {DeviceCodeExpired, "the code expired; start again for a new one"},
	"bad_verification_code":   {DeviceCodeExpired, "the code was not accepted; start again for a new one"},
	"temporarily_unavailable": {Unavailable, "the identity platform is temporarily unavailable; retry"},
	"server_error":            {Unavailable, "the identity platform reports an error of its own; retry"},
}

// answer is an error of the token endpoint, or of a redirect to us.
type answer struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	Claims      string `json:"claims"`
	Trace       string `json:"trace_id"`
	Correlation string `json:"correlation_id"`
}

var (
	codeInText     = regexp.MustCompile(`AADSTS(\d{4,8})`)
	lifetimeInText = regexp.MustCompile(`maximum allowed lifetime for this request is (\d{1,9})`) // seconds
)

// fault says what the error means. deviceCode is set where it answers a device code.
func (a answer) fault(deviceCode bool) *fault.Error {
	for _, m := range codeInText.FindAllStringSubmatch(a.Description, 5) {
		n, _ := strconv.Atoi(m[1]) // at most 8 digits
		a.Codes = append(a.Codes, n)
	}
	ref := &Refusal{OAuth: wire.Clip(a.Error, 100), Text: wire.Clip(a.Description, 1000), Claims: a.Claims,
		Trace: wire.Clip(a.Trace, 100), Correlation: wire.Clip(a.Correlation, 100)}

	r, known := rule{Refused, "the identity platform refused; look the code up at " + Login + "/error"}, false
	for _, code := range a.Codes {
		ref.Code = cmp.Or(ref.Code, code)
		if found, ok := codes[code]; ok {
			r, known, ref.Code = found, true, code
			break
		}
	}
	if found, ok := oauthErrors[a.Error]; ok && !known {
		r = found
	}
	if ref.Code == 53003 && deviceCode {
		r = rule{DeviceCodeBlocked, "the tenant's policy blocks device codes; sign in with the link in a browser"}
	}

	ref.Outcome = r.outcome
	what := r.what
	if m := lifetimeInText.FindStringSubmatch(a.Description); m != nil && ref.Code == 70043 {
		s, _ := strconv.Atoi(m[1]) // at most 9 digits
		ref.Lifetime = time.Duration(s) * time.Second
		what += fmt.Sprintf(" (a sign-in lives %v there)", ref.Lifetime)
	}
	if ref.Code != 0 {
		what += fmt.Sprintf(" [AADSTS%d]", ref.Code)
	}
	return refuse(ref, what)
}

// refuse builds a fault. A person in the tenant resolves a conflict; the rest ends without one.
func refuse(ref *Refusal, what string) *fault.Error {
	kind := fault.Conflict
	if o := ref.Outcome; o == Wait || o == Unavailable || o == OurFault {
		kind = fault.Unavailable
	}
	return fault.New(kind, string(ref.Outcome), "%s", what).Because(ref)
}

// unavailable is the fault of a request without a usable answer; resp may be nil.
func unavailable(resp *http.Response, cause error) *fault.Error {
	f := fault.New(fault.Unavailable, string(Unavailable), "no usable answer from the identity platform; retry").
		Because(cause)
	if resp != nil {
		after, _ := wire.RetryAfter(resp.Header, time.Now())
		f.After(after)
	}
	return f
}

// redirected returns the error in the query of a redirect to us, nil if it has none.
func redirected(q url.Values) error {
	if q.Get("error") == "" {
		return nil
	}
	return answer{Error: q.Get("error"), Description: q.Get("error_description")}.fault(false)
}

func readAnswer(body []byte) (answer, error) {
	var a answer
	err := json.Unmarshal(body, &a)
	if err == nil && a.Error == "" {
		err = fmt.Errorf("an error without a code: %q", wire.Clip(string(body), 200))
	}
	return a, err
}
