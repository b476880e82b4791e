package certificate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/testkit/pebble"
)

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if at := os.Getenv("TANDEM_TEST_CHILD"); at != "" {
		child(at)
	}
	os.Exit(m.Run())
}

// authority is a Pebble behind a proxy that counts orders and can refuse them.
type authority struct {
	*pebble.Authority
	directory string
	address   string // of the proxy
	roots     *x509.CertPool
	stop      func()

	mu       sync.Mutex
	orders   []map[string]any // payloads of newOrder requests that reached the proxy
	accounts int
	refuse   func(w http.ResponseWriter) // answers newOrder in Pebble's place
	broken   string                      // requests whose path begins with it are answered by nonsense
	nonsense func(w http.ResponseWriter)
}

// newAuthority starts an authority. extra are settings of Pebble.
func newAuthority(t *testing.T, z *zone, extra ...map[string]any) *authority {
	t.Helper()
	p := pebble.Start(t, z.address(), extra...)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.RootsPEM)
	a := &authority{Authority: p, roots: roots}
	proxy := httptest.NewUnstartedServer(a.proxy(&url.URL{Scheme: "https", Host: p.Address}))
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{p.Web}}
	proxy.StartTLS()
	a.address = proxy.Listener.Addr().String()
	a.directory = "https://" + a.address + "/dir"
	a.stop = sync.OnceFunc(func() {
		p.Stop()
		proxy.Close()
	})
	t.Cleanup(a.stop)

	return a
}

func (a *authority) proxy(to *url.URL) http.Handler {
	p := &httputil.ReverseProxy{Transport: a.Client.Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // the URLs of the directory, and the signed ones, name the proxy
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a short body fails at Pebble
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		a.mu.Lock()
		refuse, broken, nonsense := a.refuse, a.broken, a.nonsense
		switch r.URL.Path {
		case "/order-plz":
			var jws struct{ Payload string }
			var order map[string]any
			_ = json.Unmarshal(body, &jws)
			raw, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
			_ = json.Unmarshal(raw, &order)
			a.orders = append(a.orders, order)
		case "/sign-me-up":
			a.accounts++
			refuse = nil
		default:
			refuse = nil
		}
		a.mu.Unlock()
		if refuse != nil {
			refuse(w)
			return
		}
		if broken != "" && strings.HasPrefix(r.URL.Path, broken) {
			nonsense(w)
			return
		}
		p.ServeHTTP(w, r)
	})
}

// seen returns the orders and the number of registrations so far.
func (a *authority) seen() ([]map[string]any, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.orders), a.accounts
}

func (a *authority) orderCount() int { o, _ := a.seen(); return len(o) }

func (a *authority) refuseOrders(fn func(http.ResponseWriter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = fn
}

// breakAt answers requests whose path begins with one in Pebble's place; none if it is empty.
func (a *authority) breakAt(path string, answer func(http.ResponseWriter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken, a.nonsense = path, answer
}

// limit refuses orders as rate limited.
func limit(header, detail string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		if header != "" {
			w.Header().Set("Retry-After", header)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Replay-Nonce", "bm9uY2U")
		w.WriteHeader(http.StatusTooManyRequests)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:rateLimited",
			"detail": detail, "status": 429})
	}
}

// renewNow makes the authority suggest that a certificate is renewed at once.
func (a *authority) renewNow(t *testing.T, leaf *x509.Certificate) {
	t.Helper()
	window, err := json.Marshal(map[string]any{"suggestedWindow": map[string]any{
		"start": time.Now().Add(-2 * time.Hour).UTC(), "end": time.Now().Add(-time.Hour).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: leaf.Raw})), "ariResponse": string(window)})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := a.Client.Post(a.Management+"/set-renewal-info/", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("set-renewal-info: %s", resp.Status)
	}
}

// zone is an authoritative server for TXT and CNAME records. It is a Challenger, and a Checker over itself.
type zone struct {
	udp, tcp *dns.Server

	mu     sync.Mutex
	txt    map[string][]string
	cname  map[string]string
	most   map[string]int // the largest set served at a name
	added  chan string    // names at which a value was added, if somebody reads
	hidden bool           // Add has no effect
	// unwritable is the error of Path, if not nil.
	unwritable error
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: map[string][]string{}, cname: map[string]string{}, most: map[string]int{},
		added: make(chan string, 100)}
	at := dnspeer.Address(t).String()
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	z.udp = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(z.serve)}
	z.tcp = &dns.Server{Listener: l, Handler: dns.HandlerFunc(z.serve)}
	for _, s := range []*dns.Server{z.udp, z.tcp} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }() // ends with Shutdown
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return z
}

func (z *zone) address() string { return z.udp.PacketConn.LocalAddr().String() }

func (z *zone) serve(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	q := r.Question[0]
	z.mu.Lock()
	if q.Qtype == dns.TypeTXT {
		owner := q.Name
		if target, ok := z.cname[strings.ToLower(strings.TrimSuffix(owner, "."))]; ok {
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME,
				Class: dns.ClassINET, Ttl: 1}, Target: target + "."})
			owner = target + "."
		}
		for _, v := range z.txt[strings.ToLower(strings.TrimSuffix(owner, "."))] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT,
				Class: dns.ClassINET, Ttl: 1}, Txt: []string{v}})
		}
	}
	z.mu.Unlock()
	_ = w.WriteMsg(m) // the peer may be gone
}

func (z *zone) Path(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.unwritable != nil {
		return nil, z.unwritable
	}
	if target, ok := z.cname[name]; ok {
		return []string{name, target}, nil
	}
	return []string{name}, nil
}

// alias replaces the CNAME of the challenge's name; empty for none.
func (z *zone) alias(target string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if delete(z.cname, challengeName); target != "" {
		z.cname[challengeName] = target
	}
}

func (z *zone) Add(_ context.Context, path []string, value string) error {
	name := path[len(path)-1]
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.hidden && !slices.Contains(z.txt[name], value) {
		z.txt[name] = append(z.txt[name], value)
		z.most[name] = max(z.most[name], len(z.txt[name]))
	}
	select {
	case z.added <- name:
	default:
	}
	return nil
}

func (z *zone) Remove(_ context.Context, path []string, value string) error {
	name := path[len(path)-1]
	z.mu.Lock()
	defer z.mu.Unlock()
	z.txt[name] = slices.DeleteFunc(z.txt[name], func(v string) bool { return v == value })
	return nil
}

func (z *zone) values(name string) (now []string, most int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.txt[name]), z.most[name]
}

func (z *zone) Check(ctx context.Context, path []string, value string) ([]certificate.Answer, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(path[0]), dns.TypeTXT)
	r, _, err := new(dns.Client).ExchangeContext(ctx, m, z.address())
	a := certificate.Answer{Server: z.address(), NoAnswer: err}
	if err == nil {
		for _, rr := range r.Answer {
			x, ok := rr.(*dns.TXT)
			a.Has = a.Has || ok && x.Txt[0] == value
		}
	}
	return []certificate.Answer{a}, nil
}

// blind is a Checker that takes every value for published.
type blind struct{}

func (blind) Check(context.Context, []string, string) ([]certificate.Answer, error) {
	return []certificate.Answer{{Server: "ns1", Has: true}}, nil
}

// node is a manager and the worker that does its work.
type node struct {
	*certificate.Manager
	t      *testing.T
	d      *db.DB
	q      *flow.Queue
	log    *logs
	reg    *prometheus.Registry
	offset atomic.Int64 // of its clock
	done   chan struct{}
	stop   func()
	dialed *dials
}

// dials notes the addresses that a node connects to.
type dials struct {
	mu   sync.Mutex
	seen map[string]int
}

func (d *dials) transport(roots *x509.CertPool) http.RoundTripper {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			d.mu.Lock()
			d.seen[address]++
			d.mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}
}

// logs keeps what was logged at level warning and above.
type logs struct {
	slog.Handler
	mu   *sync.Mutex
	text *[]string
}

func newLogs(t *testing.T) *logs {
	return &logs{slog.NewTextHandler(t.Output(), nil), &sync.Mutex{}, &[]string{}}
}

func (l *logs) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		line := r.Message
		r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
		l.mu.Lock()
		*l.text = append(*l.text, line)
		l.mu.Unlock()
	}
	return l.Handler.Handle(ctx, r)
}

func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logs) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range *l.text {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// settings are what a test may change about a node.
type settings struct {
	cfg     certificate.Config
	cache   certificate.Cache
	keep    func(name string) bool
	checker certificate.Checker
	ring    *secret.Keyring
	through func(certificate.Store) certificate.Store // nil: the store itself
	done    chan struct{}                             // shared by nodes that share a database
}

var r1 = certificate.Wanted{Name: "1r1", Names: []string{"1r1.example.com", "*.1r1.example.com"}}

func config(a *authority) certificate.Config {
	return certificate.Config{Directory: a.directory, AcceptTerms: true}
}

// start starts a node whose database is d.
func start(t *testing.T, d *db.DB, z *zone, roots *x509.CertPool, s settings) *node {
	t.Helper()
	n := &node{t: t, d: d, log: newLogs(t), reg: prometheus.NewRegistry(), done: s.done,
		dialed: &dials{seen: map[string]int{}}}
	if n.done == nil {
		n.done = make(chan struct{}, 1000)
	}
	n.q = flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
		if i.State == "" || later(i) {
			tx.OnCommit(func() { n.done <- struct{}{} })
		}
		return nil
	}, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	p := certificate.Parts{Store: store.New(d, s.ring, n.q), Cache: s.cache, Keep: s.keep, Challenger: z,
		Checker: z, Transport: n.dialed.transport(roots), Log: slog.New(n.log), Metrics: n.reg}
	if s.through != nil {
		p.Store = s.through(p.Store)
	}
	if s.checker != nil {
		p.Checker = s.checker
	}
	if s.cache == nil {
		p.Cache = store.Disk{Path: filepath.Join(t.TempDir(), "certificates"), Ring: s.ring}
	}
	n.Manager = certificate.New(s.cfg, []certificate.Wanted{r1}, p)
	n.SetClock(func() time.Time { return time.Now().Add(time.Duration(n.offset.Load())) })
	return n
}

// run starts the node's worker, which orders what is due.
func (n *node) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error)
	go func() { ended <- n.q.Run(ctx, []*flow.Kind{n.Kind()}) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.stop)
}

// later reports whether work is done but for what is due later.
func later(i flow.Item) bool { return i.State == flow.Queued && time.Until(i.Due) > 2*time.Second }

// work makes the node's worker do what is due, and waits until it has.
func (n *node) work() {
	n.t.Helper()
	err := n.d.Update(n.t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return n.q.Enqueue(ctx, tx, "certificate", time.Time{}, "acme")
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.settle()
}

// settle waits until the node's worker has done what is due.
func (n *node) settle() {
	n.t.Helper()
	for end := time.After(patience); ; {
		select {
		case <-n.done: // perhaps of a run that began before
		case <-end:
			n.t.Fatalf("no end of the work within %s", patience)
		}
		left, err := n.q.List(n.t.Context(), "certificate", "", flow.Key{}, 1)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(left) == 0 || later(left[0]) {
			return
		}
	}
}

// metric returns the sum of the samples of a metric that have a label with the given value, or of all.
func (n *node) metric(name, label string) float64 {
	n.t.Helper()
	return metric(n.t, n.reg, name, label)
}

func metric(t *testing.T, reg *prometheus.Registry, name, label string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			is := func(l *dto.LabelPair) bool { return l.GetValue() == label }
			if f.GetName() == name && (label == "" || slices.ContainsFunc(m.GetLabel(), is)) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// advance moves the node's clock.
func (n *node) advance(d time.Duration) { n.offset.Add(int64(d)) }

// one returns the state of the only certificate.
func (n *node) one() certificate.Status { return n.Status()[0] }

// served returns the leaf of the certificate in service, or nil.
func (n *node) served() *x509.Certificate {
	if c := n.Certificate(r1.Name); c != nil {
		return c.Leaf
	}
	return nil
}

func keyring(t *testing.T) *secret.Keyring {
	t.Helper()
	r, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return r
}
