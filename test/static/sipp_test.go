//go:build deep

package static

import (
	"bytes"
	"context"
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/tandemgw/tandem/test/rig"
)

//go:embed scenarios/*.xml
var scenarios embed.FS

// call is one call to place: a line of SIPp's injection file.
type call struct{ from, to, host, header string }

// sipp is a running SIPp process.
type sipp struct {
	name string
	cmd  *exec.Cmd
	dir  string
	out  bytes.Buffer
	done chan struct{} // closed when it has ended
	err  error         // how it ended, once done is closed
}

// figures are SIPp's counts.
type figures struct{ ok, failed, repeated int }

// startSIPp runs a scenario for the given number of calls. The process ends by itself after them, or fails after the
// limit.
func (s *site) startSIPp(ctx context.Context, t *testing.T, name, scenario, local string, core bool, calls int,
	limit time.Duration, args ...string) *sipp {
	t.Helper()
	p := &sipp{name: name, dir: t.TempDir(), done: make(chan struct{})}
	tpl, err := template.ParseFS(scenarios, "scenarios/"+scenario)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := tpl.Execute(&text, struct{ Core bool }{core}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, scenario)
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = hurried(ctx, "sipp",
		append([]string{"-sf", file, "-i", host, "-bind_local", "-p", port, "-t", "u1", "-nostdin",
			"-m", strconv.Itoa(calls), "-trace_err", "-error_file", filepath.Join(p.dir, "errors.log"),
			"-trace_stat", "-stf", filepath.Join(p.dir, "stat.csv"), "-fd", "5",
			"-timeout", fmt.Sprint(int(limit.Seconds())), "-timeout_error",
			"-nd", "-default_behaviors", "abortunexp", "-buff_size", "2097152", "-l", "5000"}, args...)...)
	p.cmd.Dir = p.dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = 2 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p
}

// take starts a SIPp process that accepts calls at a trunk's peer, and waits until it listens.
func (s *site) take(ctx context.Context, t *testing.T, trunk string, calls int, limit time.Duration) *sipp {
	t.Helper()
	x := s.trunks[trunk]
	p := s.startSIPp(ctx, t, trunk+" accepts calls", "callee.xml", x.peer, trunk == "core", calls, limit)
	eventually(t, 10*time.Second, "SIPp listens on "+x.peer, func() error {
		select {
		case <-p.done:
			t.Fatal(p.problem())
		default:
		}
		if !rig.Bound(t, "udp", x.peer) {
			return errors.New("the port is free")
		}
		return nil
	})
	return p
}

// place starts a SIPp process that places calls from a trunk, repeating the list as often as necessary.
func (s *site) place(ctx context.Context, t *testing.T, trunk string, list []call, calls, rate int, hold,
	limit time.Duration) *sipp {
	t.Helper()
	var b strings.Builder
	b.WriteString("SEQUENTIAL\n")
	for _, c := range list {
		fmt.Fprintf(&b, "%s;%s;%s;%s;\n", c.from, c.to, c.host, c.header)
	}
	file := filepath.Join(t.TempDir(), "calls.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	x := s.trunks[trunk]
	return s.startSIPp(ctx, t, trunk+" places calls", "caller.xml", x.caller, trunk == "core", calls, limit,
		"-inf", file, "-r", strconv.Itoa(rate), "-d", strconv.Itoa(int(hold.Milliseconds())), x.bind)
}

// problem waits for the end and returns what went wrong, or "".
func (p *sipp) problem() string {
	<-p.done
	f, err := p.figures()
	if p.err == nil && err == nil && f.failed == 0 {
		return ""
	}
	b, _ := os.ReadFile(filepath.Join(p.dir, "errors.log")) // absent if there were no errors
	text := string(b)
	out := fmt.Sprintf("%s: %v; %+v %v", p.name, p.err, f, err)
	if n := strings.Count(text, "watchdog timer"); n > 0 {
		out += fmt.Sprintf("\nSIPp itself did not run for more than half a second %d times: the machine is too busy "+
			"for this test", n)
	}
	// Only the first failures: there can be thousands of stray messages after a call's end.
	shown := 0
	for _, m := range strings.Split(text, "'"+time.Now().UTC().Format("2006-")) {
		if shown < 3 && !strings.Contains(m, "Dead call") && !strings.Contains(m, "watchdog timer") {
			out += "\n" + tail(m, 1500)
			shown++
		}
	}
	return out + "\n" + tail(p.out.String(), 800)
}

// hurried returns a command that runs with a higher priority, where that is allowed: these tests do not test whether
// other suites leave SIPp enough processor time to answer.
func hurried(ctx context.Context, name string, args ...string) *exec.Cmd {
	if mayHurry() {
		return exec.CommandContext(ctx, "nice", append([]string{"-n", "-15", name}, args...)...)
	}
	return exec.CommandContext(ctx, name, args...)
}

var mayHurry = sync.OnceValue(func() bool {
	out, err := exec.Command("nice", "-n", "-15", "nice").Output()
	return err == nil && strings.TrimSpace(string(out)) == "-15"
})

// figures reads the last line of SIPp's statistics.
func (p *sipp) figures() (figures, error) {
	b, err := os.ReadFile(filepath.Join(p.dir, "stat.csv"))
	if err != nil {
		return figures{}, err
	}
	r := csv.NewReader(bytes.NewReader(b))
	r.Comma, r.FieldsPerRecord = ';', -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) < 2 {
		return figures{}, fmt.Errorf("SIPp's statistics cannot be read: %d lines, %v", len(rows), err)
	}
	last := rows[len(rows)-1]
	get := func(name string) int {
		for i, h := range rows[0] {
			if h == name && i < len(last) {
				n, cerr := strconv.Atoi(last[i])
				if cerr != nil {
					err = cerr
				}
				return n
			}
		}
		err = fmt.Errorf("SIPp's statistics have no %s", name)
		return 0
	}
	f := figures{get("SuccessfulCall(C)"), get("FailedCall(C)"), get("Retransmissions(C)")}
	return f, err
}

// finish waits for all processes and fails the test for each failure. Once one has failed, the others get only a little
// more time: what they wait for may never happen.
func finish(t *testing.T, ps ...*sipp) figures {
	t.Helper()
	var sum figures
	for i, p := range ps {
		if w := p.problem(); w != "" {
			t.Error(w)
			for _, q := range ps[i+1:] {
				select {
				case <-q.done:
				case <-time.After(3 * time.Second):
					_ = q.cmd.Process.Kill() // its end is reported below
				}
			}
		}
		f, err := p.figures()
		if err != nil {
			t.Error(err)
		}
		sum.ok, sum.failed, sum.repeated = sum.ok+f.ok, sum.failed+f.failed, sum.repeated+f.repeated
	}
	return sum
}

// callThem places one call from the core to each number, 20 a second, and fails the test unless each arrives at the
// number's service and gets its custom header in the responses.
func (s *site) callThem(t *testing.T, numbers map[string]route) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(len(numbers))*50*time.Millisecond)
	defer cancel()
	count := map[service]int{}
	var list []call
	for n, r := range numbers {
		count[r.service]++
		list = append(list, call{outside, n, s.trunks["core"].bind, r.header})
	}
	limit := 40*time.Second + time.Duration(len(list))*50*time.Millisecond
	var callees []*sipp
	for sv, n := range count {
		callees = append(callees, s.take(ctx, t, trunkOf[sv], n, limit))
	}
	caller := s.place(ctx, t, "core", list, len(list), 20, 200*time.Millisecond, limit)
	finish(t, append([]*sipp{caller}, callees...)...)
}
