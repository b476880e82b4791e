package config

import (
	"cmp"
	"net/url"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
)

// Onboarding is how customers' Microsoft 365 tenants are onboarded.
type Onboarding struct {
	// App is the operator's multi-tenant app registration (tandem carrier app prints what it must be). Without it no
	// tenant can be onboarded.
	App AppRegistration `yaml:"app"`
	// Operator is the operator's name on the pages for administrators. Default "your operator".
	Operator string `yaml:"operator"`
	// FrontURL is the URL of these pages, without a path, as the app registration has it among its redirect URIs.
	// Default https://onboard.<base domain>.
	FrontURL string `yaml:"frontUrl"`
	// Partners accepts sign-ins of partners of a customer (GDAP), which cannot do everything. Default false.
	Partners bool `yaml:"partners"`
	// Teams says how the voice configuration of tenants is changed, for which Microsoft Graph has no API: "none" (it is
	// not: tenants are authorised and checked, but not onboarded), "https" (by the service behind Microsoft's
	// PowerShell module, which is undocumented, may change without notice and is not supported by Microsoft) or
	// "powershell" (by the module, which must be installed; not verified against the real one). Default "none".
	Teams string `yaml:"teams"`
	// PowerShell is how "teams: powershell" runs the module.
	PowerShell powershell.Config `yaml:"powershell"`
	// Prefix is the name of every object that Tandem makes in a tenant: its PSTN usage, routing policy, route and dial
	// plan. 1 to 49 letters, digits, "-" and "."; default "Tandem-E164". Tenants that are onboarded keep the names they
	// have.
	Prefix string `yaml:"prefix"`
	// CheckEvery is how often each tenant is compared with what Tandem made in it. 10m to 24h; default 1h.
	CheckEvery time.Duration `yaml:"checkEvery"`
	// SyncEvery is how often the changes of each tenant's users are read. 1m to 24h; default 15m.
	SyncEvery time.Duration `yaml:"syncEvery"`
	// LoginURL is the identity platform. Default that of Microsoft's global cloud; national clouds have their own.
	LoginURL string `yaml:"loginUrl"`
	// GraphURL is Microsoft Graph with its version. Default that of the global cloud.
	GraphURL string `yaml:"graphUrl"`
	// TeamsURL is the service that teams: https uses. Default that of the global cloud.
	TeamsURL string `yaml:"teamsUrl"`
	// RootsFile is the PEM file with the authorities that must have issued the certificates of these three. Path;
	// default those of the operating system.
	RootsFile string `yaml:"rootsFile"`
}

// AppRegistration is an app registration with its credential: a certificate, or a secret.
type AppRegistration struct {
	// ID is the application (client) id, a GUID. Default none: nothing is onboarded.
	ID string `yaml:"id"`
	// CertificateFile is the PEM file with the app's certificate. Path. It is the preferred credential: with a secret
	// the service accepts no application-only sign-in of the PowerShell module.
	CertificateFile string `yaml:"certificateFile"`
	// KeyFile is the PEM file with the certificate's RSA key. Path. Required with certificateFile.
	KeyFile string `yaml:"keyFile"`
	// SecretFile is the file with a client secret, instead of a certificate. Path.
	SecretFile string `yaml:"secretFile"`
}

// The values of Onboarding.Teams.
const (
	TeamsNone       = "none"
	TeamsHTTPS      = "https"
	TeamsPowerShell = "powershell"
)

// Enabled reports whether tenants can be onboarded.
func (o *Onboarding) Enabled() bool { return o.App.ID != "" }

func defaultOnboarding() Onboarding {
	return Onboarding{Operator: "your operator", Teams: TeamsNone, PowerShell: powershell.Default(),
		Prefix: "Tandem-E164", CheckEvery: time.Hour, SyncEvery: 15 * time.Minute,
		LoginURL: entra.Login, GraphURL: graph.Global, TeamsURL: teamsadmin.Public}
}

// problems returns every mistake, for a base domain and a public front.
func (o *Onboarding) problems(base, front string) (errs fault.Problems) {
	a := &o.App
	credential := a.CertificateFile != "" || a.KeyFile != "" || a.SecretFile != ""
	switch {
	case a.ID == "" && credential:
		errs.Add("app.id", "is missing; give the application (client) id of the app registration")
	case a.ID != "" && !domain.IsGUID(a.ID):
		errs.Add("app.id", "%q is not an application (client) id, which is a GUID", a.ID)
	case a.ID != "" && !credential:
		errs.Add("app", "has no credential; give certificateFile and keyFile, or secretFile")
	case (a.CertificateFile == "") != (a.KeyFile == ""):
		errs.Add("app", "certificateFile and keyFile belong together; give both or neither")
	case a.CertificateFile != "" && a.SecretFile != "":
		errs.Add("app.secretFile", "the app has a certificate already; give one credential")
	}
	if o.Enabled() && base == "" {
		errs.Add("app", "customers' names are below calls.routing.baseDomain, which is not set; set it")
	}
	if o.Enabled() && front == Off {
		errs.Add("app", "administrators of tenants open their invitations on the public front, which is off; set "+
			"front.listen")
	}

	if o.Teams != TeamsNone && o.Teams != TeamsHTTPS && o.Teams != TeamsPowerShell {
		errs.Add("teams", "%q is unknown; use none, https or powershell", o.Teams)
	}
	for _, err := range o.PowerShell.Validate() {
		f := fault.As(err)
		errs.Add("powershell."+f.Target, "%s", f.Message)
	}
	if err := dialplan.CheckPlan(o.Prefix, ""); err != nil {
		errs.Add("prefix", "%v", err)
	}
	if o.CheckEvery < 10*time.Minute || o.CheckEvery > 24*time.Hour {
		errs.Add("checkEvery", "%v is out of range; use 10m to 24h", o.CheckEvery)
	}
	if o.SyncEvery < time.Minute || o.SyncEvery > 24*time.Hour {
		errs.Add("syncEvery", "%v is out of range; use 1m to 24h", o.SyncEvery)
	}
	for name, address := range map[string]string{"loginUrl": o.LoginURL, "graphUrl": o.GraphURL,
		"teamsUrl": o.TeamsURL, "frontUrl": cmp.Or(o.FrontURL, "https://onboard."+base)} {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" {
			errs.Add(name, "%q is not an https URL", address)
		}
	}

	return errs
}
