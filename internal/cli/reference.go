package cli

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

//go:generate go run ./docgen

// referenceHead is the text before the flags and commands.
//
//go:embed reference.md
var referenceHead string

// documented returns the commands as they are documented: without defaults that depend on the machine.
func documented(version string) *cobra.Command {
	root := newRoot(&Program{Version: version, Stdout: io.Discard, Stderr: io.Discard})
	root.PersistentFlags().Lookup("data").Usage = "data in `DIR` (default $TANDEM_DATA, else /var/lib/tandem for root)"
	root.DisableAutoGenTag = true
	return root
}

// newMan returns the command that writes the manual pages; packages are built with it.
func newMan(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write a manual page for each command", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			header := &doc.GenManHeader{Section: "1", Source: "Tandem " + t.p.Version, Manual: "Tandem"}
			return doc.GenManTree(documented(t.p.Version), header, args[0])
		},
	}
}

// Reference returns the content of docs/cli.md.
func Reference() string {
	root := documented("dev")
	var b strings.Builder
	b.WriteString(referenceHead)
	b.WriteString(root.PersistentFlags().FlagUsagesWrapped(screenWidth))
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
			if flags := c.LocalNonPersistentFlags(); flags.HasAvailableFlags() {
				b.WriteString("\nFlags:\n\n" + flags.FlagUsagesWrapped(screenWidth))
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}
