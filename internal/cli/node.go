package cli

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func newStatus(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show whether Tandem is ready, and the state of each part"}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (*api.Health, error) {
		h, err := c.Health(ctx)
		if err == nil && h.Status != api.HealthStatusReady {
			err = finding{errors.New("tandem is not ready")}
		}
		return h, err
	}, printHealth)
}

func printHealth(p *page, h *api.Health) {
	p.line("%s  (node %s, version %s, up %s, roles %s)", h.Status, h.Node, h.Version, age(h.Started),
		strings.Join(h.Roles, ","))
	for _, r := range h.Reasons {
		p.field("  ! ", "%s", r)
	}
	if d := h.Database; d != nil {
		failing := either(d.Available, "accepts no writes", "unavailable") + " for " + age(d.Since)
		p.field("database  ", "%s, %s\n%s", d.Engine, either(d.Writable, "available", failing), d.Location)
	}
	if r := h.Replica; r != nil {
		p.field("index     ", "%s, position %d of %d, %s%s", domain.Count(r.Numbers, "number"), r.Position, r.Head,
			indexState(r), either(r.Held == nil, "", "; see tandem index"))
	}
	if h.Calls != nil {
		p.field("calls     ", "%d", h.Calls.Active)
	}
	p.field("domain    ", "%s", cmp.Or(h.BaseDomain, "none (calls.routing.baseDomain)"))
	if x := h.Provisioning; x != nil {
		p.field("API       ", "%s, api-version %s, allowed sources: %s", cmp.Or(x.URL, "not served over HTTP"),
			strings.Join(x.APIVersions, " "), cmp.Or(strings.Join(x.AllowedSources, " "), "all"))
		for _, i := range x.Issuers {
			p.field("tokens    ", "of %s, scope %s, from\n%s", i.Name, i.Scope,
				cmp.Or(i.TokenURL, "the token endpoint in its discovery document"))
		}
	}
	g := &grid{head: []string{"part", "state", "for", "restarts", "why"}}
	for _, x := range h.Parts {
		g.add(x.Name, either(x.Running, "running", "waiting"), age(x.Since), x.Restarts, x.Error)
	}
	p.table(g)
}

func age(t time.Time) string {
	if d := time.Since(t); d >= time.Minute {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return time.Since(t).Round(time.Second).String()
}

func newDrain(t *target) *cobra.Command {
	var off bool
	cmd := run(t, online,
		&cobra.Command{Use: "drain", Short: "Refuse new calls; calls in progress continue"},
		func(ctx context.Context, c *client.Client, _ []string) (api.Drain, error) {
			return api.Drain{Draining: !off}, c.SetDrain(ctx, !off)
		}, func(p *page, d api.Drain) {
			p.line("%s", either(d.Draining, "draining: new calls are refused; see tandem status",
				"accepting calls again"))
		})
	cmd.Flags().BoolVar(&off, "off", false, "accept calls again")
	return cmd
}

func newReload(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "reload", Short: "Apply configuration changes that need no restart"}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (*api.Reloaded, error) {
		return c.Reload(ctx)
	}, printReloaded)
}

func printReloaded(p *page, r *api.Reloaded) {
	if len(r.Applied)+len(r.Restart) == 0 {
		p.line("no setting has changed; certificates were reloaded")
		return
	}
	g := &grid{head: []string{"setting", "state"}}
	for _, s := range r.Applied {
		g.add(s, "applied")
	}
	for _, s := range r.Restart {
		g.add(s, "needs a restart")
	}
	p.table(g)
}
