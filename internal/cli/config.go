package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
)

func newConfig(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, show and document the configuration"}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Report every mistake in the configuration",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				l, err := t.load(false)
				if err != nil {
					return err
				}
				if t.output == "json" {
					return printJSON(t.p.Stdout, map[string]any{"valid": true, "file": l.Source.File})
				}
				_, err = fmt.Fprintln(t.p.Stdout, "the configuration is valid")
				return err
			},
		},
		&cobra.Command{
			Use:   "show",
			Short: "Print the effective configuration, secrets masked",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				l, err := t.load(false)
				if err != nil {
					return err
				}
				if t.output == "json" {
					return printJSON(t.p.Stdout, l.Tree())
				}
				return l.WriteShown(t.p.Stdout)
			},
		},
		&cobra.Command{
			Use:   "example",
			Short: "Print a configuration file with every field documented",
			Args:  cobra.NoArgs,
			RunE:  func(*cobra.Command, []string) error { return config.WriteExample(t.p.Stdout) },
		},
	)
	return cmd
}
