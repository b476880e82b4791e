package microsoft

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 4 << 20

// Object is a JSON object of the wire.
type Object = map[string]any

// Service names one of the three servers.
type Service string

// The services.
const (
	Login Service = "login"
	Graph Service = "graph"
	Teams Service = "teams"
)

// Config configures a Cloud.
type Config struct {
	Authority *ca.Authority      // signs the servers' certificates
	Listen    map[Service]string // "ip:port" by service; 127.0.0.1:0 where absent
	DNS       string             // "ip:port" of the name server that the verification of domains asks
	Latency   time.Duration      // before each answer
	// Observe, if not nil, is called after each request, parts of a batch included, from several goroutines.
	Observe func(Exchange)
}

// Exchange is a request and its answer.
type Exchange struct {
	Service Service
	Request *http.Request // its body has been read
	Body    []byte
	Status  int
	Header  http.Header
	Answer  []byte
	Fault   FaultKind // Lost, Hang or HangAfter where the answer does not reach the client
}

// Cloud is a running simulation. It is safe for concurrent use.
type Cloud struct {
	cfg     Config
	key     *rsa.PrivateKey
	servers []*http.Server
	urls    map[Service]string
	routes  map[Service][]*route
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the state of each tenant
	offset   time.Duration
	tenants  []*Tenant
	apps     []*App
	codes    map[string]*session // authorization codes, device codes and refresh tokens
	windows  map[string]*window
	verified map[string]jwt.MapClaims // claims by token: verifying a signature is slow
	faults   []*Fault
	counts   map[Count]int
	random   func() string
}

// signingKey is the key of all tokens, one for the process because generating it is slow.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return key
})

// New starts the three servers.
func New(cfg Config) (*Cloud, error) {
	c := &Cloud{cfg: cfg, key: signingKey(), urls: map[Service]string{}, codes: map[string]*session{},
		windows: map[string]*window{}, verified: map[string]jwt.MapClaims{}, counts: map[Count]int{}, random: rand.Text}
	c.routes = map[Service][]*route{Login: loginRoutes(), Graph: graphRoutes(), Teams: teamsRoutes()}
	c.apps = append(c.apps, &App{ID: CommandLineApp, Name: "Microsoft Graph Command Line Tools", Public: true,
		MultiTenant: true, RedirectURIs: []string{"http://localhost", "http://127.0.0.1"}})

	for service := range c.routes {
		if err := c.listen(service); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}

	return c, nil
}

func (c *Cloud) listen(service Service) error {
	address := c.cfg.Listen[service]
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("start the %s server: %w", service, err)
	}
	host, _, _ := net.SplitHostPort(listener.Addr().String())
	cert, err := c.cfg.Authority.Issue(ca.ServerOnly, host, "localhost")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	c.urls[service] = "https://" + listener.Addr().String()
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(service, w, r) })}
	c.servers = append(c.servers, server)
	c.running.Go(func() { _ = server.ServeTLS(listener, "", "") }) // until Close

	return nil
}

// Close stops the servers and breaks the connections.
func (c *Cloud) Close() error {
	var err error
	for _, s := range c.servers {
		err = errors.Join(err, s.Close())
	}
	c.running.Wait()
	return err
}

// URL returns the base address of a service, without a path: "https://127.0.0.1:port".
func (c *Cloud) URL(s Service) string { return c.urls[s] }

// now returns the time of the simulation.
func (c *Cloud) now() time.Time { return time.Now().Add(c.offset) }

// Advance moves the simulation's clock forward: propagation, activation, operations and the lifetimes of tokens.
func (c *Cloud) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
	c.settle()
}

// settle applies the changes of all tenants that are due.
func (c *Cloud) settle() {
	for _, t := range c.tenants {
		t.state.settle()
	}
}

// Count identifies requests of one kind.
type Count struct {
	Service Service
	Tenant  string // id of the tenant of the token; "" for the login
	Method  string
	Path    string // the pattern of the route, for example "/v1.0/users/{id}"; "" where none matched
}

// Mutating reports whether requests of this kind can change a tenant.
func (c Count) Mutating() bool {
	return c.Service != Login && c.Method != http.MethodGet && c.Path != batchPath
}

// Requests returns how many requests of each kind arrived. The parts of a batch count as requests of their own.
func (c *Cloud) Requests() map[Count]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Mutations returns how many requests arrived that can change a tenant.
func (c *Cloud) Mutations() int {
	n := 0
	for kind, count := range c.Requests() {
		if kind.Mutating() {
			n += count
		}
	}
	return n
}

// route is one operation of a service.
type route struct {
	method, pattern string
	do              func(*call) error
	// application and delegated are the permissions of which a token needs one. The token is not checked if open.
	application, delegated []string
	open                   bool
	role                   string // name of a set in roleSets, of which a delegated caller needs one; "" for none
	query                  []string
	members                []string // of the body, with "!" where they are required
	anyBody                bool     // the handler checks the body
	units                  int      // resource units before options
	re                     *regexp.Regexp
	vars                   []string
}

var variable = regexp.MustCompile(`\{(\w+)\}`)

// op makes a route. The permissions are those of both kinds of tokens, or of applications and of users with "|"
// between; "" for an operation that checks no token. Options are "?" and query options, "{" and members of the body,
// "*" for a body that the handler checks, "#" and the resource units, 1 if not given.
func op(what string, do func(*call) error, permissions, role string, options ...string) *route {
	r := &route{do: do, role: role, units: 1, open: permissions == ""}
	r.method, r.pattern, _ = strings.Cut(what, " ")
	application, delegated, two := strings.Cut(permissions, "|")
	if !two {
		delegated = application
	}
	r.application, r.delegated = strings.Fields(application), strings.Fields(delegated)
	for _, o := range options {
		switch o[0] {
		case '?':
			r.query = strings.Fields(o[1:])
		case '{':
			r.members = strings.Fields(o[1:])
		case '*':
			r.anyBody = true
		case '#':
			r.units = int(o[1] - '0')
		}
	}

	for _, m := range variable.FindAllStringSubmatch(r.pattern, -1) {
		r.vars = append(r.vars, m[1])
	}
	quoted := variable.ReplaceAllString(r.pattern, "\x00")
	r.re = regexp.MustCompile("(?i)^" + strings.ReplaceAll(regexp.QuoteMeta(quoted), "\x00", `([^/']+)`) + "$")

	return r
}

// call is a request while it is handled.
type call struct {
	cloud   *Cloud
	service Service
	route   *route
	r       *http.Request
	raw     []byte
	vars    map[string]string
	query   url.Values
	body    Object // of a JSON body
	who     *identity
	t       *Tenant
	s       *State

	status int
	header http.Header
	out    any // JSON, or []byte
}

// answer sets the answer.
func (c *call) answer(status int, body any) error {
	c.status, c.out = status, body
	return nil
}

// serve answers one request from the network.
func (c *Cloud) serve(service Service, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "request body too large or cut off", http.StatusRequestEntityTooLarge)
		return
	}
	wait(r.Context(), c.cfg.Latency)

	a := c.handle(service, r, body)
	switch a.fault {
	case Lost:
		panic(http.ErrAbortHandler) // the server breaks the connection
	case Hang, HangAfter:
		<-r.Context().Done() // until the client leaves
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have left
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// answer is what a request is answered with.
type answer struct {
	status int
	header http.Header
	body   []byte
	fault  FaultKind
}

// handle answers a request, or a part of a batch.
func (c *Cloud) handle(service Service, r *http.Request, body []byte) *answer {
	k := &call{cloud: c, service: service, r: r, raw: body, header: http.Header{}, query: r.URL.Query()}
	fault := k.locked()
	a := &answer{status: k.status, header: k.header, fault: fault}
	switch out := k.out.(type) {
	case nil:
	case []byte:
		a.body = out
	default:
		a.body, _ = json.Marshal(out) // maps of plain values
		a.header.Set("Content-Type", "application/json; odata.metadata=minimal; charset=utf-8")
	}
	if c.cfg.Observe != nil {
		c.cfg.Observe(Exchange{service, r, body, a.status, a.header, a.body, fault})
	}

	return a
}

// locked runs and counts the request.
func (k *call) locked() FaultKind {
	c := k.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	fault, err := k.run()
	if err != nil {
		k.refused(err)
	}

	kind := Count{Service: k.service, Method: k.r.Method}
	if k.route != nil {
		kind.Path = k.route.pattern
	}
	if k.t != nil {
		kind.Tenant = k.t.ID
	}
	c.counts[kind]++

	return fault
}

// run does what the request asks. The fault says how the answer is lost afterwards.
func (k *call) run() (FaultKind, error) {
	c := k.cloud
	match := false
	for _, r := range c.routes[k.service] {
		m := r.re.FindStringSubmatch(k.r.URL.Path)
		if m == nil {
			continue
		}
		if match = true; r.method != k.r.Method {
			continue
		}
		k.route, k.vars = r, map[string]string{}
		for i, name := range r.vars {
			k.vars[name] = m[i+1]
		}
		break
	}
	if k.service != Login {
		if err := k.authenticate(); err != nil {
			return "", err
		}
	}
	fault := c.fault(k)
	if fault != nil {
		if err := fault.before(k); err != nil || fault.Kind == Hang {
			return fault.Kind, err
		}
	}
	if k.route == nil && match {
		return "", refuse(string(k.service) + "-verb")
	}
	if k.route == nil {
		segments := strings.Split(strings.Trim(k.r.URL.Path, "/"), "/")
		return "", refuse(string(k.service)+"-path", segments[len(segments)-1])
	}
	if err := k.prepare(); err != nil {
		return "", err
	}
	if fault != nil && fault.Kind == HalfDone {
		halve(k.body)
	}
	if err := k.route.do(k); err != nil {
		return "", err
	}
	if fault == nil {
		return "", nil
	}

	return fault.Kind, fault.after(k)
}

// prepare checks what is the same for every operation: permissions, query options, throttling, and the JSON body.
func (k *call) prepare() error {
	service := string(k.service)
	if k.service == Login {
		return nil
	}
	if err := k.authorise(); err != nil {
		return err
	}
	for name := range k.query {
		if !slices.Contains(k.route.query, name) {
			return refuse(service+"-query", name)
		}
	}
	if err := k.throttle(); err != nil {
		return err
	}
	if len(k.raw) > 0 {
		if !strings.HasPrefix(k.r.Header.Get("Content-Type"), "application/json") {
			return refuse(service + "-content-type")
		}
		d := json.NewDecoder(bytes.NewReader(k.raw))
		if err := d.Decode(&k.body); err != nil || d.More() {
			return refuse(service + "-body")
		}
	}
	if k.route.anyBody {
		return nil
	}

	return k.knows(service, k.route.pattern[strings.LastIndex(k.route.pattern, "/")+1:], k.route.members...)
}

// knows refuses a body with members other than those given, which end in "!" where they must be present.
func (k *call) knows(service, kind string, members ...string) error {
	for _, m := range members {
		if name, required := strings.CutSuffix(m, "!"); required && k.body[name] == nil {
			return refuse(service+"-required", name, kind)
		}
	}
	for name := range k.body {
		if !slices.Contains(members, name) && !slices.Contains(members, name+"!") {
			return refuse(service+"-member", name, kind)
		}
	}

	return nil
}

// refused answers with an error.
func (k *call) refused(err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		r = refuse(string(k.service)+"-internal", err)
	}
	k.status = r.Status
	maps.Copy(k.header, r.header)
	id := uuid.NewString()
	switch k.service {
	case Login:
		k.out = loginError(k, r, id)
	case Graph:
		k.header.Set("request-id", id)
		inner := Object{"date": k.cloud.now().UTC().Format("2006-01-02T15:04:05"), "request-id": id,
			"client-request-id": id}
		if sent := k.r.Header.Get("client-request-id"); sent != "" {
			inner["client-request-id"] = sent
			k.header.Set("client-request-id", sent)
		}
		k.out = Object{"error": Object{"code": r.Code, "message": r.text, "innerError": inner}}
	default:
		k.header.Set("X-MS-Correlation-Id", id)
		k.out = Object{"error": Object{"code": r.Code, "message": r.text}}
	}
}

// FaultKind says what a Fault does.
type FaultKind string

// The kinds of faults.
const (
	Refuse    FaultKind = "refuse"     // answer Status, without effect
	Lost      FaultKind = "lost"       // take effect, then break the connection
	HalfDone  FaultKind = "half-done"  // the first half of a list in the body takes effect, then answer 500
	Hang      FaultKind = "hang"       // no effect and no answer until the client leaves
	HangAfter FaultKind = "hang-after" // take effect; no answer until the client leaves
	Expired   FaultKind = "expired"    // the sign-in has expired: 401; at the login AADSTS700082
	Challenge FaultKind = "challenge"  // 401 with a claims challenge: the token's policies are outdated
	AADSTS    FaultKind = "aadsts"     // the login refuses with Status as AADSTS code
)

// Fault disturbs requests that match. Fields that are empty match everything.
type Fault struct {
	Kind    FaultKind
	Service Service
	Method  string
	Path    string // a regular expression, searched for in the path
	Body    string // a regular expression, searched for in the body
	Skip    int    // matching requests that pass undisturbed first
	Times   int    // matching requests that are disturbed; 0 for all
	// Status of a Refuse: 404, 429, 500 to 504; or the AADSTS code. RetryAfter is sent as it is: "7", "0.249",
	// "0,120", a date; none if empty.
	Status     int
	RetryAfter string

	path, body *regexp.Regexp
	seen       int
}

// Inject adds a fault. The first fault that matches a request applies. It panics if the table of refusals has no row
// for the status.
func (c *Cloud) Inject(f Fault) {
	switch f.Kind {
	case Refuse:
		refuse("fault-" + strconv.Itoa(f.Status))
	case AADSTS:
		refuse("aadsts-" + strconv.Itoa(f.Status))
	}
	f.path, f.body = regexp.MustCompile(f.Path), regexp.MustCompile(f.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// ClearFaults removes all faults.
func (c *Cloud) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// fault returns the fault that applies to a request, or nil.
func (c *Cloud) fault(k *call) *Fault {
	for _, f := range c.faults {
		if f.Service != "" && f.Service != k.service || f.Method != "" && f.Method != k.r.Method ||
			!f.path.MatchString(k.r.URL.Path) || !f.body.Match(k.raw) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			return f
		}
	}

	return nil
}

func (f *Fault) before(k *call) error {
	var r *Refusal
	switch f.Kind {
	case Refuse:
		if r = refuse("fault-" + strconv.Itoa(f.Status)); f.RetryAfter != "" {
			r.header = http.Header{"Retry-After": {f.RetryAfter}}
		}
	case AADSTS:
		r = refuse("aadsts-" + strconv.Itoa(f.Status))
	case Expired:
		if k.service != Login {
			return k.unauthorised("token-expired")
		}
		r = refuse("aadsts-700082")
	case Challenge:
		r = challenge(k, "TokenCreatedWithOutdatedPolicies", k.cloud.now())
	default:
		return nil
	}

	return r
}

func (f *Fault) after(*call) error {
	if f.Kind == HalfDone {
		return refuse("fault-500")
	}
	return nil
}

// halve shortens the lists in a body to their first half, rounded up.
func halve(body Object) {
	for name, v := range body {
		if list, ok := v.([]any); ok {
			body[name] = list[:(len(list)+1)/2]
		}
	}
}
