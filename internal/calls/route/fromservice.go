package route

import "github.com/tandemgw/tandem/internal/domain"

// fromService decides a call from a service: it goes to the core only, whatever the called number is provisioned for.
// If the number belongs to another service, the core sends the call back to us.
func (x *decision) fromService(g *group) bool {
	x.d.Service, x.d.Rule = g.service, RuleServicesCore
	t := g.service.Traits()
	if x.f.Called == "" {
		return x.reject(RuleCalledNumber, 404, "the Request-URI contains no number")
	}
	// gateway-calls §7: recognised before anything that could refuse the call.
	x.d.Emergency = x.p.Emergency(x.f.Called)
	if x.d.Emergency {
		x.note(RuleEmergency, Note, sentence{"an emergency number: the call is not refused because of its caller"},
			Fact{"called", x.f.Called})
	} else {
		x.note(RuleEmergency, Continue, sentence{"not an emergency number"}, Fact{"called", x.f.Called})
	}
	x.note(RuleServicesCore, Decides, sentence{"a call from ", t.Title, " goes to the core only"},
		Fact{"called", x.f.Called})
	if !t.CarriesCalls && !x.d.Emergency {
		return x.reject(RuleCarriesCalls, 480, t.Title+" carries no calls through this gateway yet",
			Fact{"service", g.service.String()})
	}
	x.d.Groups = x.p.services[g.service.ID()].core
	if len(x.d.Groups) == 0 {
		return x.reject(RuleTarget, 503, "no peer group of the core is configured for calls from "+t.Title,
			Fact{"service", g.service.String()})
	}

	x.d.Caller, x.d.IdentitySource = x.caller()
	x.d.Identity = x.d.Caller
	if t.Labelled && !x.labelledAccount() {
		return false
	}
	customers := x.identity()
	if t.Screening {
		if !x.screen(customers) {
			return false
		}
		x.presented()
	}
	// gateway-calls §2.1: a call to the network carries the value of the calling number, and only a number of the
	// call's own customer, so that no customer is billed for another's call.
	if customers {
		x.header(x.d.Identity, "calling")
	} else {
		x.header("", "calling")
	}
	x.d.Outcome = ToCore
	if x.steps != nil {
		x.note(RuleTarget, Note, sentence{"to the core"}, Fact{"peerGroups", list(x.d.Groups)})
	}
	return true
}

// caller returns the caller: the first usable P-Asserted-Identity, else From. A customer's user can choose From; the
// service vouches for the asserted identity (RFC 3325).
func (x *decision) caller() (domain.E164, domain.IdentitySource) {
	for i := range x.f.Asserted {
		if n := x.f.Asserted[i].Number; n != "" {
			return n, domain.IdentityAsserted
		}
	}
	if n := x.f.From.Number; n != "" {
		return n, domain.IdentityFrom
	}
	return "", domain.IdentityNone
}

// labelledAccount finds the account by the label in the Request-URI's host. It rejects a call to an unknown name, which
// cannot be screened: the service sends each customer's calls to the customer's own name.
func (x *decision) labelledAccount() bool {
	t := x.d.Service.Traits()
	refuse := func(text string, facts ...Fact) bool {
		if x.d.Emergency {
			x.note(RuleAccount, Note, sentence{text, "; ignored for an emergency call"}, facts...)
			return true
		}
		return x.reject(RuleAccount, 403, text, facts...)
	}
	if x.f.HostUnknown {
		num, found := x.numberOf(x.d.Caller)
		if !found {
			return refuse("no Request-URI host was given and the caller is not provisioned, so the account is unknown")
		}
		x.d.Account, x.d.Label = num.Account, num.Account.LabelIn(num.Slot)
		x.note(RuleAccount, Note, sentence{"no Request-URI host was given: the caller's own account is assumed"},
			Fact{"account", num.Account.Name})
	} else {
		label, isLabel := x.p.Label(x.f.Host)
		if x.f.Host == "" {
			return refuse("the Request-URI contains no host, so the account is unknown")
		}
		if !isLabel {
			return refuse("the Request-URI host "+x.f.Host+" is not the name of a customer of this gateway",
				Fact{"host", x.f.Host})
		}
		a := x.view.AccountByLabel(label)
		if a == nil {
			return refuse("no account has the Direct Routing label "+label, Fact{"host", x.f.Host})
		}
		x.d.Account, x.d.Label = a, label
		by := ""
		if label != a.Subdomain {
			by = ", by its pending label"
		}
		x.note(RuleAccount, Note, sentence{"the Request-URI host is the name of account ", a.Name, by},
			Fact{"host", x.f.Host}, Fact{"account", a.Name})
	}
	a := x.d.Account
	if !a.Enabled.Has(x.d.Service) {
		return refuse(t.Title+" is not enabled on account "+a.Name, Fact{"account", a.Name})
	}
	x.inDNS(a)
	return true
}

// identity chooses the calling identity: the caller if that number belongs to the customer, else the latest
// History-Info number that does (a forwarded call carries the outside caller in From), else Referred-By (a transferred
// call). If none does, it returns false and leaves the caller as identity. For a service whose calls do not name the
// account, any number that is provisioned for the service is accepted and determines the account.
func (x *decision) identity() bool {
	if x.customers(x.d.Caller, x.d.IdentitySource) {
		return true
	}
	for i := len(x.f.History) - 1; i >= 0; i-- {
		if x.customers(x.f.History[i].Number, domain.IdentityHistory) {
			return true
		}
	}
	if x.customers(x.f.ReferredBy.Number, domain.IdentityReferredBy) {
		return true
	}
	x.note(RuleIdentity, Note, sentence{"no number in the call belongs to the customer"},
		Fact{"identity", string(x.d.Identity)}, Fact{"source", x.d.IdentitySource.String()})
	return false
}

// customers reports whether number n, found in header src, belongs to the customer, and makes it the identity if so.
func (x *decision) customers(n domain.E164, src domain.IdentitySource) bool {
	if n == "" {
		return false
	}
	why := ""
	num, found := x.numberOf(n)
	switch {
	case !found:
		why = "is not provisioned"
	case x.d.Account != nil && num.Account.Name != x.d.Account.Name:
		why = "is not a number of account " + x.d.Account.Name
	case !num.Services.Has(x.d.Service):
		why = "is not provisioned for " + x.d.Service.Traits().Title
	}
	if why != "" {
		x.note(RuleIdentity, Continue, sentence{string(n), " in ", src.String(), " ", why})
		return false
	}
	x.d.Identity, x.d.IdentitySource, x.d.Account = n, src, num.Account
	x.note(RuleIdentity, Note, sentence{string(n), " in ", src.String(), " belongs to the customer"},
		Fact{"identity", string(n)}, Fact{"account", num.Account.Name})
	return true
}

func (x *decision) numberOf(n domain.E164) (Number, bool) {
	if n == "" {
		return Number{}, false
	}
	return x.view.Number(n)
}

// screen rejects a call that shows no number of its customer, if the customer's account has call screening
// (gateway-calls §3.1). An administrator of the customer's tenant can assign any number to a user; the operator must
// not carry calls from it.
func (x *decision) screen(customers bool) bool {
	a := x.d.Account
	switch {
	case x.d.Emergency:
		x.note(RuleScreening, Continue, sentence{"an emergency call is not screened"})
	case !a.CallScreening:
		x.note(RuleScreening, Continue, sentence{"account ", a.Name, " has call screening off"},
			Fact{"account", a.Name})
	case !customers:
		caller := string(x.d.Caller)
		own := " a " + x.d.Service.Traits().Title + " number of account " + a.Name
		text := "caller " + caller + " is not" + own + ", nor is any number in History-Info or Referred-By"
		if caller == "" {
			text = "the caller shows no number, and no number in History-Info or Referred-By is" + own
		}
		return x.reject(RuleScreening, 403, text, Fact{"account", a.Name}, Fact{"caller", caller})
	default:
		x.note(RuleScreening, Continue, sentence{"the caller is a number of account ", a.Name},
			Fact{"account", a.Name}, Fact{"identity", string(x.d.Identity)})
	}
	return true
}

// presented determines the number in From of a screened call. The network shows From, so a foreign number there would
// defeat the screening of the asserted identity. It stays if the account may present such numbers, and if the customer
// forwarded the call: From is then the outside caller's.
func (x *decision) presented() {
	a, d := x.d.Account, &x.d
	if d.Emergency || !a.CallScreening {
		return
	}
	d.Screened = true
	forwarded := d.Owns(x.view, x.f.ReferredBy.Number)
	for i := range x.f.History {
		forwarded = forwarded || d.Owns(x.view, x.f.History[i].Number)
	}
	res, text := Continue, ""
	switch {
	case !x.f.From.Numeric(), d.Owns(x.view, x.f.From.Number):
		text = "From shows a number of account " + a.Name + ", or none"
	case forwarded:
		text = "From is kept: History-Info or Referred-By shows that account " + a.Name + " forwarded the call"
	case x.p.presenters[a.Name]:
		text = "From is kept: account " + a.Name + " may present numbers that are not its own"
	default:
		d.From = d.Identity
		res, text = Note, "From does not show a number of account "+a.Name+": the asserted identity replaces it"
	}
	x.note(RulePresented, res, sentence{text}, Fact{"from", x.f.From.Text})
}
