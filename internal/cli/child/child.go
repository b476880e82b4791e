// Package child runs tandem serve as a child process. It is the one way in which the demonstration, tests and
// benchmarks start the program. Main type: Process.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/tandemgw/tandem/internal/node"
)

// Process is a running tandem serve. Its methods are safe for concurrent use.
type Process struct {
	cmd       *exec.Cmd
	ready     chan struct{} // closed when the process is ready
	addresses node.Ready    // set before ready is closed
	exited    chan struct{} // closed when the process has ended
	err       error         // how it ended; set before exited is closed
}

// Start starts "serve --output json" with args. command is the program, with another program and its arguments before
// it if that is to start it. The process logs to log. On Linux it is killed when this process dies; Ctrl-C in this
// process's terminal does not reach it.
func Start(log io.Writer, command []string, args ...string) (*Process, error) {
	args = append(append(command[1:len(command):len(command)], "serve", "--output", "json"), args...)
	p := &Process{cmd: exec.Command(command[0], args...), ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = attributes()
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	go func() {
		defer close(p.exited)
		r := bufio.NewReader(out)
		line, _ := r.ReadBytes('\n') // an error: it ends before it is ready
		if json.Unmarshal(line, &p.addresses) == nil && p.addresses.Ready {
			close(p.ready)
		}
		_, _ = io.Copy(io.Discard, r) // the pipe must be read to its end before Wait
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// Ready waits until the process is ready and returns its addresses. It returns an error if the process ends before or
// ctx is done; the process then continues.
func (p *Process) Ready(ctx context.Context) (node.Ready, error) {
	select {
	case <-p.ready:
	case <-p.exited:
	case <-ctx.Done():
	}
	select {
	case <-p.ready:
		return p.addresses, nil
	case <-p.exited:
		return node.Ready{}, fmt.Errorf("tandem ended before it was ready: %w", p.err)
	default:
		return node.Ready{}, fmt.Errorf("tandem is not ready: %w", ctx.Err())
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// PID returns the process id, which is also the id of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal. It returns an error if the process has ended.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to shut down and returns how it ended. After limit it is killed.
func (p *Process) Stop(limit time.Duration) error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
		return p.err
	case <-time.After(limit):
		p.Kill()
		return errors.New("tandem did not stop within " + limit.String() + " of SIGTERM")
	}
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}
