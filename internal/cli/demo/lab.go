package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

// Lab is the simulated neighbours of a Tandem in the same process: of "tandem serve --lab". Life cycle: StartLab, then
// Tandem is started with ConfigFile and Seed, then Open; at the end Close.
type Lab struct {
	*lab.Lab
	ConfigFile string // configuration of the Tandem in the middle
	api        *client.Client
	// lost are the accounts that have something in tenants of an earlier start. Microsoft's cloud is new at each start.
	lost []string
}

// labDir returns where a lab keeps its files, below the data directory.
func labDir(data string) string { return filepath.Join(data, "lab") }

// StartLab starts the neighbours and writes the configuration of a Tandem between them below its data directory. c is a
// client of that Tandem, which need not run yet.
func StartLab(data string, freePorts bool, c *client.Client) (*Lab, error) {
	world, _, err := fixtures.Load()
	if err != nil {
		return nil, err
	}
	dir := labDir(data)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	g := lab.Usual(world.BaseDomain)
	if freePorts {
		g, err = lab.Free(world.BaseDomain)
	}
	x := &Lab{api: c}
	if err == nil {
		x.Lab, err = lab.Start(world, g, lab.Options{Directory: x.find, Control: dir, Microsoft: true})
	}
	if err != nil {
		return nil, err
	}
	if x.ConfigFile, err = WriteConfig(dir, x.Lab, freePorts); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// find returns a number of the directory and its account, once the number index has them; nothing if they cannot be
// read.
func (x *Lab) find(number string) (n, account any) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for n, err := range x.api.Numbers(ctx, "", client.List{Filter: "telephoneNumber eq '" + number + "'"}) {
		if err != nil {
			break
		}
		a, err := x.api.Account(ctx, n.AccountName)
		if err != nil {
			break
		}
		_ = poll(ctx, func(ctx context.Context) error { // if it fails, the call shows that the number is not known
			e, err := x.api.Explain(ctx, api.Question{From: number, To: number, Peer: "core-transit"})
			if err == nil && e.Account == "" {
				err = errors.New("not in the number index yet")
			}
			return err
		})
		return n, a
	}
	return nil, nil
}

// Seed adds what only services deliver to a directory that has no accounts.
func (x *Lab) Seed(ctx context.Context, d *directory.Directory) error {
	ctx = domain.WithActor(ctx, domain.Actor{Kind: "system", ID: "lab"})
	page, err := d.Accounts(ctx, directory.Query{Limit: 1})
	if err != nil || len(page.Items) > 0 {
		return err
	}
	s := x.World.Samples()
	for _, r := range s.Requests {
		err = errors.Join(err, d.SaveRequest(ctx, r))
	}
	return errors.Join(err, d.SaveCivicAddresses(ctx, s.Tenant, s.Addresses),
		d.SaveCapabilityPlans(ctx, s.Tenant, s.Plans))
}

// Open registers the operator's application, provisions the demonstration's customers, unless there are accounts, and
// waits until calls pass.
func (x *Lab) Open(ctx context.Context) error {
	if _, err := Register(ctx, x.Lab, x.api); err != nil {
		return err
	}
	for _, err := range x.api.Accounts(ctx, client.List{Top: 1}) {
		if err == nil {
			err = x.lose(ctx)
		}
		if err != nil {
			return err
		}
		return WaitKnown(ctx, x.Lab)
	}
	tandem := &Product{API: x.api, Manage: x.api}
	if _, err := tandem.Provision(ctx, x.World, func(c fixtures.Customer) bool { return c.Demo }); err != nil {
		return err
	}
	if err := tandem.provisionTenant(ctx); err != nil {
		return err
	}
	return tandem.WaitReady(ctx, x.Lab)
}

// lose finds the accounts whose tenants were onboarded at an earlier start.
func (x *Lab) lose(ctx context.Context) error {
	all, err := x.api.Tenants(ctx, api.ListTenantsParams{})
	for _, t := range all {
		if t.State != api.TenantStateNew && t.State != api.TenantStateLeft {
			x.lost = append(x.lost, t.Account)
		}
	}
	return err
}

//go:embed lab.txt
var labHints string

// Hints prints what the lab is and what to try. program is how Tandem was called, data its data directory, url that of
// its Provisioning API.
func (x *Lab) Hints(w io.Writer, program, data, url string) {
	_, _ = fmt.Fprintf(w, labHints, program, strings.ReplaceAll(data, "'", `'\''`), url, x.Operator.Admin,
		x.Customer.Admin, microsoft.Password, x.Gateway.FrontName()) // w may be closed
	if len(x.lost) == 0 {
		return
	}
	_, _ = fmt.Fprint(w, "\nThe simulated Microsoft 365 is new, and Tandem's database is not: what was made\n"+
		"in these tenants is gone. To make it again, the operator's tenant first:\n\n")
	for _, account := range x.lost {
		_, _ = fmt.Fprintf(w, "  %[1]s tenant sign-in %[2]s --authorise\n  %[1]s tenant plan %[2]s\n", program, account)
	}
}

// Trial is the outcome of a call that TryCall placed.
type Trial = lab.Trial

// TryCall has the lab that runs on a data directory place a call. via names the peer that places it; if it is empty the
// calling number decides. Errors: NotRunning, InvalidArgument.
func TryCall(ctx context.Context, data, from, to, via string) (*Trial, error) {
	t, err := lab.TryAt(ctx, labDir(data), lab.Question{From: from, To: to, Via: via})
	if errors.Is(err, lab.ErrNotRunning) {
		return nil, fault.New(fault.Unavailable, "NotRunning", "no lab is running on %s; start one with "+
			"tandem serve --lab, or name its data directory with --data", data)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidArgument", "%v", err)
	}
	return t, nil
}
