package zoom_test

import (
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", legtest.Profile(t, zoom.New)) }

func TestAWithheldNumberStaysWithheld(t *testing.T) {
	rpid := "Remote-Party-ID: <sip:+442079460111@core>;party=calling;privacy="
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"preferred":  {[]string{"P-Preferred-Identity: <sip:+442079460111@core>", rpid + "full"}, "id"},
		"asserted":   {[]string{"P-Asserted-Identity: <sip:+442079460111@core>", rpid + "full"}, "id"},
		"on its own": {[]string{rpid + "uri"}, "id"},
		"from": {[]string{"Remote-Party-ID: <sip:anonymous@core>;party=calling;privacy=full",
			"P-Asserted-Identity: <tel:+442079460111>"}, "id"},
		"already set":      {[]string{"Privacy: header; id", rpid + "full"}, "header; id"},
		"partly set":       {[]string{"Privacy: header", rpid + "full"}, "header;id"},
		"explicitly shown": {[]string{"Privacy: none", rpid + "full"}, "none"},
		"off":              {[]string{"P-Asserted-Identity: <sip:+442079460111@core>", rpid + "off"}, ""},
		"of the called side": {[]string{"P-Asserted-Identity: <sip:+442079460111@core>",
			"Remote-Party-ID: <sip:+442079460112@core>;party=called;privacy=full"}, ""},
		"no number asserted": {[]string{"Remote-Party-ID: <sip:anonymous@core>;party=calling;privacy=full"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			raw := "INVITE sip:+442079460103@gw SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\n" +
				"Max-Forwards: 70\r\nFrom: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1\r\n" +
				"To: <sip:+442079460103@gw>\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\nContact: <sip:h>\r\n" +
				strings.Join(c.lines, "\r\n") + "\r\nContent-Length: 0\r\n\r\n"
			m, problem := sip.Parse(raw, nil)
			if problem != nil {
				t.Fatal(problem)
			}
			legtest.Profile(t, zoom.New).ToService(m, &leg.Leg{Call: &route.Decision{Service: zoom.Service},
				Local: leg.Addr{Host: "r1.gw"}, Remote: leg.Addr{Host: "zoom"}})
			if got := m.Get(sip.KindPrivacy); got != c.want {
				t.Errorf("Privacy = %q, want %q:\n%s", got, c.want, m)
			}
			if m.FindName("Remote-Party-ID") >= 0 {
				t.Errorf("Remote-Party-ID is left:\n%s", m)
			}
		})
	}
}
