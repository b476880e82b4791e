// Package cli is Tandem's command line. Commands are thin: they parse arguments, call an API through package client
// (over the Unix socket in the data directory, or a URL with a token) and print the result. Only serve, restore and
// commands without a running server call package node directly.
//
// Every command that prints data accepts --output json. Tables are drawn only on a terminal.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
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

// Run runs one command and returns the exit code. It prints errors to p.Stderr, one line each.
func Run(ctx context.Context, p Program) int {
	root := newRoot(&p)
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	var mistakes strict.Problems
	switch {
	case errors.As(err, &mistakes): // each begins with its position
		fmt.Fprintln(p.Stderr, mistakes)
	case err != nil:
		fmt.Fprintf(p.Stderr, "tandem: %v\n", err)
	}
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
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	var remote *client.Error
	if errors.As(err, &remote) {
		return exitCodeOf(remote.Status)
	}
	var request *url.Error
	if errors.As(err, &request) {
		return exitUnavailable // no server answered
	}
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") ||
		strings.HasPrefix(err.Error(), "unknown flag") {
		return exitUsage // cobra has no type for these
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return exitFailure
	}
	switch f.Kind {
	case fault.Invalid, fault.TooLarge:
		return exitUsage
	case fault.NotFound:
		return exitNotFound
	case fault.Unauthenticated, fault.Forbidden:
		return exitRefused
	case fault.Conflict, fault.Precondition:
		return exitConflict
	case fault.Unavailable, fault.Limited:
		return exitUnavailable
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
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	t := &target{p: p}
	f := root.PersistentFlags()
	without := append(slices.Clone(p.Env), "TANDEM_DATA=")
	f.StringVar(&t.data, "data", "", "directory (default $TANDEM_DATA, else "+config.DefaultData(without)+")")
	f.StringVar(&t.configFile, "config", config.Lookup(p.Env, "TANDEM_CONFIG"),
		"configuration file (default $TANDEM_CONFIG, else none)")
	f.StringArrayVar(&t.set, "set", nil, "override a setting, as path=value (repeatable)")
	f.StringVar(&t.url, "url", config.Lookup(p.Env, "TANDEM_URL"),
		"URL to use instead of the socket (default $TANDEM_URL)")
	f.StringVar(&t.token, "token", config.Lookup(p.Env, "TANDEM_TOKEN"),
		"bearer token for --url (default $TANDEM_TOKEN)")
	f.BoolVar(&t.insecure, "insecure", false, "send the token over plain http:// to another machine")
	f.StringVar(&t.output, "output", "text", "text or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if t.output != "text" && t.output != "json" {
			return usageError{fmt.Errorf("--output %q: use text or json", t.output)}
		}
		return nil
	}
	root.AddCommand(newServe(t), newDemo(t), newConfig(t), newStatus(t), newPeers(t), newDrain(t), newReload(t),
		newIndex(t), newRestore(t), newExplain(t), newAccount(t), newNumber(t), newClient(t), newToken(t),
		newAudit(t), newVersion(t))
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// newDemo returns the command of the demonstration, which has its own simulators.
func newDemo(t *target) *cobra.Command {
	return demo.Command(t.p.Stdout, t.p.Stderr)
}

func newVersion(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := "unknown"
			if b, ok := debug.ReadBuildInfo(); ok {
				goVersion = b.GoVersion
			}
			if t.output == "json" {
				return printJSON(t.p.Stdout, map[string]string{"version": t.p.Version, "go": goVersion})
			}
			_, err := fmt.Fprintf(t.p.Stdout, "tandem %s (%s)\n", t.p.Version, goVersion)
			return err
		},
	}
}
