package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
)

// target says where a command finds Tandem, from the flags that all commands share.
type target struct {
	p          *Program
	data       string
	configFile string
	set        []string
	url        string
	token      string
	insecure   bool
	output     string
	wait       time.Duration // how long a command may wait for a server that is busy or unavailable
	again      bool          // a request was repeated because its connection broke
}

// An offline command serves the socket itself, on the locked data directory, if no server runs there.
const (
	online        = false
	offlineToo    = true
	socketTimeout = 5 * time.Second
)

// load reads the configuration that the flags name; s holds the other options of the caller.
func (t *target) load(s config.Source) (*config.Loaded, error) {
	s.File, s.Set, s.Data, s.Env = t.configFile, t.set, t.data, t.p.Env
	l, err := config.Load(s)
	if err != nil {
		return nil, usageError{err}
	}
	return l, nil
}

// dataDir returns the data directory that the flags name.
func (t *target) dataDir() (string, error) {
	if t.data != "" {
		return filepath.Abs(t.data)
	}
	if t.configFile == "" && len(t.set) == 0 {
		return filepath.Abs(config.DefaultData(t.p.Env))
	}
	l, err := t.load(config.Source{})
	if err != nil {
		return "", err
	}
	return l.Data, nil
}

// connect returns a client of a running Tandem: at --url, else at the socket in the data directory. With offline, if no
// server runs there, this process serves the socket until done is called.
func (t *target) connect(ctx context.Context, offline bool) (_ *client.Client, done func(), err error) {
	o := client.Options{UserAgent: "tandem/" + t.p.Version, Insecure: t.insecure, Attempts: math.MaxInt,
		MaxWait: t.wait, Waiting: t.waiting}
	if t.token != "" && t.url == "" {
		// The socket needs no token: the command would run with an administrator's rights instead of the token's.
		return nil, nil, usageError{errors.New("--token (or TANDEM_TOKEN) needs --url: the data directory's socket " +
			"uses no token; add the URL or omit the token")}
	}
	if t.url != "" {
		if t.token != "" {
			o.Tokens = client.StaticToken(t.token)
		}
		c, err := client.New(t.url, o)
		if err != nil {
			return nil, nil, usageError{err}
		}
		return c, c.Close, nil
	}
	dir, err := t.dataDir()
	if err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(dir, node.SocketName)
	c, err := client.NewSocket(socket, o)
	if err != nil {
		return nil, nil, err
	}
	probe, cancel := context.WithTimeout(ctx, socketTimeout)
	err = c.Reachable(probe)
	cancel()
	if err == nil {
		return c, c.Close, nil
	}
	switch {
	case closed(err):
		return nil, nil, fault.New(fault.Unavailable, "SocketBusy", "tandem serve closed the connection to %s: it is "+
			"stopping, or too many commands use the socket, such as tandem events; try again", socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fault.New(fault.Forbidden, "SocketNotPermitted", "only root and the user that runs tandem "+
			"serve may open %s; run the command as that user (sudo -u USER tandem …), or use --url and "+
			"--token", socket)
	case !offline:
		return nil, nil, fault.New(fault.Unavailable, "NotRunning", "tandem serve is not running on %s (%s: %v); "+
			"start it, or name another directory with --data or another machine with --url", dir, node.SocketName,
			cause(err))
	}
	l, err := t.load(config.Source{})
	if err != nil {
		return nil, nil, err
	}
	stop, err := node.Offline(ctx, l, t.p.Version, t.p.Stderr)
	if fault.HasCode(err, "NoDatabase") {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fault.New(fault.Unavailable, "DataDirectory", "tandem serve is not reachable on %s, and the "+
			"command failed to run without it: %v", dir, err)
	}
	return c, func() { c.Close(); stop() }, nil
}

// closed reports whether the server accepted a connection and closed it, before the request was written or after.
func closed(err error) bool {
	request, sent := errors.AsType[*url.Error](err)
	network, ok := errors.AsType[*net.OpError](err)
	return sent && !request.Timeout() && !errors.Is(err, context.Canceled) && (!ok || network.Op != "dial")
}

// finding is an error about a result that is printed nevertheless: the result of a check.
type finding struct{ error }

func (f finding) Unwrap() error { return f.error }

// waiting reports whether the command may wait that long after err. It tells the user what it waits for.
func (t *target) waiting(err error, pause time.Duration) bool {
	if !t.again && pause < time.Second && closed(err) {
		t.again = true // the server closed the connection while the command began to use it
		return true
	}
	if pause > t.wait {
		fmt.Fprintf(t.p.Stderr, "tandem: not repeated; --wait %v or more would wait and repeat the request\n",
			max(time.Minute, pause.Round(time.Second)))
		return false
	}
	t.wait -= pause
	fmt.Fprintf(t.p.Stderr, "tandem: %v; waiting %v before the next attempt\n", err, pause.Round(time.Millisecond))
	return true
}

// run makes cmd call Tandem with the client from connect and print the result: with text, or as JSON if the user asked
// for that or text is nil. A result that comes with a finding is printed too.
func run[T any](t *target, offline bool, cmd *cobra.Command,
	call func(ctx context.Context, c *client.Client, args []string) (T, error), text func(*page, T)) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, done, err := t.connect(cmd.Context(), offline)
		if err != nil {
			return err
		}
		defer done()
		v, err := call(cmd.Context(), c, args)
		if t.url != "" && errors.Is(err, syscall.ECONNREFUSED) {
			err = fault.New(fault.Unavailable, "NotRunning", "nothing listens at %s (connection refused): start "+
				"tandem serve there, or name the address that it prints, manage.listen or provisioning.listen of its "+
				"configuration", t.url)
		}
		if err == nil || errors.As(err, new(finding)) {
			err = errors.Join(show(t, v, text), err)
		}
		return err
	}
	return cmd
}

// cause returns the system's error in a network error.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
