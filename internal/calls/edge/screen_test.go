package edge

import (
	"strings"
	"testing"
)

// fromCustomer prepares a call of the customer from Direct Routing.
func (b *bed) fromCustomer(from, called string) *talk {
	up := b.svc.newCall(from, called)
	up.target = "sip:" + called + "@acme.1r1.gw.example.com;user=phone"
	return up
}

// strangers are lines that assert an identity that is not the customer's.
var strangers = []string{"P-Asserted-Identity: <sip:" + outside + "@x;user=phone>",
	"P-Preferred-Identity: <tel:" + outside + ">",
	"Remote-Party-ID: \"Bank\" <sip:" + outside + "@x>;party=calling"}

// innocent checks that a message does not contain the stranger's number.
func innocent(t *testing.T, m msg) {
	t.Helper()
	if strings.Contains(strings.ReplaceAll(m.raw, m.get("To"), ""), outside) {
		t.Errorf("a stranger's identity went to the core:\n%s", m.raw)
	}
}

func TestNoStrangersIdentityReachesTheCore(t *testing.T) {
	covers(t, "H1")
	b := setup(t, screened)
	up := b.fromCustomer(direct, "+442079469999")
	pai := "<tel:" + direct + ">"
	b.svc.send(up.request("INVITE", sdp, "P-Asserted-Identity: "+pai+", <tel:"+outside+">", strangers[1], strangers[2]))
	b.svc.expect("100")
	inv := b.core.expect("INVITE")
	innocent(t, inv)
	if got := inv.get("P-Asserted-Identity"); got != pai {
		t.Errorf("P-Asserted-Identity = %q, want the customer's", got)
	}
	down := b.core.called(inv)
	b.core.send(down.reply(inv, "200 OK", sdp, strangers...))
	ok := b.svc.expect("200")
	if ok.get("P-Asserted-Identity") == "" {
		t.Errorf("what the core asserts does not pass:\n%s", ok.raw)
	}
	up.answered(ok)
	b.svc.send(up.ack(1, ""))
	b.core.expect("ACK")
	// In the call: asserted, and by another From (RFC 4916).
	true_ := up.local
	for _, method := range []string{"UPDATE", "INVITE", "INFO"} {
		for _, local := range []string{true_, "\"Bank\" <sip:" + outside + "@x>"} {
			up.local = local
			body := ""
			if method == "INVITE" {
				body = sdp
			}
			b.svc.send(up.request(method, body, strangers...))
			if method == "INVITE" {
				b.svc.expect("100")
			}
			m := b.core.expect(method)
			innocent(t, m)
			if m.get("From") != inv.get("From") {
				t.Errorf("From of %s = %q, want the call's %q", method, m.get("From"), inv.get("From"))
			}
			b.core.send(down.reply(m, "200 OK", body))
			b.svc.expect("200")
			if method == "INVITE" {
				b.svc.send(up.ack(up.cseq, ""))
				b.core.expect("ACK")
			}
		}
	}
	up.local = true_
	// And in answers to the core.
	b.core.send(down.request("UPDATE", ""))
	b.svc.send(up.reply(b.svc.expect("UPDATE"), "200 OK", "", append(strangers, "X-List: kept")...))
	ok = b.core.expect("200")
	innocent(t, ok)
	if ok.get("X-List") != "kept" {
		t.Errorf("other lines are gone:\n%s", ok.raw)
	}
	b.over(up, down)
	b.idle()
}

func TestNoStrangersIdentityReachesTheCoreInAnswers(t *testing.T) {
	covers(t, "H1")
	b := setup(t, screened)
	up := b.core.newCall("+12025550100", direct)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "180 Ringing", "", strangers...))
	innocent(t, b.core.expect("180"))
	b.svc.send(down.reply(inv, "200 OK", sdp, append(strangers, "P-Asserted-Identity: <tel:"+direct+">")...))
	ok := b.core.expect("200")
	innocent(t, ok)
	if got := ok.get("P-Asserted-Identity"); got != "<tel:"+direct+">" {
		t.Errorf("P-Asserted-Identity of the 200 = %q, want the customer's", got)
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	b.setView(nil) // without an index no number is known to be the customer's
	b.svc.send(down.request("UPDATE", "", strangers...))
	upd := b.core.expect("UPDATE")
	innocent(t, upd)
	b.core.send(up.reply(upd, "200 OK", ""))
	b.svc.expect("200")
	b.over(up, down)
	b.idle()
}

func TestAStrangersFromIsReplaced(t *testing.T) {
	own := "<tel:" + direct + ">"
	presenting := func(c *bedConfig) {
		screened(c)
		c.route.PresentationAccounts = []string{"acme"}
	}
	for name, c := range map[string]struct {
		opt   option
		lines []string
		from  string // in From
		user  string // in Contact
	}{
		"by the asserted identity": {screened, []string{"P-Asserted-Identity: " + own}, "<sip:" + direct + "@", direct},
		"hidden where the caller asked for it": {screened, []string{"P-Asserted-Identity: " + own, "Privacy: id"},
			"\"Anonymous\" <sip:anonymous@anonymous.invalid>", ""},
		"not of a forwarded call": {screened,
			[]string{"P-Asserted-Identity: " + own, "History-Info: " + own + ";index=1"},
			"<sip:" + outside + "@", outside},
		"not for an account that may present numbers": {presenting, []string{"P-Asserted-Identity: " + own},
			"<sip:" + outside + "@", outside},
	} {
		t.Run(name, func(t *testing.T) {
			covers(t, "H2")
			b := setup(t, c.opt)
			up := b.fromCustomer(outside, "+442079469999")
			b.svc.send(up.request("INVITE", sdp, c.lines...))
			b.svc.expect("100")
			inv := b.core.expect("INVITE")
			if !strings.HasPrefix(inv.get("From"), c.from) {
				t.Errorf("From = %q, want %q", inv.get("From"), c.from)
			}
			user, _, at := strings.Cut(strings.TrimPrefix(inv.contact(), "sip:"), "@")
			if at != (c.user != "") || at && user != c.user {
				t.Errorf("Contact = %q, want user %q", inv.contact(), c.user)
			}
			if inv.get("P-Asserted-Identity") != own {
				t.Errorf("P-Asserted-Identity = %q", inv.get("P-Asserted-Identity"))
			}
			down := b.core.called(inv)
			b.core.send(down.reply(inv, "200 OK", sdp))
			ok := b.svc.expect("200")
			if !strings.Contains(ok.get("From"), outside) {
				t.Errorf("From of the answer = %q, want it as the caller wrote it", ok.get("From"))
			}
			up.answered(ok)
			b.svc.send(up.ack(1, ""))
			if ack := b.core.expect("ACK"); ack.get("From") != inv.get("From") {
				t.Errorf("From of ACK = %q, want that of the INVITE", ack.get("From"))
			}
			b.over(down, up)
			b.idle()
		})
	}
}

// Emergency calls, and calls of a service that is not screened, are not changed.
func TestWhatIsNotScreenedPasses(t *testing.T) {
	covers(t, "H1", "H2")
	for name, prepare := range map[string]func(t *testing.T) (*bed, *talk){
		"an emergency call": func(t *testing.T) (*bed, *talk) {
			b := setup(t, screened)
			return b, b.fromCustomer(outside, "911")
		},
		"Operator Connect": func(t *testing.T) (*bed, *talk) {
			b := setup(t)
			return b, b.svc.newCall(outside, "+442079469999")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, up := prepare(t)
			b.svc.send(up.request("INVITE", sdp, append(strangers, "X-List: <tel:"+served+">")...))
			b.svc.expect("100")
			inv := b.core.expect("INVITE")
			for _, l := range strangers {
				name, value, _ := strings.Cut(l, ": ")
				if inv.get(name) != value {
					t.Errorf("%s = %q, want %q", name, inv.get(name), value)
				}
			}
			if !strings.Contains(inv.get("From"), outside) {
				t.Errorf("From = %q", inv.get("From"))
			}
			b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
			b.core.expect("ACK")
			b.svc.send(up.ackFailure(b.svc.expect("486")))
			b.idle()
		})
	}
}
