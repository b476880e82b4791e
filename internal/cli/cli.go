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
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Program is everything a run of the command line may touch.
type Program struct {
	Version        string
	Args           []string // without the program's name
	Env            []string // as os.Environ
	Stdout, Stderr io.Writer
	// Cut is closed when the operator asks a second time for the end: serve then stops draining. Nil is never.
	Cut <-chan struct{}
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
	if err != nil {
		fmt.Fprintf(p.Stderr, "tandem: %v\n", err)
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

func newRoot(p *Program) *cobra.Command {
	root := &cobra.Command{
		Use:           "tandem",
		Short:         "Tandem joins an operator's voice network to cloud calling services",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newVersion(p))
	return root
}

func newVersion(p *Program) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := "unknown"
			if b, ok := debug.ReadBuildInfo(); ok {
				goVersion = b.GoVersion
			}
			_, err := fmt.Fprintf(p.Stdout, "tandem %s (%s)\n", p.Version, goVersion)
			return err
		},
	}
}
