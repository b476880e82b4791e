package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tandemgw/tandem/internal/cli/child"
)

// running are the process groups to end with the benchmark.
var running struct {
	mu     sync.Mutex // guards groups
	groups []int
}

func killAll() {
	running.mu.Lock()
	defer running.mu.Unlock()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) { // polls until they have ended
			alive := false
			for _, g := range running.groups {
				alive = syscall.Kill(-g, sig) == nil || alive
			}
			if !alive || time.Now().After(end) || sig == syscall.SIGKILL {
				break
			}
		}
	}
	running.groups = nil
}

// spawn starts a command in its own process group.
func spawn(dir string, env []string, out io.Writer, name string, args ...string) (*exec.Cmd, error) {
	p, err := lookPath(name)
	if err != nil {
		return nil, err
	}
	c := exec.Command(p, args...)
	c.Dir, c.Stdout, c.Stderr = dir, out, out
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	running.mu.Lock()
	running.groups = append(running.groups, c.Process.Pid)
	running.mu.Unlock()
	return c, nil
}

// sut is a system under test: it takes calls from the service at one address and passes them to the core's peer.
type sut struct {
	name    string
	o       *options
	service int // port for the service side
	core    int // port for the core side
	uas     int // port of the core's SIPp
	uac     int // port of the service's SIPp
	pgid    int
	results []result
}

// start starts the system and waits until it is ready and quiet.
func (s *sut) start() error {
	s.service, s.core, s.uas, s.uac = freePort(), freePort(), freePort(), freePort()
	logFile, err := os.Create(filepath.Join(s.o.dir, s.name+".log"))
	if err != nil {
		return err
	}
	begun := time.Now()
	if s.name == "tandem" {
		err = s.startTandem(logFile)
	} else {
		err = s.startKamailio(logFile)
	}
	if err != nil {
		return fmt.Errorf("%s: %w (see %s)", s.name, err, logFile.Name())
	}
	// It is ready when it no longer uses CPU for its start.
	for quiet := 0; quiet < 2; {
		u, k := s.cpu()
		time.Sleep(500 * time.Millisecond) // a measuring interval, not synchronisation
		u2, k2 := s.cpu()
		if quiet++; u2+k2-u-k > 0.05 {
			quiet = 0
		}
		if time.Since(begun) > 3*time.Minute {
			return fmt.Errorf("%s still uses CPU after 3 minutes without calls", s.name)
		}
	}
	u, k := s.cpu()
	fmt.Printf("%s ready_s=%.1f start_cpu_s=%.2f idle_pss_mib=%.0f\n", s.name,
		time.Since(begun).Seconds(), u+k, s.pss())
	return nil
}

const tandemConfig = `
log: {level: warn}
metrics: {listen: "off"}
manage: {listen: "off"}
provisioning: {listen: "off"}
calls:
  groups:
    - name: core
      transport: udp
      bind: {udp: "127.0.0.1:%d"}
      peers: [{name: uas, address: "127.0.0.1:%d"}]
      options: {off: true}
    - name: service
      service: teamsOperatorConnect
      transport: udp
      bind: {udp: "127.0.0.1:%d"}
      peers: [{name: uac, address: "127.0.0.1:%d"}]
      options: {off: true}
  limits: {maxCalls: 100000, maxCallsPerSecond: 100000}
`

func (s *sut) startTandem(log io.Writer) error {
	file := filepath.Join(s.o.dir, "tandem.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, tandemConfig, s.core, s.uas, s.service, s.uac), 0o644); err != nil {
		return err
	}
	p, err := child.Start(log, []string{s.o.binary}, "--config", file, "--data", filepath.Join(s.o.dir, "data"))
	if err != nil {
		return err
	}
	s.pgid = p.PID()
	running.mu.Lock()
	running.groups = append(running.groups, s.pgid)
	running.mu.Unlock()
	_, err = p.Ready(context.Background())
	return err
}

func (s *sut) startKamailio(log io.Writer) error {
	local := func(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
	env := []string{"BENCH_DB=" + filepath.Join(s.o.dir, "numbers.db"), "BENCH_SERVICE=" + local(s.service),
		"BENCH_CORE=" + local(s.core), "BENCH_UAS=" + local(s.uas)}
	c, err := spawn(s.o.dir, env, log, "kamailio", "-DD", "-E", "-m", "1024", "-M", "1536", "-x", "fm", "-Y", s.o.dir,
		"-f", filepath.Join(s.o.dir, "kamailio.cfg"))
	if err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // so that it does not remain a zombie
	s.pgid = c.Process.Pid
	for begun := time.Now(); !bound(s.service); {
		if time.Since(begun) > time.Minute {
			return errors.New("the process does not listen after a minute")
		}
		time.Sleep(100 * time.Millisecond) // polls the kernel's table
	}
	return nil
}

// bound reports whether a process listens on a UDP port of loopback.
func bound(port int) bool {
	data, _ := os.ReadFile("/proc/net/udp")
	return bytes.Contains(data, fmt.Appendf(nil, ":%04X ", port))
}

// pids returns the processes of the system.
func (s *sut) pids() (list []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := stat(pid); len(f) > 12 && f[2] == strconv.Itoa(s.pgid) {
			list = append(list, pid)
		}
	}
	return list
}

// stat returns the fields of /proc/PID/stat from the state on.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	i := bytes.LastIndexByte(data, ')')
	return strings.Fields(string(data[i+1:]))
}

// ticks is the number of CPU time units per second in /proc, the same on every Linux that Go runs on.
const ticks = 100.0

// cpu returns the CPU seconds spent so far, in user space and in the kernel.
func (s *sut) cpu() (user, kernel float64) {
	for _, pid := range s.pids() {
		if f := stat(pid); len(f) > 12 {
			u, _ := strconv.ParseFloat(f[11], 64)
			k, _ := strconv.ParseFloat(f[12], 64)
			user, kernel = user+u/ticks, kernel+k/ticks
		}
	}
	return user, kernel
}

// pss returns the memory of the system in MiB; memory shared by its processes counts once.
func (s *sut) pss() float64 {
	total := 0.0
	for _, pid := range s.pids() {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for l := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(l, "Pss:"); ok {
				n, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
				total += n / 1024
			}
		}
	}
	return total
}

// result is one run.
type result struct {
	name                string
	rate, calls, wanted int
	failed, repeated    int
	user, kernel        float64
	wall                time.Duration
	mib                 float64
	p50, p99, max       float64 // post-dial delay, milliseconds
	good                bool
}

// cpu returns CPU seconds per 1,000 calls.
func (r result) cpu() float64 { return 1000 * (r.user + r.kernel) / float64(max(r.calls, 1)) }

func (r result) String() string {
	verdict := "ok"
	if !r.good {
		verdict = "BAD"
	}
	n := float64(max(r.calls, 1))
	return fmt.Sprintf("%s rate=%d calls=%d/%d failed=%d retrans=%d cpu_s_per_1000=%.3f user=%.3f sys=%.3f "+
		"cores=%.2f pss_mib=%.0f pdd_p50_ms=%.1f p99_ms=%.1f max_ms=%.1f %s",
		r.name, r.rate, r.calls, r.wanted, r.failed, r.repeated, r.cpu(), 1000*r.user/n, 1000*r.kernel/n,
		(r.user+r.kernel)/r.wall.Seconds(), r.mib, r.p50, r.p99, r.max, verdict)
}

// measure places calls through the system.
func (s *sut) measure() (result, error) {
	o := s.o
	total := o.rate * o.seconds
	r := result{name: s.name, rate: o.rate, wanted: total}
	dir, err := os.MkdirTemp(o.dir, "run-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	local := []string{"-nostdin", "-i", "127.0.0.1", "-mi", "127.0.0.1", "-trace_stat", "-fd", "1",
		"-buff_size", "4194304", "-trace_err"}
	callee, err := spawn(dir, nil, nil, "sipp",
		append([]string{"-sf", filepath.Join(o.dir, "uas.xml"), "-p", strconv.Itoa(s.uas),
			"-stf", "uas.csv", "-error_file", "uas_err.log"}, local...)...)
	if err != nil {
		return r, err
	}
	for begun := time.Now(); !bound(s.uas); {
		if time.Since(begun) > 10*time.Second {
			return r, errors.New("SIPp does not listen")
		}
		time.Sleep(20 * time.Millisecond) // polls the kernel's table
	}
	u0, k0 := s.cpu()
	begun := time.Now()
	caller, err := spawn(dir, nil, nil, "sipp",
		append([]string{"127.0.0.1:" + strconv.Itoa(s.service), "-sf", filepath.Join(o.dir, "uac.xml"),
			"-inf", filepath.Join(o.dir, "calls.csv"), "-p", strconv.Itoa(s.uac),
			"-r", strconv.Itoa(o.rate), "-m", strconv.Itoa(total), "-l", strconv.Itoa(max(15*o.rate, 1000)),
			"-d", strconv.Itoa(int(o.hold.Milliseconds())), "-recv_timeout", "8000",
			"-timeout", strconv.Itoa(o.seconds + 40), "-stf", "uac.csv", "-trace_rtt", "-rtt_freq", "200",
			"-error_file", "uac_err.log"}, local...)...)
	if err != nil {
		return r, err
	}
	_ = caller.Wait() // its exit code says whether a call failed; its statistics say how many
	r.wall = time.Since(begun)
	r.mib = s.pss()
	time.Sleep(300 * time.Millisecond) // the last messages' cost belongs to the run
	u1, k1 := s.cpu()
	r.user, r.kernel = u1-u0, k1-k0
	_ = syscall.Kill(-callee.Process.Pid, syscall.SIGTERM)
	_ = callee.Wait()

	a, b := lastRow(filepath.Join(dir, "uac.csv")), lastRow(filepath.Join(dir, "uas.csv"))
	r.calls, r.failed = a["SuccessfulCall(C)"], a["FailedCall(C)"]+b["FailedCall(C)"]
	r.repeated = a["Retransmissions(C)"] + b["Retransmissions(C)"]
	var delays []float64
	files, _ := filepath.Glob(filepath.Join(dir, "*rtt.csv"))
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for l := range strings.Lines(string(data)) {
			if p := strings.Split(strings.TrimSpace(l), ";"); len(p) >= 3 && p[2] == "1" {
				if v, err := strconv.ParseFloat(p[1], 64); err == nil {
					delays = append(delays, v)
				}
			}
		}
	}
	if len(delays) > 0 {
		slices.Sort(delays)
		at := func(q float64) float64 { return delays[min(len(delays)-1, int(q*float64(len(delays))))] }
		r.p50, r.p99, r.max = at(.5), at(.99), delays[len(delays)-1]
	}
	r.good = r.failed == 0 && r.calls == total && r.repeated <= max(1, total/1000)
	if !r.good {
		for _, f := range []string{"uac_err.log", "uas_err.log"} {
			if data, err := os.ReadFile(filepath.Join(dir, f)); err == nil && len(data) > 0 {
				_ = os.WriteFile(filepath.Join(o.dir, s.name+"-"+f), data, 0o644)
				fmt.Fprintf(os.Stderr, "# SIPp's errors: %s\n", filepath.Join(o.dir, s.name+"-"+f))
			}
		}
	}
	return r, nil
}

// lastRow returns the numeric columns of the last row of a SIPp statistics file.
func lastRow(file string) map[string]int {
	out := map[string]int{}
	data, err := os.ReadFile(file)
	if err != nil {
		return out
	}
	c := csv.NewReader(bytes.NewReader(data))
	c.Comma, c.FieldsPerRecord, c.LazyQuotes = ';', -1, true
	rows, _ := c.ReadAll()
	if len(rows) < 2 {
		return out
	}
	for i, v := range rows[len(rows)-1] {
		if n, err := strconv.Atoi(v); err == nil && i < len(rows[0]) {
			out[rows[0][i]] = n
		}
	}
	return out
}
