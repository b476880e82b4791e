package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

// entry is what the gateway's directory has about a number. The zero value stands for a number that it does not have.
type entry struct {
	service string // contract name of the service that carries its calls
	account string
	tenant  string // the account's Teams tenant; its name if it has none
	label   string // the account's Direct Routing label, if it has one
}

// entry asks the directory for a number.
func (l *Lab) entry(number string) (e entry) {
	if l.directory == nil {
		return entry{}
	}
	n, account := l.directory(number)
	var provisioned struct {
		AccountName    string
		ServiceDetails map[string]struct{ Enabled bool }
	}
	var owner struct {
		ServiceDetails struct {
			TeamsTenantID      string
			TeamsDirectRouting struct{ Configuration struct{ Subdomain string } }
		}
	}
	for from, to := range map[any]any{n: &provisioned, account: &owner} {
		if b, err := json.Marshal(from); err != nil || json.Unmarshal(b, to) != nil {
			return entry{}
		}
	}
	e = entry{account: provisioned.AccountName, tenant: owner.ServiceDetails.TeamsTenantID,
		label: owner.ServiceDetails.TeamsDirectRouting.Configuration.Subdomain}
	if e.tenant == "" {
		e.tenant = e.account
	}
	for name := range callers {
		if provisioned.ServiceDetails[name].Enabled {
			e.service = name
		}
	}
	return e
}

// Question is a call to try.
type Question struct {
	From string `json:"from"`
	To   string `json:"to"`
	Via  string `json:"via"` // the neighbour that places the call; found by From if empty
}

// Trial is the outcome of a call that was tried.
type Trial struct {
	Question
	Status   int         `json:"status"`             // of the final response to the caller
	Answer   string      `json:"answer"`             // status and reason phrase
	Warnings []string    `json:"warnings,omitempty"` // texts of its Warning lines
	Arrived  string      `json:"arrived,omitempty"`  // the neighbour that got the call
	Headers  []ua.Header `json:"headers,omitempty"`  // what it received, and the Request-URI
	Problems []string    `json:"problems,omitempty"`
}

// callers are the neighbours that place the calls of a service's numbers.
var callers = map[string]string{"teamsDirectRouting": "teams-1", "teamsOperatorConnect": "oc-1",
	"teamsPhoneMobile": "tpm-1", "zoomPhoneCloudPeering": "zoom-1"}

// Try places a call, ends it if it is answered, and returns what happened. A number of a service calls from there, any
// other from the fixed core. An error means that no call could be placed.
func (l *Lab) Try(ctx context.Context, q Question) (*Trial, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := fixtures.Call{From: q.From, To: q.To, Neighbour: q.Via}
	caller := l.entry(q.From)
	_ = l.entry(q.To) // may wait until the gateway knows it
	if _, gateway := l.route(q.From, q.To); f.Neighbour == "" && gateway != "" {
		f.Neighbour = callers["teamsDirectRouting"]
	} else if f.Neighbour == "" {
		f.Neighbour = callers[caller.service]
	}
	if f.Neighbour == "" {
		f.Neighbour = "core-fixed"
	}
	if names := slices.Sorted(slices.Values(l.Neighbours())); !slices.Contains(names, f.Neighbour) {
		return nil, fmt.Errorf("no peer is called %q; there are %s", f.Neighbour, strings.Join(names, ", "))
	}
	if _, gateway := l.route(q.From, q.To); gateway != "" && strings.HasPrefix(f.Neighbour, "teams-") {
		f.Trunk = gateway
	} else if _, ok := l.Teams[f.Neighbour]; ok && caller.label != "" && strings.HasPrefix(f.Neighbour, "teams-") {
		f.Trunk = caller.label + "." + l.Gateway.directRouting()
	}
	t := &Trial{Question: Question{From: q.From, To: q.To, Via: f.Neighbour}}
	violations, begin := len(l.Violations()), time.Now()
	call, err := l.place(ctx, f)
	if err != nil {
		return nil, err
	}
	final, err := call.Wait(ctx)
	if err != nil {
		return nil, err
	}
	t.Status, t.Answer = final.Status(), strings.TrimPrefix(final.StartLine(), "SIP/2.0 ")
	for _, w := range final.Values("Warning") {
		_, text, _ := strings.Cut(w, `"`) // RFC 3261 §20.43: code, agent, quoted text
		t.Warnings = append(t.Warnings, strings.TrimSuffix(text, `"`))
	}
	far := l.arrival(t, begin)
	if t.Status/100 == 2 {
		if m, err := call.Bye(ctx); err != nil || m.Status() != 200 {
			t.Problems = append(t.Problems, fmt.Sprintf("BYE was not answered with 200: %v %v", m, err))
		} else if far == nil {
			t.Problems = append(t.Problems, "the call was answered, but reached no neighbour")
		} else if _, err := l.Agent(t.Arrived).Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.IsRequest() && m.Method() == "BYE" && m.CallID() == far.CallID()
		}); err != nil {
			t.Problems = append(t.Problems, "no BYE reached "+t.Arrived)
		}
	}
	t.Problems = append(t.Problems, l.Violations()[violations:]...)
	return t, nil
}

// arrival finds the INVITE of a call at the neighbour that got it last, and notes what it was.
func (l *Lab) arrival(t *Trial, begin time.Time) *ua.Message {
	var far *ua.Message
	for _, name := range l.Neighbours() {
		for _, m := range l.invites(name, calledNumber(fixtures.Call{To: t.To}), begin) {
			if far == nil || m.At.After(far.At) {
				far, t.Arrived = m, name
			}
		}
	}
	if far == nil {
		return nil
	}
	t.Headers = []ua.Header{{Name: "Request-URI", Value: far.RequestURI()}}
	for _, h := range append([]string{l.World.CustomHeader}, interesting...) {
		if far.Has(h) {
			value, _, _ := strings.Cut(strings.Join(far.Values(h), ", "), ";tag=") // says nothing to a reader
			t.Headers = append(t.Headers, ua.Header{Name: h, Value: value})
		}
	}
	return far
}

// Text describes the outcome to a reader, line by line.
func (t *Trial) Text() []string {
	out := []string{fmt.Sprintf("%s called %s from %s: %s", t.From, t.To, t.Via, t.Answer)}
	for _, text := range append(t.Warnings, t.Problems...) {
		out = append(out, "  "+text)
	}
	if t.Arrived == "" {
		return append(out, "It reached no peer.")
	}
	out = append(out, "It reached "+t.Arrived+", which received:")
	for _, h := range t.Headers {
		out = append(out, "  "+h.Name+": "+h.Value)
	}
	return out
}
