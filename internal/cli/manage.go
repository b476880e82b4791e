package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newStatus(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether Tandem is ready, and the state of each part",
		Args:  cobra.NoArgs,
		RunE: t.run(online, func(ctx context.Context, c *client.Client, _ []string) error {
			h, err := c.Health(ctx)
			if err == nil {
				err = show(t, h, printHealth)
			}
			if err == nil && h.Status != api.StatusReady {
				err = errNotReady
			}
			return err
		}),
	}
}

// errNotReady makes "tandem status" usable as a check; the reasons were printed.
var errNotReady = errors.New("tandem is not ready")

func printHealth(w io.Writer, h *api.Health) error {
	fmt.Fprintf(w, "%s  (node %s, version %s, up %s, roles %s)\n", h.Status, h.Node, h.Version, age(h.Started),
		strings.Join(h.Roles, ","))
	for _, r := range h.Reasons {
		fmt.Fprintf(w, "  ! %s\n", strings.ReplaceAll(text.WrapSoft(r, 76), "\n", "\n    "))
	}
	if d := h.Database; d != nil {
		failing := either(d.Available, "accepts no writes", "unavailable") + " for " + age(d.Since)
		fmt.Fprintf(w, "database  %s, %s\n", d.Engine, either(d.Writable, "available", failing))
		fmt.Fprintf(w, "          %s\n", d.Location)
	}
	if r := h.Replica; r != nil {
		fmt.Fprintf(w, "index     %d numbers, position %d of %d, %s\n", r.Numbers, r.Position, r.Head, indexState(r))
	}
	if h.Calls != nil {
		fmt.Fprintf(w, "calls     %d\n", h.Calls.Active)
	}
	g := &grid{head: []string{"part", "state", "for", "restarts", "why"}}
	for _, p := range h.Parts {
		g.add(p.Name, either(p.Running, "running", "waiting"), age(p.Since), p.Restarts, p.Error)
	}
	return g.write(w)
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func age(t time.Time) string {
	if d := time.Since(t); d >= time.Minute {
		return d.Round(time.Minute).String()[:len(d.Round(time.Minute).String())-2]
	}
	return time.Since(t).Round(time.Second).String()
}

func newPeers(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "Show the peer groups and the state of their peers",
		Args:  cobra.NoArgs,
		RunE: ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (api.PeerGroupList, error) {
			groups, err := c.Peers(ctx)
			return api.PeerGroupList{Groups: groups}, err
		}, printPeers),
	}
}

func printPeers(w io.Writer, l api.PeerGroupList) error {
	g := &grid{head: []string{"group", "service", "peer", "address", "priority", "state", "why"}}
	for _, x := range l.Groups {
		for _, p := range x.Peers {
			g.add(x.Name, x.Service, p.Name, p.Address, p.Priority, p.State, p.Reason)
		}
		if len(x.Peers) == 0 {
			g.add(x.Name, x.Service, "none", "", "", "", "listens on "+strings.Join(x.Listen, ", "))
		}
	}
	return g.write(w)
}

func newDrain(t *target) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Refuse new calls; calls in progress continue",
		Args:  cobra.NoArgs,
		RunE: ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (api.Drain, error) {
			return api.Drain{Draining: !off}, c.SetDrain(ctx, !off)
		}, func(w io.Writer, d api.Drain) error {
			_, err := fmt.Fprintln(w, either(d.Draining, "draining: new calls are refused; see tandem status",
				"accepting calls again"))
			return err
		}),
	}
	cmd.Flags().BoolVar(&off, "off", false, "accept calls again")
	return cmd
}

func newReload(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Apply configuration changes that need no restart",
		Long: `Read the configuration again and apply the changes that need no restart.

The running process reads and checks its own configuration: the file, options
and environment that it was started with. With any mistake nothing changes, and
every mistake is printed. Otherwise certificates, log levels, limits, header
rules and lists of allowed sources take effect at once, without affecting calls
in progress, and the changes that need a restart are listed. SIGHUP does the
same and writes the result to the log.`,
		Args: cobra.NoArgs,
		RunE: ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (*api.Reloaded, error) {
			return c.Reload(ctx)
		}, printReloaded),
	}
}

func printReloaded(w io.Writer, r *api.Reloaded) error {
	if len(r.Applied)+len(r.Restart) == 0 {
		_, err := fmt.Fprintln(w, "no setting has changed; certificates were reloaded")
		return err
	}
	g := &grid{head: []string{"setting", "state"}}
	for _, s := range r.Applied {
		g.add(s, "applied")
	}
	for _, s := range r.Restart {
		g.add(s, "needs a restart")
	}
	return g.write(w)
}

func newExplain(t *target) *cobra.Command {
	var q api.Question
	cmd := &cobra.Command{
		Use:   "explain --from A --to B --peer P",
		Short: "Show where a call would go, and every rule that was tried",
		Long: `Show where a call would go, and every rule that was tried.

The running node answers with the code that routes calls and the index that it
uses now. Write numbers as dialled (+442079460123, 999) or as sip: or tel: URIs.
The host of the Request-URI names the customer of a Direct Routing call; without
--host it is the customer of the calling number.`,
		Example: "  tandem explain --from +15550100 --to +442079460123 --peer core",
		Args:    cobra.NoArgs,
		RunE: ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (*api.Explanation, error) {
			return c.Explain(ctx, q)
		}, printExplanation),
	}
	f := cmd.Flags()
	f.StringVar(&q.From, "from", "", "calling number (required)")
	f.StringVar(&q.To, "to", "", "called number or dial string (required)")
	f.StringVar(&q.Peer, "peer", "", "peer or peer group that sends the call (required)")
	f.StringVar(&q.Host, "host", "", "host of the Request-URI (default: the caller's)")
	f.StringArrayVar(&q.Asserted, "asserted", nil, "P-Asserted-Identity (repeatable)")
	f.StringArrayVar(&q.History, "history", nil, "History-Info entry, oldest first (repeatable)")
	f.StringVar(&q.ReferredBy, "referred-by", "", "Referred-By")
	f.StringVar(&q.AnchoredBy, "anchored-by", "", "X-MS-FMC")
	for _, name := range []string{"from", "to", "peer"} {
		_ = cmd.MarkFlagRequired(name) // fails only for an undefined flag
	}
	return cmd
}

func printExplanation(w io.Writer, e *api.Explanation) error {
	fmt.Fprintf(w, "%s (rule %s)\n", e.Text, e.Rule)
	for _, x := range [][2]string{{"customer", e.Account}, {"called", e.Called}, {"caller", e.Caller},
		{"identity", e.Identity + either(e.IdentitySource == "", "", " from "+e.IdentitySource)},
		{"custom header", e.Header}, {"emergency", either(e.Emergency, "yes", "")}} {
		if x[1] != "" {
			fmt.Fprintf(w, "  %-14s %s\n", x[0], x[1])
		}
	}
	g := &grid{head: []string{"rule", "result", "why"}}
	for _, s := range e.Steps {
		why := s.Text
		var facts []string
		for _, f := range s.Facts {
			facts = append(facts, f.Name+"="+f.Value)
		}
		if len(facts) > 0 {
			why += " (" + strings.Join(facts, ", ") + ")"
		}
		g.add(s.Rule, s.Result, why)
	}
	return g.write(w)
}

// rolesHelp lists the roles in the help of commands with the flag --role.
const rolesHelp = `
Roles: ProvisioningAPI.Admin, ProvisioningAPI.Read, ProvisioningAPI.Write,
ProvisioningAPI.Delete, Management.Admin, Management.Read.`

func newClient(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "client", Short: "API clients of the embedded issuer"}
	var roles []string
	create := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Create a client; its secret is shown once",
		Long:  "Create a client; its secret is shown once.\n" + rolesHelp,
		Args:  exactArgs(1, "NAME"),
		RunE: ask(t, offlineToo,
			func(ctx context.Context, c *client.Client, args []string) (*api.CreatedClient, error) {
				return c.CreateClient(ctx, api.NewClient{Name: args[0], Roles: roles})
			},
			func(w io.Writer, x *api.CreatedClient) error {
				_, err := fmt.Fprintf(w, "client id      %s\nclient secret  %s\nroles          %s\n"+
					"The secret is not shown again.\n", x.Client.ID, x.Secret, strings.Join(x.Client.Roles, ", "))
				return err
			}),
	}
	create.Flags().StringSliceVar(&roles, "role", nil, "role of its tokens (repeatable)")
	_ = create.MarkFlagRequired("role") // fails only for an undefined flag
	cmd.AddCommand(create,
		&cobra.Command{
			Use:   "list",
			Short: "List the clients",
			Args:  cobra.NoArgs,
			RunE: ask(t, offlineToo, func(ctx context.Context, c *client.Client, _ []string) (api.ClientList, error) {
				l, err := c.Clients(ctx)
				return api.ClientList{Clients: l}, err
			}, printClients),
		},
		&cobra.Command{
			Use:   "revoke ID",
			Short: "Revoke a client: it gets no further tokens",
			Args:  exactArgs(1, "ID"),
			RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, args []string) error {
				return c.RevokeClient(ctx, args[0])
			}),
		})
	return cmd
}

func printClients(w io.Writer, l api.ClientList) error {
	g := &grid{head: []string{"id", "name", "roles", "created", "revoked"}}
	for _, x := range l.Clients {
		revoked := ""
		if x.Revoked != nil {
			revoked = x.Revoked.UTC().Format(time.DateOnly)
		}
		g.add(x.ID, x.Name, strings.Join(x.Roles, " "), x.Created.UTC().Format(time.DateOnly), revoked)
	}
	return g.write(w)
}

func newToken(t *target) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   "token --role ROLE",
		Short: "Print a bearer token of the embedded issuer, and nothing else",
		Long:  "Print a bearer token of the embedded issuer, and nothing else.\n" + rolesHelp,
		Args:  cobra.NoArgs,
		RunE: ask(t, offlineToo, func(ctx context.Context, c *client.Client, _ []string) (*api.Token, error) {
			return c.CreateToken(ctx, api.NewToken{Roles: roles})
		}, func(w io.Writer, tok *api.Token) error {
			_, err := fmt.Fprintln(w, tok.AccessToken)
			return err
		}),
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "role (repeatable)")
	_ = cmd.MarkFlagRequired("role") // fails only for an undefined flag
	return cmd
}

func newAudit(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The hash-chained log of changes"}
	var heads []string
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Verify the hash chain of the audit log",
		Long: `Verify the hash chain of the audit log, and print its head. Keep the head
elsewhere: a later check with --head shows that no row before it was removed or
rewritten.`,
		Args: cobra.NoArgs,
		RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, _ []string) error {
			r, err := c.VerifyAudit(ctx, heads...)
			if err == nil && (r.OK || t.output == "json") {
				err = show(t, r, printAudit)
			}
			if err == nil && !r.OK {
				return fmt.Errorf("the hash chain is broken at row %d: %s (the %d rows before it are intact)",
					r.BrokenAt, r.Reason, r.Rows)
			}
			return err
		}),
	}
	verify.Flags().StringArrayVar(&heads, "head", nil, "head printed by an earlier check (repeatable)")
	cmd.AddCommand(verify)
	return cmd
}

func printAudit(w io.Writer, r *api.AuditReport) error {
	_, err := fmt.Fprintf(w, "the hash chain is intact: %d rows, head %s\n", r.Rows, r.Head)
	return err
}

// exactArgs is cobra.ExactArgs with a usage error that names the arguments.
func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s needs %s; got %d arguments", cmd.CommandPath(), names, len(args))}
		}
		return nil
	}
}
