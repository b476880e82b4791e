// Command dns measures how many questions the name server answers for a second of CPU, beside nsd with the same zone,
// in one run: dnsperf asks both in turns over loopback, and the CPU time of each server is read from /proc.
//
//	bench/dns/run [-customers 10000] [-seconds 10] [-rounds 3]
//
// The last line is "dns: tandem=… nsd=… ratio=…", in answers per CPU-second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
)

const origin = "gw.example.com"

var (
	customers = flag.Int("customers", 10_000, "customers in the zone")
	seconds   = flag.Int("seconds", 10, "seconds of each round")
	rounds    = flag.Int("rounds", 3, "rounds of each server")
	serveAt   = flag.String("serve", "", "serve the zone at this address (for the command itself)")
)

func main() {
	flag.Parse()
	run := compare
	if *serveAt != "" {
		run = serve
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		os.Exit(1)
	}
}

// records returns a zone with two regions.
func records() []zone.Record {
	rs := []zone.Record{zone.NameServer(zone.Apex, 3600, "ns1."+origin), address("ns1", 53)}
	for _, region := range []string{"1r1", "1r2"} {
		rs = append(rs, address(region, 1))
		for i := range *customers {
			name := fmt.Sprintf("c%d.%s", i, region)
			rs = append(rs, address(name, 1), zone.Text(name, 60, fmt.Sprint("MS=ms", 10_000_000+i)))
		}
	}

	return rs
}

func address(name string, last byte) zone.Record {
	return zone.Address(name, 60, netip.AddrFrom4([4]byte{192, 0, 2, last}))
}

func load() (*zone.Zone, error) {
	z := zone.New(origin, "ns1."+origin, "dns@operator.example")
	return z, z.Apply(&zone.Version{To: 1, Added: records()})
}

// serve serves the zone until it is interrupted.
func serve() error {
	z, err := load()
	if err != nil {
		return err
	}
	s, err := nameserver.New(z, nameserver.Config{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", *serveAt)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *serveAt)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	return s.Serve(ctx, []net.PacketConn{p}, []net.Listener{l})
}

// server is one of the two.
type server struct {
	name string
	at   netip.AddrPort
	cmd  *exec.Cmd
	rate []float64 // answers per CPU-second of each round
}

func compare() error {
	dir, err := os.MkdirTemp("", "bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	z, err := load()
	if err != nil {
		return err
	}
	var text, questions strings.Builder
	all := z.All()
	for _, rr := range all[:len(all)-1] {
		fmt.Fprintln(&text, rr)
	}
	for i := range *customers {
		fmt.Fprintf(&questions, "c%d.1r1.%s A\nc%[1]d.1r2.%s TXT\nc%[1]d.1r1.%[2]s AAAA\nno%[1]d.1r2.%[2]s A\n", i,
			origin, origin)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	tandem := &server{name: "tandem", at: netip.MustParseAddrPort("127.53.0.1:5300")}
	tandem.cmd = exec.Command(self, "-serve", tandem.at.String(), "-customers", strconv.Itoa(*customers))
	nsd := &server{name: "nsd", at: netip.MustParseAddrPort("127.53.0.2:5300")}
	conf := fmt.Sprintf("server:\n server-count: 1\n ip-address: %s\n port: %d\n username: \"\"\n database: \"\"\n "+
		"zonesdir: %q\n xfrdir: %[3]q\n pidfile: \"%[3]s/pid\"\n xfrdfile: \"%[3]s/xfrd\"\n "+
		"zonelistfile: \"%[3]s/list\"\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\nzone:\n "+
		"name: %q\n zonefile: zone\n", nsd.at.Addr(), nsd.at.Port(), dir, origin)
	program, err := exec.LookPath("nsd")
	if err != nil {
		program = "/usr/sbin/nsd"
	}
	nsd.cmd = exec.Command(program, "-d", "-c", filepath.Join(dir, "conf"))
	for name, content := range map[string]string{"zone": text.String(), "questions": questions.String(), "conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}

	fmt.Printf("# %s, %d cores, %s, %d customers\n", time.Now().Format(time.DateOnly), runtime.NumCPU(),
		runtime.Version(), *customers)
	servers := []*server{tandem, nsd}
	for _, s := range servers {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := s.cmd.Start(); err != nil {
			return err
		}
		defer func() {
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
			_ = s.cmd.Wait()
		}()
		if err := s.wait(); err != nil {
			return err
		}
	}
	for range *rounds {
		for _, s := range servers {
			if err := s.round(filepath.Join(dir, "questions")); err != nil {
				return err
			}
		}
	}
	a, b := median(tandem.rate), median(nsd.rate)
	fmt.Printf("dns: tandem=%.0f nsd=%.0f ratio=%.2f\n", a, b, a/b)

	return nil
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// wait waits until the server accepts connections.
func (s *server) wait() error {
	for range 200 {
		if c, err := net.Dial("tcp", s.at.String()); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond) // until it listens; no figure depends on it
	}

	return fmt.Errorf("%s does not answer", s.name)
}

var completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)

// round asks for some seconds and notes the answers per CPU-second of the server.
func (s *server) round(questions string) error {
	before, err := s.cpu()
	if err != nil {
		return err
	}
	out, err := exec.Command("dnsperf", "-s", s.at.Addr().String(), "-p", strconv.Itoa(int(s.at.Port())), "-d",
		questions, "-l", strconv.Itoa(*seconds), "-c", "4", "-q", "200").CombinedOutput()
	if err != nil {
		return fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	m := completed.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("dnsperf printed no result:\n%s", out)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return err
	}
	used := (after - before).Seconds()
	if used <= 0 {
		return errors.New("the server used no CPU")
	}
	s.rate = append(s.rate, n/used)
	fmt.Printf("%s answers=%.0f cpu_s=%.2f answers_per_cpu_s=%.0f\n", s.name, n, used, n/used)

	return nil
}

// cpu returns the CPU time of the server's processes: nsd has several, in one process group.
func (s *server) cpu() (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	ticks := 0
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // fields from the third on
		f := strings.Fields(rest)
		if len(f) < 13 || f[2] != strconv.Itoa(s.cmd.Process.Pid) { // the process group
			continue
		}
		for _, x := range f[11:13] { // utime, stime
			n, err := strconv.Atoi(x)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}

	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}
