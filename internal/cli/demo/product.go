package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// Product is a running Tandem: a child process. Its methods are safe for concurrent use.
type Product struct {
	*child.Process
	Executable string
	Dir        string // data directory
	Config     string // configuration file
	LogFile    string // log of the process
	Ready      node.Ready
	Token      string         // bearer token of the embedded issuer with the role ProvisioningAPI.Admin
	API        *client.Client // of the Provisioning API, over HTTP with Token
	Manage     *client.Client // of the management API, over the Unix socket
}

// startLimit is how long Tandem may take to become ready, stopLimit how long to stop.
const (
	startLimit = 60 * time.Second
	stopLimit  = 20 * time.Second
)

// StartProduct starts executable with the configuration file and data directory, and the settings in set
// ("path=value"). It returns when it is ready.
func StartProduct(ctx context.Context, executable, config, dir string, set ...string) (*Product, error) {
	p := &Product{Executable: executable, Dir: dir, Config: config, LogFile: filepath.Join(dir, "tandem.log")}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	args := []string{"--data", dir, "--config", config}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	p.Process, err = child.Start(log, []string{executable}, args...)
	if err != nil {
		return nil, err
	}
	if err := p.connect(ctx); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w\n%s", err, p.tail(30))
	}
	return p, nil
}

// connect waits until the process is ready and makes the clients.
func (p *Product) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if p.Ready, err = p.Process.Ready(ctx); err != nil {
		return err
	}
	if p.Manage, err = client.NewSocket(filepath.Join(p.Dir, node.SocketName), client.Options{}); err != nil {
		return err
	}
	token, err := p.Manage.CreateToken(ctx, api.TokenRequest{Roles: []string{"ProvisioningAPI.Admin"}})
	if err != nil {
		return err
	}
	p.Token = token.AccessToken
	p.API, err = client.New(p.Ready.Provisioning, client.Options{Tokens: client.StaticToken(p.Token)})
	return err
}

// tail returns the last lines of the log.
func (p *Product) tail(n int) string {
	b, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Stop asks Tandem to shut down, and kills it if that takes longer than 20 s. It returns how the process ended.
func (p *Product) Stop() error { return p.Process.Stop(stopLimit) }

// Provisioned counts the customers and numbers that Provision created, and the requests that it sent.
type Provisioned struct{ Customers, Numbers, Requests int }

// Provision creates the customers for which pick returns true, with their numbers, as a BSS does: one PUT per account,
// batches of 100 numbers.
func (p *Product) Provision(ctx context.Context, w *fixtures.World,
	pick func(fixtures.Customer) bool) (Provisioned, error) {
	var n Provisioned
	for _, c := range w.Customers {
		if !pick(c) {
			continue
		}
		n.Customers++
		n.Requests++
		if _, err := p.API.PutAccount(ctx, Account(c), client.Condition{}); err != nil {
			return n, err
		}
		var numbers []client.Number
		for _, b := range c.Numbers {
			for _, number := range b.List() {
				if !b.Known {
					numbers = append(numbers, Number(c.Account, b, number))
				}
			}
		}
		for batch := range slices.Chunk(numbers, client.MaxBatch) {
			n.Requests++
			n.Numbers += len(batch)
			if err := p.API.CreateOrUpdateNumbers(ctx, c.Account, batch); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Account returns a customer's account (provisioning-api §5).
func Account(c fixtures.Customer) *client.Account {
	on := &client.AccountService{Enabled: true}
	d := &client.AccountServices{TeamsTenantID: c.TenantID}
	for _, b := range c.Numbers {
		switch b.Service {
		case "teamsDirectRouting":
			d.TeamsDirectRouting = &client.DirectRoutingAccount{Enabled: true, Configuration: directRouting(c)}
		case "teamsOperatorConnect":
			d.TeamsOperatorConnect = on
		case "teamsPhoneMobile":
			d.TeamsPhoneMobile = on
		case "zoomPhoneCloudPeering":
			d.ZoomPhoneCloudPeering = on
		}
	}
	return &client.Account{Name: c.Account, ServiceDetails: d}
}

func directRouting(c fixtures.Customer) *client.DirectRoutingConfig {
	return &client.DirectRoutingConfig{CallScreening: c.CallScreening, Subdomain: c.Subdomain,
		SubdomainTokens: client.SubdomainTokens{Region1Token: "MS=ms10000001", Region2Token: "MS=ms10000002"}}
}

// Number returns one number of a block (provisioning-api §6).
func Number(account string, b fixtures.Block, number string) client.Number {
	n := client.Number{TelephoneNumber: number, AccountName: account}
	on := &client.NumberService{Enabled: true}
	teams := &client.TeamsNumber{Enabled: true, Configuration: &client.TeamsNumberConfig{Usage: "CallingUserAssignment",
		ChoosableCapabilities: []string{"InboundCalling", "OutboundCalling"}, AllowTenantAddressUpdate: true}}
	switch b.Service {
	case "teamsDirectRouting":
		n.ServiceDetails.TeamsDirectRouting = on
	case "teamsOperatorConnect":
		n.ServiceDetails.TeamsOperatorConnect = teams
	case "teamsPhoneMobile":
		n.ServiceDetails.TeamsPhoneMobile = teams
	case "zoomPhoneCloudPeering":
		n.ServiceDetails.ZoomPhoneCloudPeering = on
	}
	if v := b.Value(number); v != "" {
		n.Configuration = &client.NumberConfiguration{CustomSIPHeader: v}
	}
	return n
}

// WaitRouted waits until calls from peer to the number go to service: until the change has reached the edge, and a
// Direct Routing name has been provisioned.
func (p *Product) WaitRouted(ctx context.Context, peer, number, service string) error {
	return poll(ctx, func(ctx context.Context) error {
		e, err := p.Manage.Explain(ctx, api.Question{From: "+442890180001", To: number, Peer: peer})
		if err == nil && e.Service != service {
			err = fmt.Errorf("they go %s", e.Text)
		}
		if err != nil {
			return fmt.Errorf("calls to %s do not go to %s yet: %w", number, service, err)
		}
		return nil
	})
}

// WaitKnown waits until every Teams edge has received OPTIONS from the gateway and the gateway has answered theirs:
// before that they accept no calls.
func WaitKnown(ctx context.Context, l *lab.Lab) error {
	return poll(ctx, func(context.Context) error {
		heard, answered := l.Known()
		if !heard {
			return errors.New("the gateway sent no OPTIONS that the Teams edges accept; without it, Teams accepts no " +
				"calls (direct-routing-sip §3)")
		}
		if !answered {
			return errors.New("the gateway did not answer the OPTIONS of the Teams edges with 200 " +
				"(direct-routing-sip §3)")
		}
		return nil
	})
}

// poll waits until check returns nil. After 20 seconds it returns the error of the last check.
func poll(ctx context.Context, check func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return until(limit, check)
}

// until waits until check returns nil. When ctx ends it returns the error of the last check.
func until(ctx context.Context, check func(context.Context) error) error {
	var last error
	for {
		err := check(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil: // why the last request was cancelled says nothing
			return last
		}
		last = err
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return last
		}
	}
}

// bindError reports whether a start failed because an address was in use.
func bindError(err error) bool { return strings.Contains(err.Error(), "address already in use") }
