package invite

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

const (
	defaultDays  = 14
	sessionLife  = time.Hour
	MaxSessions  = 20 // of an account; the oldest ends when another begins
	consentGrace = 5 * time.Minute
	consentRetry = 15 * time.Second
)

// Secret is a text that does not print, such as secret.Text.
type Secret interface{ Reveal() string }

// Step is why a person goes to Microsoft.
type Step string

// The steps, in their order.
const (
	Consent   Step = "consent"
	Identify  Step = "identify"
	Integrate Step = "integrate"
)

// Attempt is one trip of a person to Microsoft.
type Attempt struct {
	Step     Step   `json:"step"`
	Tenant   string `json:"tenant"` // a GUID, or empty for any
	Redirect string `json:"redirect,omitempty"`
	State    string `json:"state"` // comes back in the redirect; unguessable
	Nonce    string `json:"nonce,omitempty"`
	// Secret is the verifier of PKCE, or the device code.
	Secret Secret `json:"-"`

	// URL is where the person goes. With a device code, which Interval is set for, UserCode is entered there.
	URL      string        `json:"-"`
	UserCode string        `json:"-"`
	Interval time.Duration `json:"interval,omitempty"`
	Expires  time.Time     `json:"expires,omitzero"`
}

// Person is who signed in.
type Person struct {
	Tenant   string   `json:"-"`
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Roles    []string `json:"roles"` // template ids of directory roles
	Personal bool     `json:"-"`     // a personal Microsoft account
	Guest    bool     `json:"guest,omitempty"`
}

// Grant is the result of a sign-in.
type Grant struct {
	Person
	RefreshToken Secret
}

// Login is the identity platform. Its refusals are faults whose codes are outcomes of package outside/entra and whose
// messages say what a person must do. It is safe for concurrent use.
type Login interface {
	// Begin returns a trip; for one with a device code it asks Microsoft.
	Begin(ctx context.Context, step Step, tenant, redirect, claims string) (*Attempt, error)
	BeginDevice(ctx context.Context, tenant string) (*Attempt, error)
	// Consented returns the tenant that the redirect of a consent claims.
	Consented(a *Attempt, redirect url.Values) (tenant string, err error)
	// Redeem ends a sign-in. Where the token names no roles, those of an Integrate are read.
	Redeem(ctx context.Context, a *Attempt, redirect url.Values) (*Grant, error)
	// Poll ends a sign-in by device code; until it was entered, done is false.
	Poll(ctx context.Context, a *Attempt) (g *Grant, done bool, err error)
}

// Standing is what the access to a tenant is worth.
type Standing struct {
	Disabled bool
	Roles    []string // template ids: of the person, or of the application
	// Granted are the permissions in the tokens, such as "Domain.ReadWrite.All (application)"; nil if they do not say.
	Granted []string
}

// Inspector uses the access to tenants. It is safe for concurrent use.
type Inspector interface {
	// Inspect asks for a token of the Teams administration with the access and reads who has which roles. The newest
	// refresh token is stored. A lifetime of sign-ins that Microsoft states is returned with the error.
	// Before the sign-in, only the consent is inspected.
	Inspect(ctx context.Context, a *Access) (s *Standing, lifetime time.Duration, claims string, err error)
}

// Result is that of a check.
type Result string

// The results.
const (
	Pass Result = "pass"
	Warn Result = "warn"
	Fail Result = "fail"
)

// Finding is one check of readiness.
type Finding struct {
	Group, Title string // findings of a group follow each other
	Result       Result
	Reason       string
	Remedy       string // empty for one that passed
}

// Readiness checks tenants without changing them.
type Readiness interface {
	Findings(ctx context.Context, account string) ([]Finding, error)
}

// Task is a step of the work on a tenant.
type Task struct {
	Title  string
	State  string // done, running, waiting or planned
	Detail string // why it waits, for whom, and how long that usually takes
}

// Work is what happens in a tenant.
type Work struct {
	Tasks []Task
	Done  bool // everything that was approved is in place
	Left  bool // everything that Tandem had made is gone
}

// Progress knows the work on tenants.
type Progress interface {
	Work(ctx context.Context, account string) (*Work, error)
}

// Invitation is a link for an administrator.
type Invitation struct {
	Account   string    `json:"-"`
	Hash      string    `json:"-"`                // SHA-256 of the link's token
	Tenant    string    `json:"tenant,omitempty"` // the only one that may be connected
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"createdBy"`
	Expires   time.Time `json:"expires"`
	Opened    time.Time `json:"opened,omitzero"`
}

// Session is one browser, or one run of the command line.
type Session struct {
	ID        string    `json:"-"` // SHA-256 of the cookie
	Account   string    `json:"-"`
	Created   time.Time `json:"-"`
	Expires   time.Time `json:"-"`
	CSRF      string    `json:"csrf,omitempty"`
	Invited   bool      `json:"invited,omitempty"` // by a link; else from the command line
	Expected  string    `json:"expected,omitempty"`
	Claimed   string    `json:"claimed,omitempty"` // the tenant of a redirect, not proven
	ClaimedAt time.Time `json:"claimedAt,omitzero"`
	Person    string    `json:"person,omitempty"` // the name of a person of the tenant, proven by a token
	Wait      time.Time `json:"wait,omitzero"`    // until when the consent is given time to propagate
	Attempt   *Attempt  `json:"attempt,omitempty"`
	Used      string    `json:"used,omitempty"` // state of the attempt before
}

// Mode is whose sign-in is used.
type Mode string

// The modes.
const (
	Delegated   Mode = "delegated"
	Application Mode = "application"
)

// Mark says when a step was reached, and by whom.
type Mark struct {
	At time.Time `json:"at"`
	By string    `json:"by"`
}

// Lost says why an access can no longer be used.
type Lost struct {
	Reason   string        `json:"reason"`
	Since    time.Time     `json:"since"`
	Consent  bool          `json:"consent,omitempty"`  // the consent is lost, and with it each sign-in
	Lifetime time.Duration `json:"lifetime,omitempty"` // of sign-ins, by the tenant's policy
	Claims   string        `json:"claims,omitempty"`   // for the next sign-in
}

// Access is how a tenant is reached.
type Access struct {
	Account       string    `json:"-"`
	Tenant        string    `json:"-"`
	Mode          Mode      `json:"mode,omitempty"` // empty before the sign-in
	Consented     time.Time `json:"consented"`
	Authorised    *Mark     `json:"authorised,omitempty"`
	ReadinessSeen *Mark     `json:"readinessSeen,omitempty"`
	Integrated    *Mark     `json:"integrated,omitempty"`
	Person        *Person   `json:"person,omitempty"`  // in mode Delegated
	Granted       []string  `json:"granted,omitempty"` // those of Standing, when the access last worked
	Lost          *Lost     `json:"lost,omitempty"`
	Ended         time.Time `json:"ended,omitzero"` // when Tandem left the tenant and ended the access
	// AfterLeave is set if the sign-in is later than the leave that Progress reports.
	AfterLeave bool      `json:"afterLeave,omitempty"`
	Checked    time.Time `json:"checked,omitzero"` // when the access was last used with success
	Due        time.Time `json:"-"`                // of the next check; zero for none
}

// Tx is a transaction. Methods that return a pointer return nil if there is no such row; rows are locked.
type Tx interface {
	Invitation(ctx context.Context, account string) (*Invitation, error)
	InvitationBy(ctx context.Context, hash string) (*Invitation, error)
	SetInvitation(ctx context.Context, i *Invitation) error
	// RemoveInvitation removes the link and the sessions of the account.
	RemoveInvitation(ctx context.Context, account string) error
	// Session returns one that has not expired.
	Session(ctx context.Context, id string) (*Session, error)
	// SetSession stores a session, and removes expired ones and the oldest of the account beyond MaxSessions.
	SetSession(ctx context.Context, s *Session) error
	Access(ctx context.Context, account string) (*Access, error)
	// Connected returns the account that is connected to a tenant; "" for none.
	Connected(ctx context.Context, tenant string) (string, error)
	// SetAccess stores the access and, if token is not nil, its refresh token.
	SetAccess(ctx context.Context, a *Access, token Secret) error
	// Continue makes the account's work run that waits for the access.
	Continue(ctx context.Context, account string) error
	Audit(ctx context.Context, action, account string, what any) error
}

// Store has the rows.
type Store interface {
	View(ctx context.Context, fn func(context.Context, Tx) error) error
	// Update runs fn in a transaction. If run is not nil, it is a step of the run.
	Update(ctx context.Context, run *flow.Run, fn func(context.Context, Tx) error) error
	// Due lists accounts whose access is to be checked before a time, as flow.Kind.List does.
	Due(ctx context.Context, before time.Time, after string, limit int) ([]string, error)
}

// Service is the job. Its methods are safe for concurrent use.
type Service struct {
	Store     Store
	Login     Login
	Inspector Inspector
	Readiness Readiness // nil: nothing is checked
	Progress  Progress  // nil: nothing is shown
	// Accounts returns an error of kind fault.NotFound for an account that does not exist.
	Accounts func(ctx context.Context, account string) error
	// Named returns the only tenant that an account may be connected to; empty for any. Nil: any.
	Named func(ctx context.Context, account string) (tenant string, err error)
	// Usable returns an error while no implementation of the administration of Teams can be used; its message says what
	// to install.
	Usable func() error

	Operator string // the operator's name on the pages
	URL      string // of the pages, without a path; empty if there is no public front
	Partners bool   // accounts of partners (GDAP) may sign in
	Log      *slog.Logger

	checks *prometheus.CounterVec
}

// Start registers the metrics and fills in what is not set.
func (s *Service) Start(reg prometheus.Registerer) *Service {
	s.Operator = cmp.Or(s.Operator, "your operator")
	s.checks = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "tandem_tenant_access_checks_total",
		Help: "Checks of the access to tenants on this node, by result: ok, lost, unavailable."}, []string{"result"})
	return s
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func equal(a, b string) bool { return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// newSession returns a session and the text that names it.
func newSession(account string) (*Session, string) {
	id, now := rand.Text()+rand.Text(), time.Now()
	return &Session{ID: hash(id), Account: account, Created: now, Expires: now.Add(sessionLife), CSRF: rand.Text()}, id
}

// account returns an error of kind fault.NotFound if there is no such account.
func (s *Service) account(ctx context.Context, account string) error {
	if account == onboard.Carrier {
		return nil
	}
	return s.Accounts(ctx, account)
}

// named returns the tenant that a caller names for an account or, without one, that which it is to have.
func (s *Service) named(ctx context.Context, account, tenant string) (string, error) {
	tenant, err := tenantID(tenant)
	if err != nil || tenant != "" || s.Named == nil {
		return tenant, err
	}
	tenant, err = s.Named(ctx, account)
	return strings.ToLower(tenant), err
}

// withdrawn reports whether the consent no longer works.
func (a *Access) withdrawn() bool { return a.valid() && a.Lost != nil && a.Lost.Consent }

// valid reports whether a tenant has authorised Tandem, and Tandem has not left since.
func (a *Access) valid() bool { return a != nil && a.Ended.IsZero() }

// next is what a person has to do now.
func next(se *Session, a *Access) Step {
	if !a.valid() {
		a = nil // after leaving, everything begins again
	}
	switch {
	case se.Claimed == "" && a.withdrawn():
		return Consent
	case se.Claimed != "" || a != nil && se.Invited && se.Person == "":
		return Identify
	case a != nil:
		return Integrate
	}
	return Consent
}

// begin starts a trip of a session.
func (s *Service) begin(ctx context.Context, id string, step Step, redirect string) (*Attempt, error) {
	var a *Access
	var se *Session
	err := s.Store.View(ctx, func(ctx context.Context, tx Tx) (err error) {
		if se, err = tx.Session(ctx, id); err == nil && se != nil {
			a, err = tx.Access(ctx, se.Account)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case se == nil:
		return nil, errNoSession
	}

	tenant, claims := cmp.Or(se.Claimed, se.Expected), ""
	if a.valid() {
		tenant = a.Tenant
		if a.Lost != nil && step == Integrate {
			claims = a.Lost.Claims
		}
	}
	switch {
	case step == Integrate:
		if err := s.usable(a); err != nil {
			return nil, err
		}
	case step == Identify && se.Claimed == "" && !a.valid(): // it would connect whichever tenant the person is of
		return nil, errNotAuthorised
	}
	attempt, err := s.Login.Begin(ctx, step, tenant, redirect, claims)
	if err != nil {
		return nil, err
	}
	return attempt, s.keep(ctx, id, attempt)
}

// usable returns an error unless step 3 is possible.
func (s *Service) usable(a *Access) error {
	if !a.valid() {
		return errNotAuthorised
	}
	if a.withdrawn() {
		return a.lostError()
	}
	if s.Usable == nil {
		return nil
	}
	return s.Usable()
}

// keep stores an attempt in its session.
func (s *Service) keep(ctx context.Context, id string, attempt *Attempt) error {
	return s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		se, err := tx.Session(ctx, id)
		if err != nil {
			return err
		}
		if se == nil {
			return errNoSession
		}
		se.Attempt = attempt
		return tx.SetSession(ctx, se)
	})
}

var (
	errNoSession = fault.New(fault.NotFound, "SignInNotFound", "the sign-in does not exist or has expired; start "+
		"again")
	errNotAuthorised = fault.New(fault.Conflict, "NotAuthorised",
		"the tenant has not authorised Tandem yet; begin with step 1")
	errUsed   = fault.New(fault.Conflict, "RedirectUsed", "this answer was used already")
	errForged = fault.New(fault.Invalid, "InvalidState",
		"the answer belongs to another session; open the link again")
)

// finish ends the trip of a session by its redirect.
func (s *Service) finish(ctx context.Context, id string, redirect url.Values) error {
	var se *Session
	var attempt *Attempt
	var consented time.Time
	err := s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) (err error) {
		if se, err = tx.Session(ctx, id); err != nil || se == nil {
			return cmp.Or(err, error(errNoSession))
		}
		a, err := tx.Access(ctx, se.Account)
		if err != nil {
			return err
		}
		if consented = se.ClaimedAt; a != nil && a.Consented.After(consented) {
			consented = a.Consented
		}
		state := redirect.Get("state")
		switch {
		case equal(se.Used, state):
			return errUsed
		case se.Attempt == nil || !equal(se.Attempt.State, state):
			return errForged
		}
		attempt, se.Attempt = se.Attempt, nil // before it is used: a second redirect finds none
		se.Used = state
		return tx.SetSession(ctx, se)
	})
	if err != nil {
		return err
	}

	if attempt.Step == Consent {
		tenant, err := s.Login.Consented(attempt, redirect)
		if err != nil {
			return err
		}
		if err := expected(se, tenant); err != nil {
			return err
		}
		return s.update(ctx, id, func(se *Session) { se.Claimed, se.ClaimedAt = tenant, time.Now() })
	}
	g, err := s.Login.Redeem(ctx, attempt, redirect)
	if fault.HasCode(err, "ConsentNeeded") && time.Since(consented) < consentGrace {
		err = fault.New(fault.Unavailable, "ConsentPropagating", "Microsoft takes up to some minutes until a consent "+
			"is known everywhere; continue then").After(consentRetry).Because(err)
	}
	if fault.HasCode(err, "ConsentPropagating") {
		until := time.Now().Add(consentRetry)
		return cmp.Or(s.update(ctx, id, func(se *Session) { se.Wait = until }), err)
	}
	if err != nil {
		return err
	}
	return s.granted(ctx, se, attempt, g)
}

// update changes a session.
func (s *Service) update(ctx context.Context, id string, change func(*Session)) error {
	return s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		se, err := tx.Session(ctx, id)
		if err != nil || se == nil {
			return cmp.Or(err, error(errNoSession))
		}
		change(se)
		return tx.SetSession(ctx, se)
	})
}

// expected refuses a tenant that the link is not for.
func expected(se *Session, tenant string) error {
	if se.Expected == "" || strings.EqualFold(se.Expected, tenant) {
		return nil
	}
	return fault.New(fault.Conflict, "TenantDiffers", "this invitation is for the tenant %s, and the account that was "+
		"used belongs to %s; use an administrator's account of the invited tenant, or ask for another link",
		se.Expected,
		tenant)
}

// suitable refuses accounts that must not sign in for a tenant.
func (s *Service) suitable(p *Person) error {
	switch {
	case p.Personal:
		return fault.New(fault.Conflict, "AccountUnsuitable",
			"%s is a personal Microsoft account; use a work account of "+
				"your organisation, such as admin@yourcompany.onmicrosoft.com", p.Name)
	case p.Guest && !s.Partners:
		return fault.New(fault.Conflict, "AccountUnsuitable",
			"the account %s is a guest in this organisation or belongs to a "+
				"partner; use an account that was created in the organisation itself", p.Name)
	}
	return nil
}

// granted keeps what a sign-in gave.
func (s *Service) granted(ctx context.Context, se *Session, attempt *Attempt, g *Grant) error {
	if err := s.suitable(&g.Person); err != nil {
		return err
	}
	tenant := strings.ToLower(g.Tenant)
	if attempt.Tenant != "" && !strings.EqualFold(attempt.Tenant, tenant) {
		return fault.New(fault.Conflict, "AccountUnsuitable",
			"%s belongs to the tenant %s, not to %s, which authorised; "+
				"use an account of that tenant", g.Name, tenant, attempt.Tenant)
	}
	if err := expected(se, tenant); err != nil {
		return err
	}
	if attempt.Step == Integrate {
		if err := enough(permission.Person, "the account "+g.Name, g.Roles); err != nil {
			return err
		}
	}

	left, err := s.left(ctx, se.Account)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		other, err := tx.Connected(ctx, tenant)
		if err != nil {
			return err
		}
		if other != "" && other != se.Account {
			return fault.New(fault.Conflict, "TenantInUse", "this Microsoft tenant is already connected as another "+
				"customer; one tenant belongs to one customer")
		}
		a, err := tx.Access(ctx, se.Account)
		if err != nil {
			return err
		}
		if !a.valid() {
			a = &Access{Account: se.Account, Tenant: tenant}
		}
		if a.Tenant != tenant {
			return fault.New(fault.Conflict, "TenantDiffers", "the account is connected to the tenant %s", a.Tenant)
		}
		if attempt.Step == Integrate {
			a.AfterLeave = left
			return s.integrate(ctx, tx, a, Delegated, &g.Person, g.RefreshToken)
		}

		if fresh := se.ClaimedAt; fresh.After(a.Consented) {
			a.Consented, a.Authorised, a.Granted = fresh, &Mark{time.Now(), g.Name}, nil
			if a.Checked = (time.Time{}); a.withdrawn() { // whether the sign-in still works shows when it is used
				a.Lost = nil
			}
			if err = tx.Continue(ctx, a.Account); err != nil {
				return err
			}
			err = tx.Audit(ctx, "tenant.authorise", a.Account, map[string]any{"tenant": a.Tenant, "by": g.Name})
		}
		if err == nil {
			err = tx.SetAccess(ctx, a, nil)
		}
		if err != nil {
			return err
		}
		now, err := tx.Session(ctx, se.ID)
		if err != nil || now == nil {
			return cmp.Or(err, error(errNoSession))
		}
		now.Person, now.Claimed, now.ClaimedAt, now.Wait = g.Name, "", time.Time{}, time.Time{}
		return tx.SetSession(ctx, now)
	})
}

// integrate keeps an access that works. p is nil in mode Application.
func (s *Service) integrate(ctx context.Context, tx Tx, a *Access, mode Mode, p *Person, token Secret) error {
	by := "the application"
	if p != nil {
		by = p.Name
	}
	if a.Mode != mode { // the tokens of another mode have other permissions
		a.Granted = nil
	}
	now := time.Now()
	a.Mode, a.Person, a.Lost, a.Integrated = mode, p, nil, &Mark{now, by}
	a.Checked, a.Due = now, now.Add(checkEvery)
	what := map[string]any{"tenant": a.Tenant, "mode": mode, "by": by}
	if err := tx.SetAccess(ctx, a, token); err != nil {
		return err
	}
	if err := tx.Audit(ctx, "tenant.signIn", a.Account, what); err != nil {
		return err
	}
	return tx.Continue(ctx, a.Account)
}

// need returns a need for directory roles.
func need(id string, who permission.Who) permission.Role {
	all := permission.Roles()
	return all[slices.IndexFunc(all, func(r permission.Role) bool { return r.ID == id && r.Who == who })]
}

// enough returns an error unless one of the roles may administer the voice objects of Teams.
func enough(who permission.Who, name string, ids []string) error {
	wanted := need("teams", who)
	if wanted.HeldBy(ids) {
		return nil
	}
	return fault.New(fault.Conflict, "RolesMissing",
		"%s has %s; it needs the role %s. Assign it in the Microsoft Entra "+
			"admin centre under Roles and administrators, wait some minutes, and sign in again", name,
		cmp.Or(strings.Join(permission.RoleNames(ids), ", "), "no directory role"), wanted.Names())
}

func actor(ctx context.Context) string {
	a := domain.ActorFrom(ctx)
	return a.Kind + ":" + a.ID
}
