// Package cli is Tandem's command line. Commands are thin: they parse, call the management API through package client
// (over the Unix socket in the data directory, or a URL with a token) and print; what they do is done elsewhere. Only
// serve and the offline commands reach the program itself, through the functions that Program hands in.
//
// Every command that prints data takes --output json. Tables are drawn only on a terminal.
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

// Program is everything a run of the command line may touch.
type Program struct {
	Version        string
	Args           []string // without the program's name
	Env            []string // as os.Environ
	Stdout, Stderr io.Writer
	// Cut is closed when the operator asks a second time for the end: serve then stops draining. Nil is never.
	Cut <-chan struct{}

	log, out *node.Output // what Stderr and Stdout are while serve runs; nil for other commands
}

// The exit codes, documented in docs/cli.md.
const (
	exitOK          = 0
	exitFailure     = 1 // something failed that none of the others names
	exitUsage       = 2 // wrong arguments or configuration
	exitNotFound    = 3 // the thing named does not exist
	exitRefused     = 4 // not allowed, or not known
	exitConflict    = 5 // the present state does not allow it
	exitUnavailable = 6 // Tandem, or something it needs, cannot be reached: try again
)

// usageError marks an error as the caller's.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Run runs one command and returns the exit code. Errors go to p.Stderr in one line each.
func Run(ctx context.Context, p Program) int {
	root := newRoot(&p)
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	var mistakes strict.Problems
	switch {
	case errors.As(err, &mistakes): // each has its own place; one to a line
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

// exitCode is the one mapping from errors to exit codes.
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
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") || strings.HasPrefix(err.Error(), "unknown flag") {
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

// exitCodeOf maps what a server answered.
func exitCodeOf(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
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
		Short:         "Tandem joins an operator's voice network to cloud calling services",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	t := &target{p: p}
	f := root.PersistentFlags()
	without := append(slices.Clone(p.Env), "TANDEM_DATA=")
	f.StringVar(&t.data, "data", "", "data directory (default $TANDEM_DATA, else "+config.DefaultData(without)+")")
	f.StringVar(&t.configFile, "config", config.Lookup(p.Env, "TANDEM_CONFIG"), "configuration file (default $TANDEM_CONFIG, else none)")
	f.StringArrayVar(&t.set, "set", nil, "override one setting, as path=value (repeat for several)")
	f.StringVar(&t.url, "url", config.Lookup(p.Env, "TANDEM_URL"), "URL of a running Tandem instead of the data directory's socket (default $TANDEM_URL)")
	f.StringVar(&t.token, "token", config.Lookup(p.Env, "TANDEM_TOKEN"), "bearer token for --url (default $TANDEM_TOKEN)")
	f.BoolVar(&t.insecure, "insecure", false, "send the token over plain http:// to another machine")
	f.StringVar(&t.output, "output", "text", "text or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if t.output != "text" && t.output != "json" {
			return usageError{fmt.Errorf("--output %q: use text or json", t.output)}
		}
		return nil
	}
	root.AddCommand(newServe(t), newDemo(t), newConfig(t), newStatus(t), newPeers(t), newDrain(t), newReload(t),
		newIndex(t), newRestore(t), newExplain(t), newAccount(t), newNumber(t), newClient(t), newToken(t), newAudit(t), newVersion(t))
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// newDemo is the demonstration, which brings its own simulators.
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
