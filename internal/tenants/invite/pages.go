package invite

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

const (
	// MaxBody bounds the bodies of the pages' forms, in bytes.
	MaxBody = 4 << 10

	linkPath = "/i/"
	// CallbackPath is where sign-ins return.
	CallbackPath = "/callback"
	// Loopback is where sign-ins of the command line return. It is registered without the port (RFC 8252 §7.3).
	Loopback   = "http://127.0.0.1"
	cookieName = "__Host-onboard"
	// checkFor bounds a readiness check; the front answers within 30 s.
	checkFor = 20 * time.Second
	refresh  = 10 * time.Second
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	templates = template.Must(template.New("").Funcs(template.FuncMap{"stamp": stamp, "permissions": permission.All,
		"consenter": func() permission.Role { return need("consent", permission.Consenter) },
		"needed":    func() permission.Role { return need("teams", permission.Person) },
		"purger":    func() permission.Role { return need("purge", permission.Person) },
		"appNeeds":  func() permission.Role { return need("teams", permission.App) }}).Parse(pageText))
)

// page is what page.html shows.
type page struct {
	*Service
	View, Title string
	Class       string // ok, limited, error, or empty
	Stage       int    // 1 to 4; 0 shows none
	Stages      []stage
	CSRF        string
	Refresh     int    // seconds until the browser loads the page again; 0: it does not
	To          string // where Refresh, or a button, leads
	Text, Do    string
	Authorise   bool // offer step 1 again
	Access      *Access
	Expected    string
	Groups      [][]Finding
	Failed      bool // a finding failed
	Work        *Work
}

// stage is one of the steps that every page shows.
type stage struct {
	Name      string
	Past, Now bool
}

// stamp returns a time as the pages show it.
func stamp(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// Serve serves the pages: the Serve of a front.Site with MaxBody.
func (s *Service) Serve(w http.ResponseWriter, r *http.Request) error {
	ctx := domain.WithActor(r.Context(), domain.Actor{Kind: "system", ID: "onboard"})
	token, isLink := strings.CutPrefix(r.URL.Path, linkPath)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/page.css":
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=3600")
		_, err := w.Write([]byte(pageStyle))
		return err
	case r.Method == http.MethodGet && isLink:
		return s.open(ctx, w, r, token)
	case r.Method == http.MethodGet && r.URL.Path == "/":
		return s.visit(ctx, w, r, s.show)
	case r.Method == http.MethodGet && r.URL.Path == CallbackPath:
		return s.visit(ctx, w, r, s.callback)
	case r.Method == http.MethodPost:
		if do := s.forms()[r.URL.Path]; do != nil {
			return s.visit(ctx, w, r, func(ctx context.Context, se *Session, r *http.Request) (*page, error) {
				return s.submitted(ctx, se, r, do)
			})
		}
	}
	return fault.New(fault.NotFound, "ResourceNotFound", "there is nothing at this path; open the link that you "+
		"received")
}

type action = func(context.Context, *Session) (*page, error)

// forms are the actions of the buttons, by the path that they are posted to.
func (s *Service) forms() map[string]action {
	trip := func(step Step) action {
		return func(ctx context.Context, se *Session) (*page, error) {
			a, err := s.begin(ctx, se.ID, step, s.URL+CallbackPath)
			if err != nil {
				return nil, err
			}
			// A form's redirect may not lead to another host (form-action); the reload of a page may.
			return &page{View: "leave", Title: "Continue at Microsoft", To: a.URL}, nil
		}
	}
	return map[string]action{"/authorise": trip(Consent), "/confirm": trip(Identify), "/integrate": trip(Integrate),
		"/application": func(ctx context.Context, se *Session) (*page, error) {
			a, err := s.Access(ctx, se.Account)
			switch {
			case err != nil:
			case se.Person == "":
				err = errForged
			case a.valid() && a.Mode != "" && a.Lost == nil: // a sign-in that works is kept
			default:
				_, err = s.useApplication(ctx, se.Account, a)
			}
			return nil, err
		}}
}

// open follows a link: it begins a session.
func (s *Service) open(ctx context.Context, w http.ResponseWriter, r *http.Request, token string) error {
	var se *Session
	var id string
	var expired time.Time
	err := s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		se, expired = nil, time.Time{}
		i, err := tx.InvitationBy(ctx, hash(token))
		if err != nil || i == nil {
			return err
		}
		now := time.Now()
		if !now.Before(i.Expires) {
			expired = i.Expires
			return nil
		}
		if i.Opened.IsZero() {
			i.Opened = now
			if err := tx.SetInvitation(ctx, i); err != nil {
				return err
			}
		}
		se, id = newSession(i.Account)
		se.Invited, se.Expected = true, i.Tenant
		return tx.SetSession(ctx, se)
	})
	switch {
	case err != nil:
		return err
	case !expired.IsZero():
		return s.write(w, r, http.StatusGone, &page{Title: "This link has expired", Class: "limited",
			Text: "It was valid until " + stamp(expired) + ". Nothing was changed.", Do: "Ask " + s.Operator +
				" for another link."})
	case se == nil:
		return s.write(w, r, http.StatusNotFound, &page{Title: "This link is not valid", Class: "limited",
			Text: "It was revoked, or replaced by a newer one, or copied incompletely.",
			Do: "Use the newest link that " +
				"you received, or ask " + s.Operator + " for another one."})
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: id, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: int(sessionLife.Seconds())})
	return s.home(w)
}

// home sends the browser to the page of its session.
func (s *Service) home(w http.ResponseWriter) error {
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// visit calls do for the session of the browser's cookie. It shows the page that do returns, none: the page of the
// session.
func (s *Service) visit(ctx context.Context, w http.ResponseWriter, r *http.Request,
	do func(context.Context, *Session, *http.Request) (*page, error)) error {
	var se *Session
	if c, err := r.Cookie(cookieName); err == nil {
		err := s.Store.View(ctx, func(ctx context.Context, tx Tx) (err error) {
			se, err = tx.Session(ctx, hash(c.Value))
			return err
		})
		if err != nil {
			return err
		}
	}
	if se == nil || !se.Invited {
		return s.write(w, r, http.StatusForbidden, &page{Title: "Open your link again", Class: "limited",
			Text: "This browser has no visit in progress: it ended after an hour, or was begun in another browser or " +
				"in a private window. What you have authorised so far is kept.",
			Do: "Open the link that you received from " + s.Operator +
				", in the browser in which you want to continue."})
	}
	p, err := do(ctx, se, r)
	switch {
	case err != nil:
		status, p := s.problem(err)
		if p == nil {
			return err
		}
		p.CSRF = se.CSRF
		return s.write(w, r, status, p)
	case p == nil:
		return s.home(w)
	}
	p.CSRF, p.Expected = se.CSRF, se.Expected
	return s.write(w, r, http.StatusOK, p)
}

// submitted runs the action of a form that carries the session's token.
func (s *Service) submitted(ctx context.Context, se *Session, r *http.Request, do action) (*page, error) {
	if err := r.ParseForm(); err != nil {
		return nil, fault.New(fault.Invalid, "InvalidForm", "the form cannot be read").Because(err)
	}
	if !equal(se.CSRF, r.PostForm.Get("csrf")) {
		return nil, errForged
	}
	return do(ctx, se)
}

// callback is where Microsoft sends the browser back to.
func (s *Service) callback(ctx context.Context, se *Session, r *http.Request) (*page, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errForged
	}
	step := Step("")
	if se.Attempt != nil {
		step = se.Attempt.Step
	}
	if err := s.finish(ctx, se.ID, q); err != nil {
		if fault.HasCode(err, "ConsentPropagating") || fault.HasCode(err, errUsed.Code) {
			return nil, nil // the page of the session says so, or is the one after the first use
		}
		return nil, err
	}
	if step == Consent { // the person is signed in there already: most see no page
		return s.forms()["/confirm"](ctx, se)
	}
	return nil, nil
}

// show is the page of a session: what to do next.
func (s *Service) show(ctx context.Context, se *Session, _ *http.Request) (*page, error) {
	a, err := s.Access(ctx, se.Account)
	if err != nil {
		return nil, err
	}
	if a != nil && a.Ended.After(se.Created) {
		return s.progress(ctx, a)
	}
	if a.valid() && a.Mode != "" && a.Lost == nil && a.Checked.IsZero() { // not used since it was authorised again
		now, err := s.check(ctx, nil, a)
		switch {
		case err == nil:
			a = now
		case fault.HasCode(err, "ConsentPropagating"):
			return s.waiting(2, max(fault.As(err).RetryAfter, refresh)), nil
		case !fault.Is(err, fault.Unavailable):
			return nil, err
		}
	}
	step := next(se, a)
	if wait := time.Until(se.Wait); wait > 0 {
		return s.waiting(map[Step]int{Consent: 1, Identify: 1, Integrate: 2}[step], wait), nil
	}
	switch step {
	case Consent:
		return s.ask(a), nil
	case Identify:
		return &page{View: "confirm", Title: "Confirm your organisation", Stage: 1, Access: a}, nil
	}
	if a.Mode != "" && a.Lost == nil {
		return s.progress(ctx, a)
	}
	return s.readiness(ctx, se, a)
}

// ask is the page of step 1. a is nil before the first consent.
func (s *Service) ask(a *Access) *page {
	p := &page{View: "ask", Title: "Authorise telephony from " + s.Operator, Stage: 1}
	if a.withdrawn() {
		p.Title, p.Access = "A new authorisation is needed", a
	}
	return p
}

// waiting is the page while a consent propagates.
func (s *Service) waiting(stage int, wait time.Duration) *page {
	return &page{View: "wait", Title: "Microsoft is distributing your authorisation", Class: "limited", Stage: stage,
		To: "/", Refresh: int(max(wait, time.Second).Seconds()) + 1}
}

// readiness is the page with the findings, and the button of step 3.
func (s *Service) readiness(ctx context.Context, se *Session, a *Access) (*page, error) {
	p := &page{View: "readiness", Title: "Check before the integration", Stage: 2, Access: a}
	if a.Lost != nil {
		p.Title = "A new sign-in is needed"
	}
	if s.Readiness != nil {
		limited, cancel := context.WithTimeout(ctx, checkFor)
		defer cancel()
		findings, err := s.Readiness.Findings(limited, se.Account)
		switch {
		case fault.HasCode(err, "ConsentPropagating") ||
			fault.HasCode(err, "ConsentNeeded") && time.Since(a.Consented) < consentGrace:
			return s.waiting(2, max(fault.As(err).RetryAfter, refresh)), nil
		case err != nil:
			return nil, err
		}
		if a, err = s.Access(ctx, se.Account); err != nil || a.withdrawn() { // the check has noticed it
			return s.ask(a), err
		}
		p.Access = a
		for i, f := range findings {
			if i == 0 || f.Group != findings[i-1].Group {
				p.Groups = append(p.Groups, nil)
			}
			last := len(p.Groups) - 1
			p.Groups[last] = append(p.Groups[last], f)
		}
		p.Failed = slices.ContainsFunc(findings, func(f Finding) bool { return f.Result == Fail })
	}
	if s.Usable != nil {
		if err := s.Usable(); err != nil {
			p.Text = sentence(fault.As(err).Message)
		}
	}
	if a.ReadinessSeen != nil {
		return p, nil
	}
	return p, s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		a, err := tx.Access(ctx, se.Account)
		if err != nil || a == nil || a.ReadinessSeen != nil {
			return err
		}
		a.ReadinessSeen = &Mark{time.Now(), se.Person}
		return tx.SetAccess(ctx, a, nil)
	})
}

// progress is the page after step 3.
func (s *Service) progress(ctx context.Context, a *Access) (*page, error) {
	p := &page{View: "progress", Title: "Connected", Class: "ok", Stage: 4, Access: a, Work: &Work{}, To: "/"}
	if !a.Ended.IsZero() {
		p.Work = &Work{Left: true}
	} else if s.Progress != nil {
		w, err := s.Progress.Work(ctx, a.Account)
		if err != nil {
			return nil, err
		}
		if p.Work = w; w.Left && a.AfterLeave {
			p.Work = &Work{} // nothing was planned since
		}
	}
	switch {
	case p.Work.Left:
		p.Title = "Disconnected"
	case p.Work.Done:
		p.Title = "Everything is in place"
	default:
		p.Refresh = int(refresh.Seconds())
	}
	return p, nil
}

// remedies are what to do about a refusal, by its code, after its message. %s is the operator.
var remedies = map[string]struct{ title, do string }{
	"ConsentDeclined": {"You did not accept", "Nothing was changed. Go back to read again what is asked and why; ask " +
		"%s if something is unclear. If you meant to accept, begin again."},
	"ConsentNeeded": {"The authorisation is missing", "A Global Administrator or Privileged Role Administrator must " +
		"accept in step 1. If that is not you, send your link to such an administrator."},
	"SignInNeeded": {"Microsoft wants another sign-in", "Do what the text above says, then go back and sign in again."},
	"AccountUnsuitable": {"This account cannot be used", "Go back and choose another account at Microsoft; a private " +
		"browser window helps if Microsoft always takes the same one."},
	"TenantDiffers": {"This is another organisation",
		"Go back and use an account of the right organisation, or ask %s " +
			"for a link for this one."},
	"TenantInUse": {"This organisation is already connected", "Tell %s, who can see as which customer."},
	"RolesMissing": {"A role is missing",
		"Do so, or use another account; then go back and sign in. The sign-in was not " +
			"kept."},
	"AppRegistration": {"The operator must repair this",
		"Your account is in order, and you need to do nothing. Tell %s " +
			"the text above; try again when they have repaired it."},
	"EntraUnavailable": {"Microsoft does not answer", "Nothing is lost. Go back and try again in a minute."},
	"TenantNotFound": {"Microsoft does not know this organisation",
		"Check with %s that the link is for your tenant."},
	"SignInRefused": {"Microsoft refused the sign-in", "Look up the AADSTS code at https://login.microsoftonline.com/" +
		"error, or send it to %s."},
	"InvalidIDToken":  {"The sign-in could not be checked", "Go back and sign in again. If it happens twice, tell %s."},
	"InvalidRedirect": {"Microsoft's answer is incomplete", "Go back and begin again."},
	"InvalidState": {"This page belongs to another visit",
		"Nothing was changed. Go back to the present page; do not use " +
			"the browser's Back button during the steps, nor two windows at once."},
	"NotAuthorised":      {"Step 1 comes first", "Go back and authorise first."},
	"ConsentPropagating": {"Microsoft is distributing your authorisation", "Go back in a minute."},
	"TeamsUnavailable": {"The operator must install something",
		"You need to do nothing. %s finishes the preparation."},
	"InvalidForm": {"The form could not be read", "Go back and press the button again."},
}

// problem returns the page about an error; nil for one that is not about the visit.
func (s *Service) problem(err error) (int, *page) {
	f := fault.As(err)
	r, ok := remedies[f.Code]
	if !ok && f.Kind == fault.Conflict {
		r, ok = remedies["SignInNeeded"], true
		r.title, r.do = "This is not possible now", "Ask %s."
	}
	if !ok {
		return 0, nil
	}
	do := r.do
	if strings.Contains(do, "%s") {
		do = fmt.Sprintf(do, s.Operator)
	}
	status := http.StatusConflict
	if f.Kind == fault.Invalid {
		status = http.StatusBadRequest
	} else if f.Kind == fault.Unavailable {
		status = http.StatusServiceUnavailable
	}
	return status, &page{Title: r.title, Class: "error", Text: sentence(Told(err)), Do: do, To: "/",
		Authorise: f.Code == "ConsentNeeded"}
}

// sentence makes a message a sentence.
func sentence(message string) string {
	first, size := utf8.DecodeRuneInString(message)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(message[size:], ".") + "."
}

// write answers with a page.
func (s *Service) write(w http.ResponseWriter, _ *http.Request, status int, p *page) error {
	p.Service = s
	for i, name := range []string{"Authorise", "Check", "Integrate", "Progress"} {
		p.Stages = append(p.Stages, stage{name, i < p.Stage-1, i == p.Stage-1})
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "page", p); err != nil {
		return fault.Wrap(err, "render the page %q", p.Title)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // an error is logged with the request
	return nil
}
