package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/tandemgw/tandem/internal/platform/flow"
)

// renewAt returns when a certificate is to be ordered, whatever failed or is forbidden; the zero time means at once.
func (m *Manager) renewAt(w *Wanted) time.Time {
	e := m.entries[w.Name]
	if e == nil || !m.fits(e, w) {
		return time.Time{}
	}
	return e.renewAt()
}

// fits reports whether a certificate is as the configuration wants it.
func (m *Manager) fits(e *entry, w *Wanted) bool {
	return e.Directory == m.cfg.Directory && slices.Equal(sorted(e.Names), sorted(w.Names))
}

// toStore reports whether the database lacks a certificate at hand, which is not due for renewal: it failed when the
// certificate was obtained, or it was restored from an older copy.
func (m *Manager) toStore(w *Wanted) bool {
	e := m.entries[w.Name]
	return e != nil && e.source == SourceCache && m.renewAt(w).After(m.now())
}

// orderAt returns when a certificate is to be ordered.
func (m *Manager) orderAt(w *Wanted) time.Time {
	name := m.recordName(w)
	a, request := m.state.Attempts[name], m.requests[name]
	at := later(m.renewAt(w), a.Next)
	if request != "" && request != a.Request {
		at = time.Time{}
	}
	return later(at, m.state.Holds[m.cfg.Directory].Until)
}

// askAt returns when the authority is to be asked about the renewal of a certificate.
func (m *Manager) askAt(w *Wanted) time.Time {
	if m.renewAt(w).IsZero() {
		return m.now().Add(pollEvery)
	}
	return later(m.entries[w.Name].AskAt, m.state.Holds[m.cfg.Directory].Until)
}

// idle returns for how long there is nothing to do, at most pollEvery.
func (m *Manager) idle() time.Duration {
	now, wait := m.now(), pollEvery
	if m.begin || slices.ContainsFunc(m.wanted, func(w Wanted) bool { return m.toStore(&w) }) {
		return 0
	}
	for _, w := range m.wanted {
		wait = min(wait, m.orderAt(&w).Sub(now), m.askAt(&w).Sub(now))
	}
	if len(m.state.Values) > 0 {
		wait = min(wait, m.cleanAt.Sub(now))
	}
	return wait
}

const (
	kindName = "certificate"
	kindID   = "acme" // one key for all certificates: orders share the account and its rate limits
)

// Work returns the key of the work that Kind does.
func Work() flow.Key { return flow.Key{Kind: kindName, ID: kindID} }

// Kind returns the work of ordering certificates, which a worker does.
func (m *Manager) Kind() *flow.Kind {
	return &flow.Kind{Name: kindName, Workers: 1, Reconcile: m.reconcile, List: m.sweep}
}

// sweep makes the work run if something is due. It lists nothing: a key that was parked, because processes ended during
// too many runs, would stay parked, and certificates would expire.
func (m *Manager) sweep(ctx context.Context, _ string, _ int) ([]string, error) {
	if err := m.refresh(ctx); err != nil {
		return nil, err
	}
	m.busy.Lock()
	defer m.busy.Unlock()
	if m.idle() > 0 {
		return nil, nil
	}
	return nil, m.p.Store.Wake(ctx)
}

// reconcile does what is due, one order at most. It returns no errors: the state says when an order is repeated, and
// work that was parked would let certificates expire. What is due within pollEvery is not left to the next sweep.
func (m *Manager) reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	err := m.refresh(ctx)
	m.busy.Lock()
	defer m.busy.Unlock()
	if err == nil {
		err = m.work(ctx, run)
	}
	m.after(ctx, err)
	wait := m.idle()
	if err != nil {
		wait = storeEvery
	}
	if wait >= pollEvery {
		return flow.Result{}, nil
	}
	return flow.Result{Again: time.Now().Add(wait)}, nil
}

// work does what is due. Errors are those of the database.
func (m *Manager) work(ctx context.Context, run *flow.Run) error {
	if m.begin {
		m.begin = false
		return m.update(ctx, run, func(*state) {})
	}
	err := m.clean(ctx, run)
	for _, w := range m.wanted {
		if err == nil && m.toStore(&w) {
			err = m.keep(ctx, run, &w, m.entries[w.Name].record)
		}
		if err == nil && !m.askAt(&w).After(m.now()) {
			err = m.ask(ctx, run, &w)
		}
		if err == nil && !m.orderAt(&w).After(m.now()) {
			return m.order(ctx, run, &w)
		}
	}
	return err
}

// update changes the state and stores it.
func (m *Manager) update(ctx context.Context, run *flow.Run, fn func(*state)) error {
	m.mu.Lock()
	fn(&m.state)
	raw, err := json.Marshal(m.state)
	m.mu.Unlock()
	if err == nil {
		err = m.p.Store.Save(ctx, run, stateName, raw, nil)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errStore, err)
	}
	return err
}

// errStore is wrapped by errors of the database.
var errStore = errors.New("the state of the orders is not stored")

// clean removes values from the DNS that a killed process left there.
func (m *Manager) clean(ctx context.Context, run *flow.Run) error {
	if len(m.state.Values) == 0 || m.cleanAt.After(m.now()) {
		return nil
	}
	var left []value
	for _, v := range m.state.Values {
		if err := m.p.Challenger.Remove(ctx, v.path(), v.Value); err != nil {
			m.p.Log.Warn("value of an earlier challenge not removed from the DNS; trying again in a minute", "name",
				v.Name, "error", err)
			left = append(left, v)
		}
	}
	if len(left) > 0 {
		m.cleanAt = m.now().Add(time.Minute)
	}
	return m.update(ctx, run, func(s *state) { s.Values = left })
}

// store stores a certificate and puts it into service, also if the database fails: it is on this node's disk then.
func (m *Manager) store(ctx context.Context, run *flow.Run, w *Wanted, r record, audit *Audit) error {
	source := SourceACME
	raw, err := json.Marshal(r)
	if err == nil {
		err = m.p.Store.Save(ctx, run, m.recordName(w), raw, audit)
	}
	if err != nil {
		source = SourceCache
	}
	return errors.Join(err, m.install(w, r, source))
}

// keep stores a certificate that was obtained, and that it was.
func (m *Manager) keep(ctx context.Context, run *flow.Run, w *Wanted, r record) error {
	err := m.store(ctx, run, w, r, &Audit{"certificate.issue", w.Name,
		map[string]any{"names": r.Names, "directory": r.Directory}})
	if err != nil {
		return err
	}
	name := m.recordName(w)
	// An authority may want all renewed at once, forever.
	done := attempt{At: m.now(), Next: m.now().Add(mostWait), Request: m.state.Attempts[name].Request}
	return m.update(ctx, run, func(s *state) { s.Attempts[name] = done })
}

// Bounds of the time until an authority is asked again about a renewal (RFC 9773, section 4.3).
const (
	askDefault = 6 * time.Hour
	askLeast   = time.Minute
	askMost    = 24 * time.Hour
)

// ask asks the authority when to renew a certificate. A time that was chosen before stays if it is within the window.
func (m *Manager) ask(ctx context.Context, run *flow.Run, w *Wanted) error {
	e := m.entries[w.Name]
	r, wait := e.record, askDefault
	limit, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := m.authority(nil).GetRenewalInfo(limit, e.cert.Leaf)
	if err != nil { // the time chosen before stays, or ours
		m.p.Log.Debug("no renewal information from the certificate authority", "names", r.Names, "error", err)
	} else {
		if r.RenewAt.Before(info.SuggestedWindow.Start) || r.RenewAt.After(info.SuggestedWindow.End) {
			r.RenewAt = info.SelectedTime
		}
		if info.RetryAfter != nil {
			wait = min(max(time.Until(*info.RetryAfter), askLeast), askMost)
		}
	}
	r.AskAt = m.now().Add(wait)
	return m.store(ctx, run, w, r, nil)
}

// authority returns a client for the configured directory.
func (m *Manager) authority(s acmez.Solver) *acmez.Client {
	return &acmez.Client{
		Client:           &acme.Client{Directory: m.cfg.Directory, HTTPClient: m.client, UserAgent: "tandem"},
		ChallengeSolvers: map[string]acmez.Solver{acme.ChallengeTypeDNS01: s},
	}
}

// order orders a certificate. Errors are those of the database; others are recorded and logged.
func (m *Manager) order(ctx context.Context, run *flow.Run, w *Wanted) error {
	name := m.recordName(w)
	last := m.state.Attempts[name]
	before := last
	before.Request = m.requests[name]
	interrupted := before.next(m.now(), longWait, causeInterrupted, "the node that ordered was killed meanwhile")
	err := m.update(ctx, run, func(s *state) {
		maps.DeleteFunc(s.Attempts, func(n string, a attempt) bool {
			_, present := m.requests[n]
			return !present && m.now().Sub(a.Next) > forgetAfter
		})
		s.Attempts[name] = interrupted
	})
	if err != nil {
		return err
	}
	m.p.Log.Info("ordering a certificate", "certificate", w.Name, "names", w.Names, "directory", m.cfg.Directory)

	seen, s := &limits{}, &solver{m: m, run: run}
	r, failed := m.issue(context.WithValue(ctx, limitsKey{}, seen), run, s, w, before.Failed == 0)
	if failed == nil {
		return m.keep(ctx, run, w, r)
	}

	stopped := errors.Is(ctx.Err(), context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // also when the node stops
	defer cancel()
	if stopped && s.offered {
		return nil // the authority may have counted a failure
	}
	if stopped {
		return m.update(ctx, run, func(s *state) { s.Attempts[name] = last })
	}

	wait := shortWait
	if s.offered {
		wait = longWait
	}
	a := before.next(m.now(), wait, cause(failed, seen), fmt.Sprintf("%.1000s", failed))
	err = m.update(ctx, run, func(s *state) {
		s.Attempts[name] = a
		if a.Cause == causeRateLimited {
			p, _ := errors.AsType[acme.Problem](failed)
			s.Holds[m.cfg.Directory] = hold{limitedUntil(seen.until, p, m.now()), a.Error}
		}
	})
	m.m.failures.WithLabelValues(a.Cause).Inc()
	what := "certificate not obtained; the one in service stays"
	if m.entries[w.Name] == nil {
		what = "certificate not obtained, and there is none to serve"
	}
	m.p.Log.Error(what, "certificate", w.Name, "names", w.Names,
		"cause", a.Cause, "error", a.Error, "failed", a.Failed, "next_attempt", m.orderAt(w).UTC())
	return err
}

// cause classifies the error of an order.
func cause(err error, seen *limits) string {
	p, problem := errors.AsType[acme.Problem](err)
	_, ofChallenge := p.Resource.(acme.Authorization)
	_, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errServers):
		return causeServers
	case errors.Is(err, errStore):
		return causeStore
	case p.Type == acme.ProblemTypeRateLimited || seen.limited && (!problem ||
		p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable):
		return causeRateLimited
	case ofChallenge:
		return causeChallenge
	case errors.Is(err, errUseless), network, p.Status >= 500, p.Type == acme.ProblemTypeBadNonce,
		!problem && seen.status >= 500:
		return causeUnavailable
	case problem || seen.status >= 400:
		return causeRefused
	case seen.answered: // nothing that can be used
		return causeUnavailable
	}
	return causeInternal
}

// errUseless is wrapped by errors about a certificate that was issued.
var errUseless = errors.New("the authority's certificate cannot be used")

// issue runs an order at the authority. replace says that the order may name the certificate that it replaces, which
// exempts it from rate limits (RFC 9773, section 5). An authority that does not know that certificate refuses the
// order, so it is not named after a failure.
func (m *Manager) issue(ctx context.Context, run *flow.Run, s *solver, w *Wanted, replace bool) (r record, err error) {
	c := m.authority(s)
	account, err := m.account(ctx, run, c)
	if err != nil {
		return r, err
	}
	// RSA: Direct Routing offers no cipher suite for other keys (direct-routing-sip §2).
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return r, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	csr, err := acmez.NewCSR(key, w.Names)
	if err != nil {
		return r, err
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return r, err
	}
	if e := m.entries[w.Name]; replace && e != nil && e.Directory == m.cfg.Directory {
		params.Replaces = e.cert.Leaf
	}

	chains, err := c.ObtainCertificate(ctx, params)
	if p, ok := errors.AsType[acme.Problem](err); ok && p.Type == acme.ProblemTypeAccountDoesNotExist {
		return r, errors.Join(err, m.update(ctx, run, func(s *state) { delete(s.Accounts, m.cfg.Directory) }))
	}
	if err != nil {
		return r, err
	}
	if len(chains) == 0 {
		return r, errors.New("the authority sent no certificate")
	}
	cert, err := tls.X509KeyPair(chains[0].ChainPEM, keyPEM)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errUseless, err)
	}
	if !slices.Equal(sorted(cert.Leaf.DNSNames), sorted(w.Names)) {
		return r, fmt.Errorf("%w: it is for %q", errUseless, cert.Leaf.DNSNames)
	}
	if !cert.Leaf.NotAfter.After(m.now()) {
		return r, fmt.Errorf("%w: it expired at %s; is the clock right?", errUseless,
			cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return record{Names: w.Names, Directory: m.cfg.Directory, Chain: string(chains[0].ChainPEM), Key: string(keyPEM)},
		nil
}

// account returns the account at the directory. There is one for each directory: its key is stored before it is
// registered, and an authority answers a key that it knows with the account that exists (RFC 8555, section 7.3).
func (m *Manager) account(ctx context.Context, run *flow.Run, c *acmez.Client) (acme.Account, error) {
	stored, ok := m.state.Accounts[m.cfg.Directory]
	save := func() error {
		return m.update(ctx, run, func(s *state) { s.Accounts[m.cfg.Directory] = stored })
	}
	if !ok {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err == nil {
			stored.Key, err = x509.MarshalECPrivateKey(key)
		}
		if err == nil {
			err = save()
		}
		if err != nil {
			return acme.Account{}, err
		}
	}
	key, err := x509.ParseECPrivateKey(stored.Key)
	a := acme.Account{Status: acme.StatusValid, Location: stored.Location, PrivateKey: key}
	if err != nil || a.Location != "" {
		return a, err
	}

	a.Status, a.TermsOfServiceAgreed = "", m.cfg.AcceptTerms
	if m.cfg.Contact != "" {
		a.Contact = []string{"mailto:" + m.cfg.Contact}
	}
	if x := &m.cfg.ExternalAccount; x.KeyID != "" {
		mac, err := x.key()
		if err == nil {
			err = a.SetExternalAccountBinding(ctx, c.Client, acme.EAB{KeyID: x.KeyID, MACKey: mac})
		}
		if err != nil {
			return a, fmt.Errorf("bind the account to an external one: %w", err)
		}
	}
	if a, err = c.NewAccount(ctx, a); err != nil {
		return a, fmt.Errorf("register an account: %w", err)
	}
	stored.Location = a.Location
	m.p.Log.Info("account registered at the certificate authority", "directory", m.cfg.Directory, "account", a.Location)
	return a, save()
}
