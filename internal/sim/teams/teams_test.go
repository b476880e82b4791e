package teams_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/core"
	"github.com/tandemgw/tandem/internal/sim/teams"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

const (
	base   = "gw.example"
	region = "1r1." + base
	number = "+15550100"
)

// lab is a Teams edge and a core that plays a gateway in front of it, with a certificate for the customers' names.
type lab struct {
	proxy *teams.Proxy
	gw    *core.Network
}

func start(t *testing.T, cfg teams.Config, names ...string) *lab {
	t.Helper()
	authority, err := ca.New("lab")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		names = []string{region, "*." + region}
	}
	cert, err := authority.Issue(ca.ServerAndClient, names...)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{}
	resolve := func(string, int) (string, error) { return l.gw.Addr("tls"), nil }
	cfg.Authority, cfg.Gateway, cfg.Resolve = authority, region, resolve
	cfg.Cloud = &teams.Cloud{}
	cfg.Cloud.AddTenant("tenant-1", "nwind."+region)
	cfg.Cloud.AddTenant("carrier", region)
	cfg.Cloud.AddNumber("tenant-1", number)
	if l.proxy, err = teams.New(cfg); err != nil {
		t.Fatal(err)
	}
	if l.gw, err = core.New(core.Config{TLS: "127.0.0.1:0", ServerTLS: authority.Server(cert),
		ClientTLS: authority.Client(cert, l.proxy.Host())}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.proxy.Close(); err != nil {
			t.Error(err)
		}
		if err := l.gw.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) options(t *testing.T, contact string) *ua.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := l.gw.Do(ctx, ua.Request{Method: "OPTIONS", Transport: "tls", Destination: l.proxy.Addr("tls"),
		URI:  "sip:" + l.proxy.Host() + ":5061",
		From: "<sip:" + region + ">", To: "<sip:" + l.proxy.Host() + ">", Contact: contact})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func good(l *lab) ua.Request {
	return ua.Request{Transport: "tls", Destination: l.proxy.Addr("tls"),
		URI:     "sip:" + number + "@" + l.proxy.Host() + ":5061;user=phone;transport=tls",
		From:    "<sip:+15550199@nwind." + region + ";user=phone>",
		To:      "<sip:" + number + "@" + l.proxy.Host() + ";user=phone>",
		Contact: "<sip:+15550199@nwind." + region + ":5063;transport=tls>",
		Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}, {Name: "X-MS-SBC", Value: "Tandem/tandem/1"}},
		Body:    ua.SDP("gw", 1)}
}

func (l *lab) invite(t *testing.T, r ua.Request) *ua.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := l.gw.Agent.Call(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if m.Status() == 200 {
		if bye, err := c.Bye(ctx); err != nil || bye.Status() != 200 {
			t.Fatalf("Bye = %v, %v, want 200", bye, err)
		}
	}
	return m
}

func TestDirectRoutingIsStrict(t *testing.T) {
	l := start(t, teams.Config{Forbidden: []string{"X-MS-Operator-Content"}}, region, "*."+region)
	if m := l.invite(t, good(l)); m.Status() != 403 {
		t.Errorf("a call before any OPTIONS got %s, want 403", m.StartLine())
	}
	if m := l.options(t, "<sip:"+region+":5063;transport=tls>"); m.Status() != 200 {
		t.Fatalf("OPTIONS got %s, want 200", m.StartLine())
	}
	// Teams pings back only now, and to the name and port of the Contact.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	back, err := l.gw.Log().Wait(ctx, func(m *ua.Message) bool {
		return !m.Sent && m.IsRequest() && m.Method() == "OPTIONS"
	})
	if err != nil {
		t.Fatal("Teams sent no OPTIONS after it got one")
	}
	if want := "sip:" + region + ":5063;transport=tls"; back.RequestURI() != want {
		t.Errorf("OPTIONS from Teams went to %s, want %s", back.RequestURI(), want)
	}
	for _, c := range []struct {
		name   string
		change func(*ua.Request)
		want   int
	}{
		{"good", func(*ua.Request) {}, 200},
		{"IP address in Contact", func(r *ua.Request) {
			r.Contact = "<sip:+15550199@127.0.0.1:5063;transport=tls>"
		}, 403},
		{"no Contact", func(r *ua.Request) { r.Contact = "-" }, 403},
		{"Contact of no customer", func(r *ua.Request) {
			r.Contact = "<sip:+15550199@nobody.other.example:5063>"
		}, 403},
		{"name that belongs to the carrier", func(r *ua.Request) {
			r.Contact = "<sip:+15550199@ghost." + region + ":5063>"
		}, 404},
		{"only the first Contact counts", func(r *ua.Request) {
			r.Contact = "<sip:+15550199@127.0.0.1>, <sip:+15550199@nwind." + region + ">"
		}, 403},
		{"name the certificate does not cover", func(r *ua.Request) {
			r.Contact = "<sip:+15550199@a.nwind." + region + ":5063>"
		}, 403},
		{"number without plus", func(r *ua.Request) { r.URI = strings.Replace(r.URI, "+", "", 1) }, 404},
		{"unassigned number", func(r *ua.Request) { r.URI = strings.Replace(r.URI, number, "+15550177", 1) }, 404},
		{"From without plus", func(r *ua.Request) { r.From = "<sip:15550199@nwind." + region + ">" }, 400},
		{"sips", func(r *ua.Request) { r.URI = "sips" + strings.TrimPrefix(r.URI, "sip") }, 416},
		{"delayed offer", func(r *ua.Request) { r.Body = "" }, 488},
		{"Replaces", func(r *ua.Request) {
			r.Headers = append(r.Headers, ua.Header{Name: "Replaces", Value: "a;to-tag=b;from-tag=c"})
		}, 403},
		{"Record-Route that is not Contact", func(r *ua.Request) {
			r.Headers = append(r.Headers, ua.Header{Name: "Record-Route", Value: "<sip:other." + region + ";lr>"})
		}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good(l)
			r.Headers = append([]ua.Header(nil), r.Headers...)
			c.change(&r)
			if m := l.invite(t, r); m.Status() != c.want {
				t.Errorf("got %s, want %d", m.StartLine(), c.want)
			}
		})
	}
	if v := l.proxy.Violations(); len(v) != 0 {
		t.Errorf("violations %q, want none", v)
	}
	r := good(l)
	r.Headers = []ua.Header{{Name: "x-ms-operator-content", Value: "secret"}}
	l.invite(t, r)
	if v := strings.Join(l.proxy.Violations(), "\n"); !strings.Contains(v, "X-MS-Operator-Content") ||
		!strings.Contains(v, "X-MS-SBC") || !strings.Contains(v, "NOTIFY") {
		t.Errorf("violations %q, want the custom header, X-MS-SBC and NOTIFY among them", v)
	}
}

func TestOptionsMustNameTheGateway(t *testing.T) {
	l := start(t, teams.Config{})
	for contact, want := range map[string]int{
		"-":                                      403,
		"<sip:127.0.0.1:5063;transport=tls>":     403,
		"<sip:other.example:5063;transport=tls>": 403, // not in the certificate
		"<sip:" + region + ":5063>":              200,
	} {
		if m := l.options(t, contact); m.Status() != want {
			t.Errorf("OPTIONS with Contact %s got %s, want %d", contact, m.StartLine(), want)
		}
	}
	l.proxy.AnswerOptions(503)
	if m := l.options(t, "<sip:"+region+":5063>"); m.Status() != 503 {
		t.Errorf("OPTIONS got %s, want 503", m.StartLine())
	}
}

func TestOperatorConnectFindsTheTenantByNumber(t *testing.T) {
	l := start(t, teams.Config{Interface: teams.OperatorConnect, Trusting: true})
	r := good(l)
	r.Contact = "<sip:+15550199@" + region + ":5063;transport=tls>"
	if m := l.invite(t, r); m.Status() != 200 {
		t.Errorf("got %s, want 200", m.StartLine())
	}
	r.Headers = nil
	if m := l.invite(t, r); m.Status() != 403 {
		t.Errorf("without X-MS-SBC: got %s, want 403", m.StartLine())
	}
}

func TestPhoneMobileRefusesAnchoredCalls(t *testing.T) {
	l := start(t, teams.Config{Interface: teams.PhoneMobile, Trusting: true})
	r := good(l)
	if m := l.invite(t, r); m.Status() != 200 {
		t.Errorf("got %s, want 200", m.StartLine())
	}
	r.Headers = append(r.Headers, ua.Header{Name: "X-MS-FMC", Value: "APP"})
	if m := l.invite(t, r); m.Status() != 482 {
		t.Errorf("anchored call: got %s, want 482", m.StartLine())
	}
}

func TestCallsFromTeams(t *testing.T) {
	for _, c := range []struct {
		name string
		kind teams.Interface
		call teams.Call
		want map[string]string
		none []string
	}{
		{"Direct Routing", teams.DirectRouting, teams.Call{}, map[string]string{
			"From":                "<sip:" + number + "@sip.pstnhub.microsoft.com;user=phone>;tag=",
			"P-Asserted-Identity": "<tel:" + number + ">, <sip:",
		}, []string{"X-MS-TenantID", "X-MS-FMC", "Privacy"}},
		{"hidden number", teams.DirectRouting, teams.Call{Private: true}, map[string]string{
			"From":                `"Anonymous" <sip:anonymous@anonymous.invalid>`,
			"P-Asserted-Identity": "<tel:" + number + ">",
			"Privacy":             "id",
		}, nil},
		{"forwarded", teams.DirectRouting, teams.Call{ForwardedBy: []string{"+15550101", number}, ReferredBy: number},
			map[string]string{
				"History-Info": "<sip:+15550101@sip.pstnhub.microsoft.com;user=phone?Reason=SIP%3Bcause%3D302",
				"Referred-By":  "<sip:" + number + "@",
			}, nil},
		{"Operator Connect", teams.OperatorConnect, teams.Call{}, map[string]string{"X-MS-TenantID": "tenant-1"},
			[]string{"X-MS-FMC"}},
		{"Phone Mobile", teams.PhoneMobile, teams.Call{},
			map[string]string{"X-MS-TenantID": "tenant-1", "X-MS-FMC": "APP"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := start(t, teams.Config{Interface: c.kind})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			call := c.call
			call.From, call.To, call.Trunk = number, "+15550199", "nwind."+region+":5063"
			x, err := l.proxy.Place(ctx, call)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := x.Wait(ctx); err != nil || m.Status() != 200 {
				t.Fatalf("Wait = %v, %v, want 200", m, err)
			}
			got := l.gw.Log().Received("INVITE")[0]
			want := fmt.Sprintf("sip:+15550199@nwind.%s:5063;user=phone;transport=tls", region)
			if got.RequestURI() != want {
				t.Errorf("Request-URI %s, want %s", got.RequestURI(), want)
			}
			for h, want := range c.want {
				if !strings.HasPrefix(got.Header(h), want) {
					t.Errorf("%s: %q, want it to begin with %q", h, got.Header(h), want)
				}
			}
			for _, h := range c.none {
				if got.Has(h) {
					t.Errorf("%s: %q, want none", h, got.Header(h))
				}
			}
			if _, err := x.Bye(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	l := start(t, teams.Config{Trusting: true})
	l.proxy.Script.Default(ua.Behaviour{Status: 503, RetryAfter: time.Second, Drop: true})
	if m := l.invite(t, good(l)); m.Status() != 503 || m.Header("Retry-After") != "1" {
		t.Errorf("got %s with Retry-After %q, want 503 with 1", m.StartLine(), m.Header("Retry-After"))
	}
}

// TestForks has its own lab: a client may still send on a connection that its server is just dropping.
func TestForks(t *testing.T) {
	l := start(t, teams.Config{Trusting: true})
	l.proxy.Script.Default(ua.Behaviour{Forks: 4, EarlyMedia: true})
	if m := l.invite(t, good(l)); m.Status() != 200 {
		t.Errorf("got %s, want 200", m.StartLine())
	}
}
