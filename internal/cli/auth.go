package cli

import (
	_ "embed"
	"encoding/json"

	"github.com/spf13/cobra"
)

func newAuth(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "Issuers of bearer tokens: Microsoft Entra"}
	cmd.AddCommand(authEntra(t))
	return cmd
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
		Long: `Print how to register the Provisioning API and a BSS client in Microsoft Entra:
the steps, and the manifest of the API with its application roles for programs
and user roles for people. --output json prints only the manifest.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return show(t, json.RawMessage(entraManifest), func(p *page, _ json.RawMessage) {
				p.WriteString(entraSteps + entraManifest)
			})
		},
	}
}
