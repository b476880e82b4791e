// Package dnspeer starts name servers of others beside the one under test: knot, nsd and BIND as secondaries, BIND as a
// primary, unbound as a resolver. Each listens on a loopback address of its own, keeps its files in a directory of the
// test, and ends with the test.
//
// Tests are skipped if a program is missing, or fail if TANDEM_REQUIRE_DNS is set, as it is in make test.
package dnspeer

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	port     = 5300
	patience = time.Minute // for a server to start or to follow; never reached on a machine that works
)

// Address returns a loopback address and port that nothing uses, for UDP and TCP. Each call returns another one. It
// does not listen there: a process that another test starts at that moment would keep the address for a while.
func Address(tb testing.TB) netip.AddrPort {
	tb.Helper()
	for range 100 {
		ip := netip.AddrFrom4([4]byte{127, byte(64 + rand.IntN(128)), byte(rand.IntN(256)), byte(1 + rand.IntN(250))})
		a := netip.AddrPortFrom(ip, port)
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			return a
		}
		_ = c.Close()
	}
	tb.Fatal("no free loopback address")

	return netip.AddrPort{}
}

// loopbackPort returns a port of 127.0.0.1 that nothing uses: BIND listens only on addresses that an interface has.
func loopbackPort(tb testing.TB) netip.AddrPort {
	tb.Helper()
	for range 100 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(1024+rand.IntN(8000)))
		l, err := net.Listen("tcp", a.String())
		if err != nil {
			continue
		}
		_ = l.Close()
		if p, err := net.ListenPacket("udp", a.String()); err == nil {
			_ = p.Close()
			return a
		}
	}
	tb.Fatal("no free port")

	return netip.AddrPort{}
}

// Peer is a running name server.
type Peer struct {
	Name string
	Addr netip.AddrPort
	Dir  string
	cmd  *exec.Cmd
	args []string
	log  *output
	done chan struct{}
}

// output is what a program has printed. It is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.b.Write(p)
}

// Log returns what the server has printed.
func (p *Peer) Log() string {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()

	return p.log.b.String()
}

// find returns the path of a program.
func find(tb testing.TB, program string) string {
	tb.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path
		}
	}
	if os.Getenv("TANDEM_REQUIRE_DNS") != "" {
		tb.Fatalf("%s is missing; install its Debian package", program)
	}
	tb.Skipf("%s is missing", program)

	return ""
}

// start runs a program with a configuration until the test ends. It returns when the server answers.
func start(tb testing.TB, p *Peer, config, program string, args ...string) *Peer {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(p.Dir, "conf"), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	p.log, p.args = &output{}, append([]string{find(tb, program), "-c", filepath.Join(p.Dir, "conf")}, args...)
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("output of %s:\n%s", p.Name, p.Log())
		}
	})
	p.Start(tb)

	return p
}

// Start starts a server that was killed. It returns when the server answers.
func (p *Peer) Start(tb testing.TB) {
	tb.Helper()
	p.done = make(chan struct{})
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.Dir, p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // the log says why
	}(p.cmd, p.done)
	p.Until(tb, "it answers", func(ctx context.Context) bool {
		_, err := p.Ask(ctx, "udp", ".", dns.TypeSOA)
		return err == nil
	})
}

// Kill ends the server with signal 9.
func (p *Peer) Kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		<-p.done
	}
}

// Signal sends a signal to the server's processes.
func (p *Peer) Signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		tb.Fatal(err)
	}
}

// Ask sends one question, over "udp" or "tcp", with EDNS(0) and without recursion except to a resolver.
func (p *Peer) Ask(ctx context.Context, network, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, kind)
	m.RecursionDesired = p.Name == "unbound"
	m.SetEdns0(1232, false)
	c := &dns.Client{Net: network, Timeout: 2 * time.Second}
	r, _, err := c.ExchangeContext(ctx, m, p.Addr.String())

	return r, err
}

// Until waits until a condition of the server holds.
func (p *Peer) Until(tb testing.TB, what string, holds func(context.Context) bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); !holds(ctx); {
		select {
		case <-tick.C:
		case <-p.done:
			tb.Fatalf("%s has ended:\n%s", p.Name, p.Log())
		case <-ctx.Done():
			tb.Fatalf("%s: not seen: %s\n%s", p.Name, what, p.Log())
		}
	}
}

// Serial returns the serial of the zone that the server has, 0 if it has none.
func (p *Peer) Serial(ctx context.Context, zone string) uint32 {
	r, err := p.Ask(ctx, "udp", zone, dns.TypeSOA)
	if err != nil || len(r.Answer) != 1 {
		return 0
	}
	if soa, ok := r.Answer[0].(*dns.SOA); ok {
		return soa.Serial
	}

	return 0
}

// Primary is where a secondary gets its zone.
type Primary struct {
	Zone   string // absolute
	Addr   netip.AddrPort
	Key    string // name of the key, algorithm hmac-sha256
	Secret []byte
}

func (p Primary) secret() string { return base64.StdEncoding.EncodeToString(p.Secret) }
func (p Primary) zone() string   { return strings.TrimSuffix(p.Zone, ".") }

// NSD starts nsd as a secondary at an address.
func NSD(tb testing.TB, at netip.AddrPort, from Primary) *Peer {
	tb.Helper()
	p := &Peer{Name: "nsd", Addr: at, Dir: tb.TempDir()}

	return start(tb, p, fmt.Sprintf(`
server:
  server-count: 1
  ip-address: %[1]s
  port: %[2]d
  username: ""
  database: ""
  zonesdir: %[3]q
  xfrdir: %[3]q
  pidfile: "%[3]s/nsd.pid"
  xfrdfile: "%[3]s/xfrd.state"
  zonelistfile: "%[3]s/zone.list"
  xfrd-reload-timeout: 0
  rrl-ratelimit: 0
  verbosity: 2
remote-control:
  control-enable: no
key:
  name: %[4]q
  algorithm: hmac-sha256
  secret: %[5]q
zone:
  name: %[6]q
  zonefile: "secondary.zone"
  allow-notify: 127.0.0.0/8 %[4]s
  request-xfr: %[7]s@%[8]d %[4]s
  outgoing-interface: %[1]s
`, at.Addr(), at.Port(), p.Dir, from.Key, from.secret(), from.zone(), from.Addr.Addr(), from.Addr.Port()), "nsd", "-d")
}

// NSDPrimary starts nsd with a zone from a file, for comparison and benchmarks.
func NSDPrimary(tb testing.TB, at netip.AddrPort, zone, text string) *Peer {
	tb.Helper()
	p := &Peer{Name: "nsd", Addr: at, Dir: tb.TempDir()}
	writeZone(tb, p.Dir, text)

	return start(tb, p, fmt.Sprintf(`
server:
  server-count: 1
  ip-address: %[1]s
  port: %[2]d
  username: ""
  database: ""
  zonesdir: %[3]q
  xfrdir: %[3]q
  pidfile: "%[3]s/nsd.pid"
  xfrdfile: "%[3]s/xfrd.state"
  zonelistfile: "%[3]s/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: %[4]q
  zonefile: "zone"
`, at.Addr(), at.Port(), p.Dir, strings.TrimSuffix(zone, ".")), "nsd", "-d")
}

// knotBase begins each configuration of knot: its address, directory and key.
const knotBase = `
server:
    rundir: %[3]q
    listen: %[1]s@%[2]d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: %[3]q
key:
  - id: %[4]q
    algorithm: hmac-sha256
    secret: %[5]q
`

// Knot starts knot as a secondary at an address.
func Knot(tb testing.TB, at netip.AddrPort, from Primary) *Peer {
	tb.Helper()
	p := &Peer{Name: "knot", Addr: at, Dir: tb.TempDir()}

	return start(tb, p, fmt.Sprintf(knotBase+`remote:
  - id: primary
    address: %[7]s@%[8]d
    via: %[1]s
    key: %[4]q
acl:
  - id: notify
    address: 127.0.0.0/8
    key: %[4]q
    action: notify
template:
  - id: default
    storage: %[3]q
zone:
  - domain: %[6]q
    master: primary
    acl: notify
    zonefile-sync: -1
    zonefile-load: none
`, at.Addr(), at.Port(), p.Dir, from.Key, from.secret(), from.zone(), from.Addr.Addr(), from.Addr.Port()), "knotd")
}

// BINDPrimary starts BIND with a zone from a file. options are further lines of the zone's configuration.
func BINDPrimary(tb testing.TB, zone, text, options string) *Peer {
	tb.Helper()
	return bind(tb, "", Zone{zone, text, options})
}

// Zone is a zone of BIND from a file. Options are further lines of its configuration.
type Zone struct{ Name, Text, Options string }

// Policy returns the options of a zone that takes updates by an update-policy.
func Policy(rules string) string { return "update-policy { " + rules + " };" }

// BINDUpdated starts BIND with a zone from a file that takes updates with a key. policy is its update-policy. Others
// are further zones.
func BINDUpdated(tb testing.TB, z Primary, text, policy string, others ...Zone) *Peer {
	tb.Helper()
	return bind(tb, fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };", z.Key, z.secret()),
		append(others, Zone{z.Zone, text, Policy(policy)})...)
}

func bind(tb testing.TB, keys string, zones ...Zone) *Peer {
	tb.Helper()
	at := loopbackPort(tb)
	p := &Peer{Name: "named", Addr: at, Dir: tb.TempDir()}
	config := keys
	for i, z := range zones {
		file := fmt.Sprint("zone", i)
		writeFile(tb, p.Dir, file, z.Text)
		config += fmt.Sprintf("\nzone %q { type primary; file %q; %s };", z.Name, file, z.Options)
	}

	return start(tb, p, fmt.Sprintf(`
options {
  directory %[3]q;
  listen-on port %[2]d { %[1]s; };
  listen-on-v6 { none; };
  pid-file none;
  session-keyfile "%[3]s/session.key";
  lock-file none;
  recursion no;
  notify no;
  dnssec-validation no;
  allow-transfer { none; };
  zero-no-soa-ttl no;
};
controls { };
%[4]s
`, at.Addr(), at.Port(), p.Dir, config), "named", "-g", "-n", "1")
}

// KnotUpdated starts knot with a zone from a file that takes updates with a key.
func KnotUpdated(tb testing.TB, z Primary, text string) *Peer {
	tb.Helper()
	p := &Peer{Name: "knot", Addr: Address(tb), Dir: tb.TempDir()}
	writeZone(tb, p.Dir, text)

	return start(tb, p, fmt.Sprintf(knotBase+`acl:
  - id: update
    key: %[4]q
    action: update
zone:
  - domain: %[6]q
    storage: %[3]q
    file: zone
    acl: update
`, p.Addr.Addr(), p.Addr.Port(), p.Dir, z.Key, z.secret(), z.zone()), "knotd")
}

// Unbound starts unbound as a resolver that minimises queries strictly and varies their case. It asks the name server
// at stub about zones, and nobody else.
func Unbound(tb testing.TB, at, stub netip.AddrPort, zones ...string) *Peer {
	tb.Helper()
	p := &Peer{Name: "unbound", Addr: at, Dir: tb.TempDir()}
	var locals, stubs string
	for _, z := range zones {
		locals += fmt.Sprintf("  local-zone: %q transparent\n", z)
		stubs += fmt.Sprintf("stub-zone:\n  name: %q\n  stub-addr: %s@%d\n", z, stub.Addr(), stub.Port())
	}

	return start(tb, p, fmt.Sprintf(`
server:
  interface: %[1]s
  port: %[2]d
  outgoing-interface: %[1]s
  num-threads: 1
  do-daemonize: no
  do-ip6: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: %[3]q
  pidfile: "%[3]s/unbound.pid"
  module-config: "iterator"
  do-not-query-localhost: no
  qname-minimisation: yes
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  access-control: 127.0.0.0/8 allow
  local-zone: "." refuse
%[4]sremote-control:
  control-enable: no
%[5]s`, at.Addr(), at.Port(), p.Dir, locals, stubs), "unbound", "-d")
}

func writeZone(tb testing.TB, dir, text string) {
	tb.Helper()
	writeFile(tb, dir, "zone", text)
}

func writeFile(tb testing.TB, dir, name, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}
