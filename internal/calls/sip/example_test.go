package sip_test

import (
	"fmt"
	"io"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

func wire(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

var options = wire(
	"OPTIONS sip:gw.example.net SIP/2.0",
	"v: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK77",
	"From: <sip:core.example.net>;tag=1",
	"To: <sip:gw.example.net>",
	"Call-ID: 9@192.0.2.10",
	"CSeq: 2 OPTIONS",
)

// A request that breaks a rule gets a response that says why.
func ExampleProblem_Answer() {
	v := &sip.Validator{}
	m, p := v.Read(strings.Replace(options, "2 OPTIONS", "2 INVITE", 1))
	fmt.Println(p)
	fmt.Print(strings.ReplaceAll(p.Answer(m, "t1", "gw.example.net").String(), "\r\n", "\n"))
	// Output:
	// CSeq method does not match the request method (RFC 3261 §8.1.1.5), answer 400
	// SIP/2.0 400 CSeq method does not match the request method
	// v: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK77
	// From: <sip:core.example.net>;tag=1
	// To: <sip:gw.example.net>;tag=t1
	// Call-ID: 9@192.0.2.10
	// CSeq: 2 INVITE
	// Warning: 399 gw.example.net "CSeq method does not match the request method (RFC 3261 §8.1.1.5)"
	// Content-Length: 0
}

// Editing leaves every other line as received.
func ExampleMessage_Prepend() {
	m, _ := sip.Parse(options, nil)
	m.Prepend(sip.KindVia, "SIP/2.0/TLS gw.example.net;branch=z9hG4bK78")
	for _, h := range m.Headers() {
		fmt.Println(h)
	}
	// Output:
	// Via: SIP/2.0/TLS gw.example.net;branch=z9hG4bK78
	// v: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK77
	// From: <sip:core.example.net>;tag=1
	// To: <sip:gw.example.net>
	// Call-ID: 9@192.0.2.10
	// CSeq: 2 OPTIONS
}

// Values iterates over the comma-separated lists of all lines of a field.
func ExampleMessage_Values() {
	m := sip.NewRequest(sip.BYE, "sip:a@b.example")
	m.Add(sip.KindRoute, `<sip:p1.example;lr>, "Second, of two" <sip:p2.example;lr>`)
	m.Add(sip.KindRoute, "<sip:p3.example;lr>")
	for v := range m.Values(sip.KindRoute) {
		a, err := sip.ParseNameAddr(v)
		fmt.Println(a.Addr, err)
	}
	// Output:
	// sip:p1.example;lr <nil>
	// sip:p2.example;lr <nil>
	// sip:p3.example;lr <nil>
}

// TelephoneNumber returns the number to look up, without separators and parameters; the URI keeps them.
func ExampleURI_TelephoneNumber() {
	u, _ := sip.ParseURI("sip:+1-555-123-0000;rn=+15559990000;npdi@gw.example.net;user=phone")
	n, _ := u.TelephoneNumber()
	fmt.Println(n)
	fmt.Println(u)
	// Output:
	// +15551230000
	// sip:+1-555-123-0000;rn=+15559990000;npdi@gw.example.net;user=phone
}

// A Reader splits a stream into messages and keep-alives.
func ExampleReader() {
	one := strings.Replace(options, "\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n", 1)
	r := sip.NewReader(strings.NewReader("\r\n\r\n"+one+one), nil)
	for {
		f, err := r.Next()
		if err == io.EOF {
			return
		}
		switch f.Kind {
		case sip.FramePing:
			fmt.Println("ping")
		case sip.FrameMessage:
			fmt.Println(f.Message.Method(), f.Problem == nil)
		}
	}
	// Output:
	// ping
	// OPTIONS true
	// OPTIONS true
}
