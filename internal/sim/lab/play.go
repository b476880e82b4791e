package lab

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/sim/core"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/teams"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/internal/sim/zoom"
)

// Result is the result of one call. Its JSON form is part of the demonstration's output.
type Result struct {
	Name      string            `json:"name"`
	From      string            `json:"from"`
	To        string            `json:"to"`
	Direction string            `json:"direction"` // to-service or to-core
	Service   string            `json:"service"`
	Expected  string            `json:"expected"`
	Status    int               `json:"status"`
	Headers   map[string]string `json:"headers"` // what the far side saw; of responses to the caller as "200 <name>"
	Passed    bool              `json:"passed"`
	Title     string            `json:"title"`
	Arrived   string            `json:"arrived,omitempty"` // the neighbour that got the call
	Warning   string            `json:"warning,omitempty"`
	Problems  []string          `json:"problems,omitempty"`
	LookAt    string            `json:"-"`
	Took      time.Duration     `json:"-"`
}

// limit is how long the setup and the end of one call may take.
const limit = 20 * time.Second

// interesting are the headers that a Result shows.
var interesting = []string{"From", "To", "Contact", "P-Asserted-Identity", "Privacy", "History-Info", "Referred-By",
	"X-MS-SBC", "X-MS-TenantID", "X-MS-FMC", "X-TO-CARRIER-ACCOUNT", "Identity"}

// Play places one call and checks all expectations of its fixture. Calls played at the same time must go to different
// numbers.
func (l *Lab) Play(ctx context.Context, f fixtures.Call) Result {
	r := Result{Name: f.Name, Title: f.Title, From: f.From, To: f.To, Direction: f.Direction, Service: f.Service,
		LookAt: f.LookAt, Expected: expected(f), Headers: map[string]string{}}
	start := time.Now()
	l.play(ctx, f, &r)
	r.Took = time.Since(start)
	r.Passed = len(r.Problems) == 0
	return r
}

func expected(f fixtures.Call) string {
	s := strconv.Itoa(f.Expect.Status)
	if f.Expect.Status < 0 {
		s = strconv.Itoa(-f.Expect.Status) + "xx"
	}
	return s + " " + f.Expect.Text
}

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (l *Lab) play(ctx context.Context, f fixtures.Call, r *Result) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for name, b := range f.Behaviour {
		_, script := l.agent(name)
		if script == nil {
			r.problem("fixture names an unknown neighbour: %s", name)
			return
		}
		script.Set(f.To, b)
		defer script.Unset(f.To)
	}
	violations := len(l.Violations())
	begin := time.Now()
	call, err := l.place(ctx, f)
	if err != nil {
		r.problem("%v", err)
		return
	}
	final, err := call.Wait(ctx)
	if err != nil {
		r.problem("%v", err)
		return
	}
	r.Status = final.Status()
	for _, w := range final.Values("Warning") {
		r.Warning = strings.TrimSpace(r.Warning + " " + w)
	}
	if want := f.Expect.Status; r.Status != want && (want > 0 || r.Status/100 != -want) {
		r.problem("the caller got %q %s, want %s (%s)", strings.TrimPrefix(final.StartLine(), "SIP/2.0 "), r.Warning,
			r.Expected, f.Expect.Clause)
	}
	l.arrivals(ctx, f, r, call, begin)
	if f.Expect.Warning != "" && (!strings.Contains(r.Warning, f.Expect.Warning) ||
		!strings.Contains(r.Warning, "399 ")) {
		r.problem("Warning is %q, want code 399 and a text with %q (design: every rejection towards a known peer "+
			"gives the reason)", r.Warning, f.Expect.Warning)
	}
	l.answers(f, r, call)
	if z, ok := l.Zoom[f.Neighbour]; ok {
		z.Judge(call)
	}
	for _, v := range l.Violations()[violations:] {
		r.problem("%s", v)
	}
}

// arrivals checks where the call went and the INVITE that arrived there, and ends the call.
func (l *Lab) arrivals(ctx context.Context, f fixtures.Call, r *Result, call *ua.Call, begin time.Time) {
	got := map[string]*ua.Message{}
	for _, name := range l.Neighbours() {
		if ms := l.invites(name, calledNumber(f), begin); len(ms) > 0 {
			got[name] = ms[0]
		}
	}
	for name, m := range got {
		if name != f.Expect.Arrives && !slices.Contains(f.Expect.Tried, name) {
			r.problem("the call reached %s as %s; it must not (%s)", name, m.RequestURI(), f.Expect.Clause)
		}
	}
	for _, name := range f.Expect.Tried {
		if got[name] == nil {
			r.problem("%s was not tried first", name)
		}
	}
	if f.Expect.Arrives == "" {
		return
	}
	far := got[f.Expect.Arrives]
	if far == nil {
		r.problem("the call did not reach %s (%s)", f.Expect.Arrives, f.Expect.Clause)
		if r.Status == 200 {
			_, _ = call.Bye(ctx) // the call has already failed
		}
		return
	}
	r.Arrived = f.Expect.Arrives
	r.Headers["Request-URI"] = far.RequestURI()
	for _, h := range append([]string{l.World.CustomHeader}, interesting...) {
		if far.Has(h) {
			r.Headers[h] = strings.Join(far.Values(h), ", ")
		}
	}
	for _, c := range f.Expect.Seen {
		if p := check(c, far, call.Invite()); p != "" {
			r.problem("%s: %s", f.Expect.Arrives, p)
		}
	}
	if r.Status == 200 {
		l.end(ctx, f, r, call, far)
	}
}

// invites returns the INVITEs of calls to number that reached a neighbour at or after begin, one for each call. Over
// UDP the INVITE of an earlier call may be repeated later.
func (l *Lab) invites(name, number string, begin time.Time) (out []*ua.Message) {
	a, _ := l.agent(name)
	seen := map[string]bool{}
	for _, m := range a.Log().Messages(ua.IsNewCall) {
		if !seen[m.CallID()] && !m.At.Before(begin) &&
			strings.Contains(ua.ParseAddress(m.RequestURI()).User, number) {
			out = append(out, m)
		}
		seen[m.CallID()] = true
	}
	return out
}

// end ends an answered call from the fixture's side and checks that the other side gets the BYE.
func (l *Lab) end(ctx context.Context, f fixtures.Call, r *Result, call *ua.Call, far *ua.Message) {
	agent, _ := l.agent(f.Expect.Arrives)
	if f.HangUp == "callee" {
		select {
		case <-call.Ended():
			if call.EndedBy() != "remote" {
				r.problem("the call ended without the callee's BYE reaching the caller")
			}
		case <-ctx.Done():
			r.problem("the callee hung up, but no BYE reached the caller")
		}
		return
	}
	if m, err := call.Bye(ctx); err != nil || m.Status() != 200 {
		r.problem("BYE was not answered with 200: %v %v", m, err)
	}
	if _, err := agent.Log().Wait(ctx, func(m *ua.Message) bool {
		return !m.Sent && m.IsRequest() && m.Method() == "BYE" && m.CallID() == far.CallID()
	}); err != nil {
		r.problem("the caller hung up, but no BYE reached %s", f.Expect.Arrives)
	}
}

func (l *Lab) answers(f fixtures.Call, r *Result, call *ua.Call) {
	for _, m := range call.Responses("INVITE") {
		if v := m.Header(l.World.CustomHeader); v != "" {
			r.Headers[strconv.Itoa(m.Status())+" "+l.World.CustomHeader] = v
		}
	}
	for _, c := range f.Expect.Answers {
		found := false
		for _, m := range call.Responses("INVITE") {
			if m.Status() != c.Status {
				continue
			}
			found = true
			if p := check(c, m, nil); p != "" {
				r.problem("%d to the caller: %s", c.Status, p)
				break
			}
		}
		if !found {
			r.problem("the caller got no %d (%s)", c.Status, c.Clause)
		}
	}
	for name, b := range f.Behaviour {
		if name == f.Expect.Arrives && b.Forks > 1 {
			tags := map[string]bool{}
			for _, m := range call.Responses("INVITE") {
				if m.Status() == 180 {
					tags[ua.ParseAddress(m.Header("To")).Tag] = true
				}
			}
			if len(tags) != b.Forks {
				r.problem("%d phones rang, the caller saw %d (direct-routing-sip §4: multi-tag early dialogs)",
					b.Forks, len(tags))
			}
		}
	}
}

// calledNumber returns what the Request-URI's user part must contain on the far side.
func calledNumber(f fixtures.Call) string { return strings.TrimPrefix(f.To, "+") }

// place has the fixture's neighbour place the call.
func (l *Lab) place(ctx context.Context, f fixtures.Call) (*ua.Call, error) {
	a, r, err := l.request(f)
	if err != nil {
		return nil, err
	}
	return a.Call(ctx, r)
}

// request writes the fixture's INVITE.
func (l *Lab) request(f fixtures.Call) (*ua.Agent, ua.Request, error) {
	if c, ok := l.Cores[f.Neighbour]; ok {
		x := core.Call{From: f.From, To: f.To, Asserted: f.Asserted, URI: f.URI, Headers: f.Headers}
		x.Destination = map[string]string{"core-fixed": l.Gateway.CoreFixed, "core-mobile": l.Gateway.CoreMobile,
			"core-transit": l.Gateway.CoreTransit}[f.Neighbour]
		if f.NoOffer {
			x.Body = "-"
		}
		return c.Agent, c.Request(x), nil
	}
	if t, ok := l.Teams[f.Neighbour]; ok {
		trunk := f.Trunk
		if trunk == "" {
			trunk = l.trunk(f)
		}
		_, port, _ := strings.Cut(l.addressOf(f.Neighbour), ":")
		x := teams.Call{From: f.From, To: f.To, Trunk: trunk + ":" + port, Private: f.Private,
			ForwardedBy: f.ForwardedBy, ReferredBy: f.ReferredBy, Headers: f.Headers}
		x.NoAsserted = f.Asserted == "-"
		if !x.NoAsserted {
			x.Asserted = f.Asserted
		}
		req, err := t.Request(x)
		return t.Agent, req, err
	}
	if z, ok := l.Zoom[f.Neighbour]; ok {
		_, port, _ := strings.Cut(l.Gateway.Zoom, ":")
		req, err := z.Request(zoom.Call{From: f.From, To: f.To, Host: l.Gateway.zoom() + ":" + port,
			Headers: f.Headers})
		return z.Agent, req, err
	}
	return nil, ua.Request{}, fmt.Errorf("unknown neighbour %q", f.Neighbour)
}

// addressOf returns the address at which the gateway listens for a service's edge.
func (l *Lab) addressOf(neighbour string) string {
	switch {
	case strings.HasPrefix(neighbour, "oc"):
		return l.Gateway.OperatorConnect
	case strings.HasPrefix(neighbour, "tpm"):
		return l.Gateway.Mobile
	}
	return l.Gateway.DirectRouting
}

// trunk returns the name of the gateway that a Teams edge dials for a caller: the customer's for Direct Routing.
func (l *Lab) trunk(f fixtures.Call) string {
	switch {
	case strings.HasPrefix(f.Neighbour, "oc"):
		return l.Gateway.operatorConnect()
	case strings.HasPrefix(f.Neighbour, "tpm"):
		return l.Gateway.mobile()
	}
	if _, gateway := l.route(f.From, f.To); gateway != "" {
		return gateway
	}
	for _, c := range l.World.Customers {
		for _, b := range c.Numbers {
			if c.Subdomain != "" && slices.Contains(b.List(), f.From) {
				return c.Subdomain + "." + l.Gateway.directRouting()
			}
		}
	}
	return l.Gateway.directRouting()
}

// check returns what is wrong with one header of m, or "". sent is what the caller sent, for headers that must be kept.
func check(c fixtures.Check, m, sent *ua.Message) string {
	values := m.Values(c.Header)
	switch strings.ToLower(c.Header) {
	case "request-uri":
		values = []string{m.RequestURI()}
	case "body":
		values = nil
		if m.Body() != "" {
			values = []string{m.Body()}
		}
	}
	joined := strings.Join(values, ", ")
	first := ""
	if len(values) > 0 {
		first = values[0]
	}
	wrong := func(want string) string {
		return fmt.Sprintf("%s is %q, want %s (%s)", c.Header, joined, want, c.Clause)
	}
	switch {
	case c.Absent:
		if len(values) > 0 {
			return wrong("none")
		}
	case c.Present:
		if joined == "" {
			return wrong("one")
		}
	case c.Equals != "":
		if joined != c.Equals {
			return wrong(strconv.Quote(c.Equals))
		}
	case c.Number != "":
		if ua.ParseAddress(first).User != c.Number {
			return wrong("the number " + c.Number)
		}
	case c.Host != "":
		if !strings.EqualFold(ua.ParseAddress(first).Host, c.Host) {
			return wrong("the host " + c.Host)
		}
	case c.Match != "":
		re, err := regexp.Compile(c.Match)
		if err != nil {
			return fmt.Sprintf("fixture: %v", err)
		}
		if !re.MatchString(joined) {
			return wrong("a match of " + c.Match)
		}
	case c.Kept:
		want := strings.Join(sent.Values(c.Header), ", ")
		if strings.EqualFold(c.Header, "body") {
			want = sent.Body()
		}
		if want == "" || joined != want {
			return wrong("it as sent: " + strconv.Quote(want))
		}
	}
	return ""
}
