package route

import (
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// decision is one run of the rules. The methods follow the order of the package comment; those with a result return
// false if they have rejected the call.
type decision struct {
	view  View
	p     *Policy
	f     *domain.CallFacts
	steps *[]Step // of the explanation; nil in live calls
	d     Decision
}

// sentence is the text of a step in parts. They are joined only for an explanation, so that live calls do not pay for
// it.
type sentence []string

// note adds a step to the explanation. It keeps neither slice: in live calls they stay off the heap.
func (x *decision) note(rule Rule, res Result, text sentence, facts ...Fact) {
	if x.steps != nil {
		*x.steps = append(*x.steps, Step{rule, res, strings.Join(text, ""), append([]Fact(nil), facts...)})
	}
}

// reject ends the run: the call is answered with status, and text says why the rule rejects it and how to change that.
// It returns false.
func (x *decision) reject(rule Rule, status int, text string, facts ...Fact) bool {
	text += x.p.NotEmergency(x.f.Called)
	x.d.Outcome, x.d.Rule, x.d.Status, x.d.Warning = Rejected, rule, status, warningText(text)
	x.d.Groups, x.d.Header = nil, ""
	x.note(rule, Rejects, sentence{strconv.Itoa(status), ": ", text}, facts...)
	return false
}

func (x *decision) run() Decision {
	g := x.p.groups[x.f.PeerGroup]
	x.d.Called, _ = domain.ParseE164(x.f.Called)
	switch {
	case g == nil:
		x.reject(RulePeerGroup, 403, "peer group "+x.f.PeerGroup+" is not configured")
	case g.service == domain.NoService:
		x.note(RulePeerGroup, Note, sentence{"the call comes from the operator's core"}, Fact{"peerGroup", g.name})
		x.numbers(&g.numbers)
		x.fromCore(g)
	default:
		x.note(RulePeerGroup, Note, sentence{"the call comes from ", g.service.Traits().Title},
			Fact{"peerGroup", g.name}, Fact{"service", g.service.String()})
		x.numbers(&g.numbers)
		x.fromService(g)
	}
	return x.d
}

// fromCore decides a call from the operator's core by the called number (gateway-calls §2).
func (x *decision) fromCore(g *group) bool {
	x.d.Caller, x.d.IdentitySource = x.caller()
	x.d.Identity = x.d.Caller

	// gateway-calls §7: an emergency call never comes from the operator's network, whether the number is provisioned or
	// not.
	if x.p.Emergency(x.f.Called) {
		x.d.Emergency = true
		return x.reject(RuleEmergency, 403,
			x.f.Called+" is an emergency number; emergency calls are accepted from a service only, not from the core",
			Fact{"called", x.f.Called})
	}
	x.note(RuleEmergency, Continue, sentence{"not an emergency number"}, Fact{"called", x.f.Called})

	n := x.d.Called
	switch {
	case x.f.Called == "":
		return x.reject(RuleCalledNumber, 404, "the Request-URI contains no number")
	case n == "":
		// A guessed country code would send calls to strangers: report what is missing instead (RFC 3398 §7.2.4.1: an
		// invalid number format is 484).
		return x.reject(RuleCalledNumber, 484, "the called number "+x.f.Called+
			" is not in E.164 form (plus sign, country code, number)", Fact{"called", x.f.Called})
	}
	x.note(RuleCalledNumber, Continue, sentence{"the called number is in E.164 form"}, Fact{"called", string(n)})

	if s, ok := x.p.verification[n]; ok {
		x.d.Service, x.d.Rule = s, RuleVerification
		x.note(RuleVerification, Decides, sentence{string(n), " is a service-verification number of ", s.Traits().Title,
			"; its provisioning is ignored"}, Fact{"service", s.String()})
		return x.toService(g)
	}
	x.note(RuleVerification, Continue, sentence{"not a service-verification number"})

	s := domain.NoService
	num, provisioned := x.view.Number(n)
	if provisioned {
		x.d.Account = num.Account
		s = x.p.serviceOf(num.Services)
	}
	if s == domain.NoService && num.Services != 0 {
		// A later version provisioned it: the default service would be a wrong one.
		return x.reject(RuleCarriesCalls, 480, string(n)+" has a service that this version does not know; upgrade "+
			"this node", Fact{"account", num.Account.Name})
	}
	if s == domain.NoService {
		return x.unprovisioned(g, provisioned)
	}
	x.d.Service, x.d.Rule = s, RuleProvisioned
	if x.steps != nil {
		x.note(RuleProvisioned, Decides, sentence{string(n), " is provisioned for ", s.Traits().Title},
			Fact{"account", num.Account.Name}, Fact{"services", serviceNames(x.p.known.In(num.Services), nil)})
	}
	return x.usable(num) && x.toService(g)
}

// unprovisioned decides a call to a number on which no service is enabled.
func (x *decision) unprovisioned(g *group, known bool) bool {
	n := string(x.d.Called)
	what, facts := " is not provisioned", []Fact(nil)
	if known {
		what, facts = " has no service enabled", []Fact{{"account", x.d.Account.Name}}
	}
	x.note(RuleProvisioned, Continue, sentence{n, what}, facts...)
	if g.fallback == domain.NoService {
		return x.reject(RuleDefault, 404, n+what+"; peer group "+g.name+" has no default service")
	}
	x.d.Service, x.d.Rule = g.fallback, RuleDefault
	x.note(RuleDefault, Decides, sentence{"the default service of peer group ", g.name, " is ",
		g.fallback.Traits().Title}, Fact{"service", g.fallback.String()})
	return x.toService(g)
}

// usable checks that the account and the service of a provisioned number can take the call.
func (x *decision) usable(num Number) bool {
	a, n, s := num.Account, string(x.d.Called), x.d.Service
	t := s.Traits()
	if !t.CarriesCalls {
		return x.reject(RuleCarriesCalls, 480,
			n+" is provisioned for "+t.Title+", which carries no calls through this gateway yet",
			Fact{"service", s.String()})
	}
	x.note(RuleCarriesCalls, Continue, sentence{t.Title, " carries calls"})
	if !a.Enabled.Has(s) {
		return x.reject(RuleEnabled, 480, n+" is provisioned for "+t.Title+", which is not enabled on account "+a.Name,
			Fact{"account", a.Name}, Fact{"accountServices", serviceNames(x.p.known.In(a.Enabled), nil)})
	}
	x.note(RuleEnabled, Continue, sentence{t.Title, " is enabled on account ", a.Name}, Fact{"account", a.Name})
	if !t.Labelled {
		return true
	}
	x.d.Label = a.LabelIn(num.Slot)
	if x.d.Label == "" {
		return x.reject(RuleLabel, 480, "account "+a.Name+" has no Direct Routing label", Fact{"account", a.Name})
	}
	why := sentence{"no label is recorded for ", n, ": the active one of account ", a.Name, " is used"}
	if num.Slot != domain.NoSlot {
		why = sentence{"the label recorded for ", n, " is used"}
	}
	x.note(RuleLabel, Continue, why, Fact{"label", x.d.Label})
	x.inDNS(a)
	return true
}

// inDNS warns if the call's label is not in DNS as expected. Calls do not depend on that: one name server with old data
// must not cut off a customer. Only the state of the active label is known.
func (x *decision) inDNS(a *domain.AccountRouting) {
	if a.SubdomainStatus != 0 && x.d.Label == a.Subdomain {
		who := ": some name server does not answer"
		if a.SubdomainStatus == domain.SubdomainNotProvisioned {
			who = ": no name server answers"
		}
		x.note(RuleLabel, Warns, sentence{"subdomainStatus of label ", a.Subdomain, " is ", a.SubdomainStatus.String(),
			who, " as expected for its names, so ", x.d.Service.Traits().Title,
			" may not find this gateway by them"}, Fact{"label", a.Subdomain})
	}
}

// toService finishes the decision of a call from the core once its service is known.
func (x *decision) toService(g *group) bool {
	s := x.d.Service
	t := s.Traits()
	switch {
	case !x.f.Anchored:
		x.note(RuleAnchored, Continue, sentence{"no X-MS-FMC: not anchored in Phone System yet"})
	case t.PhoneSystem && !g.controlPoint:
		// operator-connect §4, gateway-calls §2: already anchored; sending it again would loop.
		return x.reject(RuleAnchored, 482,
			"the INVITE carries X-MS-FMC: the call is already anchored in Phone System and must not go to "+t.Title,
			Fact{"X-MS-FMC", x.f.AnchoredBy})
	case g.controlPoint:
		x.note(RuleAnchored, Continue,
			sentence{"X-MS-FMC comes from a Mobile Control Point: this call is to be anchored now"},
			Fact{"X-MS-FMC", x.f.AnchoredBy})
	default:
		x.note(RuleAnchored, Continue, sentence{"X-MS-FMC has no meaning for ", t.Title},
			Fact{"X-MS-FMC", x.f.AnchoredBy})
	}
	x.d.Screened = t.Screening && x.d.Account != nil && x.d.Account.CallScreening && x.d.Rule != RuleVerification
	// gateway-calls §2.1: messages returned for a call from the network carry the value of the called number.
	if x.d.Rule == RuleVerification {
		x.header("", "called") // provisioning of such a number is ignored
	} else {
		x.header(x.d.Called, "called")
	}

	x.d.Groups = x.p.services[s.ID()].peers
	if len(x.d.Groups) == 0 {
		return x.reject(RuleTarget, 503, "no peer group is configured for "+t.Title, Fact{"service", s.String()})
	}
	x.d.Outcome = ToService
	if x.steps != nil {
		x.note(RuleTarget, Note, sentence{"to ", t.Title}, Fact{"peerGroups", list(x.d.Groups)})
	}
	return true
}

// header sets the custom header's value from number n.
func (x *decision) header(n domain.E164, role string) {
	t := x.d.Service.Traits()
	switch {
	case !t.CustomHeader:
		x.note(RuleHeader, Note, sentence{t.Title, " has no custom header"})
		return
	case n == "":
		x.note(RuleHeader, Note, sentence{"no custom header: no ", role, " number belongs to the call's customer"})
		return
	}
	x.d.Header = x.view.CustomHeader(n)
	if x.d.Header == "" {
		x.note(RuleHeader, Note, sentence{"no custom header: the ", role, " number has none"}, Fact{role, string(n)})
		return
	}
	x.note(RuleHeader, Note, sentence{"messages to the core carry the ", role, " number's custom header value"},
		Fact{role, string(n)}, Fact{"value", x.d.Header})
}

// serviceOf chooses the service that takes a number's calls: the one that carries calls or, if none does, any other, so
// that the rejection can name it. A number has at most one exclusive service (design §6), so no ranking is needed; a
// set that breaks the rule still gives the same service every time.
func (p *Policy) serviceOf(set domain.ServiceSet) domain.Service {
	first := domain.NoService
	for _, s := range p.known {
		if !set.Has(s) {
			continue
		}
		if s.Traits().CarriesCalls {
			return s
		}
		// An exclusive service is the number's main one; an additional monitoring service is not the reason for the
		// rejection.
		if first == domain.NoService || s.Traits().Exclusive {
			first = s
		}
	}
	return first
}

// warningText replaces characters that a SIP quoted-string would have to escape (RFC 3261 §25.1): facts come from the
// wire.
func warningText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}
