package cases_test

import (
	"slices"
	"strings"
	"testing"
)

// want is the expected outcome of one INVITE.
type want struct {
	forwarded bool   // far receives it
	answer    []int  // the allowed final responses to near; the far side is busy
	contains  string // the forwarded INVITE contains this text
	uri       string // the forwarded INVITE's Request-URI begins with this
	lacks     string // the forwarded INVITE does not contain this text
}

// through is the outcome of a call that reaches the far side.
func through() want { return want{forwarded: true, answer: []int{486}} }

// refused is the outcome of a call that does not reach the far side.
func refused(codes ...int) want { return want{answer: codes} }

// variant is an input of the same kind as the given one, made by pairs of edits of its text.
type variant struct {
	name  string
	edits []string
	want  want
}

// given reads an input from testdata: where it is sent from and to, where it must arrive, and its text.
func (l *lab) given(file string) (from, far *peer, to, text string) {
	l.t.Helper()
	b, err := testdata.ReadFile("testdata/" + file)
	if err != nil {
		l.t.Fatal(err)
	}
	head, text, _ := strings.Cut(string(b), "\n")
	w := strings.Fields(head) // # from IP to IP far IP
	ps := map[string]*peer{"127.76.0.2": l.core, "127.76.0.3": l.dr, "127.76.0.4": l.oc}
	return ps[w[2]], ps[w[6]], w[4] + ":5060", text
}

// try sends one request and checks the outcome.
func (l *lab) try(t *testing.T, file string, v variant) {
	t.Helper()
	from, far, to, text := l.given(file)
	text = edit(t, text, v.edits...)
	head, body, _ := strings.Cut(text, "\n\n")
	body = strings.ReplaceAll(body, "\n", "\r\n")
	lines := strings.Split(head, "\n")
	id := token()
	fill := strings.NewReplacer("127.76.0.", l.net, "{BRANCH}", "z9hG4bK"+id, "{CALLID}", id, "{TAG}", id)
	for i, s := range lines {
		lines[i] = fill.Replace(s)
	}
	lines = slices.DeleteFunc(lines, func(s string) bool { return strings.HasPrefix(s, "Content-Length:") })
	edge := strings.ReplaceAll(to, "127.76.0.", l.net)

	stop := far.answerAll("INVITE", 486)
	from.send(edge, compose(lines[0], lines[1:], body))
	r := from.find(finalOf("INVITE", id))
	seen := stop()
	if r == nil {
		t.Fatalf("no final response within %v; forwarded: %d", patience, len(seen))
	}
	ack := []string{"To: " + r.get("To"), "Call-ID: " + id, "CSeq: 1 ACK", "Max-Forwards: 70"}
	for _, s := range lines[1:] {
		if n, _, _ := strings.Cut(s, ":"); canonical(n) == "via" || canonical(n) == "from" {
			ack = append(ack, s)
		}
	}
	from.send(edge, compose("ACK "+strings.Split(lines[0], " ")[1]+" SIP/2.0", ack, ""))

	w := v.want
	if !slices.Contains(w.answer, r.code()) {
		t.Errorf("answered %q (%s), want one of %v", r.start, r.get("Warning"), w.answer)
	}
	if (len(seen) > 0) != w.forwarded {
		t.Fatalf("forwarded: %v, want %v", len(seen) > 0, w.forwarded)
	}
	if !w.forwarded {
		return
	}
	raw := seen[0].raw
	if w.contains != "" && !strings.Contains(raw, w.contains) {
		t.Errorf("the forwarded INVITE lacks %q:\n%s", w.contains, raw)
	}
	if w.lacks != "" && strings.Contains(raw, w.lacks) {
		t.Errorf("the forwarded INVITE contains %q:\n%s", w.lacks, raw)
	}
	if !strings.HasPrefix(seen[0].uri(), w.uri) {
		t.Errorf("the forwarded INVITE goes to %q, want %q…", seen[0].uri(), w.uri)
	}
}

// run tries variants one after the other.
func (l *lab) run(t *testing.T, file string, vs []variant) {
	for _, v := range vs {
		l.sub(t, v.name, func(t *testing.T) { l.try(t, file, v) })
	}
}

// Case 01: Teams writes "#" unescaped in the Request-URI (OfficeDocs-SkypeForBusiness#9145). It is not a legal
// character there (RFC 3261 §25.1, RFC 3986 §2.2): it is accepted on input and sent as %23.
func TestCase01HashInURIs(t *testing.T) {
	t.Parallel()
	l := start(t)
	with := func(uri, contains, lacks string) want {
		w := through()
		w.uri, w.contains, w.lacks = uri, contains, lacks
		return w
	}
	const ruri = "INVITE sip:#123@acme"
	l.run(t, "01-teams-hash-request-uri.sip", []variant{
		{"given", nil, with("sip:%23123@", "%23123@", "#")},
		{"between", []string{ruri, "INVITE sip:*#31#123@acme"}, with("sip:*%2331%23123@", "", "#")},
		{"at the end", []string{ruri, "INVITE sip:*21*123#@acme"}, with("sip:*21*123%23@", "", "#")},
		{"escaped", []string{ruri, "INVITE sip:%23123@acme", "To: <sip:#123", "To: <sip:%23123"},
			with("sip:%23123@", "", "#")},
	})
	const from, contact = "From: <sip:+442079460999@127.76.0.2>", "Contact: sip:p1@127.76.0.2:5060;"
	l.run(t, "03-contact-addr-spec-quoted-angle.sip", []variant{
		{"From", []string{from, "From: <sip:#12@127.76.0.2>"}, with("", "%2312@", "#")},
		{"From without brackets", []string{from, "From: sip:#12@127.76.0.2"}, with("", "%2312@", "#")},
		{"From tel", []string{from, "From: <tel:*12#;phone-context=example.com>"}, with("", "*12%23", "#")},
		{"To", []string{"To: <sip:+442079460123@", "To: <sip:#123@"}, with("", "%23123@", "#")},
		{"Contact", []string{contact, "Contact: <sip:#p1@127.76.0.2:5060>;"}, with("", "", "#")},
		{"asserted identity", []string{"Contact:", "P-Asserted-Identity: <sip:#12@example.com>\nContact:"},
			with("", "%2312@", "#")},
		{"asserted tel", []string{"Contact:", "P-Asserted-Identity: <tel:*12#;phone-context=example.com>\nContact:"},
			with("", "*12%23", "#")},
		{"display name is unchanged", []string{from, `From: "desk #4" <sip:+442079460999@127.76.0.2>`},
			with("", `"desk #4"`, "%234")},
	})
}

// Case 02: a dial string with or without "+" is the same emergency call (OfficeDocs-SkypeForBusiness#3600, #3972).
// It goes to the core although the calling number is not provisioned and the account screens calling numbers.
func TestCase02EmergencyIsNeverScreened(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.run(t, "02-emergency-plus-911-screened.sip", emergencies())
}

// emergencies are forms of the same call. Test numbers such as 933 are treated the same.
func emergencies() []variant {
	var vs []variant
	add := func(name string, edits ...string) { vs = append(vs, variant{name, edits, through()}) }
	add("given")
	const host = "acme.1r1.gw.example.com:5061"
	for _, n := range []string{"+112", "+999", "+933", "911", "112", "999", "933"} {
		add(n, "sip:+911@", "sip:"+n+"@")
		add(n+" without user=phone", "sip:+911@"+host+";user=phone", "sip:"+n+"@"+host)
	}
	add("from a number of the account", "sip:+12125550199@", "sip:"+drNumber+"@")
	add("from an anonymous caller", "<sip:+12125550199@pstn.cloudvoice.example.com;user=phone>",
		`"Anonymous" <sip:anonymous@anonymous.invalid>`)
	add("from a name", "sip:+12125550199@", "sip:jane.doe@")
	add("to a subdomain in capitals", "sip:+911@acme.1r1.gw.example.com", "sip:+911@ACME.1R1.GW.EXAMPLE.COM")
	return vs
}

// Case 02, at the limits on calls: an ordinary call is refused, an emergency call is carried.
func TestCase02EmergencyAtTheCallLimit(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"whole edge", "  routing:", "  limits: {maxCalls: 1}\n  routing:"},
		{"peer group it comes from", "service: teamsDirectRouting", "service: teamsDirectRouting\n      maxCalls: 1"},
		{"peer group it goes to", "name: core\n", "name: core\n      maxCalls: 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := start(t, c.old, c.new)
			up := l.toDR().setUp()
			ordinary := l.dial(l.dr, l.core, l.net+"11:5060", drNumber)
			ordinary.uri = "sip:+442079460555@acme.1r1.gw.example.com;user=phone"
			ordinary.from = "<sip:" + drNumber + "@pstn.cloudvoice.example.com;user=phone>;tag=" + token()
			ordinary.invite(offer)
			ordinary.answered(503)
			l.run(t, "02-emergency-plus-911-screened.sip", emergencies())
			up.hangUp()
		})
	}
}

// Case 02, at the limit on new calls per second: emergency calls do not count.
func TestCase02EmergencyAtTheRateLimit(t *testing.T) {
	t.Parallel()
	l := start(t, "service: teamsDirectRouting", "service: teamsDirectRouting\n      maxCallsPerSecond: 1")
	vs := emergencies()
	l.run(t, "02-emergency-plus-911-screened.sip", slices.Concat(vs, vs))
}

// Case 03: Contact in every form of RFC 3261 §20.10 and §25.1 (resiprocate#403). In the form without angle brackets
// the parameters belong to the header, and a quoted string in them may hold anything.
func TestCase03ContactForms(t *testing.T) {
	t.Parallel()
	l := start(t)
	const given = `Contact: sip:p1@127.76.0.2:5060;+g.3gpp.accesstype="cellular";` +
		`+sip.instance="<urn:gsma:imei:35548888-144050-0>"`
	var vs []variant
	for _, c := range contacts("sip:p1@127.76.0.2:5060") {
		vs = append(vs, variant{c.name, []string{given, c.line}, through()})
	}
	l.run(t, "03-contact-addr-spec-quoted-angle.sip", append([]variant{{"given", nil, through()}}, vs...))
}

type contactForm struct{ name, line string }

// contacts returns Contact lines that all name the URI, which must have no parameters.
func contacts(uri string) []contactForm {
	return []contactForm{
		{"bare", "Contact: " + uri},
		{"bare, instance", "Contact: " + uri + `;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"`},
		{"bare, quoted comma", "Contact: " + uri + `;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims,x";q=0.5`},
		{"bare, quoted quote", "Contact: " + uri + `;x="a\"b<c>d\\";expires=60`},
		{"bare, quoted semicolon", "Contact: " + uri + `;x=";tag=1;y"`},
		{"bare, spaces", "Contact: " + uri + ` ; q = 0.7 ; x = "<a>"`},
		{"bare, angle closed only", "Contact: " + uri + `;x="a>b"`},
		{"brackets", "Contact: <" + uri + ">"},
		{"brackets, quoted brackets after", "Contact: <" + uri + `>;+sip.instance="<urn:uuid:f81d4fae>"`},
		{"token name", "Contact: Jane Doe <" + uri + ">"},
		{"quoted name with brackets", `Contact: "Doe, \"J\" <j@x>; a=1" <` + uri + ">;q=1.0"},
		{"quoted name without space", `Contact: "J"<` + uri + ">"},
		{"compact", "m: <" + uri + ">"},
		{"compact, bare", "m:" + uri + `;x="<y>"`},
		{"spaces before the colon", "Contact  :   <" + uri + ">"},
		{"folded", "Contact: \"J\"\n <" + uri + ">\n ;q=0.1"},
		{"name in lower case", "contact: <" + uri + ">"},
	}
}

// Case 03, in a response, and for in-dialog requests: their Request-URI is the URI of the Contact and nothing more.
func TestCase03ContactFormsWithinDialogs(t *testing.T) {
	t.Parallel()
	l := start(t)
	caller, callee := "sip:p1@"+l.core.addr, "sip:p2@"+l.oc.addr
	forms := contacts(callee)
	for i, near := range contacts(caller) {
		l.sub(t, near.name, func(t *testing.T) {
			c := l.toOC()
			c.invite(offer, strings.ReplaceAll(near.line, "\n", "\r\n"))
			c.arrive()
			c.answer(200, offer, strings.ReplaceAll(forms[i].line, "\n", "\r\n"))
			c.answered(200)
			c.ack()
			if u := c.farGets("ACK").uri(); u != callee {
				t.Errorf("the callee's ACK goes to %q, want %q", u, callee)
			}
			if u := c.farHangsUp(1).uri(); u != caller {
				t.Errorf("the caller's BYE goes to %q, want %q", u, caller)
			}
		})
	}
}

// Case 03, for a 2xx whose Contact cannot be a Request-URI: nothing malformed is sent, and the callee gets a BYE if the
// call is refused. The peers check every start line they receive.
func TestCase03UnusableContactInAnswer(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, contact := range []string{"*", "<>", "<sip:a b@" + l.oc.addr + ">", "<sip:>", "<sip:p2@[::1>", "nonsense",
		"<sip:p2@" + l.oc.addr + " SIP/2.0>", `"open <sip:p2@` + l.oc.addr + ">"} {
		l.sub(t, contact, func(t *testing.T) {
			c := l.toOC()
			c.invite(offer)
			c.arrive()
			c.answer(200, offer, "Contact: "+contact)
			r := l.core.response("INVITE", c.id)
			if r.code() < 300 { // the call may be connected, if the ACK reaches the callee
				c.to, c.target = r.get("To"), r.contact()
				c.ack()
				c.farGets("ACK")
				c.hangUp()
				return
			}
			c.ackRefusal(r)
			c.farGets("ACK") // the 2xx must be acknowledged (RFC 3261 §13.2.2.4), then ended (§15)
			c.far.reply(c.farGets("BYE"), 200, "", "")
		})
	}
}

// Case 14: a local number whose phone-context is a global prefix (opensips#2408, kamailio#2646). Without a rule for the
// peer group the number is unknown (RFC 3966 §5.1.5 forbids guessing).
func TestCase14PhoneContextWithoutRule(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.run(t, "14-tel-phone-context-global.sip", []variant{{"given", nil, refused(404, 484)}})
}

// Case 14, with rules for the core's peer group: the number is known, also in national form, and calling numbers reach
// Direct Routing as +E.164 (direct-routing-sip §4: From must be +E.164).
func TestCase14NumbersByRule(t *testing.T) {
	t.Parallel()
	l := start(t, "    - name: core\n", `    - name: core
      numbers: {phoneContext: true,
        prefixes: [{prefix: "00", replace: "+"}, {prefix: "0", digits: 11, replace: "+44"}]}
`)
	known := through()
	known.uri, known.lacks = "sip:"+ocNumber, "phone-context"
	const ruri = "INVITE tel:2079460123;phone-context=+44"
	l.run(t, "14-tel-phone-context-global.sip", []variant{
		{"given", nil, known},
		{"longer context", []string{ruri, "INVITE tel:0123;phone-context=+44-20-7946"}, known},
		{"in a sip URI", []string{ruri, "INVITE sip:2079460123;phone-context=+44@127.76.0.10;user=phone"}, known},
		{"national", []string{ruri, "INVITE sip:02079460123@127.76.0.10"}, known},
		{"international", []string{ruri, "INVITE sip:00442079460123@127.76.0.10"}, known},
		{"a domain as context", []string{ruri, "INVITE tel:2079460123;phone-context=example.com"}, refused(404, 484)},
	})
	c := l.toDR()
	c.from = "<sip:02079460999@" + l.core.ip + ";user=phone>;tag=" + token()
	c.invite(offer, "P-Asserted-Identity: <tel:2079460999;phone-context=+44>")
	m := c.arrive()
	c.answer(486, "")
	c.answered(486)
	for _, w := range []string{"From: <sip:+442079460999@", "P-Asserted-Identity: <tel:+442079460999>"} {
		if !strings.Contains(m.raw, w) {
			t.Errorf("the INVITE to Direct Routing lacks %q:\n%s", w, m.raw)
		}
	}
}

// Case 14, with the rule: context and number together are the provisioned number.
func TestCase14PhoneContextByRule(t *testing.T) {
	t.Parallel()
	l := start(t, "name: core\n", "name: core\n      numbers: {phoneContext: true}\n")
	const ruri = "INVITE tel:2079460123;phone-context=+44"
	to := func(uri string) []string { return []string{ruri, "INVITE " + uri} }
	l.run(t, "14-tel-phone-context-global.sip", []variant{
		{"given", nil, through()},
		{"longer context", to("tel:79460123;phone-context=+4420"), through()},
		{"separators", to("tel:20-7946-0123;phone-context=+44"), through()},
		{"separators in the context", to("tel:7946-0123;phone-context=+44-20"), through()},
		{"parameter before", to("tel:2079460123;isub=12;phone-context=+44"), through()},
		{"sip", to("sip:2079460123;phone-context=+44@127.76.0.10;user=phone"), through()},
		{"another number", to("tel:2079460199;phone-context=+44"), refused(404, 484)},
		{"another context", to("tel:2079460123;phone-context=+1"), refused(404, 484)},
		{"context of a domain", to("tel:2079460123;phone-context=example.com"), refused(404, 484)},
		{"global number, whatever the context", to("tel:+442079460123"), through()},
	})
}

// Case 16: an INVITE without a session description is refused if its service needs an offer (voiceblender#129,
// siphon-sip#317).
func TestCase16NoOfferToDirectRouting(t *testing.T) {
	t.Parallel()
	l := start(t)
	const file = "16-body-but-no-offer-to-direct-routing.sip"
	const ct, body = "Content-Type: application/isup;version=itu-t92+", "\n\nnot-an-offer\n"
	sdp := "\n\n" + strings.ReplaceAll(offer, "\r\n", "\n")
	part := func(ct, body string) string {
		return "--b1\nContent-Type: " + ct + "\n\n" + strings.TrimLeft(body, "\n") + "\n"
	}
	const given = ct
	multi := func(ct string, parts ...string) []string {
		return []string{given, "Content-Type: " + ct, body, "\n\n" + strings.Join(parts, "") + "--b1--\n"}
	}
	isup, mixed := part("application/isup", "x\n"), `multipart/mixed;boundary=b1`
	l.run(t, file, []variant{
		{"given", nil, refused(488)},
		{"text", []string{ct, "Content-Type: text/plain"}, refused(488)},
		{"text that looks like an offer", []string{ct, "Content-Type: text/plain", body, sdp}, refused(488)},
		{"no type", []string{ct + "\n", ""}, refused(400, 415, 488)},
		{"no body", []string{ct + "\n", "", body, "\n\n"}, refused(488)},
		{"type, but no body", []string{ct, "Content-Type: application/sdp", body, "\n\n"}, refused(488)},
		{"similar type", []string{ct, "Content-Type: application/sdpx"}, refused(488)},
		{"parts, none of them an offer", multi(mixed, isup, part("text/plain", sdp)), refused(488)},
		{"parts, one of them an offer", multi(mixed, isup, part("application/sdp", sdp)), through()},
		{"quoted boundary", multi(`multipart/mixed; boundary="b1"`, part("application/sdp", sdp)), through()},
		{"offer", []string{ct, "Content-Type: application/sdp", body, sdp}, through()},
		{"offer, other case", []string{ct, "content-type: Application/SDP", body, sdp}, through()},
		{"offer, parameter", []string{ct, "Content-Type: application/sdp ; charset=utf-8", body, sdp}, through()},
		{"offer, compact", []string{ct, "c:application/sdp", body, sdp}, through()},
	})
}

// Case 16, within a call: a re-INVITE without an offer is refused too, and the call continues.
func TestCase16NoOfferInReinvite(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := l.toDR().setUp()
	for _, b := range []struct{ name, body, ct string }{
		{"no body", "", ""}, {"no offer", "not-an-offer", "Content-Type: application/isup"},
	} {
		l.sub(t, b.name, func(t *testing.T) {
			var more []string
			if b.ct != "" {
				more = []string{b.ct}
			}
			stop := c.far.answerAll("INVITE", 486)
			c.nearSends("INVITE", b.body, more...)
			r := c.near.response("INVITE", c.id)
			if seen := stop(); len(seen) > 0 || r.code() != 488 {
				t.Errorf("answered %q, forwarded %d times; want 488 and not forwarded", r.start, len(seen))
			}
		})
	}
	c.hangUp()
}

// Case 22: an escaped space is not a visual separator, so it makes a different number (RFC 3261 §19.1.4, RFC 3966 §3).
func TestCase22EscapedBlankInNumber(t *testing.T) {
	t.Parallel()
	l := start(t)
	const ruri = "INVITE sip:+442079460123%20@127.76.0.10"
	to := func(user string) []string { return []string{ruri, "INVITE sip:" + user + "@127.76.0.10"} }
	l.run(t, "22-escaped-blank-in-number.sip", []variant{
		{"given", nil, refused(404, 484)},
		{"before", to("%20+442079460123"), refused(404, 484)},
		{"after the plus", to("+%20442079460123"), refused(404, 484)},
		{"inside", to("+4420%2079460123"), refused(404, 484)},
		{"twice", to("+44%2020%2079460123"), refused(404, 484)},
		{"tab", to("+442079460123%09"), refused(404, 484)},
		{"line feed", to("+442079460123%0A"), refused(404, 484)},
		{"no-break space", to("+442079460123%C2%A0"), refused(404, 484)},
		{"only in user=phone", []string{ruri, "INVITE sip:+442079460123%20@127.76.0.10;user=phone"}, refused(404, 484)},
		{"tel", []string{ruri, "INVITE tel:+442079460123%20"}, refused(400, 404, 484)},
		{"escaped digits are the same number", to("+44207946012%33"), through()},
		{"separators in tel", []string{ruri, "INVITE tel:+44-20-7946-0123"}, through()},
		{"brackets in tel", []string{ruri, "INVITE tel:+44(20)7946.0123"}, through()},
	})
}
