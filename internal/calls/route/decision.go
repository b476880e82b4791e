package route

import "github.com/tandemgw/tandem/internal/domain"

// View is what the decision reads from the number index. Implementations never block and are safe for concurrent use;
// values that they return do not change afterwards.
type View interface {
	// Number returns what is provisioned for a number; ok is false if nothing is.
	Number(n domain.E164) (num Number, ok bool)
	// CustomHeader returns the value of the operator's custom SIP header provisioned with a number; empty for none.
	CustomHeader(n domain.E164) string
	// AccountByLabel returns the account that owns a Direct Routing label (lower case), active or pending, or nil if
	// there is none.
	AccountByLabel(label string) *domain.AccountRouting
}

// NoNumbers is the view of a gateway that has never loaded an index. It is used to decide emergency calls from a
// service, which need nothing from the index. It must not be used for other calls: every number would seem to be
// unprovisioned.
var NoNumbers View = noNumbers{}

type noNumbers struct{}

func (noNumbers) Number(domain.E164) (Number, bool)            { return Number{}, false }
func (noNumbers) CustomHeader(domain.E164) string              { return "" }
func (noNumbers) AccountByLabel(string) *domain.AccountRouting { return nil }

// Number is what the index holds for one number.
type Number struct {
	// Account owns the number. It is never nil; an account that the index does not know yet has a name only.
	Account *domain.AccountRouting
	// Services are the services enabled on the number.
	Services domain.ServiceSet
	// Slot is the slot of the account's label that calls to the number use; NoSlot for the active one.
	Slot domain.Slot
}

// Outcome is the outcome of a decision.
type Outcome uint8

// The outcomes. Rejected is the zero value, so that a call without an outcome is not let through.
const (
	Rejected  Outcome = iota
	ToService         // to Decision.Service
	ToCore            // from Decision.Service to the operator's core
)

var outcomes = [...]string{"rejected", "toService", "toCore"}

// String returns "rejected", "toService" or "toCore".
func (o Outcome) String() string {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return outcomes[0]
}

// Rule names a rule of the decision. The names are stable: they appear in metrics, records and explanations.
type Rule string

// The rules.
const (
	RulePeerGroup    Rule = "peer-group"            // the call's peer group is known, and is core or service
	RuleEmergency    Rule = "emergency"             // emergency dial strings go to the core only
	RuleNumbers      Rule = "numbers"               // the peer group's rules convert a number to E.164
	RuleCalledNumber Rule = "called-number"         // the called number is E.164
	RuleVerification Rule = "verification-number"   // service-verification numbers go to their service
	RuleProvisioned  Rule = "provisioned-service"   // the service enabled on the called number
	RuleEnabled      Rule = "account-service"       // that service is enabled on the account
	RuleCarriesCalls Rule = "service-carries-calls" // that service carries calls in this version
	RuleLabel        Rule = "direct-routing-label"  // the account has a label
	RuleDefault      Rule = "default-service"       // the peer group's default service
	RuleAnchored     Rule = "already-anchored"      // X-MS-FMC: do not send to Phone System again
	RuleServicesCore Rule = "services-to-core"      // a service's calls go to the core only
	RuleAccount      Rule = "calling-account"       // which customer a service's call belongs to
	RuleIdentity     Rule = "calling-identity"      // which of the call's numbers belongs to that customer
	RuleScreening    Rule = "caller-screening"      // a caller of another customer is refused
	RulePresented    Rule = "presented-number"      // From shows no foreign number along with the customer's
	RuleHeader       Rule = "custom-header"         // the custom header's value
	RuleTarget       Rule = "target-peer-group"     // the peer group the call goes to
)

// Decision is the decision about one call. Its slices and pointers are shared: do not change them.
type Decision struct {
	Outcome Outcome
	// Rule is the rule that decided where the call goes, or rejected it.
	Rule Rule
	// Service is the service on the far side (ToService) or the near side (ToCore); NoService if rejected before it
	// was known.
	Service domain.Service
	// Groups are the target peer groups, in the order to try them; at least one unless rejected. The edge chooses the
	// order of the peers within a group.
	Groups []string
	// Account is the customer the call belongs to; nil if none is known.
	Account *domain.AccountRouting
	// Label is the customer's Direct Routing label in messages to the service: the one recorded for the called number,
	// else the active one; of a call from the service, the one it came under. Empty if the call has none.
	Label string
	// Called is the called number if it is E.164.
	Called domain.E164
	// Identity is the calling identity: the number used for the record and the custom header. It is the asserted caller
	// unless a forwarded call needed another; empty if the call contains no E.164 number.
	Identity domain.E164
	// IdentitySource is the header that Identity was taken from.
	IdentitySource domain.IdentitySource
	// Caller is the asserted caller, whatever the result of screening; empty if unknown.
	Caller domain.E164
	// Screened is set when the service's messages to the core may assert only the customer's numbers and the caller's.
	Screened bool
	// From replaces a foreign number in From of a call to the core; empty leaves From unchanged.
	From domain.E164
	// Header is the value of the operator's custom SIP header for messages of this call that go to the core; empty for
	// none. It never goes to a service.
	Header string
	// Emergency marks a call to an emergency dial string.
	Emergency bool
	// Status and Warning are the response to a rejected call: a SIP status code and the text of its Warning 399. The
	// text contains no character that needs escaping in a SIP quoted-string.
	Status  int
	Warning string
}

// Owns reports whether a number is provisioned on the call's account, for any service.
func (d *Decision) Owns(view View, n domain.E164) bool {
	num, ok := view.Number(n)
	return ok && d.Account != nil && num.Account.Name == d.Account.Name
}

// Result is the result of one rule.
type Result string

// The results.
const (
	Continue Result = "continue" // the rule does not decide: the next one is tried
	Note     Result = "note"     // the rule settled something other than the target
	Decides  Result = "decides"  // the rule decides where the call goes
	Rejects  Result = "rejects"  // the rule rejects the call
	Warns    Result = "warns"    // something needs attention, but does not stop the call
)

// Fact is one fact that a rule looked at.
type Fact struct {
	Name, Value string
}

// Step is one rule tried: one row of an explanation.
type Step struct {
	Rule   Rule
	Result Result
	Text   string // one sentence for the reader
	Facts  []Fact
}

// Explanation is a decision together with the rules that led to it.
type Explanation struct {
	Decision Decision
	Steps    []Step
}
