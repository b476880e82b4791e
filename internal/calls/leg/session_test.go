package leg_test

import (
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

const sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n"

// part returns one part of a multipart body with the boundary b.
func part(lines, body string) string { return "--b\r\n" + lines + "\r\n" + body + "\r\n" }

func TestHasSDP(t *testing.T) {
	const end = "--b--\r\n"
	offer := part("Content-Type: application/sdp\r\n", sdp)
	pidf := part("Content-Type: application/pidf+xml\r\nContent-ID: <loc@x>\r\n", "<presence/>")
	nested := part("Content-Type: multipart/alternative; boundary=\"in ner\"\r\n",
		"--in ner\r\nContent-Type: text/plain\r\n\r\nhello\r\n--in ner\r\nContent-Type: application/sdp\r\n\r\n"+sdp+
			"\r\n--in ner--")
	deep := "--b5\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--b5--"
	for _, n := range []string{"b4", "b3", "b2", "b1", "b0"} {
		inner := "b" + string(n[1]+1)
		deep = "--" + n + "\r\nContent-Type: multipart/mixed;boundary=" + inner + "\r\n\r\n" + deep +
			"\r\n--" + n + "--"
	}
	for _, c := range []struct {
		name, lines, body string
		want              bool
	}{
		{"no body", "", "", false},
		{"no body, but a type", "Content-Type: application/sdp\r\n", "", false},
		{"blank body", "Content-Type: application/sdp\r\n", "\r\n", false},
		{"no type", "", sdp, false},
		{"SDP", "Content-Type: application/sdp\r\n", sdp, true},
		{"compact name, odd case, parameter", "c: Application/SDP ; charset=utf-8\r\n", sdp, true},
		{"folded", "Content-Type:\r\n application/sdp\r\n", sdp, true},
		{"malformed parameter", "Content-Type: application/sdp;x=\r\n", sdp, true},
		{"another type", "Content-Type: application/isup;version=itu-t92+\r\n", sdp, false},
		{"a type with the same beginning", "Content-Type: application/sdp-diff\r\n", sdp, false},
		{"SDP to be shown", "Content-Type: application/sdp\r\nContent-Disposition: render\r\n", sdp, false},
		{"SDP for an early session",
			"Content-Type: application/sdp\r\nContent-Disposition: early-session\r\n", sdp, false},
		{"SDP for the session, explicitly",
			"Content-Type: application/sdp\r\nContent-Disposition: Session;handling=optional\r\n", sdp, true},
		{"multipart with location and SDP", "Content-Type: multipart/mixed;boundary=b\r\n", pidf + offer + end, true},
		{"multipart, SDP first", "Content-Type: multipart/mixed;boundary=b\r\n", offer + pidf + end, true},
		{"multipart, odd case, quoted boundary", "Content-Type: MULTIPART/Mixed; Boundary=\"b\"\r\n",
			"preamble\r\n" + pidf + offer + end, true},
		{"multipart, part with odd case", "Content-Type: multipart/mixed;boundary=b\r\n",
			part("CONTENT-type: Application/Sdp;a=b\r\n", sdp) + end, true},
		{"multipart without SDP", "Content-Type: multipart/mixed;boundary=b\r\n", pidf + end, false},
		{"multipart, part without type", "Content-Type: multipart/mixed;boundary=b\r\n", part("", sdp) + end, false},
		{"multipart, SDP part empty", "Content-Type: multipart/mixed;boundary=b\r\n",
			part("Content-Type: application/sdp\r\n", "") + end, false},
		{"multipart, SDP part to be shown", "Content-Type: multipart/mixed;boundary=b\r\n",
			part("Content-Type: application/sdp\r\nContent-Disposition: render\r\n", sdp) + end, false},
		{"multipart, nested", "Content-Type: multipart/mixed;boundary=b\r\n", pidf + nested + end, true},
		{"multipart, nested too deep", "Content-Type: multipart/mixed;boundary=b0\r\n", deep, false},
		{"multipart without boundary", "Content-Type: multipart/mixed\r\n", offer + end, false},
		{"multipart, another boundary", "Content-Type: multipart/mixed;boundary=c\r\n", offer + end, false},
	} {
		m, p := sip.Parse("INVITE sip:a@b SIP/2.0\r\n"+c.lines+"\r\n"+c.body, nil)
		if p != nil {
			t.Fatalf("%s: %v", c.name, p)
		}
		if got := leg.HasSDP(m); got != c.want {
			t.Errorf("%s: HasSDP = %v, want %v", c.name, got, c.want)
		}
	}
}

// RFC 4028 §4, §5: no interval below 90 s; nothing else of the lines changes.
func TestRelayRaisesShortSessionIntervals(t *testing.T) {
	for in, want := range map[string]string{
		"Session-Expires: 5;refresher=uac":  "Session-Expires: 90;refresher=uac",
		"x: 89 ; refresher=uas;x=y":         "x: 90; refresher=uas;x=y",
		"Session-Expires: 0":                "Session-Expires: 90",
		"Session-Expires: 90;refresher=uac": "Session-Expires: 90;refresher=uac",
		"session-expires:  1800":            "session-expires:  1800",
		"Session-Expires: soon":             "Session-Expires: soon",
		"Session-Expires: -5":               "Session-Expires: -5",
		"Session-Expires: 99999999999999":   "Session-Expires: 99999999999999",
		"Min-SE: 30":                        "Min-SE: 90",
		"Min-SE: 120":                       "Min-SE: 120",
		"Expires: 5":                        "Expires: 5",
	} {
		src, p := sip.Parse("UPDATE sip:a@b.example SIP/2.0\r\n"+in+"\r\nContent-Length: 0\r\n\r\n", nil)
		if p != nil {
			t.Fatal(p)
		}
		dst := sip.NewRequest(sip.UPDATE, "sip:c@d.example")
		legtest.Rules(t).Relay(dst, src)
		if !strings.Contains(dst.String(), "\r\n"+want+"\r\n") {
			t.Errorf("Relay(%q) gives\n%s\nwant the line %q", in, dst, want)
		}
	}
}
