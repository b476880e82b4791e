// Command calls measures what a call costs: SIPp → system under test → SIPp over UDP on loopback, INVITE to BYE, a
// million numbers, the calling number looked up and its custom header added. Tandem (the released binary with a data
// directory on SQLite) and Kamailio (a stateful proxy with its fast allocator, -x fm) take turns in one run. Compare
// CPU seconds per 1,000 calls, and only within one run: the load generator shares the machine.
//
//	bench/calls/run [-rate 1000] [-seconds 8] [-runs 3] [-numbers 1000000] [-scattered] [-only tandem|kamailio]
//
// The last line of the output is "calls: tandem=… kamailio-fm=… ratio=…", medians of CPU seconds per 1,000 calls.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	rate, seconds, runs, numbers int
	hold                         time.Duration
	only, binary, dir            string
	scattered                    bool
}

func main() {
	var o options
	flag.IntVar(&o.rate, "rate", 1000, "new calls per second")
	flag.IntVar(&o.seconds, "seconds", 8, "how long each run places calls")
	flag.IntVar(&o.runs, "runs", 3, "runs of each system, in turns")
	flag.IntVar(&o.numbers, "numbers", 1_000_000, "number of provisioned numbers")
	flag.DurationVar(&o.hold, "hold", 500*time.Millisecond, "how long a call lasts once answered")
	flag.StringVar(&o.only, "only", "", "measure only tandem or only kamailio")
	flag.StringVar(&o.binary, "tandem", "bin/tandem", "the binary to measure")
	flag.StringVar(&o.dir, "dir", ".cache/bench-calls", "directory in which prepared data is kept for later runs")
	flag.BoolVar(&o.scattered, "scattered", false, "numbers far from each other instead of in blocks")
	flag.Parse()
	if err := bench(&o); err != nil {
		fmt.Fprintln(os.Stderr, "bench calls:", err)
		os.Exit(1)
	}
}

func bench(o *options) error {
	for _, p := range []string{"sipp", "kamailio"} {
		if p == "kamailio" && o.only == "tandem" {
			continue
		}
		if _, err := lookPath(p); err != nil {
			return fmt.Errorf("%s is missing; `make setup` installs what benchmarks need", p)
		}
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	lock, err := only(o.dir + ".lock")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := prepare(o); err != nil {
		return err
	}
	// An interrupted benchmark must not leave systems running.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		killAll()
		os.Exit(130)
	}()
	defer killAll()

	fmt.Printf("# %s, %d cores, %s, kernel %s; %d numbers, %d calls/s for %d s, held %v; %s\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), cpuModel(),
		output("uname", "-r"), o.numbers, o.rate, o.seconds, o.hold, kamailioVersion())
	suts := []*sut{}
	for _, name := range []string{"tandem", "kamailio-fm"} {
		if o.only == "" || strings.HasPrefix(name, o.only) {
			suts = append(suts, &sut{name: name, o: o})
		}
	}
	for _, s := range suts {
		if err := s.start(); err != nil {
			return err
		}
	}
	failed := false
	for range o.runs {
		for _, s := range suts {
			r, err := s.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Println(r)
			failed = failed || !r.good
			s.results = append(s.results, r)
		}
	}
	median := func(name string) float64 {
		for _, s := range suts {
			if s.name == name {
				var v []float64
				for _, r := range s.results {
					v = append(v, r.cpu())
				}
				slices.Sort(v)
				return v[len(v)/2]
			}
		}
		return 0
	}
	t, k := median("tandem"), median("kamailio-fm")
	ratio := 0.0
	if k > 0 {
		ratio = t / k
	}
	fmt.Printf("calls: tandem=%.3f kamailio-fm=%.3f ratio=%.2f\n", t, k, ratio)
	if failed {
		return errors.New("a run had failed calls or too many retransmissions: its figures do not count")
	}
	return nil
}

// only takes a lock that one benchmark at a time can hold on its directory; the system releases it when the process
// ends.
func only(file string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another benchmark uses %s (%w); wait for it, or name another directory with -dir",
			file, err)
	}
	return f, nil
}

// freePort returns a UDP port on loopback that is not in use.
func freePort() int {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p := filepath.Join(dir, name); fileExists(p) {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

func output(name string, args ...string) string {
	p, err := lookPath(name)
	if err != nil {
		return "unknown"
	}
	out, _ := exec.Command(p, args...).Output()
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(data)) {
		if n, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(n) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func kamailioVersion() string {
	first, _, _ := strings.Cut(output("kamailio", "-v"), "\n")
	_, v, _ := strings.Cut(first, "version: ")
	v, _, _ = strings.Cut(v, " (")
	return v
}
