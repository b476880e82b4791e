package cli

import (
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": t.p.Version, "go": goVersion()}
			return show(t, v, func(p *page, _ map[string]string) { p.WriteString(versionLine(t.p)) })
		},
	}
}

// versionLine is what tandem version and tandem --version print.
func versionLine(p *Program) string { return "tandem " + p.Version + " (" + goVersion() + ")\n" }

// goVersion returns the version of Go that built the program.
func goVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.GoVersion
	}
	return "unknown"
}
