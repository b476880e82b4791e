package demo

import (
	"bytes"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	w, _, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	g, err := lab.Free(w.BaseDomain)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(w, g, lab.Options{Microsoft: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestConfigurationIsAcceptedWhole(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	file, err := WriteConfig(dir, l, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{File: file, Data: dir})
	if err != nil {
		t.Fatalf("the demonstration's configuration is refused:\n%v", err)
	}
	if n := len(c.Calls.Edge.Groups); n != 7 {
		t.Errorf("%d peer groups, want 7", n)
	}
	if o := c.Onboarding; !o.Enabled() || o.Teams != config.TeamsHTTPS || o.FrontURL == "" {
		t.Errorf("onboarding %+v, want an application", o)
	}
	if p := c.Calls.Edge.Groups[3].Peers; len(p) < 2 || p[0].Name >= p[1].Name || p[1].Priority != 1 {
		t.Errorf("peers of direct-routing %+v, want several, in the order of their names", p)
	}
}

// A lab that is started again says which tenants have lost what was made in them, and how to make it again.
func TestLabSaysThatItsTenantsAreNew(t *testing.T) {
	x := &Lab{Lab: newLab(t)}
	text := func() string {
		var out bytes.Buffer
		x.Hints(&out, "tandem", "./lab", "https://127.0.0.1:8443")
		for line := range strings.Lines(out.String()) {
			if len(line) > 81 {
				t.Errorf("%d columns: %s", len(line)-1, line)
			}
		}
		return out.String()
	}
	if s := text(); strings.Contains(s, "--authorise") {
		t.Errorf("at the first start:\n%s", s)
	}
	x.lost = []string{".carrier", "adatum"}
	s := text()
	for _, want := range []string{"is gone",
		"  tandem tenant sign-in .carrier --authorise\n  tandem tenant plan .carrier\n",
		"  tandem tenant sign-in adatum --authorise\n"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is missing:\n%s", want, s)
		}
	}
}

func TestViewFitsATerminal(t *testing.T) {
	_, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	v := &view{out: &b, dir: "/tmp/tandem-demo-1234567890"}
	v.heading()
	v.provisioned(Provisioned{3, 340, 9}, api.Event{Kind: "account.put", Subject: "northwind",
		Actor: &api.Actor{ID: "local:administrator"}})
	for _, c := range calls {
		v.call(lab.Result{Name: c.Name, Title: c.Title, LookAt: c.LookAt, From: c.From, To: c.To, Service: c.Service,
			Direction: c.Direction, Status: 200, Expected: "200 " + c.Expect.Text, Arrived: c.Expect.Arrives,
			Passed: true,
			Headers: map[string]string{
				"Contact":       "<sip:+442890180001@nwind.1r1.tandem.example:50630;transport=tls>",
				"X-MS-TenantID": "0d4a5f7e-2c1b-4d8e-8f3a-9b6c5d4e3f2a",
				"History-Info": "<sip:+441632960104@sip.pstnhub.microsoft.com;user=phone" +
					"?Reason=SIP%3Bcause%3D302%3Btext%3D%22Moved%20Temporarily%22>;index=1, <sip:a@b>;index=1.1"},
			Problems: []string{strings.Repeat("long ", 40)}})
	}
	v.tenants()
	stage := Stage{Name: "readiness", Title: strings.Repeat("title ", 20),
		Problems: []string{strings.Repeat("bad ", 40)}}
	v.begin(&stage)
	v.seen("waits for microsoft: sipDomain adatum.1r1.tandem.example is not as it should be yet; usually 10 min")
	v.end(&stage)
	v.summary(Document{})
	for i, l := range strings.Split(b.String(), "\n") {
		if n := len([]rune(l)); n > width {
			t.Errorf("line %d has %d columns: %s", i+1, n, l)
		}
		if l != strings.TrimRight(l, " ") {
			t.Errorf("line %d ends with spaces", i+1)
		}
	}
}

func TestBodiesFollowTheContract(t *testing.T) {
	c := fixtures.Customer{Account: "a", TenantID: "t", Subdomain: "s", CallScreening: true, Numbers: []fixtures.Block{
		{Service: "teamsDirectRouting", First: "+15550100", Count: 2, Header: "H-"},
		{Service: "teamsOperatorConnect", First: "+15550200", Count: 1}}}
	d := Account(c).ServiceDetails
	if d.TeamsTenantID != "t" || d.TeamsDirectRouting.Configuration.Subdomain != "s" ||
		!d.TeamsDirectRouting.Configuration.CallScreening || !d.TeamsOperatorConnect.Enabled {
		t.Errorf("account %+v", d)
	}
	n := Number("a", c.Numbers[0], "+15550101")
	if n.Configuration.CustomSIPHeader != "H-0101" || !n.ServiceDetails.TeamsDirectRouting.Enabled {
		t.Errorf("number %+v, want the custom header H-0101", n)
	}
	if n := Number("a", c.Numbers[1], "+15550200"); n.Configuration != nil ||
		n.ServiceDetails.TeamsDirectRouting != nil {
		t.Errorf("number %+v, want no custom header and no Direct Routing", n)
	}
}
