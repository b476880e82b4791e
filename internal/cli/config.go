package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
)

// checkReport is what "config check --output json" prints.
type checkReport struct {
	Valid    bool            `json:"valid"`
	Problems strict.Problems `json:"problems"`
	// EmergencyStrings are the emergency numbers in effect; empty unless the configuration is valid.
	EmergencyStrings []string `json:"emergencyStrings"`
}

func newConfig(t *target) *cobra.Command {
	var offline bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration",
		Long: `Report every mistake in the configuration. The certificates, keys, authorities
and environment variables that it names are checked too, unless --offline is
set, for the configuration of another machine.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := t.load(config.Source{Machine: !offline})
			var mistakes strict.Problems
			if t.output == "json" && (err == nil || errors.As(err, &mistakes)) {
				report := checkReport{Valid: err == nil, Problems: append(strict.Problems{}, mistakes...),
					EmergencyStrings: []string{}}
				if l != nil {
					report.EmergencyStrings = l.Policy.EmergencyStrings()
				}
				if jerr := printJSON(t.p.Stdout, report); jerr != nil {
					return jerr
				}
			}
			if err != nil || t.output == "json" {
				return err
			}
			fmt.Fprintln(t.p.Stdout, "the configuration is valid")
			numbers := "emergency calls: " + strings.Join(l.Policy.EmergencyStrings(), " ") +
				" (also with +, and after + and a country code)"
			for line := range strings.Lines(text.WrapSoft(numbers, tableWidth)) {
				fmt.Fprintln(t.p.Stdout, strings.TrimSpace(line))
			}
			return nil
		},
	}
	check.Flags().BoolVar(&offline, "offline", false,
		"skip checks that need the machine's files and environment")
	cmd := &cobra.Command{Use: "config", Short: "Check, show and document the configuration"}
	cmd.AddCommand(check,
		&cobra.Command{
			Use:   "show",
			Short: "Print the effective configuration with secrets masked",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				l, err := t.load(config.Source{})
				if err != nil {
					return err
				}
				return show(t, l.Tree(), func(w io.Writer, _ any) error { return l.WriteShown(w) })
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
