// Command tandem is the whole program: every role of the gateway, its command line and its demonstration.
//
// main turns signals into the stages of a shutdown and leaves everything else to package cli.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/tandemgw/tandem/internal/cli"
)

// version is set by the linker (see Makefile).
var version = "dev"

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// The first signal requests a graceful shutdown (serve drains its calls), the second cuts the remaining calls, the
	// third exits at once.
	cut := make(chan struct{})
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		close(cut)
		<-signals
		os.Exit(130)
	}()

	os.Exit(run(ctx, cut, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program without its process, for tests. It returns the exit code.
func run(ctx context.Context, cut <-chan struct{}, args, env []string, stdout, stderr io.Writer) int {
	return cli.Run(ctx, cli.Program{Version: version, Args: args, Env: env, Stdout: stdout, Stderr: stderr, Cut: cut})
}
