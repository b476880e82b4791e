package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	tenantstore "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/carrier"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	readycheck "github.com/tandemgw/tandem/internal/tenants/readiness"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/tenantapi"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// tenants is what onboards customers' Microsoft 365 tenants. A node without an app registration has none.
type tenants struct {
	n           *node
	log         *slog.Logger
	service     domain.Service // whose names the labels are
	servers     *check.Servers
	connector   *tenant.Connector
	worker      *powershell.Worker // nil unless onboarding.teams is powershell
	certificate *x509.Certificate  // of the app registration; nil if it has a secret
	expiry      *carrier.Expiry

	store     *tenantstore.Store
	access    tenantstore.Access
	rows      tenantstore.Users
	planner   *onboard.Planner
	invite    *invite.Service
	readiness *readycheck.Checker
	users     *user.Service
	metrics   *user.Metrics
	snapshots *snapshot.Snapshots
	drift     *drift.Checker
	work      *onboard.Metrics
	rollouts  *rollout.Service
	moves     *move.Service
}

// buildTenants makes what the roles api, worker and front share.
func (n *node) buildTenants(_ context.Context, r *role) error {
	cfg := &n.cfg.Onboarding
	if !cfg.Enabled() {
		return nil
	}
	credential, err := entra.ReadCredential(cfg.App.CertificateFile, cfg.App.KeyFile, cfg.App.SecretFile)
	if err != nil {
		return fmt.Errorf("onboarding.app: %w", err)
	}
	carrying := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	r.close = carrying.CloseIdleConnections
	if cfg.RootsFile != "" {
		roots, err := transport.LoadRoots(cfg.RootsFile)
		if err != nil {
			return fmt.Errorf("onboarding.rootsFile: %w", err)
		}
		carrying.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	app, err := entra.New(entra.Config{Authority: cfg.LoginURL, ClientID: cfg.App.ID,
		Certificate: credential.Certificate, Key: credential.Key, Secret: credential.Secret, Transport: carrying})
	if err != nil {
		return fmt.Errorf("onboarding: %w", err)
	}

	c := n.core
	x := &tenants{n: n, log: n.log.With("part", "tenants"), store: c.tenants,
		access: tenantstore.Access{Store: c.tenants}, rows: tenantstore.Users{Store: c.tenants},
		servers: check.NewServers(n.cfg.Zone.Names.NameServers, nil)}
	for _, s := range services.All().Services() {
		if s.Traits().Labelled {
			x.service = s
		}
	}
	x.connector = &tenant.Connector{App: app, AppID: cfg.App.ID, Graph: cfg.GraphURL, Budget: graph.NewBudget(),
		UserAgent: "Tandem/" + n.version, Transport: carrying, Prove: x.prove, Lost: x.lost}
	x.connectTeams()
	x.buildInvite(&tenant.Login{Connector: x.connector, ClientID: cfg.App.ID,
		Tokens: func(account string) entra.Store { return x.access.Tokens(account) }})
	x.buildUsers()
	x.buildPlanner()
	x.buildFleet()
	x.buildReadiness()
	if x.certificate = credential.Certificate; x.certificate != nil {
		x.expiry = carrier.NewExpiry(x.certificate, x.store.CredentialExpires, x.log, n.metrics)
		r.ready = func(r *readiness) {
			if w := x.expiry.Warning(); w != "" {
				r.warn("onboarding: %s", w)
			}
		}
	}
	if x.worker != nil {
		r.parts = append(r.parts, running("powershell", x.worker.Run))
	}
	n.tenants = x
	return nil
}

// connectTeams chooses how Teams is administered.
func (x *tenants) connectTeams() {
	cfg := &x.n.cfg.Onboarding
	switch cfg.Teams {
	case config.TeamsHTTPS:
		x.connector.Teams = func(id string, t tenant.Tokens) (teamsadmin.Admin, error) {
			return teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: cfg.TeamsURL, Tokens: t.Teams,
				UserAgent: x.connector.UserAgent, Transport: x.connector.Transport})
		}
	case config.TeamsPowerShell:
		x.worker = powershell.New(cfg.PowerShell, powershell.Options{Log: x.log, Metrics: x.n.metrics,
			WrongTenant: x.wrongTenant})
		x.connector.Teams = func(id string, t tenant.Tokens) (teamsadmin.Admin, error) {
			return x.worker.Admin(id, powershell.SignIn{Graph: t.Graph, Teams: t.Teams}), nil
		}
	}
}

// buildPlanner makes what makes plans.
func (x *tenants) buildPlanner() {
	x.planner = &onboard.Planner{Deployment: x.deployment(), Store: x.store,
		Sources: func(ctx context.Context, t *onboard.Tenant) (onboard.Source, error) { return x.cloud(ctx, t) },
		Carrier: func(f onboard.Facts, made plan.Ledger) []plan.Object {
			return x.carrier().Objects(f.Licence, made)
		},
		Missing: func(ctx context.Context) ([]string, error) {
			settings := x.carrier()
			objects, err := x.carrierObjects(ctx, nil)
			if fault.HasCode(err, "NotAuthorised") || fault.HasCode(err, "SignInNeeded") {
				return []string{"no administrator has signed in to it yet (tandem tenant sign-in " + onboard.Carrier +
					")"}, nil
			}
			return carrier.Missing(objects, settings), err
		},
		Restored: x.restored,
		Leaving:  x.leaving,
		TenantID: func(ctx context.Context, account string) (string, error) {
			a, err := x.accessTo(ctx, account)
			if err != nil || a == nil {
				return "", err
			}
			return a.Tenant, nil
		}}
}

// restored returns what a tenant should have so that it is as in a snapshot. Users whose numbers the account no longer
// has, which may be another customer's by now, are not activated.
func (x *tenants) restored(ctx context.Context, account, id string) (*onboard.Restoration, error) {
	r, err := x.snapshots.Restore(ctx, account, id)
	if err != nil {
		return nil, err
	}
	numbers := make([]domain.E164, len(r.Users))
	for i, a := range activations(r.Users) {
		numbers[i] = user.Base(a.Number)
	}
	unusable, err := x.inventory().Unusable(ctx, account, numbers)
	if err != nil {
		return nil, err
	}
	var users []plan.Made
	for i, u := range r.Users {
		if why, ok := unusable[numbers[i]]; ok {
			r.Notes = append(r.Notes, plan.Note{Ref: u.Ref,
				Text: fmt.Sprintf("had %s; it is not activated: %s", numbers[i], why)})
			continue
		}
		users = append(users, u)
	}
	r.Users = users
	return r, nil
}

// buildReadiness makes what checks tenants before they are onboarded.
func (x *tenants) buildReadiness() {
	x.readiness = &readycheck.Checker{
		Source: func(ctx context.Context, account string) (readycheck.Source, error) {
			g, a, err := x.grant(ctx, account)
			if err != nil {
				return nil, err
			}
			f, err := x.connector.Facts(account, g, x.access.Tokens(account))
			if err != nil {
				return nil, err
			}
			f.AppID, f.Inventory = x.n.cfg.Onboarding.App.ID, x.inventory().among(account)
			if a.Person != nil {
				f.Name, f.Partner = a.Person.Name, a.Person.Guest
			}
			return f, nil
		},
		Settings: func(ctx context.Context, account string, t readycheck.Tenant) (*plan.Settings, error) {
			return x.planner.Preview(ctx, account, onboard.Facts{Initial: t.Initial, Country: t.Country})
		},
		Ledger: func(ctx context.Context, account string) (made plan.Ledger, err error) {
			err = x.store.View(ctx, account, func(ctx context.Context, tx onboard.Tx) error {
				made, err = tx.Ledger(ctx)
				return err
			})
			return made, err
		},
		DNS: x.n.answersName, Certificate: x.n.coversName, Reachable: x.n.reachesTrunk(x.planner.Port),
		Emergency: x.n.cfg.Calls.Routing.EmergencyStrings(), Teams: x.teams}
}

// teams says how Teams is administered here.
func (x *tenants) teams() readycheck.Implementation {
	switch x.n.cfg.Onboarding.Teams {
	case config.TeamsHTTPS:
		return readycheck.Implementation{Name: "the service behind the MicrosoftTeams module",
			Remark: "Microsoft does not support this use"}
	case config.TeamsPowerShell:
		return readycheck.Implementation{Name: "the MicrosoftTeams module",
			Remark: "not verified against the real module"}
	}
	return readycheck.Implementation{Missing: "nothing here can change the voice configuration of Teams; the " +
		"operator installs PowerShell 7 with the MicrosoftTeams module and sets onboarding.teams to powershell, " +
		"or to https"}
}

// inventory returns the numbers of accounts.
func (x *tenants) inventory() inventory { return inventory{x.n.core.directory, x.service} }

// kinds returns the work on tenants.
func (x *tenants) kinds() []*flow.Kind {
	o := &onboard.Onboarder{Store: x.store, Left: x.left, Done: x.done, Metrics: x.work, Log: x.log,
		Users:  x.usersOf,
		Clouds: func(ctx context.Context, t *onboard.Tenant) (onboard.Cloud, error) { return x.cloud(ctx, t) }}
	list := func(ctx context.Context, after string, limit int) ([]string, error) {
		all, err := x.store.Tenants(ctx, after, limit, true)
		ids := make([]string, len(all))
		for i, t := range all {
			ids[i] = t.Account
		}
		return ids, err
	}

	syncer := &user.Syncer{Store: x.rows, Clouds: x.users.Clouds, Every: x.n.cfg.Onboarding.SyncEvery,
		Metrics: x.metrics, Log: x.log}
	activator := &user.Activator{Store: x.rows, Clouds: x.users.Clouds}
	return []*flow.Kind{{Name: onboard.Kind, Reconcile: o.Reconcile, List: list},
		{Name: invite.Kind, Reconcile: x.invite.Reconcile, List: x.invite.List},
		syncer.Kind(), activator.Kind(), x.drift.Kind(x.n.metrics), x.rollouts.Work(), x.moves.Work()}
}

// parts returns what runs beside the work.
func (x *tenants) parts() []part {
	parts := []part{running("users", func(ctx context.Context) error { return x.metrics.Run(ctx, x.rows, x.log) }),
		running("tenants", func(ctx context.Context) error { return x.work.Run(ctx, x.store.Sums, x.log) })}
	if x.expiry != nil {
		parts = append(parts, running("credential", x.expiry.Run))
	}
	return parts
}

// leaving takes the snapshot with which the report of a leave is stored.
func (x *tenants) leaving(ctx context.Context, t *onboard.Tenant, _ plan.State, _ plan.Ledger) error {
	_, err := x.snapshots.Take(ctx, t.Account, snapshot.Leave)
	return err
}

// left writes the report of a leave.
func (x *tenants) left(ctx context.Context, t *onboard.Tenant, kept []plan.Note) error {
	_, err := x.snapshots.ReportLeave(ctx, t.Account, "", kept)
	return err
}

// advice returns what the customer may do after a leave.
func (x *tenants) advice(ctx context.Context, t *onboard.Tenant) (advice []string, err error) {
	a, err := x.accessTo(ctx, t.Account)
	if err != nil {
		return nil, err
	}
	if a != nil && a.Person != nil && t.Account != onboard.Carrier {
		advice = append(advice, fmt.Sprintf("The account %s signed in for Tandem. If it was made for that only, it "+
			"may now be deleted.", a.Person.Name))
	}
	if !t.RemoveConsent {
		advice = append(advice, fmt.Sprintf("The application %s is still in the tenant. An administrator may delete "+
			"it in the Microsoft Entra admin centre, under Enterprise applications.", x.n.cfg.Onboarding.App.ID))
	}
	return advice, nil
}

// done ends a plan: Teams hears from the names that have gateway objects, users that waited for the tenant's policies
// continue, and labels that nothing uses any more are released.
func (x *tenants) done(ctx context.Context, t *onboard.Tenant) error {
	if err := x.monitored(ctx, t); err != nil {
		return err
	}
	if err := x.labelled(ctx, t); err != nil {
		return err
	}
	if t.Purpose == onboard.Leave && t.Account == onboard.Carrier {
		return x.withdrawFromCarrier(ctx)
	}
	if t.Purpose != onboard.Leave {
		return x.rows.Update(ctx, nil, t.Account, "", func(ctx context.Context, tx user.Tx) error {
			return tx.Wake(ctx)
		})
	}
	for _, l := range t.Settings.Labels {
		err := x.n.core.directory.ReleaseLabel(ctx, onboard.Owner(t.Account), l.Name)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return x.endAccess(ctx, t)
}

// bind sets the management API's operations on tenants.
func (x *tenants) bind(ops *manage.Operations) {
	sealer, app := x.n.core.keyring, carrier.Want(x.planner.Base, x.n.redirects(), x.certificate)
	ops.TenantsOperations = tenantapi.Tenants{Planner: x.planner, Store: x.store, Sealer: sealer, Account: x.account,
		Fleet: x.store.Fleet, Rollouts: x.rollouts, Moves: x.moves, Names: x.rows.Names}
	ops.InvitationsOperations, ops.Tenant = x.invite, x.admit
	ops.ReadinessOperations = readycheck.Operations{Checker: x.readiness}
	ops.UsersOperations = tenantapi.Users{Service: x.users, Sealer: sealer}
	ops.SnapshotsOperations = tenantapi.Snapshots{Snapshots: x.snapshots, Cursors: sealer}
	ops.DriftOperations = tenantapi.Drift{Checker: x.drift, Names: x.rows.Names}
	ops.CarrierOperations = carrier.Operations{Settings: x.carrier(), Read: x.carrierObjects,
		Teams: func() (string, string) { t := x.teams(); return t.Name, t.Missing },
		App: &carrier.App{Want: app, ClientID: x.n.cfg.Onboarding.App.ID, Manifest: tenant.Manifest,
			Audit: x.n.core.audit,
			Registrar: func(ctx context.Context, create bool) (carrier.Registrar, error) {
				c, err := x.cloud(ctx, &onboard.Tenant{Account: onboard.Carrier})
				if err != nil {
					return nil, err
				}
				if !create {
					return tenant.Registrar{Graph: c.Graph}, nil
				}
				if c.Delegated == nil {
					return nil, fault.New(fault.Conflict, "SignInNeeded", "sign in to the operator's tenant "+
						"first (tandem tenant sign-in %s)", onboard.Carrier)
				}
				return tenant.Registrar{Graph: c.Delegated}, nil
			}}}
}
