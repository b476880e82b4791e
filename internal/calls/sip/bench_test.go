package sip_test

import (
	"strings"
	"testing"

	sipgo "github.com/emiago/sipgo/sip"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// invite is a typical INVITE from a trunk: 15 header lines and an SDP offer.
var invite = strings.ReplaceAll(`INVITE sip:+15551230000@gw.example.net:5060;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1-0
From: "Front desk" <sip:+442079460123@192.0.2.10:5060>;tag=524287SIPpTag001
To: <sip:+15551230000@gw.example.net:5060>
Call-ID: 1-524287@192.0.2.10
CSeq: 1 INVITE
Contact: <sip:core@192.0.2.10:5060>
Max-Forwards: 70
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK
Supported: timer, 100rel
P-Asserted-Identity: <sip:+442079460123@core.example.net;user=phone>
User-Agent: core-bench
X-Correlation: 4c2f3a80-1b6d-4c0e-9d0b-4f5e7e1a2b3c
Content-Type: application/sdp
Content-Length: 213

v=0
o=- 53655765 2353687637 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 6000 RTP/AVP 8 0 101
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
`, "\n", "\r\n")

// BenchmarkParse parses a datagram as a transport does: one copy of the bytes, then
// Parse.
func BenchmarkParse(b *testing.B) {
	data := []byte(invite)
	b.Run("tandem", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, p := sip.Parse(string(data), nil); p != nil {
				b.Fatal(p)
			}
		}
	})
	b.Run("tandem with all checks", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		v := &sip.Validator{Understands: func(string) bool { return false }}
		for b.Loop() {
			if _, p := v.Read(string(data)); p != nil {
				b.Fatal(p)
			}
		}
	})
	b.Run("sipgo", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		ps := sipgo.NewParser()
		for b.Loop() {
			if _, err := ps.ParseSIP(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPrint(b *testing.B) {
	b.Run("tandem untouched", func(b *testing.B) {
		m, _ := sip.Parse(invite, nil)
		buf := make([]byte, 0, 4096)
		b.ReportAllocs()
		for b.Loop() {
			buf = m.AppendTo(buf[:0])
		}
	})
	b.Run("tandem edited", func(b *testing.B) {
		m, _ := sip.Parse(invite, nil)
		m.Prepend(sip.KindVia, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
		buf := make([]byte, 0, 4096)
		b.ReportAllocs()
		for b.Loop() {
			buf = m.AppendTo(buf[:0])
		}
	})
	b.Run("sipgo", func(b *testing.B) {
		m, err := sipgo.NewParser().ParseSIP([]byte(invite))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			_ = m.String()
		}
	})
}

// BenchmarkLeg does a back-to-back user agent's work on one INVITE: parse it, get
// what routing needs, build the outbound leg's INVITE from it, print that.
func BenchmarkLeg(b *testing.B) {
	data := []byte(invite)
	v := &sip.Validator{}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		m, p := v.Read(string(data))
		if p != nil {
			b.Fatal(p)
		}
		u, _ := m.RURI()
		number, _ := u.TelephoneNumber()
		from, _ := m.From()
		out := sip.NewRequest(sip.INVITE, "sip:"+number+"@svc.example.net;user=phone")
		out.Add(sip.KindVia, "SIP/2.0/UDP 192.0.2.1:5060;branch="+sip.NewBranch())
		out.Add(sip.KindFrom, "<"+from.Addr+">;tag="+sip.NewTag())
		out.Add(sip.KindTo, "<sip:"+number+"@svc.example.net>")
		out.Add(sip.KindCallID, sip.NewCallID())
		out.Add(sip.KindCSeq, "1 INVITE")
		out.Add(sip.KindMaxForwards, "69")
		out.Add(sip.KindContact, "<sip:gw@t1.gw.example.net:5060>")
		out.CopyFrom(m, sip.KindAllow, sip.KindSupported, sip.KindPAssertedIdentity, sip.KindUserAgent)
		out.SetBody(m.Get(sip.KindContentType), m.Body())
		buf = out.AppendTo(buf[:0])
	}
}

// ack is a message of the other kind: short, without a body. A call has ten of them.
var ack = strings.ReplaceAll(`ACK sip:+15551230000@gw.example.net:5060;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1-0
From: "Front desk" <sip:+442079460123@192.0.2.10:5060>;tag=524287SIPpTag001
To: <sip:+15551230000@gw.example.net:5060>;tag=abc
Call-ID: 1-524287@192.0.2.10
CSeq: 1 ACK
Contact: <sip:core@192.0.2.10:5060>
Max-Forwards: 70
Content-Length: 0

`, "\n", "\r\n")

// BenchmarkShort parses a short request and makes a response to it.
func BenchmarkShort(b *testing.B) {
	data := []byte(ack)
	v := &sip.Validator{}
	b.ReportAllocs()
	for b.Loop() {
		m, p := v.Read(string(data))
		if p != nil {
			b.Fatal(p)
		}
		_ = sip.NewResponse(m, 200, "", "x")
	}
}
