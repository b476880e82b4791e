package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func newZone(t *target) *cobra.Command {
	return group("zone", "The DNS zone of the base domain", zoneShow(t), zoneCheck(t), zoneAccept(t))
}

// nameOf returns the argument, empty if there is none.
func nameOf(args []string) string { return strings.Join(args, "") }

func oneName(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return misuse(cmd, fmt.Errorf("zone %s takes one NAME; got %d", cmd.Name(), len(args)))
	}
	return nil
}

func zoneShow(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "show [NAME]", Args: oneName,
		Short:   "Show what the zone has at a name, and who published it",
		Example: "  tandem zone show acme"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Zone, error) {
			return c.Zone(ctx, nameOf(args))
		}, printZone)
}

func printZone(p *page, z *api.Zone) {
	switch {
	case z.Publish == "none":
		p.line("%s is published by the operator; these records are expected", z.Zone)
	case z.Serial == 0:
		p.line("%s: %s in all", z.Zone, domain.Count(z.RecordsInAll, "record"))
	default:
		p.line("%s, serial %d: %s in all", z.Zone, z.Serial, domain.Count(z.RecordsInAll, "record"))
	}
	g := &grid{head: []string{"name", "ttl", "type", "data", "source"}}
	for _, r := range z.Records {
		g.add(r.Name, r.TTL, r.Type, r.Data, r.Source)
	}
	p.table(g)
	if z.More {
		p.line("there are more; name what you look for")
	}
}

func zoneCheck(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "check [NAME]", Args: oneName,
		Short:   "Ask every name server for what it should have",
		Example: "  tandem zone check acme"},
		func(ctx context.Context, c *client.Client, args []string) (*api.ZoneReport, error) {
			r, err := c.CheckZone(ctx, nameOf(args))
			if err == nil && len(r.Findings) > 0 {
				err = finding{fmt.Errorf("the name servers do not answer as they should; findings: %d",
					len(r.Findings))}
			}
			return r, err
		}, printZoneReport)
}

func printZoneReport(p *page, r *api.ZoneReport) {
	p.line("asked for %s%s", strings.Join(r.Names, ", "), either(r.More, ", and there are more", ""))
	wrong := map[[2]string]bool{}
	for _, f := range r.Findings {
		wrong[[2]string{f.Server, f.Address}] = true
	}
	g := &grid{head: []string{"server", "address", "serial", "state"}}
	for _, s := range r.Servers {
		serial := either(s.Serial == 0, "", fmt.Sprint(s.Serial))
		g.add(s.Name+either(s.Parent, " (parent zone)", ""), s.Address, serial,
			either(wrong[[2]string{s.Name, s.Address}], "wrong", "good"))
	}
	p.table(g)
	if len(r.Findings) > 0 {
		g = &grid{head: []string{"server", "problem", "what was seen"}}
		for _, f := range r.Findings {
			g.add(f.Server+either(f.Address == "", "", " "+f.Address), f.Problem, f.Text)
		}
		p.line("")
		p.table(g)
	}
	if !r.Until.IsZero() {
		p.line("who asked for it too early may be told until %s that it is not there",
			r.Until.UTC().Format(time.RFC3339))
	}
}

func zoneAccept(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "accept",
		Short: "Replace a zone that is held back with that of the database"},
		func(ctx context.Context, c *client.Client, _ []string) (*acceptance, error) {
			return &acceptance{true}, c.AcceptZone(ctx)
		}, func(p *page, _ *acceptance) {
			p.line("accepted; this name server follows its database within seconds")
		})
}

// acceptance is what -o json prints about a zone that is accepted.
type acceptance struct {
	Accepted bool `json:"accepted"`
}
