package certificate

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Parts are what a manager works with.
type Parts struct {
	Store Store
	Cache Cache
	// Keep reports whether the cache keeps a certificate that the store has; nil keeps all. A node keeps no keys but
	// those that it needs without the database.
	Keep func(name string) bool
	// Challenger and Checker are used by orders only. A node that does no work needs none.
	Challenger Challenger
	Checker    Checker
	Transport  http.RoundTripper // sends requests to the authority
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Manager keeps the certificates of one node. It is safe for concurrent use. Life cycle: New, which loads what the
// node's disk has, then Run.
type Manager struct {
	cfg    Config
	wanted []Wanted
	p      Parts
	m      metrics
	client *http.Client
	now    func() time.Time

	busy    sync.Mutex // held by whoever refreshes or orders; guards what follows
	cached  []byte     // what the disk has
	failing bool       // the database failed the last time
	told    time.Time  // the end of the rate limit that was logged last
	cleanAt time.Time  // values of a killed process are not removed before
	begin   bool       // the stored state cannot be read: a worker stores a new one

	mu       sync.Mutex        // guards what follows, which is written by the holder of busy only
	entries  map[string]*entry // certificates in service, by Wanted.Name
	requests map[string]string // the last order that a person asked for, by the name of the certificate's record
	sealed   map[string]bool   // stored values that could not be opened and were logged, by name
	state    state
}

// record is a certificate as it is stored.
type record struct {
	Names      []string
	Directory  string
	Chain, Key string // PEM
	// RenewAt is the time chosen within the window that the authority suggests, zero if it suggests none. AskAt is when
	// it is asked the next time (RFC 9773, section 4.2).
	RenewAt, AskAt time.Time
}

// Where a certificate in service comes from.
const (
	SourceACME  = "acme"  // the database
	SourceCache = "cache" // the node's disk; the database was unavailable, or has none
)

// entry is a certificate in service.
type entry struct {
	record
	cert   *tls.Certificate
	source string
	warned int // the threshold that was logged last, in days; -1 when it has expired
}

// renewAt returns when the certificate is to be renewed: when the authority suggests, else when a third of its lifetime
// is left. A suggestion to let it expire is ignored.
func (e *entry) renewAt() time.Time {
	leaf := e.cert.Leaf
	if !e.RenewAt.IsZero() && e.RenewAt.Before(leaf.NotAfter) {
		return e.RenewAt
	}
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// overdue reports whether less than half of the time between the renewal and the expiry is left. The alert
// TandemCertificateExpiring has the same rule: fixed numbers of days would be normal for one lifetime, and too late for
// another.
func (e *entry) overdue(now time.Time) bool {
	return e.cert.Leaf.NotAfter.Sub(now) < e.cert.Leaf.NotAfter.Sub(e.renewAt())/2
}

// Times between looks at the database.
const (
	pollEvery  = time.Minute     // certificates that another node obtained are in service within this time
	storeEvery = 5 * time.Second // while the database is unavailable
)

// New returns a manager of the wanted certificates that serves what the node's disk has. It asks nobody yet. The
// configuration is valid.
func New(cfg Config, wanted []Wanted, p Parts) *Manager {
	m := &Manager{cfg: cfg, wanted: wanted, p: p, m: newMetrics(p.Metrics), client: newClient(p.Transport),
		now: time.Now, entries: map[string]*entry{}, sealed: map[string]bool{}}

	var records map[string]record
	content, err := p.Cache.Load()
	if err == nil {
		m.cached = content
		err = json.Unmarshal(content, &records)
	}
	for _, w := range wanted {
		if r, ok := records[w.Name]; ok && err == nil {
			err = m.install(&w, r, SourceCache)
		}
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		p.Log.Warn("certificates on disk cannot be read; without the database none are served", "error", err)
	}
	return m
}

// Run puts certificates into service that any node has obtained, until ctx is done, and returns nil.
func (m *Manager) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := pollEvery
		if m.refresh(ctx) != nil {
			wait = storeEvery
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return nil
}

// refresh reads what the nodes share, puts new certificates into service, and logs what a person must know.
func (m *Manager) refresh(ctx context.Context) error {
	m.busy.Lock()
	defer m.busy.Unlock()
	err := m.read(ctx)
	m.after(ctx, err)
	m.warn()
	return err
}

// after follows everything that changes the certificates or the state. It logs that the database fails, with err, and
// that it works again.
func (m *Manager) after(ctx context.Context, err error) {
	m.save()
	m.limited()
	for _, w := range m.wanted {
		m.m.failed.WithLabelValues(w.Name).Set(float64(m.state.Attempts[m.recordName(&w)].Failed))
	}
	switch {
	case ctx.Err() != nil:
	case err != nil && !m.failing:
		m.failing = true
		m.m.failures.WithLabelValues(causeStore).Inc()
		m.p.Log.Warn("certificates cannot be read from or written to the database; serving those at hand and trying "+
			"again", "error", err)
	case err == nil && m.failing:
		m.failing = false
		m.p.Log.Info("certificates are read from the database again")
	}
}

// read reads the certificates, what persons asked for, and the state.
func (m *Manager) read(ctx context.Context) error {
	requests := map[string]string{}
	for _, w := range m.wanted {
		var r record
		found, err := m.load(ctx, m.recordName(&w), &r)
		if err == nil && found {
			err = m.install(&w, r, SourceACME)
		} else if err == nil {
			m.unstored(&w)
		}
		if err == nil {
			var id string
			_, err = m.load(ctx, requestOf(m.recordName(&w)), &id)
			requests[m.recordName(&w)] = id
		}
		if err != nil {
			return fmt.Errorf("certificate %s: %w", w.Name, err)
		}
	}
	s := state{Accounts: map[string]account{}, Holds: map[string]hold{}, Attempts: map[string]attempt{}}
	found, err := m.load(ctx, stateName, &s)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.begin = !found && m.sealed[stateName]; m.begin {
		for _, w := range m.wanted { // nothing is known about what the authority refused
			s.Attempts[m.recordName(&w)] = attempt{}.next(m.now(), longWait, causeStore,
				"the record of earlier orders cannot be decrypted")
		}
	}
	m.requests, m.state = requests, s
	return nil
}

// unstored notes that the database does not have the certificate in service.
func (m *Manager) unstored(w *Wanted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[w.Name]; e != nil {
		e.source = SourceCache
	}
}

// stateName is where the state is stored.
const stateName = "state"

// recordName is where a certificate is stored. It depends on the configuration: nodes that disagree while an operator
// changes it do not replace each other's certificates, and a former configuration finds what it had.
func (m *Manager) recordName(w *Wanted) string {
	config := m.cfg.Directory + " " + strings.Join(sorted(w.Names), " ")
	return fmt.Sprintf("certificate/%s/%x", w.Name, sha256.Sum256([]byte(config)))
}

// requestOf returns where it is stored that a person asked for an order of the certificate with a record name.
func requestOf(record string) string { return "renew/" + record }

// load reads a stored value, and reports whether there is one. One that cannot be decrypted, because the keyring was
// lost, counts as missing: it is replaced.
func (m *Manager) load(ctx context.Context, name string, into any) (bool, error) {
	raw, err := m.p.Store.Load(ctx, name)
	if fault.HasCode(err, CodeSealed) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.sealed[name] {
			m.sealed[name] = true
			m.p.Log.Error("a stored value cannot be decrypted with this node's keyring, and will be replaced; if "+
				"other nodes have another keyring, copy theirs to this one", "value", name, "error", err)
		}
	}
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	return err == nil, err
}

// install puts a certificate into service. Connections that exist are not touched. One that has expired, as in an old
// copy of the database, does not replace one that has not. Nor does one that is older than the one at hand, which the
// database has not taken yet.
func (m *Manager) install(w *Wanted, r record, source string) error {
	name := w.Name
	cert, err := tls.X509KeyPair([]byte(r.Chain), []byte(r.Key))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, old := &entry{record: r, cert: &cert, source: source}, m.entries[name]
	if old != nil {
		older := old.source == SourceCache && m.fits(old, w) && old.cert.Leaf.NotBefore.After(cert.Leaf.NotBefore)
		switch now := m.now(); {
		case old.Chain == r.Chain:
			e.warned = old.warned
		case now.Before(old.cert.Leaf.NotAfter) && (older || now.After(cert.Leaf.NotAfter)):
			return nil
		default:
			m.p.Log.Info("certificate replaced; new connections use the new one", "certificate", name, "names",
				r.Names, "not_after", cert.Leaf.NotAfter)
		}
	}
	m.entries[name] = e
	m.m.expiry.WithLabelValues(name).Set(float64(cert.Leaf.NotAfter.Unix()))
	m.m.renewal.WithLabelValues(name).Set(float64(e.renewAt().Unix()))
	return nil
}

// save writes the certificates that the node keeps to disk if they have changed.
func (m *Manager) save() {
	records := map[string]record{}
	for name, e := range m.entries {
		if e.source == SourceCache || m.p.Keep == nil || m.p.Keep(name) {
			records[name] = e.record
		}
	}
	content, err := json.Marshal(records)
	if err == nil && (bytes.Equal(content, m.cached) || len(records) == 0 && len(m.cached) == 0) {
		return
	}
	if err == nil {
		err = m.p.Cache.Save(content)
	}
	if err != nil {
		m.p.Log.Warn("certificates not saved to disk; without the database this node starts without them", "error", err)
		return
	}
	m.cached = content
}

// limited logs a rate limit that this node has not logged before.
func (m *Manager) limited() {
	h := m.state.Holds[m.cfg.Directory]
	if !h.Until.After(m.now()) {
		m.m.until.Set(0)
		return
	}
	m.m.until.Set(float64(h.Until.Unix()))
	if !h.Until.Equal(m.told) {
		m.told = h.Until
		m.p.Log.Warn("rate limit of the certificate authority reached; no node orders before the given time, and the "+
			"certificates in service stay", "until", h.Until.UTC(), "directory", m.cfg.Directory, "reason", h.Reason)
	}
}

// thresholds are the days before the expiry of a certificate at which a warning is logged.
var thresholds = []int{30, 14, 7, 1}

// warn logs certificates that should have been renewed an hour ago and are about to expire, once for each threshold,
// and once when they have expired.
func (m *Manager) warn() {
	const day = 24 * time.Hour
	for _, w := range m.wanted {
		e := m.entries[w.Name]
		if e == nil || m.now().Sub(e.renewAt()) < time.Hour {
			continue
		}
		left, reached := e.cert.Leaf.NotAfter.Sub(m.now()), 0
		for _, t := range thresholds {
			if left <= time.Duration(t)*day {
				reached = t
			}
		}
		a := m.state.Attempts[m.recordName(&w)]
		log := m.p.Log.With("certificate", w.Name, "names", e.Names, "not_after", e.cert.Leaf.NotAfter, "cause",
			a.Cause, "error", a.Error)
		switch {
		case left <= 0 && e.warned != -1:
			e.warned = -1
			log.Error("certificate has expired and was not renewed; clients refuse connections")
		case left > 0 && reached != 0 && (e.warned == 0 || reached < e.warned):
			e.warned = reached
			log.Warn("certificate was not renewed and is about to expire", "days_left", int(math.Ceil(left.Hours()/24)))
		}
	}
}

// Certificate returns the certificate in service under a name, nil while there is none.
func (m *Manager) Certificate(name string) *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[name]; e != nil {
		return e.cert
	}
	return nil
}

// Renew makes a certificate be ordered at once, by a node that does work, whatever its age and earlier failures. It
// writes an audit row about the actor in ctx. The error is of kind fault.NotFound, or fault.Limited while the authority
// accepts no orders.
func (m *Manager) Renew(ctx context.Context, name string) error {
	i := slices.IndexFunc(m.wanted, func(w Wanted) bool { return w.Name == name })
	if i < 0 {
		return fault.New(fault.NotFound, "CertificateNotFound", "there is no certificate %q; there are %s", name,
			list(m.wanted))
	}
	var s state // the newest: another node may have ordered meanwhile
	if _, err := m.load(ctx, stateName, &s); err != nil {
		return err
	}
	if h := s.Holds[m.cfg.Directory]; h.Until.After(m.now()) {
		return fault.New(fault.Limited, "AuthorityLimit", "the certificate authority accepts no orders before %s: %s",
			h.Until.UTC().Format(time.RFC3339), h.Reason).After(h.Until.Sub(m.now()))
	}

	id, err := json.Marshal(rand.Text())
	if err != nil {
		return err
	}
	w := &m.wanted[i]
	return m.p.Store.Request(ctx, requestOf(m.recordName(w)), id,
		Audit{"certificate.renew", w.Name, map[string]any{"names": w.Names}})
}

// Status is the state of one wanted certificate.
type Status struct {
	Name        string
	Names       []string  // that are wanted
	Issuer      string    // common name; empty while there is no certificate
	NotAfter    time.Time // zero while there is no certificate
	Source      string    // SourceACME, SourceCache, or empty
	RenewAt     time.Time // when it is to be renewed; zero while there is no certificate
	Overdue     bool      // it was not renewed, and half of the time that was left for it is over
	NextAttempt time.Time // the next order: a renewal, or a repetition
	Failed      int       // attempts in a row that failed, on any node
	LastAttempt time.Time // what follows is about it, and empty if it succeeded
	Cause       string    // as in tandem_certificate_failures_total, or interrupted
	LastError   string
}

// Status returns the states of the certificates in the order of the configuration.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Status
	for _, w := range m.wanted {
		a := m.state.Attempts[m.recordName(&w)]
		s := Status{Name: w.Name, Names: slices.Clone(w.Names), NextAttempt: later(m.orderAt(&w), m.now()),
			Failed: a.Failed, LastAttempt: a.At, Cause: a.Cause, LastError: a.Error}
		if e := m.entries[w.Name]; e != nil {
			s.Issuer, s.NotAfter, s.Source = e.cert.Leaf.Issuer.CommonName, e.cert.Leaf.NotAfter, e.source
			s.RenewAt, s.Overdue = m.renewAt(&w), e.overdue(m.now())
		}
		all = append(all, s)
	}
	return all
}

// Held returns until when the authority accepts no orders, and why; the zero time if it does.
func (m *Manager) Held() (until time.Time, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.state.Holds[m.cfg.Directory]; h.Until.After(m.now()) {
		return h.Until, h.Reason
	}
	return time.Time{}, ""
}
