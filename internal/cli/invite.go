package cli

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func tenantInvite(t *target) *cobra.Command {
	var r api.InvitationRequest
	var revoke bool
	cmd := &cobra.Command{Use: "invite ACCOUNT", Short: "Make a link for an administrator of the tenant",
		Example: "  tandem tenant invite contoso --days 3"}
	cmd = run(t, online, cmd,
		func(ctx context.Context, c *client.Client, args []string) (*api.CreatedInvitation, error) {
			if r.Days == 0 { // a body without days means the default
				return nil, misuse(cmd, errors.New("--days is from 1 to 90"))
			}
			if revoke {
				return nil, c.RevokeInvitation(ctx, args[0])
			}
			return c.Invite(ctx, args[0], r)
		}, func(p *page, i *api.CreatedInvitation) {
			if i == nil {
				p.line("The link is revoked.")
				return
			}
			p.line("%s", i.URL)
			p.line("Send it to an administrator of the tenant. It works until %s and is not shown again.",
				stamp(i.Expires))
		})
	f := cmd.Flags()
	f.IntVar(&r.Days, "days", 14, "for how many `DAYS` the link works, 1 to 90")
	f.StringVar(&r.Tenant, "tenant", "", "the only tenant that may be connected, by its `ID`")
	f.BoolVar(&revoke, "revoke", false, "revoke the link instead")
	return cmd
}

func tenantAccess(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "access ACCOUNT",
		Short: "Show the invitation and the sign-in of a tenant"},
		func(ctx context.Context, c *client.Client, args []string) (*api.TenantAccess, error) {
			return c.TenantAccess(ctx, args[0])
		}, printAccess)
}

func printAccess(p *page, a *api.TenantAccess) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-15s", label), format, args...) }
	field("state", "%s", a.State)
	if a.Tenant != "" {
		field("tenant", "%s", a.Tenant)
	}
	if i := a.Invitation; i != nil {
		field("invited", "%s by %s, %s %s", stamp(i.Created), i.CreatedBy, either(i.Expired, "expired", "until"),
			stamp(i.Expires))
		if !i.Opened.IsZero() {
			field("link opened", "%s", stamp(i.Opened))
		}
	}
	for _, m := range []struct {
		label string
		mark  *api.TenantMark
	}{{"authorised", a.Authorised}, {"readiness seen", a.ReadinessSeen}, {"signed in", a.Integrated}} {
		if m.mark != nil {
			field(m.label, "%s by %s", stamp(m.mark.At), m.mark.By)
		}
	}
	if a.Person != nil {
		field("roles", "%s", strings.Join(a.Person.Roles, ", "))
		if a.Person.Partner {
			field("", "an account of a partner: it cannot make policies the default of the tenant (40301)")
		}
	}
	if !a.Checked.IsZero() {
		field("last used", "%s", stamp(a.Checked))
	}
	if l := a.Lost; l != nil {
		field("lost", "%s: %s", stamp(l.Since), l.Reason)
		if l.Lifetime > 0 {
			field("", "a sign-in lives for %s there: unattended work is not possible with it", duration(l.Lifetime))
		}
	}
}

func tenantSignIn(t *target) *cobra.Command {
	r := api.SignInRequest{Way: api.SignInRequestWayBrowser}
	var device, application bool
	cmd := run(t, online, &cobra.Command{Use: "sign-in ACCOUNT",
		Short: "Authorise and sign in to a tenant, in a browser on this machine"},
		func(ctx context.Context, c *client.Client, args []string) (*api.TenantAccess, error) {
			say := func(format string, args ...any) {
				p := newPage(t.p.Stderr)
				p.line(format, args...)
				_, _ = fmt.Fprint(t.p.Stderr, p) // the command continues without
			}
			switch {
			case device:
				r.Way = api.SignInRequestWayDevice
				return byDevice(ctx, c, args[0], r, say)
			case application:
				r.Way = api.SignInRequestWayApplication
				step, err := c.StartSignIn(ctx, args[0], r)
				if err != nil {
					return nil, err
				}
				return &step.Access, nil
			}
			return byBrowser(ctx, c, args[0], r, say)
		}, printAccess)
	f := cmd.Flags()
	f.BoolVar(&device, "device", false, "enter a code in a browser on any machine instead")
	f.BoolVar(&application, "application", false, "use the application's own directory role, and no sign-in")
	f.StringVar(&r.Tenant, "tenant", "", "the only tenant that may be connected, by its `ID`")
	f.BoolVar(&r.Authorise, "authorise", false, "authorise again, for new permissions or after it was withdrawn")
	cmd.MarkFlagsMutuallyExclusive("device", "application", "authorise")
	return cmd
}

// byDevice shows a device code and polls until it was entered.
func byDevice(ctx context.Context, c *client.Client, account string, r api.SignInRequest,
	say func(string, ...any)) (*api.TenantAccess, error) {
	step, err := c.StartSignIn(ctx, account, r)
	if err != nil {
		return nil, err
	}
	say("Open %s and enter the code %s, until %s.", step.URL, step.UserCode, step.Expires.Local().Format("15:04"))
	for err == nil && step.ID != "" {
		select {
		case <-time.After(time.Duration(max(step.Interval, 1)) * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		step, err = c.ContinueSignIn(ctx, account, step.ID, "")
	}
	if err != nil {
		return nil, err
	}
	return &step.Access, nil
}

// byBrowser begins a sign-in and hands over the redirects, which Microsoft sends to this machine.
func byBrowser(ctx context.Context, c *client.Client, account string, r api.SignInRequest,
	say func(string, ...any)) (*api.TenantAccess, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.Port = listener.Addr().(*net.TCPAddr).Port
	step, err := c.StartSignIn(ctx, account, r)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}

	l := &loopback{c: c, account: account, id: step.ID, ended: make(chan signedIn, 1)}
	server := &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until Shutdown
	say("Open this page in a browser on this machine:\n%s", step.URL)
	var end signedIn
	select {
	case end = <-l.ended:
	case <-ctx.Done():
		end.err = ctx.Err()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = server.Shutdown(last) // so that the browser has the last page
	return end.access, end.err
}

// loopback receives the redirects of one sign-in. The browser makes one request after the other; other requests are
// refused by the management API, because their state is wrong.
type loopback struct {
	c           *client.Client
	account, id string
	ended       chan signedIn // holds the first end
}

// signedIn is the end of a sign-in.
type signedIn struct {
	access *api.TenantAccess
	err    error
}

// ServeHTTP implements http.Handler.
func (l *loopback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/" || !q.Has("state") {
		http.NotFound(w, r)
		return
	}
	step, err := l.c.ContinueSignIn(r.Context(), l.account, l.id, r.URL.RawQuery)
	if remote, ok := errors.AsType[*client.Error](err); ok && remote.Code == "InvalidState" {
		http.Error(w, "This answer does not belong to the sign-in that runs.", http.StatusBadRequest)
		return
	}

	text, refresh := "You are signed in. Close this page.", ""
	var end signedIn
	switch {
	case err != nil:
		end.err, text = err, "Signing in failed: "+err.Error()
	case step.ID == "":
		end.access = &step.Access
	default:
		text = "Microsoft is distributing your authorisation. This page continues automatically."
		refresh = fmt.Sprintf(`<meta http-equiv="refresh" content="%d;url=%s"/>`, step.Interval,
			html.EscapeString(step.URL))
	}
	if refresh != "" && step.Interval == 0 {
		http.Redirect(w, r, step.URL, http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = fmt.Fprintf(w, `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"/>%s<title>Tandem</title></head>`+
		`<body><p>%s</p></body></html>`, refresh, html.EscapeString(text)) // the browser may have left
	if refresh == "" {
		select {
		case l.ended <- end:
		default: // another one was first
		}
	}
}
