package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

// TestAddressThatCannotBeOpened: the error names the setting, its value, the reason and the remedy.
func TestAddressThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	taken, takenUDP := tcp.Addr().String(), udp.LocalAddr().String()
	authority, err := ca.New("listen")
	if err != nil {
		t.Fatal(err)
	}
	issued, err := authority.Issue(ca.ServerAndClient, "trunk.example.net")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.WriteFiles(t.TempDir(), "edge", issued)
	if err != nil {
		t.Fatal(err)
	}
	group := func(transport, address string) string {
		return `calls.groups[1]={name: other, insecure: true, transport: ` + transport + `, bind: {` + transport +
			`: "` + address + `"}, peers: [{address: "127.0.0.9:9", type: ip}], tls: {certificateFile: "` + cert +
			`", keyFile: "` + key + `"}}`
	}
	const elsewhere = "192.0.2.7:9999" // documentation address (RFC 5737), on no machine
	inUse := []string{"in use", "ss -lntup", "another address", "tandem serve --free-ports", "address already in use"}
	absent := []string{"no address of this machine", "cannot assign requested address"}
	for _, c := range []struct {
		setting, address, set string
		want                  []string
	}{
		{"provisioning.listen", taken, "provisioning.listen=" + taken, inUse},
		{"manage.listen", taken, "manage.listen=" + taken, inUse},
		{"metrics.listen", taken, "metrics.listen=" + taken, inUse},
		{"calls.groups[1].bind.udp", takenUDP, group("udp", takenUDP), inUse},
		{"calls.groups[1].bind.tcp", taken, group("tcp", taken), inUse},
		{"calls.groups[1].bind.tls", taken, group("tls", taken), inUse},
		{"metrics.listen", elsewhere, "metrics.listen=" + elsewhere, absent},
		{"calls.groups[1].bind.tcp", elsewhere, group("tcp", elsewhere), absent},
	} {
		t.Run(c.setting+" "+c.want[0], func(t *testing.T) {
			t.Parallel()
			var errs bytes.Buffer
			args := []string{"serve", "--data", t.TempDir(), "--set", "provisioning.listen=127.0.0.1:0",
				"--set", "metrics.listen=off", "--set", "manage.listen=127.0.0.1:0", "--set", "metrics.insecure=true",
				"--set", `calls.groups[0]={name: core, transport: udp, bind: {udp: "127.0.0.1:0"}}`, "--set", c.set}
			code := run(t.Context(), nil, args, os.Environ(), io.Discard, &errs)
			_, message, _ := strings.Cut(errs.String(), "tandem: ")
			for _, want := range append([]string{c.setting, c.address}, c.want...) {
				if code != 1 || !strings.Contains(message, want) {
					t.Errorf("exit code %d, want 1 and …%s…\n%s", code, want, message)
				}
			}
		})
	}
}

// TestErrorOfServeFitsATerminal: an error that ends the server wraps between words, a log line does not wrap.
func TestErrorOfServeFitsATerminal(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := onTerminal(t, func(stderr *os.File) int {
		args := []string{"serve", "--data", t.TempDir(), "--set", "provisioning.listen=127.0.0.1:0",
			"--set", "log.format=json", "--set", "metrics.listen=off",
			"--set", "manage.listen=" + taken.Addr().String(),
			"--set", `calls.groups[0]={name: core, transport: udp, bind: {udp: "127.0.0.1:0"}}`}
		return run(t.Context(), nil, args, os.Environ(), io.Discard, stderr)
	})
	logged, message, found := strings.Cut(text, "tandem: ")
	if !found || !strings.Contains(message, taken.Addr().String()) || strings.Count(message, "\n") < 2 {
		t.Fatalf("no wrapped error:\n%s", text)
	}
	for line := range strings.Lines("tandem: " + message) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for line := range strings.Lines(logged) {
		if !strings.HasPrefix(line, `{"`) || !strings.HasSuffix(line, "}\n") {
			t.Errorf("a log line was wrapped: %q", line)
		}
	}
}

// onTerminal returns what do writes to a terminal.
func onTerminal(t *testing.T, do func(*os.File) int) string {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	defer m.Close()
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(m) // fails with EIO when the other end is closed
		read <- strings.ReplaceAll(string(b), "\r\n", "\n")
	}()
	if code := do(s); code != 1 {
		t.Errorf("exit code %d", code)
	}
	_ = s.Close()
	return <-read
}
