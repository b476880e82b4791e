// Package explain answers the management API's question where a call would go, with the code of live calls: it builds
// the INVITE that the question describes, extracts its facts as the edge does, and makes the same decision over the
// same index. It places no calls.
package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Explainer answers questions. It is safe for concurrent use.
type Explainer struct {
	// View returns the number index that calls use now, or nil if none was ever loaded.
	View func() route.View
	// Position returns the change feed position of that index.
	Position func() int64
	Policy   *route.Policy
	// Groups maps the names of peer groups, and of peers, to the name of the group.
	Groups map[string]string
	// Peers returns the peer groups with the present state of their peers.
	Peers func() []api.PeerGroup
}

// anywhere is the host of numbers in questions without a host. It never reaches the decision.
const anywhere = "anywhere.invalid"

// ExplainCall returns where the call of the question would be routed, and why: the operation explainCall of the
// management API (api/manage/v1.yaml). Errors are *fault.Error.
func (x *Explainer) ExplainCall(_ context.Context,
	r api.ExplainCallRequestObject) (api.ExplainCallResponseObject, error) {
	q := *r.Body
	group, ok := x.Groups[q.Peer]
	if !ok {
		return nil, fault.New(fault.NotFound, "UnknownPeer",
			"there is no peer or peer group %q; tandem peers lists them", q.Peer).At("peer")
	}
	facts, err := x.facts(q, group)
	if err != nil {
		return nil, err
	}
	view := x.View()
	loaded := view != nil
	if !loaded {
		view = route.NoNumbers
	}
	ex := route.Explain(view, x.Policy, facts)
	if d := &ex.Decision; !loaded && !(d.Emergency && d.Outcome == route.ToCore) { // an emergency call needs no index
		return nil, fault.New(fault.Unavailable, "NoIndex",
			"this node has not loaded a number index yet; calls are answered 503")
	}
	out := answer(ex)
	out.Position = x.Position()
	states := x.Peers()
	for _, name := range out.Groups {
		if i := slices.IndexFunc(states, func(g api.PeerGroup) bool { return g.Name == name }); i >= 0 {
			out.PeerGroups = append(out.PeerGroups, states[i])
		}
	}
	return out, nil
}

func (x *Explainer) facts(q api.Question, group string) (domain.CallFacts, error) {
	var none domain.CallFacts
	to, err := uri("to", q.To, cmp.Or(q.Host, anywhere))
	if err != nil {
		return none, err
	}
	m := sip.NewRequest(sip.INVITE, to)
	add := func(target, name, value, suffix string) {
		u, bad := uri(target, value, anywhere)
		err = cmp.Or(err, bad)
		m.AddName(name, "<"+u+">"+suffix)
	}
	add("from", "From", q.From, ";tag=explain")
	for i, v := range q.Asserted {
		add(fmt.Sprintf("asserted[%d]", i), "P-Asserted-Identity", v, "")
	}
	for i, v := range q.History {
		add(fmt.Sprintf("history[%d]", i), "History-Info", v, fmt.Sprintf(";index=1.%d", i+1))
	}
	if q.ReferredBy != "" {
		add("referredBy", "Referred-By", q.ReferredBy, "")
	}
	if err != nil {
		return none, err
	}
	if q.AnchoredBy != "" {
		if strings.ContainsAny(q.AnchoredBy, "\r\n") {
			return none, fault.New(fault.Invalid, "InvalidQuestion", "anchoredBy must be one line").At("anchoredBy")
		}
		m.AddName(leg.HeaderFMC, q.AnchoredBy)
	}
	f := leg.Facts(m, group)
	if f.Host == anywhere || f.Host == "" {
		f.Host, f.HostUnknown = "", true
	}
	return f, nil
}

// separator reports whether a character separates the digits of a number for human readers: a space or a visual
// separator (RFC 3966 §5.1.1).
func separator(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("-.()", r) }

// uri returns a URI for text, which is a number, a dial string or a URI. A number may contain separators.
func uri(target, text, host string) (string, error) {
	u := strings.TrimSpace(text)
	if scheme, _, ok := strings.Cut(u, ":"); !ok ||
		!(strings.EqualFold(scheme, "sip") || strings.EqualFold(scheme, "sips") || strings.EqualFold(scheme, "tel")) {
		if bare := strings.Join(strings.FieldsFunc(u, separator), ""); strings.Trim(bare, "+0123456789*#") == "" {
			u = bare
		}
		u = "sip:" + u + "@" + host
	}
	if strings.ContainsAny(u, "<>\r\n \t\"") {
		return "", fault.New(fault.Invalid, "InvalidQuestion", "%q is neither a number nor a URI", text).At(target)
	}
	if _, err := sip.ParseURI(u); err != nil {
		return "", fault.New(fault.Invalid, "InvalidQuestion", "%q is neither a number nor a URI: %v",
			text, err).At(target)
	}
	return u, nil
}

// answer converts an explanation to that of the API contract.
func answer(ex route.Explanation) api.ExplainCall200JSONResponse {
	d := ex.Decision
	out := api.ExplainCall200JSONResponse{
		Outcome: api.ExplanationOutcome(d.Outcome.String()), Rule: string(d.Rule), Groups: d.Groups,
		Called: string(d.Called), Identity: string(d.Identity), Caller: string(d.Caller), Header: d.Header,
		Label: d.Label, Emergency: d.Emergency, SIPStatus: d.Status, Steps: []api.Step{},
	}
	if d.Service != domain.NoService {
		out.Service = d.Service.String()
	}
	if d.Account != nil {
		out.Account = d.Account.Name
	}
	if d.IdentitySource != domain.IdentityNone {
		out.IdentitySource = d.IdentitySource.String()
	}
	for _, s := range ex.Steps {
		step := api.Step{Rule: string(s.Rule), Result: string(s.Result), Text: s.Text}
		for _, f := range s.Facts {
			step.Facts = append(step.Facts, api.Fact{Name: f.Name, Value: f.Value})
		}
		out.Steps = append(out.Steps, step)
	}
	switch d.Outcome {
	case route.ToService:
		out.Text = fmt.Sprintf("to %s via peer group %s", d.Service.Traits().Title, strings.Join(d.Groups, ", then "))
	case route.ToCore:
		out.Text = fmt.Sprintf("to the core via peer group %s", strings.Join(d.Groups, ", then "))
	default:
		out.Text = fmt.Sprintf("rejected with %d: %s", d.Status, d.Warning)
	}
	return out
}
