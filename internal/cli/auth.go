package cli

import (
	"context"
	_ "embed"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

func newAuth(t *target) *cobra.Command {
	return group("auth", "Bearer tokens: set up Microsoft Entra, check a token", authEntra(t), authTry(t))
}

// entraManifest is the Provisioning API as an application of Microsoft Entra, in the form that Microsoft Graph takes.
// The ids of the roles stay the same forever, so that applying it again changes nothing.
//
//go:embed entra.json
var entraManifest string

// entraSteps says how to register the API and its clients.
//
//go:embed entra.txt
var entraSteps string

func authEntra(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "entra",
		Short: "Print how to register the API and a BSS client in Entra",
		RunE: func(*cobra.Command, []string) error {
			return show(t, json.RawMessage(entraManifest), func(p *page, _ json.RawMessage) {
				p.WriteString(entraSteps + entraManifest)
			})
		},
	}
}

func authTry(t *target) *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:     "try",
		Short:   "Show which check of a bearer token fails, and the remedy",
		Example: "  tandem token --role ProvisioningAPI.Read | tandem auth try",
	}
	cmd.Flags().StringVar(&token, "token", "-", "`TOKEN` to check; - is standard input")
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, _ []string) (*api.TokenReport, error) {
		if token == "-" {
			text, err := readInput(t, cmd.InOrStdin(), "-")
			if err != nil {
				return nil, err
			}
			token = string(text)
		}
		r, err := c.CheckToken(ctx, strings.TrimSpace(token))
		if err == nil && !r.OK {
			err = finding{fault.New(fault.Unauthenticated, "TokenRefused", "requests with this token are refused")}
		}
		return r, err
	}, printTokenReport)
}

func printTokenReport(p *page, r *api.TokenReport) {
	g := &grid{head: []string{"check", "result", "detail"}}
	for _, c := range r.Checks {
		g.add(c.Name, either(c.Result == api.TokenCheckResultNotReached, "not reached", string(c.Result)), c.Detail)
	}
	p.table(g)
	for _, c := range r.Checks {
		if c.Remedy != "" {
			p.field("remedy: ", "%s", c.Remedy)
		}
	}
}
