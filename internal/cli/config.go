package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
)

// checkReport is what "config check --output json" prints.
type checkReport struct {
	Valid    bool           `json:"valid"`
	Problems []checkProblem `json:"problems"`
	// EmergencyStrings are the emergency numbers that calls are recognised by; empty unless valid.
	EmergencyStrings []string `json:"emergencyStrings"`
}

type checkProblem struct {
	Source  string `json:"source"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

func newConfig(t *target) *cobra.Command {
	var offline bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration",
		Long: `Report every mistake in the configuration, as tandem serve would on this machine:
certificates, keys, authorities and environment variables that it names are
looked at too. With --offline they are not: for a configuration of another
machine.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := t.load(config.Source{Machine: !offline})
			var mistakes strict.Problems
			if t.output == "json" && (err == nil || errors.As(err, &mistakes)) {
				report := checkReport{Valid: err == nil, Problems: []checkProblem{}, EmergencyStrings: []string{}}
				if l != nil {
					report.EmergencyStrings = l.Policy.EmergencyStrings()
				}
				for _, m := range mistakes {
					report.Problems = append(report.Problems, checkProblem(m))
				}
				if jerr := printJSON(t.p.Stdout, report); jerr != nil {
					return jerr
				}
			}
			if err != nil || t.output == "json" {
				return err
			}
			fmt.Fprintln(t.p.Stdout, "the configuration is valid")
			numbers := "emergency calls: " + strings.Join(l.Policy.EmergencyStrings(), " ") + " (also with +, and after + and a country code)"
			for line := range strings.Lines(text.WrapSoft(numbers, tableWidth)) {
				fmt.Fprintln(t.p.Stdout, strings.TrimSpace(line))
			}
			return nil
		},
	}
	check.Flags().BoolVar(&offline, "offline", false, "leave out what needs the files and environment of the target machine")
	cmd := &cobra.Command{Use: "config", Short: "Check, show and document the configuration"}
	cmd.AddCommand(check,
		&cobra.Command{
			Use:   "show",
			Short: "Print the effective configuration, secrets masked",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				l, err := t.load(config.Source{})
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
