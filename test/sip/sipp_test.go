package sip_test

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/test/rig"
)

//go:embed scenarios
var scenarioFiles embed.FS

// plan is one call between two SIPp processes: the data for the scenario templates.
type plan struct {
	From, To     string
	FromHost     string // host in From
	Host         string // host of Request-URI and To: the gateway's name for the caller
	Headers      []string
	Refused      int // the caller gets this final status
	FarStatus    int // the callee answers this
	EarlyMedia   bool
	NoRinging    bool
	Cancel       bool
	CancelRace   bool // the callee answers nevertheless
	Reinvite     bool
	CalleeEnds   bool
	Silent       bool
	Ring         int // milliseconds
	Hold         int // milliseconds
	AnswerChecks []string
	InviteChecks []string
}

// URI returns the Request-URI.
func (p plan) URI() string { return "sip:" + p.To + "@" + p.Host + ";user=phone" }

// holds returns a SIPp check that a header matches a regular expression.
func holds(header, pattern string) string {
	return fmt.Sprintf(`<ereg regexp="%s" search_in="hdr" header="%s:" check_it="true" assign_to="1"/>`,
		pattern, header)
}

// lacks returns a SIPp check that a header is absent.
func lacks(header string) string {
	return fmt.Sprintf(`<ereg regexp="." search_in="hdr" header="%s:" check_it_inverse="true" assign_to="1"/>`, header)
}

// trunk is a peer group of the gateway in the SIPp tests.
type trunk struct {
	name, service string
	bind          string   // where the gateway listens
	peers         []string // where SIPp processes will listen, in order of priority
	host          string   // the gateway's name
}

// sippGateway is a gateway whose neighbours are all SIPp processes over one transport.
type sippGateway struct {
	transport string
	trunks    map[string]*trunk
	p         *demo.Product
	dir       string
	timers    string // calls.timers; short ones if empty
}

func freeAddress(t *testing.T, host string) string {
	t.Helper()
	a, err := lab.FreeAddress(host)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (g *sippGateway) config(base string) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("metrics: {listen: 127.0.0.1:0}\nmanage: {listen: 127.0.0.1:0}\nprovisioning: {listen: 127.0.0.1:0}")
	w("shutdown: {drain: 1s, cut: 5s}")
	if g.timers == "" {
		g.timers = "failoverAfter: 4s, ringTimeout: 10s"
	}
	w("calls:\n  timers: {%s}", g.timers)
	w("  routing:\n    baseDomain: %s\n    countries: [GB, US]", base)
	w("    peerGroupToService: {core: teamsOperatorConnect}")
	w("    serviceToPeerGroup: {teamsDirectRouting: core, teamsOperatorConnect: core, teamsPhoneMobile: core, " +
		"zoomPhoneCloudPeering: core}")
	w("  groups:")
	for _, name := range []string{"core", "direct-routing", "operator-connect", "phone-mobile", "zoom"} {
		t := g.trunks[name]
		w("    - name: %s\n      transport: %s", t.name, g.transport)
		if t.service != "" {
			w("      service: %s", t.service)
		}
		if g.transport == "udp" {
			w("      bind: {udp: %q, tcp: %q}", t.bind, t.bind)
		} else {
			w("      bind: {tcp: %q}", t.bind)
		}
		w("      allowedSources: [127.0.0.0/8]\n      options: {off: true}\n      peers:")
		for i, p := range t.peers {
			w("        - {name: %s-%d, address: %q, priority: %d}", t.name, i+1, p, i)
		}
	}
	return b.String()
}

// layout chooses addresses for a gateway whose neighbours are SIPp processes, and writes its configuration file.
// change, if not nil, modifies the layout before the file is written.
func layout(t *testing.T, transport string, change func(*sippGateway)) (*sippGateway, string) {
	t.Helper()
	_, err := exec.LookPath("sipp")
	need(t, "TANDEM_REQUIRE_SIPP", "sipp", err)
	world, _, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	g := &sippGateway{transport: transport, trunks: map[string]*trunk{}, dir: t.TempDir()}
	host := rig.Loopback()
	for _, x := range []trunk{
		{name: "core"},
		{name: "direct-routing", service: "teamsDirectRouting", host: "nwind.1r1." + world.BaseDomain},
		{name: "operator-connect", service: "teamsOperatorConnect"},
		{name: "phone-mobile", service: "teamsPhoneMobile"},
		{name: "zoom", service: "zoomPhoneCloudPeering"},
	} {
		x.bind, x.peers = freeAddress(t, host), []string{freeAddress(t, host), freeAddress(t, host)}
		if x.host == "" {
			x.host = x.bind
		}
		g.trunks[x.name] = &x
	}
	if change != nil {
		change(g)
	}
	file := filepath.Join(g.dir, "tandem.yaml")
	if err := os.WriteFile(file, []byte(g.config(world.BaseDomain)), 0o600); err != nil {
		t.Fatal(err)
	}
	return g, file
}

// startSIPp starts a gateway whose neighbours are SIPp processes over UDP or TCP, and provisions the customers of the
// demo. change is as in layout.
func startSIPp(t *testing.T, transport string, change func(*sippGateway)) *sippGateway {
	t.Helper()
	g, file := layout(t, transport, change)
	world, _, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if g.p, err = demo.StartProduct(ctx, rig.Binary(t), file, g.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rig.Stop(t, g.p) })
	if _, err := g.p.Provision(ctx, world, func(c fixtures.Customer) bool { return c.Demo }); err != nil {
		t.Fatal(err)
	}
	for n, s := range map[string]string{"+441632960199": "teamsDirectRouting", "+442079460219": "teamsOperatorConnect",
		"+447700900159": "teamsPhoneMobile", "+12025550159": "zoomPhoneCloudPeering"} {
		if err := g.p.WaitRouted(ctx, "core", n, s); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// sipp is a running SIPp process.
type sipp struct {
	name   string
	cmd    *exec.Cmd
	out    *bytes.Buffer
	errors string
	done   chan struct{} // closed when the process has ended
	err    error         // of Wait, once done is closed
}

// start runs SIPp with a scenario. The process exits by itself after its calls.
func (g *sippGateway) start(ctx context.Context, t *testing.T, scenario string, p plan, local string,
	args ...string) *sipp {
	t.Helper()
	dir, err := os.MkdirTemp(g.dir, "sipp-")
	if err != nil {
		t.Fatal(err)
	}
	tpl, err := template.ParseFS(scenarioFiles, "scenarios/"+scenario)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := tpl.Execute(&text, p); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, scenario)
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(local)
	mode := map[string]string{"udp": "u1", "tcp": "t1"}[g.transport]
	s := &sipp{name: scenario, out: &bytes.Buffer{}, errors: filepath.Join(dir, "errors.log")}
	s.cmd = exec.CommandContext(ctx, "sipp",
		append([]string{"-sf", file, "-i", host, "-bind_local", "-p", port, "-t", mode, "-nostdin", "-trace_err",
			"-error_file", s.errors, "-timeout_error", "-nd", "-default_behaviors", "abortunexp"}, args...)...)
	s.cmd.Dir = dir
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.Cancel = func() error { return s.cmd.Process.Kill() }
	s.cmd.WaitDelay = 2 * time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = s.cmd.Wait()
	}()
	return s
}

// wait waits for the process and returns its errors, or "" if there are none.
func (s *sipp) wait() string {
	<-s.done
	if s.err == nil {
		return ""
	}
	b, _ := os.ReadFile(s.errors) // absent if SIPp found no error worth writing
	out := s.out.String()
	if i := strings.LastIndex(out, "Scenario Screen"); i >= 0 {
		out = out[i:]
	}
	return fmt.Sprintf("%s: %v\n%s\n%s", s.name, s.err, tail(string(b), 3000), tail(out, 2500))
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// listening waits until the process listens on the address.
func (g *sippGateway) listening(ctx context.Context, t *testing.T, s *sipp, addr string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if rig.Bound(t, g.transport, addr) {
			return
		}
		select {
		case <-tick.C:
		case <-s.done:
			t.Fatalf("SIPp ended before the call: %s", s.wait())
		case <-ctx.Done():
			t.Fatalf("no process listens on %s", addr)
		}
	}
}

// calls runs one call: SIPp as callee on each of the far trunk's peers, each with its own change to the plan, and SIPp
// as caller on the near trunk's first peer. Without changes there is one callee; a callee whose change is nil is not
// started.
func (g *sippGateway) calls(t *testing.T, near, far string, p plan, changes []func(*plan)) {
	t.Helper()
	ctx := within(t, patience)
	n, f := g.trunks[near], g.trunks[far]
	p.Host = n.host
	if p.FromHost == "" {
		p.FromHost = map[bool]string{true: "core.example", false: "service.example"}[near == "core"]
	}
	if changes == nil {
		changes = []func(*plan){func(*plan) {}}
	}
	var uas []*sipp
	for i, change := range changes {
		if change == nil {
			continue
		}
		x := p
		change(&x)
		uas = append(uas, g.start(ctx, t, "uas.xml", x, f.peers[i], "-m", "1", "-timeout", "1m"))
		g.listening(ctx, t, uas[len(uas)-1], f.peers[i])
	}
	uac := g.start(ctx, t, "uac.xml", p, n.peers[0], "-m", "1", "-r", "1", "-d", "20", "-timeout", "1m", n.bind)
	var problems []string
	if w := uac.wait(); w != "" {
		problems = append(problems, w)
	}
	for _, s := range uas {
		if len(problems) > 0 { // what the callee still waits for will not arrive
			_ = s.cmd.Process.Kill()
		}
		if w := s.wait(); w != "" {
			problems = append(problems, w)
		}
	}
	if len(problems) > 0 {
		t.Error(strings.Join(problems, "\n"))
	}
}

const header = "X-MS-Operator-Content"

func TestSIPp(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			g := startSIPp(t, transport, nil)
			g.suite(t)
			rig.Quiet(t, g.p, patience)
		})
	}
}

func (g *sippGateway) suite(t *testing.T) {
	outside := "+442890180001"
	run := func(name, near, far string, p plan, changes ...func(*plan)) {
		t.Run(name, func(t *testing.T) { g.calls(t, near, far, p, changes) })
	}
	// First, because over UDP the transaction of the abandoned INVITE lasts until timer B fires, and the test checks
	// for leftovers.
	run("failover without a listener", "core", "zoom", plan{From: outside, To: "+12025550122"}, nil, func(*plan) {})
	services := []struct {
		trunk, number, value string
		check                []string // on the INVITE the service gets
	}{
		{"direct-routing", "+441632960120", "NW-0120", []string{holds("Contact", "nwind[.]1r1[.]tandem[.]example"),
			holds("X-MS-SBC", "[A-Za-z]")}},
		{"operator-connect", "+442079460120", "FAB-0120", []string{holds("X-MS-SBC", "[A-Za-z]")}},
		{"phone-mobile", "+447700900120", "", []string{holds("X-MS-SBC", "[A-Za-z]"), lacks("X-MS-FMC")}},
		{"zoom", "+12025550120", "CON-0120", []string{holds("P-Asserted-Identity", "[+]442890180001")}},
	}
	for _, s := range services {
		onAnswer, onInvite := []string{lacks(header)}, []string{lacks(header)}
		if s.value != "" {
			onAnswer, onInvite = []string{holds(header, s.value)}, []string{holds(header, s.value)}
		}
		// Header direction (gateway-calls §2.1): towards the core in INVITE and responses, never towards the service.
		run(s.trunk+" called", "core", s.trunk,
			plan{From: outside, To: s.number, Headers: []string{header + ": forged"},
				AnswerChecks: onAnswer, InviteChecks: append([]string{lacks(header)}, s.check...)})
		run(s.trunk+" calls", s.trunk, "core", plan{From: s.number, To: outside, CalleeEnds: true,
			AnswerChecks: []string{lacks(header)}, InviteChecks: onInvite})
	}
	dr := plan{From: outside, To: "+441632960121"}
	with := func(change func(*plan)) plan {
		p := dr
		change(&p)
		return p
	}
	run("the callee hangs up", "core", "direct-routing", with(func(p *plan) { p.CalleeEnds = true }))
	run("early media", "core", "direct-routing", with(func(p *plan) { p.EarlyMedia = true }))
	run("re-INVITE", "core", "direct-routing", with(func(p *plan) { p.Reinvite = true }))
	run("re-INVITE from the service", "direct-routing", "core", plan{From: "+441632960121", To: outside,
		Reinvite: true})
	run("CANCEL", "core", "direct-routing", with(func(p *plan) { p.Cancel = true }))
	run("CANCEL from the service", "direct-routing", "core", plan{From: "+441632960121", To: outside, Cancel: true})
	run("CANCEL crosses the answer", "core", "direct-routing",
		with(func(p *plan) { p.Cancel, p.CancelRace = true, true }))
	run("busy", "core", "direct-routing", with(func(p *plan) { p.Refused, p.FarStatus = 486, 486 }))
	run("no answer", "core", "direct-routing",
		with(func(p *plan) { p.Refused = 480; p.AnswerChecks = []string{holds("Reason", "cause=19")} }),
		func(p *plan) { p.Cancel = true })
	run("screened", "direct-routing", "core", plan{From: "+442079460121", To: outside, Refused: 403,
		AnswerChecks: []string{holds("Warning", "399.*[+]442079460121")}}, nil)
	run("failover on 503", "core", "direct-routing", dr, func(p *plan) { p.FarStatus = 503 }, func(*plan) {})
	run("failover on 408", "core", "operator-connect", plan{From: outside, To: "+442079460122"},
		func(p *plan) { p.FarStatus = 408 }, func(*plan) {})
	run("no failover on 500", "core", "phone-mobile", plan{From: outside, To: "+447700900122", Refused: 500,
		FarStatus: 500})
}
