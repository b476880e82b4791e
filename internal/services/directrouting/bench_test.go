package directrouting_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

const benchInvite = "INVITE sip:+442079460100@gw.example.com;user=phone SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKcore\r\nMax-Forwards: 70\r\n" +
	"From: \"Alice\" <sip:+12025550199@core.example.net;user=phone>;tag=a1\r\n" +
	"To: <sip:+442079460100@gw.example.com;user=phone>\r\nCall-ID: core-1\r\nCSeq: 1 INVITE\r\n" +
	"Contact: <sip:192.0.2.1:5060>\r\nP-Asserted-Identity: <sip:+12025550199@core.example.net;user=phone>\r\n" +
	"Allow: INVITE, ACK\r\nSupported: timer\r\n" +
	"Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0"

// BenchmarkInvite measures the cost of a call from the core here: facts, relay, shaping.
func BenchmarkInvite(b *testing.B) {
	rules := legtest.Rules(b)
	p, err := directrouting.New(rules, leg.Names{BaseDomain: "gw.example.com", Regions: []string{"1r1"}})
	if err != nil {
		b.Fatal(err)
	}
	l := &leg.Leg{
		Call: &route.Decision{Service: directrouting.Service,
			Label: "contoso"},
		Local:  leg.Addr{Host: "x", Port: 5063, Transport: "tls"},
		Remote: leg.Addr{Host: "sip.pstnhub.microsoft.com", Port: 5061, Transport: "tls"},
	}
	src, problem := sip.Parse(benchInvite, nil)
	if problem != nil {
		b.Fatal(problem)
	}
	b.ReportAllocs()
	for b.Loop() {
		leg.Facts(src, "core")
		dst := sip.NewRequest(sip.INVITE, src.RequestURI())
		dst.CopyFrom(src, sip.KindVia, sip.KindFrom, sip.KindTo, sip.KindCallID, sip.KindCSeq)
		rules.Relay(dst, src)
		p.ToService(dst, l)
	}
}
