// Package zoom simulates Zoom Phone's edge for cloud peering as a gateway sees it.
//
// Zoom's reference guide is not public. The simulator checks what public pages say (operator-connect §7, gateway-calls
// §6): TLS with certificates both ways, E.164 with "+", the caller's number in P-Asserted-Identity, an offer in the
// first INVITE, 180 without and 183 with a session description, calls only to numbers that were uploaded. Violations
// lists what breaks a rule without being refused.
package zoom

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

// Config configures an edge.
type Config struct {
	Host      string // its own name; "us01peer01.zoom.example" if empty
	Listen    string // 127.0.0.1:0 if empty
	Authority *ca.Authority
	Gateway   string // the name the gateway's certificate must cover
	Resolve   func(host string, port int) (string, error)
	Forbidden []string // headers that must never arrive
	// Ask, if not nil, returns the billing reference of a number that AddNumber was not called for, or "".
	Ask  func(number string) string
	Keep int
	Log  *slog.Logger
}

// Edge is a running Zoom edge. It is safe for concurrent use.
type Edge struct {
	*ua.Agent
	Script ua.Script // what it does with calls it accepts
	cfg    Config

	mu         sync.Mutex // guards the fields below
	numbers    map[string]string
	violations []string
	options    int // response to OPTIONS: 0 means 200, -1 silence
}

// New starts an edge.
func New(cfg Config) (*Edge, error) {
	if cfg.Host == "" {
		cfg.Host = "us01peer01.zoom.example"
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Authority == nil {
		return nil, fmt.Errorf("start %s: Zoom speaks TLS only; it needs an authority", cfg.Host)
	}
	cert, err := cfg.Authority.Issue(ca.ServerAndClient, cfg.Host, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	e := &Edge{cfg: cfg, numbers: map[string]string{}}
	a, err := ua.New(ua.Config{Name: cfg.Host, TLS: cfg.Listen, ServerTLS: cfg.Authority.Server(cert),
		ClientTLS: cfg.Authority.Client(cert, cfg.Gateway), Resolve: cfg.Resolve,
		Invite: e.invite, Request: e.request, InDialog: e.inDialog, Keep: cfg.Keep, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	e.Agent = a
	return e, nil
}

// AddNumber uploads numbers with their billing reference, which Zoom returns as X-TO-CARRIER-ACCOUNT.
func (e *Edge) AddNumber(billing string, numbers ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range numbers {
		e.numbers[n] = billing
	}
}

// billing returns the billing reference of an uploaded number, or "".
func (e *Edge) billing(number string) string {
	e.mu.Lock()
	billing := e.numbers[number]
	e.mu.Unlock()
	if billing == "" && e.cfg.Ask != nil {
		return e.cfg.Ask(number)
	}
	return billing
}

// Violations returns descriptions of the gateway's violations of the rules, in order.
func (e *Edge) Violations() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.violations...)
}

func (e *Edge) violation(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.violations = append(e.violations, fmt.Sprintf(format, args...))
}

// AnswerOptions makes the edge answer OPTIONS with the status instead of 200. 0 means silence; 200 restores the
// default.
func (e *Edge) AnswerOptions(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch status {
	case 0:
		e.options = -1
	case 200:
		e.options = 0
	default:
		e.options = status
	}
}

func (e *Edge) request(m *ua.Message) ua.Reply {
	if m.Method() != "OPTIONS" {
		return ua.Reply{Status: 405, Reason: "Method Not Allowed",
			Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}}}
	}
	e.mu.Lock()
	status := e.options
	e.mu.Unlock()
	switch status {
	case -1:
		return ua.Reply{}
	case 0:
		return ua.Reply{Status: 200, Reason: "OK", Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}}}
	}
	return ua.Reply{Status: status, Reason: ua.ReasonPhrase(status)}
}

func (e *Edge) inDialog(_ *ua.Call, m *ua.Message) ua.Reply {
	e.forbidden(m)
	return ua.Reply{}
}

func (e *Edge) forbidden(m *ua.Message) {
	for _, h := range e.cfg.Forbidden {
		if m.Has(h) {
			e.violation("header %s reached %s on %s: it is for the operator's core only (gateway-calls §2.1)", h,
				e.cfg.Host, m.Method())
		}
	}
}

func (e *Edge) invite(ctx context.Context, in *ua.Incoming) {
	status, reason := e.check(in.Invite)
	if status != 0 {
		_ = in.Reply(status, reason, ua.Answer{}) // the gateway's own timers deal with a lost connection
		return
	}
	// Failures are visible in the log of messages.
	_, _ = in.Play(ctx, e.Script.For(ua.ParseAddress(in.Invite.RequestURI()).User))
}

// check applies the rules for a call from the gateway.
func (e *Edge) check(m *ua.Message) (int, string) {
	e.forbidden(m)
	number := ua.ParseAddress(m.RequestURI()).User
	if _, err := domain.ParseE164(number); err != nil {
		return 400, "Bad Request: called number is not E.164 with + (operator-connect 7)"
	}
	if e.billing(number) == "" {
		return 404, "Not Found: number was not uploaded (gateway-calls 2)"
	}
	identity := ua.ParseAddress(m.Header("P-Asserted-Identity")).User
	if _, err := domain.ParseE164(identity); err != nil {
		return 403, "Forbidden: no E.164 number in P-Asserted-Identity (gateway-calls 6)"
	}
	if !m.Has("Contact") {
		return 400, "Bad Request: no Contact"
	}
	if !strings.HasPrefix(m.Body(), "v=0") {
		return 488, "Not Acceptable Here: delayed offer (operator-connect 7)"
	}
	return 0, ""
}

// Call is a call from a Zoom user to the telephone network.
type Call struct {
	From, To    string // E.164
	Host        string // host of the Request-URI: the gateway's name for Zoom
	Destination string // socket address of the gateway; found by Resolve if empty
	Headers     []ua.Header
	Body        string
}

// Place sends the INVITE of a call from Zoom. Judge checks the responses.
func (e *Edge) Place(ctx context.Context, c Call) (*ua.Call, error) {
	r, err := e.Request(c)
	if err != nil {
		return nil, err
	}
	return e.Agent.Call(ctx, r)
}

// Request writes the INVITE of a call without sending it.
func (e *Edge) Request(c Call) (ua.Request, error) {
	if c.Destination == "" {
		if e.cfg.Resolve == nil {
			return ua.Request{}, fmt.Errorf("place call: %s has no resolver for %s", e.cfg.Host, c.Host)
		}
		a := ua.ParseAddress("sip:" + c.Host)
		d, err := e.cfg.Resolve(a.Host, a.Port)
		if err != nil {
			return ua.Request{}, fmt.Errorf("place call: %w", err)
		}
		c.Destination = d
	}
	if c.Host == "" {
		c.Host = c.Destination
	}
	billing := e.billing(c.From)
	if c.Body == "" {
		c.Body = ua.SDP("zoom", 1)
	}
	headers := []ua.Header{
		{Name: "P-Asserted-Identity", Value: fmt.Sprintf("<sip:%s@%s;user=phone>", c.From, e.cfg.Host)},
		{Name: "Supported", Value: "timer"}, {Name: "Session-Expires", Value: "1800"}, {Name: "Min-SE", Value: "90"},
		{Name: "Allow", Value: ua.Allow},
	}
	if billing != "" {
		headers = append(headers, ua.Header{Name: "X-TO-CARRIER-ACCOUNT", Value: billing})
	}
	headers = append(headers, c.Headers...)
	return ua.Request{Transport: "tls", Destination: c.Destination,
		URI:     fmt.Sprintf("sip:%s@%s;user=phone;transport=tls", c.To, c.Host),
		From:    fmt.Sprintf("<sip:%s@%s;user=phone>", c.From, e.cfg.Host),
		To:      fmt.Sprintf("<sip:%s@%s;user=phone>", c.To, c.Host),
		Headers: headers, Body: c.Body}, nil
}

// Judge checks the responses to a call from Zoom and adds what breaks the rules to Violations: 180 must come without
// and 183 with a session description (gateway-calls §6).
func (e *Edge) Judge(c *ua.Call) {
	for _, m := range c.Responses("INVITE") {
		switch {
		case m.Status() == 180 && m.Body() != "":
			e.violation("180 with a session description reached %s (gateway-calls §6)", e.cfg.Host)
		case m.Status() == 183 && m.Body() == "":
			e.violation("183 without a session description reached %s (gateway-calls §6)", e.cfg.Host)
		}
		e.forbidden(m)
	}
}
