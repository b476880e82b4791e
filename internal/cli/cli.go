// Package cli is Tandem's command line. Commands are thin: they parse arguments, call an API through package client
// (over the Unix socket in the data directory, or a URL with a token) and print the result. Only serve, restore and
// commands without a running server call package node directly.
//
// Every command that prints data accepts --output json. Tables are drawn only on a terminal.
package cli

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// Program is the environment of one run of the command line.
type Program struct {
	Version        string
	Args           []string // without the program's name
	Env            []string // as os.Environ
	Stdout, Stderr io.Writer
	// Cut is closed at the second signal: serve then stops draining. Nil means never.
	Cut <-chan struct{}

	log, out *node.Output // Stderr and Stdout while serve runs; nil for other commands
	mistake  error        // an unknown subcommand
}

// The exit codes, documented in docs/cli.md.
const (
	exitOK          = 0
	exitFailure     = 1 // any other failure
	exitUsage       = 2 // invalid arguments or configuration
	exitNotFound    = 3 // the named object does not exist
	exitRefused     = 4 // not authenticated or not permitted
	exitConflict    = 5 // not possible in the current state
	exitUnavailable = 6 // Tandem, or something it depends on, is unavailable: retry
)

// usageError marks an error as a mistake of the caller.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// misuse returns an error of cobra as a mistake of the caller, in one line that names the help or what is alike.
func misuse(cmd *cobra.Command, err error) error {
	text, like, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if ok {
		return usageError{fmt.Errorf("%s; did you mean %s?", text, strings.Join(strings.Fields(like), " or "))}
	}
	return usageError{fmt.Errorf("%s; see %s --help", text, cmd.CommandPath())}
}

// Run runs one command and returns the exit code. It prints errors to p.Stderr, one line each.
func Run(ctx context.Context, p Program) int {
	root := newRoot(&p)
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	out := newPage(p.Stderr) // before serve puts a queue in front of a terminal
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && (strings.HasPrefix(err.Error(), "unknown command") ||
		strings.HasPrefix(err.Error(), "required flag") ||
		strings.HasPrefix(err.Error(), "if any flags in the group")) {
		err = misuse(cmd, err) // cobra has no type for these
	}
	err = errors.Join(err, p.mistake)
	if mistakes, ok := errors.AsType[strict.Problems](err); ok {
		out.line("%v", mistakes) // each begins with its position
	} else if err != nil {
		out.line("tandem: %v", err)
	}
	fmt.Fprint(p.Stderr, out)
	if p.log != nil {
		p.out.Close()
		p.log.Close()
	}
	return exitCode(err)
}

// exitCode maps an error to an exit code.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if remote, ok := errors.AsType[*client.Error](err); ok {
		return exitCodeOf(remote.Status)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return exitUnavailable // no server answered
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return exitCodeOf(web.Status(f))
	}
	return exitFailure
}

// exitCodeOf maps the HTTP status of an answer to an exit code.
func exitCodeOf(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusMethodNotAllowed,
		http.StatusUnsupportedMediaType:
		return exitUsage
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitRefused
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return exitUnavailable
	}
	return exitFailure
}

func newRoot(p *Program) *cobra.Command {
	root := &cobra.Command{
		Use:           "tandem",
		Short:         "Tandem connects an operator's voice network to cloud calling services",
		Version:       p.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate(versionLine(p))
	root.SetUsageTemplate(strings.NewReplacer(".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", screenWidth),
		"for more information about a command", "for more about a command").Replace(root.UsageTemplate()))
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd.HasParent() && !cmd.Runnable() && cmd.Flags().NArg() > 0 {
			p.mistake = misuse(cmd, fmt.Errorf("unknown command %q for %q", cmd.Flags().Arg(0), cmd.CommandPath()))
			return
		}
		wrapped := &page{width: screenWidth}
		wrapped.line("%s", cmp.Or(cmd.Long, cmd.Short))
		cmd.Long = wrapped.String()
		help(cmd, args)
	})
	root.SetFlagErrorFunc(misuse)
	t := &target{p: p}
	f := root.PersistentFlags()
	without := append(slices.Clone(p.Env), "TANDEM_DATA=")
	f.StringVar(&t.data, "data", "", "data in `DIR` (default $TANDEM_DATA, else "+config.DefaultData(without)+")")
	f.StringVar(&t.configFile, "config", config.Lookup(p.Env, "TANDEM_CONFIG"),
		"configuration `FILE` (default $TANDEM_CONFIG, else none)")
	f.StringArrayVar(&t.set, "set", nil, "override a setting, as `PATH=VALUE` (repeatable)")
	f.StringVar(&t.url, "url", config.Lookup(p.Env, "TANDEM_URL"),
		"`URL` to use instead of the socket (default $TANDEM_URL)")
	f.StringVar(&t.token, "token", config.Lookup(p.Env, "TANDEM_TOKEN"),
		"bearer `TOKEN` for --url (default $TANDEM_TOKEN)")
	f.BoolVar(&t.insecure, "insecure", false, "send the token over plain http:// to another machine")
	f.StringVar(&t.output, "output", "text", "output `FORMAT`: text or json")
	f.DurationVar(&t.wait, "wait", 0, "longest `TIME` to wait for a busy or unavailable server (default: not at all)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if t.output != "text" && t.output != "json" {
			return usageError{fmt.Errorf("--output %q: use text or json", t.output)}
		}
		return nil
	}
	root.AddCommand(
		newAccount(t),
		newAudit(t),
		newAuth(t),
		newCarrier(t),
		newClient(t),
		newConfig(t),
		newDemo(t),
		newDrain(t),
		newEvents(t),
		newExplain(t),
		newIndex(t),
		newLab(t),
		newMan(t),
		newNumber(t),
		newPeers(t),
		newReload(t),
		newRestore(t),
		newSecret(t),
		newServe(t),
		newStatus(t),
		newTenant(t),
		newUser(t),
		newToken(t),
		newVersion(t),
		newWork(t),
		newZone(t),
		newCertificate(t),
	)
	complete(root)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"},
		cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
	return root
}

// helpTexts holds the long help of the commands that have one, in files named after them.
//
//go:embed help
var helpTexts embed.FS

// complete gives cmd and the commands below it their long help, and a check of their arguments: the words after the
// name in Use.
func complete(cmd *cobra.Command) {
	names := strings.Fields(cmd.CommandPath())[1:]
	text, _ := helpTexts.ReadFile("help/" + strings.Join(names, "-") + ".txt") // most need none
	cmd.Long = strings.TrimSpace(string(text))
	if cmd.Runnable() && cmd.Args == nil {
		wanted, _, _ := strings.Cut(strings.TrimPrefix(cmd.Use, cmd.Name()), " --")
		cmd.Args = cobra.NoArgs
		if names := strings.Fields(wanted); len(names) > 0 {
			cmd.Args = exactly(names)
		}
	}
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
}

// exactly is cobra.ExactArgs with a usage error that names the arguments.
func exactly(names []string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return misuse(cmd, fmt.Errorf("%s needs %s; got %d", strings.TrimPrefix(cmd.CommandPath(), "tandem "),
				strings.Join(names, " and "), len(args)))
		}
		return nil
	}
}

// group returns a command that only has subcommands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short}
	cmd.AddCommand(commands...)
	return cmd
}

// require marks flags of cmd as required.
func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		_ = cmd.MarkFlagRequired(name) // fails only for an undefined flag
	}
}

func newDemo(t *target) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run Tandem between simulators, place calls and show the results",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Options{Once: once, JSON: t.output == "json", Data: t.data,
				Stdout: t.p.Stdout})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit after the calls, with code 0 only if all passed")
	return cmd
}

func newVersion(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": t.p.Version, "go": runtime.Version()}
			return show(t, v, func(p *page, _ map[string]string) { p.WriteString(versionLine(t.p)) })
		},
	}
}

// versionLine is what tandem version and tandem --version print.
func versionLine(p *Program) string { return "tandem " + p.Version + " (" + runtime.Version() + ")\n" }
