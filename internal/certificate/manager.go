package certificate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Parts are what a manager works with.
type Parts struct {
	Store Store
	Cache Cache
	// Challenger and Checker are used by orders only. A node that does no work needs none.
	Challenger Challenger
	Checker    Checker
	Transport  http.RoundTripper // sends requests to the authority; default http.DefaultTransport
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Manager keeps the certificates of one node. It is safe for concurrent use. Life cycle: New, which loads what the
// node's disk has, then Run.
type Manager struct {
	cfg    Config
	p      Parts
	m      metrics
	client *http.Client
	now    func() time.Time

	table atomic.Pointer[map[string]*tls.Certificate] // in service, by host name

	busy    sync.Mutex // held by whoever refreshes or orders; guards what follows
	cached  []byte     // what the disk has
	failing bool       // the database failed the last time
	told    time.Time  // the end of the rate limit that was logged last
	cleanAt time.Time  // values of a killed process are not removed before

	mu      sync.Mutex        // guards what follows, which is written by the holder of busy only
	entries map[string]*entry // certificates in service, by Wanted.Name
	state   state
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

// Times between looks at the database.
const (
	pollEvery  = time.Minute     // certificates that another node obtained are in service within this time
	storeEvery = 5 * time.Second // while the database is unavailable
)

// New returns a manager that serves what the node's disk has. It asks nobody yet.
func New(cfg Config, p Parts) (*Manager, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	m := &Manager{cfg: cfg, p: p, m: newMetrics(p.Metrics), client: newClient(p.Transport), now: time.Now,
		entries: map[string]*entry{}}
	m.table.Store(&map[string]*tls.Certificate{})

	var records map[string]record
	content, err := p.Cache.Load()
	if err == nil {
		err = json.Unmarshal(content, &records)
	}
	for _, w := range cfg.Certificates {
		if r, ok := records[w.Name]; ok && err == nil {
			err = m.install(w.Name, r, SourceCache)
		}
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		p.Log.Warn("certificates on disk cannot be read; without the database none are served", "error", err)
	}
	return m, nil
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

// read reads the certificates and the state.
func (m *Manager) read(ctx context.Context) error {
	for _, w := range m.cfg.Certificates {
		var r record
		found, err := m.load(ctx, m.recordName(&w), &r)
		if err == nil && found {
			err = m.install(w.Name, r, SourceACME)
		}
		if err != nil {
			return fmt.Errorf("certificate %s: %w", w.Name, err)
		}
	}
	s := state{Accounts: map[string]account{}, Holds: map[string]hold{}, Attempts: map[string]attempt{}}
	if _, err := m.load(ctx, stateName, &s); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	return nil
}

// stateName is where the state is stored.
const stateName = "state"

// recordName is where a certificate is stored. It depends on the configuration: nodes that disagree while an operator
// changes it do not replace each other's certificates, and a former configuration finds what it had.
func (m *Manager) recordName(w *Wanted) string {
	config := m.cfg.Directory + " " + strings.Join(sorted(w.Names), " ")
	return fmt.Sprintf("certificate/%s/%x", w.Name, sha256.Sum256([]byte(config)))
}

// load reads a stored value, and reports whether there is one.
func (m *Manager) load(ctx context.Context, name string, into any) (bool, error) {
	raw, err := m.p.Store.Load(ctx, name)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	return err == nil, err
}

// install puts a certificate into service. Connections that exist are not touched. One that has expired, as in an old
// copy of the database, does not replace one that has not.
func (m *Manager) install(name string, r record, source string) error {
	cert, err := tls.X509KeyPair([]byte(r.Chain), []byte(r.Key))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, old := &entry{record: r, cert: &cert, source: source}, m.entries[name]
	if old != nil {
		switch now := m.now(); {
		case old.Chain == r.Chain:
			e.warned = old.warned
		case now.After(cert.Leaf.NotAfter) && now.Before(old.cert.Leaf.NotAfter):
			return nil
		default:
			m.p.Log.Info("certificate replaced; new connections use the new one", "certificate", name, "names",
				r.Names, "not_after", cert.Leaf.NotAfter)
		}
		for _, n := range old.Names {
			m.m.expiry.DeleteLabelValues(n)
		}
	}
	m.entries[name] = e

	table := map[string]*tls.Certificate{}
	for i, w := range m.cfg.Certificates {
		e := m.entries[w.Name]
		if e == nil {
			continue
		}
		for _, n := range e.Names {
			table[n] = e.cert
			m.m.expiry.WithLabelValues(n).Set(float64(e.cert.Leaf.NotAfter.Unix()))
		}
		if i == 0 {
			table[""] = e.cert
		}
	}
	m.table.Store(&table)
	return nil
}

// save writes the certificates to disk if they have changed.
func (m *Manager) save() {
	records := map[string]record{}
	for name, e := range m.entries {
		records[name] = e.record
	}
	content, err := json.Marshal(records)
	if err == nil && (bytes.Equal(content, m.cached) || len(records) == 0) {
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
	for _, w := range m.cfg.Certificates {
		e := m.entries[w.Name]
		if e == nil || m.now().Sub(m.renewAt(&w)) < time.Hour {
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
			log.Warn("certificate was not renewed and is about to expire", "days", reached)
		}
	}
}

// GetCertificate returns the certificate for the server name of a client: that of the exact name, else that of the
// wildcard one label up. A client that names no server gets the first configured certificate. It returns nil without an
// error for other names, so that the TLS listener may have more certificates, or refuses the name. It implements
// GetCertificate of tls.Config.
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	table := *m.table.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if c := table[name]; c != nil {
		return c, nil
	}
	_, parent, _ := strings.Cut(name, ".")
	return table["*."+parent], nil
}

// Status is the state of one wanted certificate.
type Status struct {
	Name        string
	Names       []string  // that are wanted
	Issuer      string    // common name; empty while there is no certificate
	NotAfter    time.Time // zero while there is no certificate
	Source      string    // SourceACME, SourceCache, or empty
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
	for _, w := range m.cfg.Certificates {
		a := m.state.Attempts[m.recordName(&w)]
		s := Status{Name: w.Name, Names: slices.Clone(w.Names), NextAttempt: later(m.orderAt(&w), m.now()),
			Failed: a.Failed, LastAttempt: a.At, Cause: a.Cause, LastError: a.Error}
		if e := m.entries[w.Name]; e != nil {
			s.Issuer, s.NotAfter, s.Source = e.cert.Leaf.Issuer.CommonName, e.cert.Leaf.NotAfter, e.source
		}
		all = append(all, s)
	}
	return all
}
