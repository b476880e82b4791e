package leg_test

import (
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// numbers is a view of numbers and the accounts that own them.
type numbers map[domain.E164]string

func (x numbers) Number(n domain.E164) (route.Number, bool) {
	name, ok := x[n]
	return route.Number{Account: &domain.AccountRouting{Name: name}}, ok
}
func (numbers) CustomHeader(domain.E164) string              { return "" }
func (numbers) AccountByLabel(string) *domain.AccountRouting { return nil }

const (
	own       = "+442079460100"
	colleague = "+442079460101"
	rival     = "+442079460200"
	stranger  = "+12025550111"
)

func TestScreen(t *testing.T) {
	view := numbers{own: "acme", colleague: "acme", rival: "rival"}
	d := route.Decision{Outcome: route.ToCore, Account: &domain.AccountRouting{Name: "acme"}, Screened: true,
		Caller: own, Identity: own}
	forwarded := d
	forwarded.Caller = stranger
	toService := forwarded
	toService.Outcome = route.ToService
	for _, c := range []struct {
		name    string
		d       route.Decision
		in, out []string
	}{
		{"own numbers", d,
			[]string{"P-Asserted-Identity: \"A, B\" <sip:" + own + "@x;user=phone>,  <tel:" + colleague + ">",
				"Remote-Party-ID: <sip:" + own + "@x>;party=calling"},
			[]string{"P-Asserted-Identity: \"A, B\" <sip:" + own + "@x;user=phone>,  <tel:" + colleague + ">",
				"Remote-Party-ID: <sip:" + own + "@x>;party=calling"}},
		{"a stranger's", d,
			[]string{"P-Asserted-Identity: <tel:" + stranger + ">", "p-preferred-identity: <sip:" + stranger + "@x>",
				"remote-party-id: \"C\" <sip:" + stranger + "@x>;privacy=off",
				"Subject: x"},
			[]string{"Subject: x"}},
		{"another customer's", d, []string{"P-Asserted-Identity: <tel:" + rival + ">"}, nil},
		{"one of two", d,
			[]string{"P-Asserted-Identity: <sip:alice@acme.example>, <tel:" + stranger + ">, <tel:" + own + ">",
				"P-Asserted-Identity: sip:" + stranger + "@x"},
			[]string{"P-Asserted-Identity: <sip:alice@acme.example>, <tel:" + own + ">"}},
		{"hidden in spelling", d,
			[]string{"P-Asserted-Identity: <sip:%2b1202-555(0111)@x>", "P-Asserted-Identity: <sip:12025550111@x>",
				"P-Asserted-Identity: <sip:02025550111@x>",
				"P-Asserted-Identity: <sips:" + stranger + ";ext=1@x>",
				"P-Asserted-Identity: <sip:" + stranger + "%40y@x>"},
			nil},
		{"unreadable", d, []string{"P-Asserted-Identity: <<sip:" + own + "@x>"}, nil},
		{"not a URI of an identity", d, []string{"P-Asserted-Identity: <sip:" + stranger + "%@x>",
			"P-Asserted-Identity: <sip:+1 2025550111@x>",
			"P-Asserted-Identity: <tel:" + stranger + "%2>", "P-Asserted-Identity: <sip:" + stranger + "@x:y>",
			"P-Asserted-Identity: <sip:" + stranger + "@>",
			"P-Asserted-Identity: <" + stranger + ">", "P-Asserted-Identity: <callto:" + stranger + ">",
			"Remote-Party-ID: sip:" + stranger + "@x y"},
			nil},
		{"the outside caller of a forwarded call", forwarded, []string{"P-Asserted-Identity: <tel:" + stranger + ">"},
			[]string{"P-Asserted-Identity: <tel:" + stranger + ">"}},
		{"the caller's number, asserted by the called service", toService,
			[]string{"P-Asserted-Identity: <tel:" + stranger + ">"}, nil},
	} {
		for _, start := range []string{"INVITE sip:a@b SIP/2.0", "UPDATE sip:a@b SIP/2.0", "SIP/2.0 200 OK"} {
			m := parse(t, append([]string{start, "From: <sip:x@y>;tag=1"}, c.in...)...)
			leg.Screen(m, &leg.Leg{Call: &c.d}, view)
			want := strings.Join(append([]string{start, "From: <sip:x@y>;tag=1"}, c.out...), "\r\n") + "\r\n\r\n"
			if got := m.String(); got != want {
				t.Errorf("%s, %s: screened to\n%s\nwant\n%s", c.name, start, got, want)
			}
		}
	}
}

func TestScreenReplacesFrom(t *testing.T) {
	d := route.Decision{Outcome: route.ToCore, Account: &domain.AccountRouting{Name: "acme"}, Screened: true,
		Caller: own, Identity: own, From: own}
	l := &leg.Leg{Call: &d, Local: leg.Addr{Host: "gw.example.com"}}
	const from = "From: \"Your bank\" <sip:" + stranger + "@x;user=phone>;tag=abc;x=y"
	for privacy, want := range map[string]string{
		"":                 "<sip:" + own + "@gw.example.com;user=phone>;tag=abc",
		"Privacy: none":    "<sip:" + own + "@gw.example.com;user=phone>;tag=abc",
		"Privacy: id":      "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=abc",
		"Privacy: user;id": "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=abc",
	} {
		lines := []string{"INVITE sip:a@b SIP/2.0", from}
		if privacy != "" {
			lines = append(lines, privacy)
		}
		m := parse(t, lines...)
		leg.Screen(m, l, numbers{})
		if f, _ := sip.ParseNameAddr(m.Get(sip.KindFrom)); f.String() != want {
			t.Errorf("%s: From = %s, want %s", privacy, f, want)
		}
	}
	// Within the call, From belongs to the dialog.
	m := parse(t, "INVITE sip:a@b SIP/2.0", from, "To: <sip:c@d>;tag=2")
	leg.Screen(m, l, numbers{})
	if f, _ := sip.ParseNameAddr(m.Get(sip.KindFrom)); !strings.Contains(f.String(), stranger) {
		t.Errorf("From within the call = %s, want it unchanged", f)
	}
}
