package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// patience is the limit for each thing that happens at once on an idle machine; only failing tests wait that long.
const patience = time.Minute

// server is a running "tandem serve" whose standard error is a pipe.
type server struct {
	*child.Process
	data  string
	log   *os.File      // the reader's end
	lines *bufio.Reader // of log
	local *client.Client
	ready node.Ready
}

// start starts a server and waits until it is ready. Nothing reads its log.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{data: t.TempDir(), log: r, lines: bufio.NewReader(r)}
	s.Process, err = child.Start(w, []string{rig.Binary(t)}, append([]string{"--data", s.data, "--free-ports",
		"--set", "shutdown.drain=1s", "--set", "shutdown.cut=5s"}, args...)...)
	_ = w.Close() // the child has its own copy
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()      // it has ended, unless the test failed
		_ = r.Close() // the test may have closed it
	})
	if s.ready, err = s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.local = socket(t, s.data)
	return s
}

// socket returns a client of the socket in a data directory.
func socket(t *testing.T, data string) *client.Client {
	t.Helper()
	c, err := client.NewSocket(filepath.Join(data, node.SocketName), client.Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chatter makes the server log more than a pipe holds (64 KiB): a line for each request, and lines about SIP from an
// unknown source.
func (s *server) chatter(t *testing.T) {
	t.Helper()
	within := func(f func(ctx context.Context)) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		f(ctx)
	}
	stranger, err := net.Dial("udp", s.ready.SIP.UDP)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for i := range 700 {
		name := fmt.Sprintf("an-account-with-a-long-name-that-is-not-there-%d", i)
		within(func(ctx context.Context) {
			if _, err := s.local.Account(ctx, name); !client.IsNotFound(err) {
				t.Fatalf("request %d: %v; want 404 within %v", i, err, patience)
			}
		})
		if _, err := stranger.Write([]byte("no SIP\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	within(func(ctx context.Context) {
		if h, err := s.local.Health(ctx); err != nil || h.Status != "ready" {
			t.Errorf("health: %+v, %v", h, err)
		}
	})
}

// end stops the server with SIGTERM and fails the test unless it ends with exit code 0 and in time: shutdown.drain,
// shutdown.cut, a second for the log, and what a busy machine needs.
func (s *server) end(t *testing.T) {
	t.Helper()
	if err := s.Stop(7*time.Second + patience); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// TestALogThatNothingReadsStopsNothing uses a pipe that fills up as standard error. Requests, health checks and the
// shutdown do not wait for it.
func TestALogThatNothingReadsStopsNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.chatter(t)
	s.end(t)
}

// TestALogReaderThatIsGoneEndsNothing closes the reader of the log, so that each write fails with EPIPE.
func TestALogReaderThatIsGoneEndsNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	s.chatter(t)
	s.end(t)
}

// TestStandardOutputThatNothingReadsStopsNothing has the server write its addresses to a full pipe, as when both
// streams go to one reader that does not read.
func TestStandardOutputThatNothingReadsStopsNothing(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fill(t, w)
	data := t.TempDir()
	cmd := exec.Command(rig.Binary(t), "serve", "--data", data, "--free-ports", "--set", "shutdown.drain=1s", "--set",
		"shutdown.cut=5s")
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the child has its own copy
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	limit, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	c := socket(t, data)
	for ready := false; !ready; {
		h, err := c.Health(limit)
		ready = err == nil && h.Status == "ready"
		select {
		case <-tick.C:
		case <-limit.Done():
			_ = cmd.Process.Kill()
			t.Fatal("the server does not become ready")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
	case <-time.After(7*time.Second + patience):
		_ = cmd.Process.Kill()
		t.Error("the server did not end after SIGTERM")
	}
}

// fill writes to a pipe until it is full.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	c, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var full error
	if err := c.Write(func(fd uintptr) bool { // the runtime's pipes do not block
		for full == nil {
			_, full = syscall.Write(int(fd), make([]byte, 4096))
		}
		return true
	}); err != nil || !errors.Is(full, syscall.EAGAIN) {
		t.Fatalf("fill the pipe: %v, %v", full, err)
	}
}
