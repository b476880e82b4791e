package sip_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/test/rig"
)

// kamailio is a running Kamailio: a proxy that uses TLS towards Tandem and UDP towards a user agent, and adds itself to
// the dialog with two Record-Route lines.
type kamailio struct {
	tls, udp string
	cmd      *exec.Cmd
	log      *bytes.Buffer
	done     chan struct{}
}

// startKamailio starts Kamailio, which requires certificates of the authority and verifies them. base is the gateway's
// domain.
func startKamailio(t *testing.T, authority *ca.Authority, base, tlsAddr, udpAddr, agent string) *kamailio {
	t.Helper()
	dir := t.TempDir()
	cert, err := authority.Issue(ca.ServerAndClient, "kamailio.example", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := ca.WriteFiles(dir, "kamailio", cert)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	roots := write("roots.pem", string(authority.PEM()))
	settings := fmt.Sprintf("method = TLSv1.2+\nprivate_key = %s\ncertificate = %s\nca_list = %s\n"+
		"verify_certificate = yes\nrequire_certificate = yes\n", keyFile, certFile, roots)
	write("tls.cfg", "[server:default]\n"+settings+"[client:default]\n"+settings)
	tpl, err := template.ParseFS(scenarioFiles, "scenarios/kamailio.cfg")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := tpl.Execute(&text, map[string]string{"TLS": tlsAddr, "UDP": udpAddr, "Agent": agent, "Dir": dir,
		"Base": strings.ReplaceAll(base, ".", "[.]")}); err != nil {
		t.Fatal(err)
	}
	cfg := write("kamailio.cfg", text.String())
	k := &kamailio{tls: tlsAddr, udp: udpAddr, log: &bytes.Buffer{}, done: make(chan struct{})}
	k.cmd = exec.Command("kamailio", "-DD", "-E", "-f", cfg, "-Y", dir, "-P", filepath.Join(dir, "pid"), "-w", dir,
		"-m", "64", "-M", "8")
	k.cmd.Stdout, k.cmd.Stderr = k.log, k.log
	k.cmd.WaitDelay = 5 * time.Second
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(k.done)
		_ = k.cmd.Wait() // terminated by the signal below
	}()
	t.Cleanup(func() {
		_ = k.cmd.Process.Signal(os.Interrupt) // it may have exited already
		select {
		case <-k.done:
		case <-time.After(10 * time.Second):
			_ = k.cmd.Process.Kill()
			<-k.done
		}
		if t.Failed() {
			t.Logf("output of kamailio:\n%s", tail(k.log.String(), 4000))
		}
	})
	return k
}

func needKamailio(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("kamailio")
	need(t, "TANDEM_REQUIRE_KAMAILIO", "kamailio", err)
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/kamailio/modules/tls.so"); err != nil {
		need(t, "TANDEM_REQUIRE_KAMAILIO", "kamailio-tls-modules", err)
	}
}

// TestKamailioRequiresClientAuthentication: a core of Kamailio, with OpenSSL, refuses a certificate for server
// authentication only, such as one of a public authority. tandem peers says so, and the private certificate that
// replaces it is accepted after a reload.
func TestKamailioRequiresClientAuthentication(t *testing.T) {
	needKamailio(t)
	t.Parallel()
	authority, err := ca.New("core")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	install := func(usage ca.Usage) (cert, key string) {
		t.Helper()
		c, err := authority.Issue(usage, "gw.example.com")
		if err == nil {
			cert, key, err = ca.WriteFiles(dir, "core", c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	cert, key := install(ca.ServerOnly)
	write := func(name string, text []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	k := startKamailio(t, authority, "gw.example.com", freeAddress(t, "127.0.0.1"), freeAddress(t, "127.0.0.1"),
		"127.0.0.1:9")
	config := write("tandem.yaml", fmt.Appendf(nil, `
calls:
  groups:
    - name: core
      bind: {tls: "127.0.0.1:5061"}
      advertised: {tls: gw.example.com}
      tls: {certificateFile: %q, keyFile: %q, rootsFile: %q}
      options: {every: 1s, timeout: 30s, downAfter: 1, upAfter: 1}
      peers: [{name: kamailio, address: %q}]
`, cert, key, write("roots.pem", authority.PEM()), k.tls))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	data := t.TempDir()
	p, err := child.Start(log, []string{rig.Binary(t)}, "--config", config, "--data", data, "--free-ports")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(patience); err != nil {
			t.Error(err)
		}
		rig.CheckLog(t, log.Name())
	})
	ctx := within(t, 2*patience)
	if _, err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewSocket(filepath.Join(data, node.SocketName), client.Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	// core returns the peer group in the state that its peer must reach.
	core := func(state api.PeerState) api.PeerGroup {
		t.Helper()
		look := time.NewTicker(50 * time.Millisecond)
		defer look.Stop()
		for ; ; <-look.C {
			groups, err := c.Peers(ctx)
			if err != nil {
				t.Fatalf("the peer is not %s: %v", state, err)
			}
			if g := groups[0]; g.Peers[0].State == state {
				return g
			}
		}
	}

	g := core(api.PeerStateDown)
	const refused = "the peer refused our certificate (tls: unsupported certificate): "
	lacks := cert + " does not allow client authentication"
	if got := g.Peers[0].Reason; !strings.Contains(got, refused+lacks) {
		t.Errorf("reason is %q, want %q in it", got, refused+lacks)
	}
	if x := g.Certificate; x == nil || x.File != cert || x.ClientAuthentication || x.Warning == "" {
		t.Errorf("certificate is %+v, want a warning about %s", x, cert)
	}
	if text, err := os.ReadFile(log.Name()); err != nil || !bytes.Contains(text, []byte("valid, but may fail")) ||
		!bytes.Contains(text, []byte(refused)) {
		t.Errorf("%v; the log has not both the warning at the start and %q:\n%s", err, refused, text)
	}

	install(ca.ServerAndClient)
	if _, err := c.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if x := core(api.PeerStateUp).Certificate; x == nil || !x.ClientAuthentication || x.Warning != "" {
		t.Errorf("certificate is %+v, want no warning", x)
	}
}

// TestKamailioOverTLS runs Kamailio, which uses OpenSSL, at the other end of Tandem's TLS connections for all four
// services.
func TestKamailioOverTLS(t *testing.T) {
	needKamailio(t)
	t.Parallel()
	world, _, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	tlsAddr, udpAddr := freeAddress(t, "127.0.0.1"), freeAddress(t, "127.0.0.1")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var set []string
	for i := 3; i <= 6; i++ { // the groups of the services
		set = append(set, fmt.Sprintf("calls.groups[%d].peers=[{name: kamailio-%[1]d, address: %q}]", i, tlsAddr))
	}
	l, p, err := demo.Start(ctx, t.TempDir(), rig.Binary(t), world, lab.Options{}, set...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rig.Stop(t, p)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Provision(ctx, world, func(c fixtures.Customer) bool { return c.Demo }); err != nil {
		t.Fatal(err)
	}

	var script ua.Script
	agent, err := ua.New(ua.Config{Name: "behind-kamailio", UDP: "127.0.0.1:0",
		Invite: func(ctx context.Context, in *ua.Incoming) {
			// errors show in the log of messages
			_, _ = in.Play(ctx, script.For(ua.ParseAddress(in.Invite.RequestURI()).User))
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	k := startKamailio(t, l.Authority, l.Gateway.Base, tlsAddr, udpAddr, agent.Addr("udp"))
	ping := within(t, patience)
	if m, err := agent.Do(ping, ua.Request{Method: "OPTIONS", Destination: k.udp, URI: "sip:" + k.udp,
		From: "<sip:a@service.example>", To: "<sip:" + k.udp + ">"}); err != nil || m.Status() != 200 {
		t.Fatalf("kamailio does not answer: %v %v\n%s", m, err, k.log.String())
	}

	const outside = "+442890180001"
	base := l.Gateway.Base
	services := []struct {
		name, number, value, core string
		host, listens             string
	}{
		{"Direct Routing", "+441632960130", "NW-0130", "core-fixed", "nwind.1r1." + base, l.Gateway.DirectRouting},
		{"Operator Connect", "+442079460130", "FAB-0130", "core-fixed", "oc." + base, l.Gateway.OperatorConnect},
		{"Phone Mobile", "+447700900130", "", "core-mobile", "tpm." + base, l.Gateway.Mobile},
		{"Zoom", "+12025550130", "CON-0130", "core-fixed", "zoom." + base, l.Gateway.Zoom},
	}
	for i, s := range services {
		out := fmt.Sprintf("+44289018%04d", 2000+i)
		fromService := func() ua.Request {
			_, port, _ := net.SplitHostPort(s.listens)
			return ua.Request{Transport: "udp", Destination: k.udp,
				URI:  fmt.Sprintf("sip:%s@%s:%s;user=phone;transport=tls", out, s.host, port),
				From: "<sip:" + s.number + "@service.example;user=phone>",
				To:   fmt.Sprintf("<sip:%s@%s;user=phone>", out, s.host),
				Headers: []ua.Header{{Name: "P-Asserted-Identity",
					Value: "<sip:" + s.number + "@service.example;user=phone>"}},
				Body: ua.SDP("service", 1)}
		}
		t.Run(s.name+" is called", func(t *testing.T) {
			ctx := within(t, patience)
			script.Set(s.number, ua.Behaviour{EarlyMedia: true})
			near, err := l.Place(ctx, fixtures.Call{Neighbour: s.core, From: outside, To: s.number})
			if err != nil {
				t.Fatal(err)
			}
			m, err := near.Wait(ctx)
			if err != nil || m.Status() != 200 {
				t.Fatalf("INVITE got %v, %v, want 200", m, err)
			}
			if got := m.Header(header); got != s.value {
				t.Errorf("%s in the response to the core is %q, want %q (gateway-calls §2.1)", header, got, s.value)
			}
			in, err := agent.Log().WaitInvite(ctx, s.number)
			if err != nil {
				t.Fatal(err)
			}
			if in.Has(header) {
				t.Errorf("%s reached the service (gateway-calls §2.1)", header)
			}
			if got := ua.ParseAddress(in.Header("Contact")).Host; got != s.host {
				t.Errorf("Contact names %s, want %s", got, s.host)
			}
			far := agent.Dialog(in.CallID())
			if far == nil {
				t.Fatal("the far side has no call")
			}
			hold := strings.Replace(ua.SDP("caller", 2), "sendrecv", "inactive", 1)
			if m, err := near.Reinvite(ctx, hold); err != nil || m.Status() != 200 {
				t.Errorf("re-INVITE got %v, %v, want 200", m, err)
			}
			select {
			case <-far.Confirmed():
			case <-ctx.Done():
				t.Fatal("no ACK reached the far side")
			}
			// From the far side, through two Record-Route hops, to the core.
			if m, err := far.Bye(ctx); err != nil || m.Status() != 200 {
				t.Errorf("BYE from the far side got %v, %v, want 200", m, err)
			}
			ended(t, near, "remote")
		})
		t.Run(s.name+" calls", func(t *testing.T) {
			ctx := within(t, patience)
			near, err := agent.Call(ctx, fromService())
			if err != nil {
				t.Fatal(err)
			}
			m, err := near.Wait(ctx)
			if err != nil || m.Status() != 200 {
				t.Fatalf("INVITE got %v, %v, want 200", m, err)
			}
			in, err := l.Agent(s.core).Log().WaitInvite(ctx, out)
			if err != nil {
				t.Fatal(err)
			}
			if got := in.Header(header); got != s.value {
				t.Errorf("%s at the core is %q, want %q (gateway-calls §2.1)", header, got, s.value)
			}
			far := l.Agent(s.core).Dialog(in.CallID())
			if far == nil {
				t.Fatal("the core has no call")
			}
			if m, err := near.Bye(ctx); err != nil || m.Status() != 200 {
				t.Errorf("BYE got %v, %v, want 200", m, err)
			}
			ended(t, far, "remote")
		})
	}
	t.Run("CANCEL", func(t *testing.T) {
		ctx := within(t, patience)
		number := "+441632960131"
		script.Set(number, ua.Behaviour{NoAnswer: true})
		near, err := l.Place(ctx, fixtures.Call{Neighbour: "core-fixed", From: outside, To: number})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := near.WaitResponse(ctx, 180); err != nil {
			t.Fatal(err)
		}
		if m, err := near.Cancel(ctx); err != nil || m.Status() != 200 {
			t.Errorf("CANCEL got %v, %v, want 200", m, err)
		}
		if m, err := near.Wait(ctx); err != nil || m.Status() != 487 {
			t.Errorf("INVITE got %v, %v, want 487", m, err)
		}
		if _, err := agent.Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.IsRequest() && m.Method() == "CANCEL"
		}); err != nil {
			t.Error("no CANCEL reached the far side")
		}
	})
	t.Run("busy", func(t *testing.T) {
		ctx := within(t, patience)
		number := "+12025550131"
		script.Set(number, ua.Behaviour{Status: 486})
		near, err := l.Place(ctx, fixtures.Call{Neighbour: "core-fixed", From: outside, To: number})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := near.Wait(ctx); err != nil || m.Status() != 486 {
			t.Errorf("INVITE got %v, %v, want 486", m, err)
		}
	})
	rig.Quiet(t, p, patience)
}
