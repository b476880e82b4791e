package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
)

// checkReport is what "config check --output json" prints.
type checkReport struct {
	Valid    bool            `json:"valid"`
	Problems strict.Problems `json:"problems"`
	Warnings strict.Problems `json:"warnings"` // what may fail although the configuration is valid
	// EmergencyStrings are the emergency numbers in effect; empty unless the configuration is valid.
	EmergencyStrings []string `json:"emergencyStrings"`
}

func newConfig(t *target) *cobra.Command {
	return group("config", "Check, show and document the configuration", configCheck(t), configShow(t),
		&cobra.Command{
			Use: "example", Short: "Print a configuration file with every field documented",
			RunE: func(*cobra.Command, []string) error { return config.WriteExample(t.p.Stdout) },
		})
}

func configCheck(t *target) *cobra.Command {
	var offline bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration",
		RunE: func(*cobra.Command, []string) error {
			l, err := t.load(config.Source{Machine: !offline})
			var mistakes strict.Problems
			if err != nil && (t.output != "json" || !errors.As(err, &mistakes)) {
				return err
			}
			report := checkReport{Valid: err == nil, Problems: append(strict.Problems{}, mistakes...),
				Warnings: strict.Problems{}, EmergencyStrings: []string{}}
			if l != nil {
				report.Warnings = append(report.Warnings, l.Warnings...)
				report.EmergencyStrings = l.Calls.Routing.EmergencyStrings()
			}
			return errors.Join(show(t, report, printCheck), err)
		},
	}
	check.Flags().BoolVar(&offline, "offline", false,
		"skip checks that need the machine's files and environment")
	return check
}

// printCheck prints the report on a valid configuration.
func printCheck(p *page, r checkReport) {
	for _, w := range r.Warnings {
		p.line("warning: %s", w)
	}
	p.line("the configuration is valid")
	p.line("emergency calls: %s (also with +, and after + and a country code)", strings.Join(r.EmergencyStrings, " "))
}

func configShow(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the configuration of --config and --set, secrets masked",
		RunE: func(*cobra.Command, []string) error {
			l, err := t.load(config.Source{})
			if err != nil {
				return err
			}
			if t.output != "json" {
				return l.WriteShown(t.p.Stdout)
			}
			tree, err := l.Tree()
			if err != nil {
				return err
			}
			return printJSON(t.p.Stdout, tree)
		},
	}
}
