// Package teams simulates Microsoft's SIP edge as a gateway sees it: Direct Routing, Operator Connect and Teams Phone
// Mobile.
//
// It is as strict as the public pages say the real one is (direct-routing-sip §§1–7, gateway-calls §§3–5,
// operator-connect §§4–5), because a gateway that is only tested against a lenient peer fails on its first day. Each
// refusal names the rule in its reason phrase, and Violations lists what the rules forbid but the real edge would not
// refuse.
//
// A Cloud holds what several edges share: tenants, their domains and their numbers. A Proxy is one edge (sip, sip2 or
// sip3) on a real TLS port. The SIP profiles of Operator Connect and Phone Mobile are not public: only what public
// pages say about them is checked. There is no media side: session descriptions are checked, not used.
package teams

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

// Interface is the programme that a proxy serves.
type Interface int

// The interfaces.
const (
	DirectRouting Interface = iota
	OperatorConnect
	PhoneMobile
)

// Cloud holds what Microsoft 365 knows. It is safe for concurrent use.
type Cloud struct {
	// Ask, if not nil, is asked first for the tenant of a number, and for one of the tenant's domains, which may be
	// empty. It returns "" for a number that it does not know.
	Ask func(number string) (tenant, domain string)
	// Owner, if not nil, is asked first for the tenant that has a domain, and whether a user there has a number. It
	// returns "" for a domain that it does not know.
	Owner func(host, number string) (tenant string, has bool)
	// Gateway, if not nil, reports whether a tenant has a gateway object of that name: the proxy monitors it apart from
	// the trunk above it.
	Gateway func(host string) bool

	mu      sync.Mutex // guards the fields below
	domains map[string]string
	numbers map[string]string
}

// AddTenant registers a tenant's verified domain names.
func (c *Cloud) AddTenant(id string, domains ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.domains == nil {
		c.domains = map[string]string{}
	}
	for _, d := range domains {
		c.domains[strings.ToLower(d)] = id
	}
}

// AddNumber assigns numbers to users of a tenant.
func (c *Cloud) AddNumber(tenant string, numbers ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.numbers == nil {
		c.numbers = map[string]string{}
	}
	for _, n := range numbers {
		c.numbers[n] = tenant
	}
}

// TenantOf returns the tenant that has the number, or "".
func (c *Cloud) TenantOf(number string) string {
	if c.Ask != nil {
		if tenant, domain := c.Ask(number); tenant != "" {
			if domain != "" {
				c.AddTenant(tenant, domain)
			}
			return tenant
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.numbers[number]
}

// lookup finds a tenant as direct-routing-sip §4 rules 2 to 4 say: by the whole name, then by the name without its
// first label.
func (c *Cloud) lookup(host string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	host = strings.ToLower(host)
	if id, ok := c.domains[host]; ok {
		return id
	}
	_, parent, _ := strings.Cut(host, ".")
	return c.domains[parent]
}

// Config configures a proxy.
type Config struct {
	Cloud     *Cloud
	Interface Interface
	Host      string // its own name; sip.pstnhub.microsoft.com if empty
	Listen    string // 127.0.0.1:0 if empty
	Authority *ca.Authority
	// Gateway is the name the gateway's certificate must cover when the proxy opens a connection to it.
	Gateway string
	// Resolve replaces DNS for the gateway's names.
	Resolve func(host string, port int) (string, error)
	// Forbidden are names of headers that must never reach a service, such as the operator's custom header.
	Forbidden []string
	// Trusting is set if the proxy accepts calls from a gateway that has not sent OPTIONS yet. The real one does not
	// (gateway-calls §3.2).
	Trusting bool
	// PingEvery is how often the proxy sends OPTIONS to a gateway that has sent OPTIONS to it: 60 s if 0. One that does
	// not answer 200, because it is still starting for example, is asked again after a second.
	PingEvery time.Duration
	Keep      int
	Log       *slog.Logger
}

// Proxy is one running edge. It is safe for concurrent use.
type Proxy struct {
	*ua.Agent
	Script ua.Script // what it does with calls it accepts
	cfg    Config

	ctx    context.Context
	cancel context.CancelFunc
	pings  sync.WaitGroup

	mu         sync.Mutex // guards the fields below
	violations []string
	gateways   map[string]*gateway // by host:port of the Contact in the gateway's OPTIONS
	options    ua.Reply            // response to OPTIONS if not 200
	stopped    bool
}

type gateway struct {
	host  string
	port  int
	alive bool // our own OPTIONS was answered with 200
}

// New starts a proxy.
func New(cfg Config) (*Proxy, error) {
	if cfg.Host == "" {
		cfg.Host = "sip.pstnhub.microsoft.com"
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.PingEvery == 0 {
		cfg.PingEvery = time.Minute
	}
	if cfg.Cloud == nil {
		cfg.Cloud = &Cloud{}
	}
	if cfg.Authority == nil {
		return nil, fmt.Errorf("start %s: Teams speaks TLS only; it needs an authority", cfg.Host)
	}
	// Microsoft's certificates lose the client usage in 2026; gateways must accept that (direct-routing-sip §2).
	cert, err := cfg.Authority.Issue(ca.ServerOnly, cfg.Host, "*.pstnhub.microsoft.com", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, gateways: map[string]*gateway{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	client := cfg.Authority.Client(cert, cfg.Gateway)
	client.MaxVersion = tls.VersionTLS13
	a, err := ua.New(ua.Config{Name: cfg.Host, TLS: cfg.Listen, ServerTLS: cfg.Authority.Server(cert),
		ClientTLS: client, Resolve: cfg.Resolve, Invite: p.invite, Request: p.request, InDialog: p.inDialog,
		Keep: cfg.Keep, Log: cfg.Log})
	if err != nil {
		p.cancel()
		return nil, err
	}
	p.Agent = a
	return p, nil
}

// Run blocks until ctx ends, then closes the proxy.
func (p *Proxy) Run(ctx context.Context) error {
	<-ctx.Done()
	return p.Close()
}

// Close stops the proxy.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.cancel()
	p.pings.Wait()
	return p.Agent.Close()
}

// Host returns the proxy's own name.
func (p *Proxy) Host() string { return p.cfg.Host }

// Violations returns descriptions of the gateway's violations of the rules, in order.
func (p *Proxy) Violations() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.violations...)
}

func (p *Proxy) violation(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.violations = append(p.violations, fmt.Sprintf(format, args...))
}

// AnswerOptions makes the proxy answer OPTIONS with the status instead of 200. 0 means silence; 200 restores the
// default.
func (p *Proxy) AnswerOptions(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.options = ua.Reply{Status: status, Reason: ua.ReasonPhrase(status)}
	if status == 0 {
		p.options.Status = -1
	}
	if status == 200 {
		p.options = ua.Reply{}
	}
}

// Knows reports whether the proxy has received OPTIONS from a gateway of that name, and whether the gateway has
// answered the proxy's own.
func (p *Proxy) Knows(host string) (heard, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.gateways {
		if strings.EqualFold(g.host, host) {
			heard = true
			answered = answered || g.alive
		}
	}
	return heard, answered
}

// refusal is why a request is not accepted.
type refusal struct {
	status int
	reason string
}

func (p *Proxy) invite(ctx context.Context, in *ua.Incoming) {
	if r := p.check(in.Invite); r != nil {
		_ = in.Reply(r.status, r.reason, ua.Answer{}) // the gateway's own timers deal with a lost connection
		return
	}
	b := p.Script.For(ua.ParseAddress(in.Invite.RequestURI()).User)
	b.Headers = append(b.Headers, ua.Header{Name: "Allow", Value: ua.Allow})
	_, _ = in.Play(ctx, b) // failures are visible in the log of messages
}

// check applies the rules for a call from the gateway.
func (p *Proxy) check(m *ua.Message) *refusal {
	for _, h := range p.cfg.Forbidden {
		if m.Has(h) {
			p.violation("header %s reached %s: it is for the operator's core only (gateway-calls §2.1)", h, p.cfg.Host)
		}
	}
	contacts := m.Values("Contact")
	if len(contacts) == 0 {
		return &refusal{403, "Forbidden: no Contact (direct-routing-sip 4)"}
	}
	contact := ua.ParseAddress(contacts[0]) // only the first value counts (§4)
	uri := ua.ParseAddress(m.RequestURI())
	from := ua.ParseAddress(m.Header("From"))
	switch {
	case uri.Scheme == "sips" || contact.Scheme == "sips": // §1
		return &refusal{416, "Unsupported URI Scheme: no sips (direct-routing-sip 1)"}
	case net.ParseIP(strings.Trim(contact.Host, "[]")) != nil: // §3 and field pain 1
		return &refusal{403, "Forbidden: IP address in Contact (direct-routing-sip 3)"}
	}
	// §4 rule 1: the certificate of this connection must cover the Contact's name.
	cert := p.PeerCertificate(m.Remote)
	if cert == nil {
		return &refusal{403, "Forbidden: no certificate"}
	}
	if err := cert.VerifyHostname(contact.Host); err != nil {
		return &refusal{403, "Forbidden: certificate does not cover " + contact.Host + " (direct-routing-sip 4)"}
	}
	for _, rr := range m.Values("Record-Route") { // gateway-calls §3.2
		if h := ua.ParseAddress(rr).Host; !strings.EqualFold(h, contact.Host) {
			return &refusal{403, "Forbidden: Record-Route " + h + " is not Contact (gateway-calls 3.2)"}
		}
	}
	if !p.cfg.Trusting && !p.heard(contact.Host) {
		return &refusal{403, "Forbidden: no OPTIONS from this SBC yet (gateway-calls 3.2)"}
	}
	// An anchored call must not return to Teams (direct-routing-sip §9).
	if p.cfg.Interface == PhoneMobile && m.Has("X-MS-FMC") {
		return &refusal{482, "Loop Detected: X-MS-FMC in a call to Teams (operator-connect 4)"}
	}
	if r := p.tenant(contact, uri); r != nil {
		return r
	}
	if strings.Contains(contact.URI, "@") && contact.User == "" {
		return &refusal{400, "Bad Request: empty user in Contact (gateway-calls 3.2)"}
	}
	if _, err := domain.ParseE164(from.User); err != nil && from.User != "anonymous" { // a withheld number is allowed
		return &refusal{400, "Bad Request: From is not E.164 with + (direct-routing-sip 4)"}
	}
	if m.Has("Replaces") { // §4
		return &refusal{403, "Forbidden: INVITE with Replaces (direct-routing-sip 4)"}
	}
	if !strings.HasPrefix(m.Body(), "v=0") &&
		!strings.HasPrefix(strings.ToLower(m.Header("Content-Type")), "multipart/") {
		return &refusal{488, "Not Acceptable Here: delayed offer (direct-routing-sip 4)"}
	}
	if r := p.strictSDP(m); r != nil {
		return r
	}
	if !m.Has("X-MS-SBC") { // §4 and operator-connect §5
		if p.cfg.Interface == OperatorConnect {
			return &refusal{403, "Forbidden: no X-MS-SBC (operator-connect 5)"}
		}
		p.violation("INVITE to %s without X-MS-SBC (direct-routing-sip §4)", p.cfg.Host)
	}
	if v, ok := uri.Param("user"); !ok || v != "phone" {
		p.violation("INVITE to %s without user=phone in the Request-URI (direct-routing-sip §4)", p.cfg.Host)
	}
	if !strings.Contains(strings.ToUpper(strings.Join(m.Values("Allow"), ",")), "NOTIFY") { // §7
		p.violation("INVITE to %s whose Allow lacks NOTIFY (direct-routing-sip §7)", p.cfg.Host)
	}
	return nil
}

// tenant checks that the call belongs to a tenant: by Contact for Direct Routing, by number for the others.
func (p *Proxy) tenant(contact, uri ua.Address) *refusal {
	number := uri.User
	owner := p.cfg.Cloud.TenantOf(number) // before the domain: it may be learned with the number
	if p.cfg.Interface == DirectRouting {
		tenant := p.cfg.Cloud.lookup(contact.Host)
		if p.cfg.Cloud.Owner != nil {
			if id, has := p.cfg.Cloud.Owner(contact.Host, number); id != "" {
				tenant = id
				if owner = ""; has {
					owner = id
				}
			}
		}
		if tenant == "" {
			return &refusal{403, "Forbidden: " + contact.Host + " is not a tenant's domain (direct-routing-sip 4)"}
		}
		if !strings.HasPrefix(number, "+") {
			return &refusal{404, "Not Found: number without + (direct-routing-sip 4)"}
		}
		if owner != tenant {
			return &refusal{404, "Not Found: number is not in this tenant (direct-routing-sip 4)"}
		}
		return nil
	}
	if !strings.HasPrefix(number, "+") {
		return &refusal{404, "Not Found: number without + (operator-connect 5)"}
	}
	if owner == "" {
		return &refusal{404, "Not Found: number was not uploaded (gateway-calls 4)"}
	}
	return nil
}

// strictSDP checks the lines of a session description: an a= line has a name and no space before it (gateway-calls
// §3.1, "strict a= lines").
func (p *Proxy) strictSDP(m *ua.Message) *refusal {
	if !strings.HasPrefix(strings.ToLower(m.Header("Content-Type")), "application/sdp") {
		return nil
	}
	for _, l := range strings.Split(strings.TrimRight(m.Body(), "\r\n"), "\r\n") {
		if len(l) < 2 || l[1] != '=' || strings.HasPrefix(l, "a= ") || l == "a=" {
			return &refusal{488, "Not Acceptable Here: bad line in session description"}
		}
	}
	return nil
}

// heard reports whether OPTIONS came from the name itself or, if it has no gateway object, from the trunk above it: a
// carrier sends them with its trunk's name, and they count for all trunks derived from it (direct-routing-sip §3).
func (p *Proxy) heard(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	heard, _ := p.Knows(host)
	if gateway := p.cfg.Cloud.Gateway; !heard && (gateway == nil || !gateway(host)) {
		heard, _ = p.Knows(parent)
	}
	return heard
}

func (p *Proxy) inDialog(_ *ua.Call, m *ua.Message) ua.Reply {
	for _, h := range p.cfg.Forbidden {
		if m.Has(h) {
			p.violation("header %s reached %s on %s: it is for the operator's core only (gateway-calls §2.1)", h,
				p.cfg.Host, m.Method())
		}
	}
	return ua.Reply{}
}

// request answers requests outside a dialog: OPTIONS.
func (p *Proxy) request(m *ua.Message) ua.Reply {
	if m.Method() != "OPTIONS" {
		return ua.Reply{Status: 405, Reason: "Method Not Allowed",
			Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}}}
	}
	p.mu.Lock()
	fault := p.options
	p.mu.Unlock()
	if fault.Status == -1 {
		return ua.Reply{}
	}
	if fault.Status != 0 {
		return fault
	}
	if !m.Has("Contact") {
		return ua.Reply{Status: 403, Reason: "Forbidden: OPTIONS without Contact (direct-routing-sip 3)"}
	}
	c := ua.ParseAddress(m.Header("Contact"))
	if c.Host == "" || net.ParseIP(strings.Trim(c.Host, "[]")) != nil {
		return ua.Reply{Status: 403, Reason: "Forbidden: no FQDN in Contact (direct-routing-sip 3)"}
	}
	if cert := p.PeerCertificate(m.Remote); cert == nil || cert.VerifyHostname(c.Host) != nil {
		return ua.Reply{Status: 403, Reason: "Forbidden: certificate does not cover " + c.Host +
			" (direct-routing-sip 4)"}
	}
	p.learn(c)
	return ua.Reply{Status: 200, Reason: "OK", Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}}}
}

// learn records a gateway and starts to ping it: the proxy pings only gateways that have sent OPTIONS
// (direct-routing-sip §3).
func (p *Proxy) learn(c ua.Address) {
	key := net.JoinHostPort(strings.ToLower(c.Host), strconv.Itoa(c.Port))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.gateways[key] != nil {
		return
	}
	g := &gateway{host: c.Host, port: c.Port}
	p.gateways[key] = g
	if p.cfg.Resolve == nil {
		return
	}
	p.pings.Go(func() { p.ping(g) })
}

// retryPing is how long the proxy waits before it asks a gateway again that did not answer 200.
const retryPing = time.Second

func (p *Proxy) ping(g *gateway) {
	for {
		ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
		dest, err := p.cfg.Resolve(g.host, g.port)
		var m *ua.Message
		if err == nil {
			target := fmt.Sprintf("sip:%s:%d;transport=tls", g.host, g.port)
			m, err = p.Do(ctx, ua.Request{Method: "OPTIONS", Transport: "tls", Destination: dest, URI: target,
				From: "<sip:" + p.cfg.Host + ":5061>", To: "<" + target + ">"})
		}
		cancel()
		p.mu.Lock()
		g.alive = err == nil && m.Status() == 200
		wait := p.cfg.PingEvery
		if !g.alive {
			wait = min(wait, retryPing)
		}
		p.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return
		}
	}
}

// Call is a call from a Teams user to the telephone network.
type Call struct {
	From, To string // E.164
	Trunk    string // the gateway's name for this customer, with port: cust.1r1.base:5063
	Private  bool   // the caller hides the number: From is anonymous, the number in P-Asserted-Identity (§5)
	// ForwardedBy lists the numbers that forwarded the call, oldest first: they become History-Info (§5).
	ForwardedBy []string
	ReferredBy  string // number in Referred-By
	// NoAsserted omits P-Asserted-Identity, as a trunk without ForwardPai does.
	NoAsserted bool
	Asserted   string // number in P-Asserted-Identity if it is not From
	FMC        string // X-MS-FMC; APP on Phone Mobile if empty
	Headers    []ua.Header
	Body       string
}

// Place sends the INVITE of a call from Teams (direct-routing-sip §5).
func (p *Proxy) Place(ctx context.Context, c Call) (*ua.Call, error) {
	r, err := p.Request(c)
	if err != nil {
		return nil, err
	}
	return p.Agent.Call(ctx, r)
}

// Request writes the INVITE of a call without sending it.
func (p *Proxy) Request(c Call) (ua.Request, error) {
	host, port := c.Trunk, 5061
	if h, s, err := net.SplitHostPort(c.Trunk); err == nil {
		n, err := strconv.Atoi(s)
		if err != nil {
			return ua.Request{}, fmt.Errorf("place call: trunk %q: port is not a number", c.Trunk)
		}
		host, port = h, n
	}
	if p.cfg.Resolve == nil {
		return ua.Request{}, fmt.Errorf("place call: %s has no resolver for %s", p.cfg.Host, host)
	}
	dest, err := p.cfg.Resolve(host, port)
	if err != nil {
		return ua.Request{}, fmt.Errorf("place call: %w", err)
	}
	from := fmt.Sprintf("<sip:%s@%s;user=phone>", c.From, p.cfg.Host)
	var headers []ua.Header
	if c.Private {
		from = `"Anonymous" <sip:anonymous@anonymous.invalid>`
		headers = append(headers, ua.Header{Name: "Privacy", Value: "id"})
	}
	if c.Asserted == "" {
		c.Asserted = c.From
	}
	if !c.NoAsserted {
		headers = append(headers,
			ua.Header{Name: "P-Asserted-Identity", Value: fmt.Sprintf("<tel:%s>, <sip:user%s@tenant.example>",
				c.Asserted, tail(c.Asserted))})
	}
	if len(c.ForwardedBy) > 0 {
		headers = append(headers, ua.Header{Name: "History-Info", Value: p.history(c.ForwardedBy, c.To)})
	}
	if c.ReferredBy != "" {
		headers = append(headers,
			ua.Header{Name: "Referred-By", Value: fmt.Sprintf("<sip:%s@%s;user=phone>", c.ReferredBy, p.cfg.Host)})
	}
	if p.cfg.Interface != DirectRouting {
		headers = append(headers, ua.Header{Name: "X-MS-TenantID", Value: p.cfg.Cloud.TenantOf(c.From)})
	}
	if p.cfg.Interface == PhoneMobile {
		if c.FMC == "" {
			c.FMC = "APP"
		}
		headers = append(headers, ua.Header{Name: "X-MS-FMC", Value: c.FMC})
	}
	headers = append(headers, ua.Header{Name: "Allow", Value: ua.Allow})
	headers = append(headers, c.Headers...)
	if c.Body == "" {
		c.Body = ua.SDP("Microsoft", 1)
	}
	return ua.Request{Transport: "tls", Destination: dest,
		URI:  fmt.Sprintf("sip:%s@%s:%d;user=phone;transport=tls", c.To, host, port),
		From: from, To: fmt.Sprintf("<sip:%s@%s:%d;user=phone>", c.To, host, port), Headers: headers, Body: c.Body}, nil
}

// history writes History-Info: one entry per number that forwarded; the last entry is where the call goes now
// (RFC 4244, direct-routing-sip §5).
func (p *Proxy) history(numbers []string, to string) string {
	var out []string
	index := "1"
	for i, n := range numbers {
		if i > 0 {
			index += ".1"
		}
		reason := "SIP%3Bcause%3D302%3Btext%3D%22Moved%20Temporarily%22"
		out = append(out, fmt.Sprintf("<sip:%s@%s;user=phone?Reason=%s>;index=%s", n, p.cfg.Host, reason, index))
	}
	return strings.Join(append(out, fmt.Sprintf("<sip:%s@%s;user=phone>;index=%s.1", to, p.cfg.Host, index)), ", ")
}

func tail(number string) string {
	if len(number) > 4 {
		return number[len(number)-4:]
	}
	return number
}
