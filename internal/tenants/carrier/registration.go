package carrier

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

// Registration is the operator's app registration: as it must be, or as it is.
type Registration struct {
	ClientID        string // of one that exists
	Name            string
	Audience        string // signInAudience
	Redirects       []string
	Claims          string // groupMembershipClaims
	PublisherDomain string
	Permissions     []permission.Permission
	// Certificate is the one to register. Expires has the expiries of those that are.
	Certificate *x509.Certificate
	Expires     []time.Time
}

// Want returns the registration as it must be. redirects are the addresses to which sign-ins return: pages of the
// public front, and loopback for the command line. certificate may be nil.
func Want(base string, redirects []string, certificate *x509.Certificate) Registration {
	return Registration{Name: "Tandem " + base, Audience: "AzureADMultipleOrgs", Redirects: redirects,
		PublisherDomain: base, Permissions: permission.All(), Certificate: certificate,
		// With the directory roles of the account in its tokens, nothing else needs to be asked for them.
		Claims: "DirectoryRole"}
}

// Difference is a member of a registration that is not as it must be.
type Difference struct {
	Field           string
	Expected, Found string
}

// Differences compares a registration with how it must be. Certificates are compared by their expiry, which is all that
// Microsoft shows of them besides an id.
func Differences(want, got *Registration) []Difference {
	var all []Difference
	add := func(field, expected, found string) {
		if !strings.EqualFold(expected, found) {
			all = append(all, Difference{field, expected, found})
		}
	}
	add("signInAudience", want.Audience, got.Audience)
	add("groupMembershipClaims", want.Claims, got.Claims)
	add("publisherDomain", want.PublisherDomain, got.PublisherDomain)
	for _, r := range want.Redirects {
		if !slices.Contains(got.Redirects, r) {
			add("web.redirectUris", r, "")
		}
	}
	for _, r := range got.Redirects {
		if !slices.Contains(want.Redirects, r) {
			add("web.redirectUris", "", r)
		}
	}
	for _, p := range want.Permissions {
		if !has(got.Permissions, p) {
			add("requiredResourceAccess", label(p), "")
		}
	}
	for _, p := range got.Permissions {
		if !has(want.Permissions, p) {
			add("requiredResourceAccess", "", label(p))
		}
	}
	if want.Certificate == nil {
		return append(all, Difference{"keyCredentials", "a certificate (onboarding.app.certificateFile)",
			"none configured"})
	}
	expires := want.Certificate.NotAfter.UTC()
	if !slices.ContainsFunc(got.Expires, func(t time.Time) bool { return t.Sub(expires).Abs() < time.Second }) {
		found := make([]string, len(got.Expires))
		for i, t := range got.Expires {
			found[i] = t.UTC().Format(time.RFC3339)
		}
		add("keyCredentials", "a certificate until "+expires.Format(time.RFC3339), strings.Join(found, ", "))
	}
	return all
}

func has(list []permission.Permission, p permission.Permission) bool {
	return slices.ContainsFunc(list, func(q permission.Permission) bool {
		return q.Kind == p.Kind && strings.EqualFold(q.ID, p.ID) && strings.EqualFold(q.Resource, p.Resource)
	})
}

func label(p permission.Permission) string {
	return fmt.Sprintf("%s (%s)", cmp.Or(p.Name, p.ID), p.Kind)
}

// Registrar reads and makes registrations in the operator's tenant.
type Registrar interface {
	// Find returns the registration with a client id or, if that is empty, with a name; an error of kind fault.NotFound
	// if there is none.
	Find(ctx context.Context, clientID, name string) (*Registration, error)
	// Create makes a registration and returns its client id.
	Create(ctx context.Context, r *Registration) (string, error)
}

// App is the app registration and how to get at it.
type App struct {
	Want     Registration
	ClientID string // that the configuration names; may be empty
	// Manifest returns the registration as Microsoft Graph takes it, in JSON.
	Manifest func(r *Registration) ([]byte, error)
	// Registrar returns the operator's tenant, to create as the person who signed in there, and to read also as the
	// application. An error says what a person must do.
	Registrar func(ctx context.Context, create bool) (Registrar, error)
	// Audit records an action, after it.
	Audit func(ctx context.Context, action, target string, items int, what any) error
}

// Create makes the registration and returns its client id.
func (a *App) Create(ctx context.Context) (string, error) {
	registrar, err := a.Registrar(ctx, true)
	if err != nil {
		return "", err
	}
	// One of an earlier attempt, whose answer was lost, is not made twice.
	found, err := registrar.Find(ctx, "", a.Want.Name)
	if err == nil {
		return "", fault.New(fault.Conflict, "AppExists", "the tenant has an app registration %q already, with the "+
			"client id %s; set onboarding.app.id to that", a.Want.Name, found.ClientID)
	}
	if !fault.Is(err, fault.NotFound) {
		return "", err
	}

	id, err := registrar.Create(ctx, &a.Want)
	if err != nil {
		return "", err
	}
	return id, a.Audit(ctx, "carrier.createApp", id, 1, map[string]string{"name": a.Want.Name})
}

// Check compares the registration with how it must be.
func (a *App) Check(ctx context.Context) (clientID string, differences []Difference, err error) {
	registrar, err := a.Registrar(ctx, false)
	if err != nil {
		return "", nil, err
	}
	found, err := registrar.Find(ctx, a.ClientID, a.Want.Name)
	if fault.Is(err, fault.NotFound) {
		return "", nil, fault.New(fault.NotFound, "AppNotFound", "the operator's tenant has no such app registration; "+
			"make it (tandem carrier app create) and set onboarding.app.id").Because(err)
	}
	if err != nil {
		return "", nil, err
	}
	return found.ClientID, Differences(&a.Want, found), nil
}
