package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
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

// TestARepeatIsNoArrival repeats the INVITE of an earlier call, as UDP may, and then sends another one.
func TestARepeatIsNoArrival(t *testing.T) {
	w, _, err := fixtures.Load()
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
	core := l.Agent("core-fixed")
	c, err := net.Dial("udp", core.Addr("udp"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	arrived := 0
	send := func(call string) {
		t.Helper()
		if _, err := fmt.Fprintf(c, "INVITE sip:+15550100@core SIP/2.0\r\n"+
			"Via: SIP/2.0/UDP %[1]s;branch=z9hG4bK%[2]s\r\nMax-Forwards: 70\r\nFrom: <sip:a@h>;tag=1\r\n"+
			"To: <sip:+15550100@core>\r\nCall-ID: %[2]s\r\nCSeq: 1 INVITE\r\nContact: <sip:a@%[1]s>\r\n"+
			"Content-Length: 0\r\n\r\n", c.LocalAddr(), call); err != nil {
			t.Fatal(err)
		}
		arrived++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := 0
		if _, err := core.Log().Wait(ctx, func(m *ua.Message) bool {
			if ua.IsNewCall(m) {
				n++
			}
			return n == arrived
		}); err != nil {
			t.Fatalf("INVITE %d of %s did not arrive: %v", arrived, call, err)
		}
	}
	send("one")
	begin := time.Now()
	for _, call := range []string{"one", "two", "two"} {
		send(call)
	}
	var got []string
	for _, m := range l.invites("core-fixed", "15550100", begin) {
		got = append(got, m.CallID())
	}
	if strings.Join(got, " ") != "two" {
		t.Errorf("calls that arrived: %q, want only the second", got)
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
