package cli

import (
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run ./docgen

// referenceHead is the text before the flags and commands.
//
//go:embed reference.md
var referenceHead string

// Reference returns the content of docs/cli.md.
func Reference() string {
	p := &Program{Version: "dev", Stdout: io.Discard, Stderr: io.Discard, Env: []string{"TANDEM_DATA="}}
	root := newRoot(p)
	root.InitDefaultHelpFlag()
	var b strings.Builder
	b.WriteString(referenceHead)
	writeFlags(&b, root.PersistentFlags())
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Runnable() {
			fmt.Fprintf(&b, "\n## %s\n", c.CommandPath())
			if !strings.HasPrefix(c.Long, c.Short) {
				fmt.Fprintf(&b, "\n%s.\n", c.Short)
			}
			if c.Long != "" {
				fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Long))
			}
			use := strings.TrimSpace(strings.TrimSuffix(c.UseLine(), "[flags]"))
			fmt.Fprintf(&b, "\n    %s\n", use)
			if c.Example != "" {
				fmt.Fprintf(&b, "\nFor example:\n\n    %s\n", strings.TrimSpace(c.Example))
			}
			if c.LocalNonPersistentFlags().HasAvailableFlags() {
				b.WriteString("\n")
				writeFlags(&b, c.LocalNonPersistentFlags())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}

func writeFlags(b *strings.Builder, fs *pflag.FlagSet) {
	b.WriteString("| Flag | Meaning |\n|---|---|\n")
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind := f.Value.Type()
		name := "--" + f.Name
		switch kind {
		case "bool":
		case "stringSlice", "stringArray":
			name += " VALUE…"
		default:
			name += " VALUE"
		}
		usage := f.Usage
		if f.Name == "data" && strings.Contains(usage, "$TANDEM_DATA") {
			usage = "data directory (see above)" // the default depends on the machine
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", "\\|"))
	})
}
