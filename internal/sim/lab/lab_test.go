package lab

import (
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

func message(lines string) *ua.Message { return ua.ParseMessage(lines) }

func TestChecksFindWhatIsWrong(t *testing.T) {
	sent := message("INVITE sip:a SIP/2.0\r\nIdentity: x\r\nIdentity: y\r\n\r\nv=0\r\n")
	good := message("INVITE sip:+15550100@h;user=phone SIP/2.0\r\nm: <sip:+15550199@Nwind.1r1.gw:5063>\r\n" +
		"X-MS-SBC: T\r\nIdentity: x\r\nIdentity: y\r\n\r\nv=0\r\n")
	bad := message("INVITE sip:15550100@h SIP/2.0\r\nm: <sip:+15550198@127.0.0.1>\r\nX-Custom: v\r\n" +
		"Identity: x\r\n\r\nv=1\r\n")
	for _, c := range []fixtures.Check{
		{Header: "Request-URI", Number: "+15550100"},
		{Header: "Request-URI", Match: ";user=phone"},
		{Header: "Contact", Host: "nwind.1r1.gw"},
		{Header: "Contact", Number: "+15550199"},
		{Header: "X-MS-SBC", Present: true},
		{Header: "X-MS-SBC", Equals: "T"},
		{Header: "X-Custom", Absent: true},
		{Header: "Identity", Kept: true},
		{Header: "Body", Kept: true},
	} {
		if p := check(c, good, sent); p != "" {
			t.Errorf("%+v on the good message: %s", c, p)
		}
		if p := check(c, bad, sent); p == "" {
			t.Errorf("%+v on the bad message: nothing found", c)
		}
	}
}

func TestLabStartsAndStops(t *testing.T) {
	w, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	g, err := Free(w.BaseDomain)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Start(w, g, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if _, _, err := l.request(c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for _, name := range append([]string{c.Expect.Arrives}, c.Expect.Tried...) {
			if a, _ := l.agent(name); name != "" && a == nil {
				t.Errorf("%s: no neighbour %q", c.Name, name)
			}
		}
	}
	if heard, _ := l.Known(); heard {
		t.Error("Known reports OPTIONS, but there is no gateway")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestAMissingGatewayIsAFailure checks that a call fails with the reason if there is no gateway.
func TestAMissingGatewayIsAFailure(t *testing.T) {
	w, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	g, err := Free(w.BaseDomain)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Start(w, g, Options{PingEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range calls {
		if c.Name != "zoom-out" {
			continue
		}
		if r := l.Play(t.Context(), c); r.Passed || len(r.Problems) == 0 {
			t.Errorf("Play = %+v, want a failure with its reason", r)
		}
	}
}
