package torture

import (
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// testCase is one message and its expected outcome.
type testCase struct {
	name    string // our name
	ref     string // the case of the RFC with this property; "" for our own
	about   string // the property
	wire    string
	status  int // the response; 0 with accept unset: discarded without one
	accept  bool
	text    string // a piece of the problem's text
	clause  string // the rule behind the verdict
	limits  *sip.Limits
	options []string // option tags understood
}

// verdict names the outcome as the table in docs/sip-torture.md does.
func (c *testCase) verdict() string {
	switch {
	case c.accept:
		return "accept"
	case c.status == 0:
		return "discard"
	}
	return strconv.Itoa(c.status)
}

// msg joins lines with CRLF; the last argument is the body, and "{len}" its size.
func msg(parts ...string) string {
	head, body := parts[:len(parts)-1], parts[len(parts)-1]
	s := strings.Join(head, "\r\n") + "\r\n\r\n" + body
	return strings.ReplaceAll(s, "{len}", strconv.Itoa(len(body)))
}

// base returns the lines of a request: the start line, six ordinary header lines and those given.
func base(start, callID string, more ...string) []string {
	method, _, _ := strings.Cut(start, " ")
	return append([]string{
		start,
		"Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bK" + strings.ReplaceAll(callID, "@", "-"),
		"Max-Forwards: 70",
		"From: <sip:fern@example.net>;tag=f" + strconv.Itoa(len(callID)),
		"To: <sip:moss@example.com>",
		"Call-ID: " + callID,
		"CSeq: 31 " + method,
	}, more...)
}

// without removes the lines with a name.
func without(lines []string, name string) []string {
	var out []string
	for i, l := range lines {
		if n, _, ok := strings.Cut(l, ":"); i > 0 && ok && strings.EqualFold(strings.TrimSpace(n), name) {
			continue
		}
		out = append(out, l)
	}
	return out
}

// with replaces the lines with the same names.
func with(lines []string, replace ...string) []string {
	for _, r := range replace {
		n, _, _ := strings.Cut(r, ":")
		for i, l := range lines {
			if m, _, _ := strings.Cut(l, ":"); i > 0 && m == n {
				lines[i] = r
			}
		}
	}
	return lines
}

func end(lines []string, body string) string { return msg(append(lines, body)...) }

const sdp = "v=0\r\no=fern 28908 28908 IN IP4 192.0.2.33\r\ns=-\r\nc=IN IP4 192.0.2.33\r\nt=0 0\r\n" +
	"m=audio 49216 RTP/AVP 0 8\r\n"

const (
	inviteStart   = "INVITE sip:moss@example.com SIP/2.0"
	optionsStart  = "OPTIONS sip:moss@example.com SIP/2.0"
	registerStart = "REGISTER sip:registrar.example.com SIP/2.0"
	contact       = "Contact: <sip:fern@host5.example.net>"
	sdpType       = "Content-Type: application/sdp"
	noBody        = "Content-Length: 0"
	withBody      = "Content-Length: {len}"
)

// rfc4475 follows the order of the RFC: messages a parser must take (§3.1.1),
// messages that break the grammar (§3.1.2), then those that only higher layers can
// object to (§3.2 to §3.4).
func rfc4475() []testCase {
	longWord := func(n int) string { return strings.Repeat("long-", n) }
	longRequest := func(id string) string {
		return end([]string{
			"INVITE sip:" + longWord(30) + "user@example.com SIP/2.0",
			"Via: SIP/2.0/TCP hop17.example.com;branch=z9hG4bK" + longWord(30) + "hop17",
			"From: \"" + longWord(40) + "name\" <sip:" + longWord(40) + "caller@example.net?" + longWord(10) + "q=" +
				longWord(20) + "v>;tag=" + longWord(30) + "tag;" + longWord(20) + "param=" + longWord(20) + "value",
			"To: \"" + longWord(40) + "\" <sip:moss@example.com>",
			"Call-ID: " + id + longWord(40) + "@example.net",
			"CSeq: 3882340 INVITE",
			"Max-Forwards: 70",
			"X-" + longWord(20) + "Unheard-Of-Header: " + longWord(60) + "value; with=\"" + longWord(20) + "\"",
			"Via: SIP/2.0/TCP hop16.example.com;branch=z9hG4bK" + longWord(20) +
				"16,SIP/2.0/UDP hop15.example.com;branch=z9hG4bK15",
			"Via: SIP/2.0/SCTP hop14.example.com;" + longWord(20) + "p=" + longWord(20) + ";branch=z9hG4bK14",
			"Contact: <sip:" + longWord(10) + "c@example.net>",
			sdpType, withBody,
		}, sdp)
	}
	return []testCase{
		{name: "twisted-spacing", ref: "4475 §3.1.1.1 wsinv",
			about:  "one INVITE with all the spacing, folding, case, compact forms and escapes the grammar allows",
			accept: true, clause: "RFC 3261 §7.3.1, §25.1",
			wire: msg(
				"INVITE sip:oak@birch.example.com;strange SIP/2.0",
				"tO :", " sip:oak@birch.example.com ;   tag    = 22ab",
				"from   : \"O. \\\"Ash\\\" \\\\\"       <sip:ash@example.org>", "  ;", "  tag = 7xy",
				"mAx-fOrWaRdS: 0069",
				"CALL-id: twisted.1@192.0.2.9",
				"Content-Length   : {len}",
				"cseq: 0011", "  INVITE",
				"Via  : SIP  /   2.0", " /UDP", "    192.0.2.9;branch=old2543style",
				"s :",
				"X-Made-Up-Header:   a value", " that goes on here",
				"X-Punctuation: ,;;,,;", sdpType,
				"Route:", " <sip:relay.example.com;lr;odd=value;odd-alone>",
				"v:  SIP  / 2.0  / TCP     inner.example.com   ;", "  branch  =   z9hG4bKinner  ,",
				" SIP  /    2.0   / UDP  192.0.2.77   ; branch=", " z9hG4bKmore",
				"m:\"Quoted \\\"inner\\\" text\" <sip:ash@example.org> ; fresh =", "      yes ;",
				"  another ; q = 0.25", sdp)},
		{name: "strange-characters", ref: "4475 §3.1.1.2 intmeth",
			about: "method, user part, display names, parameters and header names with every unusual character " +
				"allowed in them, and quoted control characters",
			accept: true, clause: "RFC 3261 §25.1",
			wire: msg(
				"*ODD-Method.42+`'~%! sip:2-odd_user!~*'(x)&=+$,;?/:pw&=+$,.!@example.com;p-!~*'()[]/:&+$=v SIP/2.0",
				"Via: SIP/2.0/UDP host1.example.com;branch=z9hG4bK-.!%*_+`'~x",
				"To: \"BELL:\\\x07 NUL:\\\x00 DEL:\\\x7f\" <sip:2-odd_user!~*'(x)&=+$,;?/@example.com>",
				"From: one~` two'+_ three*%!.- <sip:plain@example.com>;p''~+*_!.-%=\"проверка\\\"\";tag=_t~1'+`*%!-.",
				"Call-ID: strange.word%Z!.*_+'@`~)(><:\\/\"][?}{",
				"CSeq: 77 *ODD-Method.42+`'~%!",
				"Max-Forwards: 255",
				"x-Header!-.%*+_`'~:北京市", noBody, "")},
		{name: "escapes", ref: "4475 §3.1.1.3 esc01",
			about:  "percent escapes in user parts and URI headers, one user part that looks like a URI",
			accept: true, clause: "RFC 3261 §19.1.2",
			wire: end(with(base("INVITE sip:sips%3Amoss%40example.org@example.com SIP/2.0", "escapes@192.0.2.33",
				"Contact: <sip:%66ern@host5.example.net?Subject=%22hi%22&X=%C3%A9>", sdpType, withBody),
				"To: <sip:%6d%6Fss@example.com>"), sdp)},
		{name: "escaped-nul", ref: "4475 §3.1.1.4 escnull", about: "escaped NUL octets inside user parts",
			accept: true, clause: "RFC 3261 §19.1.2",
			wire: end(with(base(registerStart, "escnul@192.0.2.33", "Contact: <sip:%00@host5.example.net>",
				"Contact: <sip:a%00%00b@host5.example.net>", "L: 0"),
				"To: <sip:nul%00nul@example.com>", "From: <sip:nul%00nul@example.com>;tag=3"), "")},
		{name: "percent-in-tokens", ref: "4475 §3.1.1.5 esc02",
			about:  "percent signs where no escape is defined: method (not REGISTER), header name, display name",
			accept: true, clause: "RFC 3261 §7.1, §25.1",
			wire: end(with(
				base("%52EGISTER sip:registrar.example.com SIP/2.0", "pct@192.0.2.33", "X%41-Header: <%zz>", noBody),
				"From: %Z%48ello <sip:a%62c@example.com>;tag=%%1"), "")},
		{name: "no-space-before-bracket", ref: "4475 §3.1.1.6 lwsdisp",
			about:  "no white space between display name and '<'",
			accept: true, clause: "RFC 3261 §20.10",
			wire: end(with(base(optionsStart, "nosp@192.0.2.33", "L: 0"),
				"From: fern<sip:fern@example.net>;tag=8"), "")},
		{name: "long-values", ref: "4475 §3.1.1.7 longreq",
			about:  "very long values, beyond the documented size limits (header name 32 bytes, user part 256)",
			status: 400, text: "exceeds", clause: "size limits of the gateway",
			wire: longRequest("long1-")},
		{name: "long-values, limits lifted", ref: "4475 §3.1.1.7 longreq",
			about:  "the same with the limits lifted by configuration",
			accept: true, clause: "RFC 3261 §7.3",
			limits: &sip.Limits{HeaderName: 1 << 20, UserInfo: 1 << 20, RequestURI: 1 << 20},
			wire:   longRequest("long2-")},
		{name: "trailing-octets", ref: "4475 §3.1.1.8 dblreq",
			about:  "a second request after the body in one datagram: the first is processed, the rest is discarded",
			accept: true, clause: "RFC 3261 §18.3",
			wire: end(base(registerStart, "trail1@192.0.2.33", contact, noBody), "") +
				end(base(inviteStart, "trail2@192.0.2.33", contact, sdpType, withBody), sdp)},
		{name: "semicolon-in-user", ref: "4475 §3.1.1.9 semiuri", about: "a user part with parameters",
			accept: true, clause: "RFC 3261 §19.1.1",
			wire: end(base("OPTIONS sip:moss;kind=a%40b@example.com SIP/2.0", "semi@192.0.2.33", noBody), "")},
		{name: "transports", ref: "4475 §3.1.1.10 transports", about: "Via values of known and unknown transports",
			accept: true, clause: "RFC 3261 §20.42",
			wire: end(base(optionsStart, "transp@192.0.2.33",
				"Via: SIP/2.0/SCTP s.example.com;branch=z9hG4bKs", "Via: SIP/2.0/TLS t.example.com;branch=z9hG4bKt",
				"Via: SIP/2.0/PIGEON p.example.com;branch=z9hG4bKp",
				"Via: SIP/2.0/TCP c.example.com;branch=z9hG4bKc", "l: 0"), "")},
		{name: "multipart-binary", ref: "4475 §3.1.1.11 mpart01",
			about:  "a multipart body with arbitrary octets, including NUL and CRLF",
			accept: true, clause: "RFC 3261 §7.4.1",
			wire: end(base("MESSAGE sip:moss@example.com SIP/2.0", "mpart@192.0.2.33",
				"Content-Type: multipart/mixed;boundary=7a9cbec02ceef655", withBody),
				"--7a9cbec02ceef655\r\nContent-Type: text/plain\r\n\r\nhello\r\n--7a9cbec02ceef655\r\n"+
					"Content-Type: application/octet-stream\r\n\r\n\x00\x01\x02\r\n\r\n\xff\xfe\x7f\x80\r\n"+
					"--7a9cbec02ceef655--\r\n")},
		{name: "reason-in-utf8", ref: "4475 §3.1.1.12 unreason", about: "a reason phrase with non-ASCII characters",
			accept: true, clause: "RFC 3261 §7.2",
			wire: end(with(
				base("SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять", "unreason@192.0.2.33", contact, noBody),
				"CSeq: 35 INVITE"), "")},
		{name: "empty-reason", ref: "4475 §3.1.1.13 noreason", about: "an empty reason phrase",
			accept: true, clause: "RFC 3261 §7.2",
			wire: end(with(base("SIP/2.0 100 ", "noreason@192.0.2.33", noBody), "CSeq: 35 INVITE"), "")},

		{name: "stray-separators", ref: "4475 §3.1.2.1 badinv01",
			about:  "stray separators in Via, To, From and Contact",
			status: 400, text: "Malformed", clause: "RFC 3261 §20.42, §25.1",
			wire: end(with(base(inviteStart, "stray@192.0.2.33", "Contact: \"Fern\" <sip:fern@host5.example.net>;;;;",
				sdpType, withBody),
				"Via: SIP/2.0/UDP 192.0.2.33;;,;,,", "To: \"Moss\" <sip:moss@example.com>;;,",
				"From: <sip:fern@example.net>;;tag=9;"), sdp)},
		{name: "content-length-too-large", ref: "4475 §3.1.2.2 clerr",
			about:  "Content-Length larger than the datagram's body",
			status: 400, text: "shorter", clause: "RFC 3261 §18.3",
			wire: end(base(inviteStart, "clerr@192.0.2.33", contact, sdpType, "Content-Length: 9999"), sdp)},
		{name: "content-length-negative", ref: "4475 §3.1.2.3 ncl", about: "a negative Content-Length",
			status: 400, text: "Content-Length", clause: "RFC 3261 §20.14",
			wire: end(base(inviteStart, "ncl@192.0.2.33", contact, sdpType, "Content-Length: -999"), sdp)},
		{name: "scalars-too-large", ref: "4475 §3.1.2.4 scalar02",
			about:  "CSeq, Max-Forwards, Expires and a Contact's expires out of range in a request",
			status: 400, text: "CSeq", clause: "RFC 3261 §20.16, §20.22",
			wire: end(with(base(registerStart, "scalar2@192.0.2.33", "Expires: 1000000000000000000000000000",
				"Contact: <sip:fern@host5.example.net>;expires=280297596632815", noBody),
				"CSeq: 36893488147419103232 REGISTER", "Max-Forwards: 300"), "")},
		{name: "scalars-too-large-in-response", ref: "4475 §3.1.2.5 scalarlg",
			about:  "CSeq, Retry-After and Warning code out of range in a response",
			clause: "RFC 3261 §20.16, §18.1.2",
			wire: end(with(base("SIP/2.0 503 Service Unavailable", "scalarlg@192.0.2.33",
				"Retry-After: 949302838503028349304023988", "Warning: 1812 overture \"In Progress\"", noBody),
				"CSeq: 9292394834772304023312 OPTIONS"), "")},
		{name: "quote-without-end", ref: "4475 §3.1.2.6 quotbal", about: "a display name without a closing quote",
			status: 400, text: "quoted string", clause: "RFC 3261 §25.1",
			wire: end(with(base(inviteStart, "quot@192.0.2.33", contact, sdpType, withBody),
				"To: \"Moss, Head Gardener <sip:moss@example.com>"), sdp)},
		{name: "brackets-around-request-uri", ref: "4475 §3.1.2.7 ltgtruri",
			about:  "angle brackets around the Request-URI",
			status: 400, text: "Request-URI", clause: "RFC 3261 §7.1",
			wire: end(base("INVITE <sip:moss@example.com> SIP/2.0", "ltgt@192.0.2.33", contact, sdpType,
				withBody), sdp)},
		{name: "space-in-request-uri", ref: "4475 §3.1.2.8 lwsruri", about: "white space inside the Request-URI",
			status: 400, text: "one space", clause: "RFC 3261 §7.1",
			wire: end(base("INVITE sip:moss@example.com; lr SIP/2.0", "lwsruri@192.0.2.33", contact, sdpType,
				withBody), sdp)},
		{name: "two-spaces-in-start-line", ref: "4475 §3.1.2.9 lwsstart",
			about:  "two spaces between the parts of the request line",
			status: 400, text: "one space", clause: "RFC 3261 §7.1",
			wire: end(base("INVITE  sip:moss@example.com  SIP/2.0", "lwsstart@192.0.2.33", contact, sdpType,
				withBody), sdp)},
		{name: "space-after-start-line", ref: "4475 §3.1.2.10 trws", about: "spaces after the SIP version",
			status: 400, text: "SIP version", clause: "RFC 3261 §7.1",
			wire: end(base("OPTIONS sip:moss@example.com SIP/2.0  ", "trws@192.0.2.33", noBody), "")},
		{name: "headers-in-request-uri", ref: "4475 §3.1.2.11 escruri",
			about:  "a Request-URI with an escaped Route in its headers part",
			status: 400, text: "headers part", clause: "RFC 3261 §19.1.1",
			wire: end(base("INVITE sip:moss@example.com?Route=%3Csip:relay.example.com%3E SIP/2.0",
				"escruri@192.0.2.33", contact, sdpType, withBody), sdp)},
		{name: "date-not-gmt", ref: "4475 §3.1.2.12 baddate",
			about:  "a Date in a time zone other than GMT: Tandem ignores Date and passes it on",
			accept: true, clause: "RFC 3261 §20.17",
			wire: end(base(inviteStart, "baddate@192.0.2.33", "Date: Mon, 02 Nov 2026 12:00:00 CET", contact, sdpType,
				withBody), sdp)},
		{name: "contact-query-unbracketed", ref: "4475 §3.1.2.13 regbadct",
			about:  "a Contact with a headers part and no angle brackets",
			status: 400, text: "Contact", clause: "RFC 3261 §20.10",
			wire: end(base(registerStart, "regbadct@192.0.2.33",
				"Contact: sip:fern@host5.example.net?Route=%3Csip:relay.example.com%3E", noBody), "")},
		{name: "spaces-in-brackets", ref: "4475 §3.1.2.14 badaspec",
			about:  "spaces between the angle brackets and the address",
			status: 400, text: "To URI", clause: "RFC 3261 §25.1 (name-addr)",
			wire: end(with(base(optionsStart, "badaspec@192.0.2.33", noBody), "To: \"Moss\" < sip:moss@example.com >"),
				"")},
		{name: "unquoted-comma-in-name", ref: "4475 §3.1.2.15 baddn", about: "a comma in an unquoted display name",
			status: 400, text: "display name", clause: "RFC 3261 §25.1 (display-name)",
			wire: end(with(base(optionsStart, "baddn@192.0.2.33", noBody),
				"From: Fern, Royal <sip:fern@example.net>;tag=43"), "")},
		{name: "unknown-version", ref: "4475 §3.1.2.16 badvers", about: "a request with SIP version 7.0",
			status: 505, text: "SIP/2.0", clause: "RFC 3261 §21.5.6",
			wire: end(base("OPTIONS sip:moss@example.com SIP/7.0", "badvers@192.0.2.33", noBody), "")},
		{name: "cseq-method-mismatch", ref: "4475 §3.1.2.17 mismatch01",
			about:  "CSeq with a method other than that of the request line",
			status: 400, text: "does not match", clause: "RFC 3261 §8.1.1.5",
			wire: end(with(base(optionsStart, "mismatch1@192.0.2.33", noBody), "CSeq: 8 INVITE"), "")},
		{name: "unknown-method-cseq-mismatch", ref: "4475 §3.1.2.18 mismatch02",
			about:  "the same with an unknown method",
			status: 400, text: "does not match", clause: "RFC 3261 §8.1.1.5",
			wire: end(with(base("NOVELTY sip:moss@example.com SIP/2.0", "mismatch2@192.0.2.33", noBody),
				"CSeq: 8 INVITE"), "")},
		{name: "huge-status-code", ref: "4475 §3.1.2.19 bigcode", about: "a status code with ten digits",
			clause: "RFC 3261 §7.2, §18.1.2",
			wire: end(with(base("SIP/2.0 4294967301 better not think about it", "bigcode@192.0.2.33", noBody),
				"CSeq: 35 INVITE"), "")},

		{name: "branch-cookie-only", ref: "4475 §3.2.1 badbranch",
			about:  "a branch that consists of the magic cookie only",
			status: 400, text: "cookie", clause: "RFC 3261 §8.1.1.7",
			wire: end(with(base(optionsStart, "badbranch@192.0.2.33", noBody),
				"Via: SIP/2.0/UDP 192.0.2.33;branch=z9hG4bK"), "")},

		{name: "missing-fields", ref: "4475 §3.3.1 insuf", about: "no Call-ID, From, To or Max-Forwards",
			status: 400, text: "Missing", clause: "RFC 3261 §8.1.1",
			wire: end(without(without(without(without(base(inviteStart, "insuf@192.0.2.33", contact, sdpType, withBody),
				"Call-ID"), "From"), "To"), "Max-Forwards"), sdp)},
		{name: "unknown-uri-scheme", ref: "4475 §3.3.2 unkscm", about: "a Request-URI with an unknown scheme",
			status: 416, text: "scheme", clause: "RFC 3261 §8.2.2.1",
			wire: end(base("OPTIONS nosuchscheme:something:opaque SIP/2.0", "unkscm@192.0.2.33", noBody), "")},
		{name: "foreign-uri-scheme", ref: "4475 §3.3.3 novelsc",
			about:  "a Request-URI with a registered scheme that is not for calls",
			status: 416, text: "scheme", clause: "RFC 3261 §8.2.2.1",
			wire: end(base("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", "novelsc@192.0.2.33", noBody), "")},
		{name: "foreign-schemes-in-headers", ref: "4475 §3.3.4 unksm2",
			about:  "unknown schemes in To, From and Contact: well-formed, and only a registrar could object",
			accept: true, clause: "RFC 3261 §10.3",
			wire: end(with(base(registerStart, "unksm2@192.0.2.33", "Contact: <name:moss_of_the_north>", noBody),
				"To: <isbn:2983792873>", "From: <http://www.example.com>;tag=3"), "")},
		{name: "unknown-extensions", ref: "4475 §3.3.5 bext01",
			about:  "unknown option tags in Require and Proxy-Require",
			status: 420, text: "extension", clause: "RFC 3261 §8.2.2.3", options: []string{"timer"},
			wire: end(base(optionsStart, "bext01@192.0.2.33", "Require: timer, nothingSupportsThis, norThis",
				"Proxy-Require: norThisEither", noBody), "")},
		{name: "unknown-body-type", ref: "4475 §3.3.6 invut",
			about:  "an unknown body type: bodies pass through; the far side answers 415 if necessary",
			accept: true, clause: "RFC 3261 §8.2.3",
			wire: end(base(inviteStart, "invut@192.0.2.33", contact, "Content-Type: application/unheardof", withBody),
				"<audio>\r\n <pcmu port=\"443\"/>\r\n</audio>\r\n")},
		{name: "unknown-auth-scheme", ref: "4475 §3.3.7 regaut01", about: "an Authorization with an unknown scheme",
			accept: true, clause: "RFC 3261 §22.1",
			wire: end(base(registerStart, "regaut@192.0.2.33", contact,
				"Authorization: NoOneKnowsThisScheme opaque-data=here", noBody), "")},
		{name: "doubled-fields", ref: "4475 §3.3.8 multi01",
			about:  "From, To, Call-ID, CSeq and Max-Forwards more than once",
			status: 400, text: "More than one", clause: "RFC 3261 §7.3.1",
			wire: end(base(inviteStart, "multi01@192.0.2.33", "CSeq: 59 INVITE", "Call-ID: multi01.other@192.0.2.33",
				"From: <sip:other@example.net>;tag=2", "To: <sip:other@example.com>", "Max-Forwards: 5", contact,
				sdpType, withBody), sdp)},
		{name: "contradicting-content-lengths", ref: "4475 §3.3.9 mcl01", about: "two Content-Length lines that differ",
			status: 400, text: "Content-Length", clause: "RFC 3261 §20.14",
			wire: end(base(optionsStart, "mcl01@192.0.2.33", "Content-Length: 13", "Content-Type: text/plain",
				"Content-Length: 5"), "There's no way to know how many octets are supposed to be here.\r\n")},
		{name: "response-with-foreign-via", ref: "4475 §3.3.10 bcast",
			about:  "a well-formed 200 whose Via is not ours: the transaction layer drops it",
			accept: true, clause: "RFC 3261 §18.1.2",
			wire: end(with(base("SIP/2.0 200 OK", "bcast@192.0.2.33",
				"Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKother", contact, noBody), "CSeq: 35 INVITE"), "")},
		{name: "max-forwards-zero", ref: "4475 §3.3.11 zeromf",
			about:  "Max-Forwards 0 in an OPTIONS for Tandem: answered as usual; a request to be forwarded gets 483",
			accept: true, clause: "RFC 3261 §11, §16.3",
			wire: end(with(base(optionsStart, "zeromf@192.0.2.33", noBody), "Max-Forwards: 0"), "")},
		{name: "unknown-contact-parameter", ref: "4475 §3.3.12 cparam01",
			about:  "an unknown header parameter of Contact",
			accept: true, clause: "RFC 3261 §20.10",
			wire: end(base(registerStart, "cparam1@192.0.2.33",
				"Contact: sip:+19725552222@host5.example.net;unknownparam", noBody), "")},
		{name: "unknown-uri-parameter", ref: "4475 §3.3.13 cparam02", about: "an unknown URI parameter in Contact",
			accept: true, clause: "RFC 3261 §19.1.1",
			wire: end(base(registerStart, "cparam2@192.0.2.33",
				"Contact: <sip:+19725552222@host5.example.net;unknownparam>", noBody), "")},
		{name: "contact-with-escaped-header", ref: "4475 §3.3.14 regescrt",
			about:  "a Contact whose URI carries an escaped Route",
			accept: true, clause: "RFC 3261 §19.1.1",
			wire: end(base(registerStart, "regescrt@192.0.2.33",
				"Contact: <sip:fern@host5.example.net?Route=%3Csip:relay.example.com%3E>", noBody), "")},
		{name: "accept-excludes-sdp", ref: "4475 §3.3.15 sdp01",
			about:  "an Accept without application/sdp: passed on; the far side answers 406 if necessary",
			accept: true, clause: "RFC 3261 §20.1",
			wire: end(base(inviteStart, "sdp01@192.0.2.33", contact, "Accept: text/nobodyKnowsThis", sdpType,
				withBody), sdp)},
		{name: "rfc2543-invite", ref: "4475 §3.4.1 inv2543",
			about: "an INVITE as in RFC 2543: no branch, no From tag, no Max-Forwards, no Contact. Without Contact " +
				"there is no target for later requests",
			status: 400, text: "Missing Contact", clause: "RFC 3261 §8.1.1.8",
			wire: msg(inviteStart, "Via: SIP/2.0/UDP gw.example.com",
				"From: <sip:+13035551111@gw.example.net;user=phone>", "To: sip:+16505552222@ss1.example.net;user=phone",
				"Record-Route: <sip:moss@example.com;maddr=ss1.example.com>", "Call-ID: inv2543@192.0.2.33",
				"CSeq: 56 INVITE", sdpType, sdp)},
	}
}

// rfc5118 follows the order of the RFC.
func rfc5118() []testCase {
	v6 := func(start, id string, more ...string) []string {
		return with(base(start, id, more...), "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK"+id)
	}
	sdp6 := "v=0\r\no=fern 1 1 IN IP6 2001:db8::20\r\ns=-\r\nt=0 0\r\nc=IN IP6 2001:db8::20\r\n" +
		"m=audio 6000 RTP/AVP 0\r\n"
	return []testCase{
		{name: "ipv6-reference", ref: "5118 §4.1", about: "IPv6 addresses in brackets in Request-URI, Via and Contact",
			accept: true, clause: "RFC 3261 §25.1, RFC 5954",
			wire: end(v6("REGISTER sip:[2001:db8::10] SIP/2.0", "v6good", "Contact: <sip:fern@[2001:db8::1]>", noBody),
				"")},
		{name: "ipv6-without-brackets", ref: "5118 §4.2", about: "an IPv6 address without brackets in the Request-URI",
			status: 400, text: "Request-URI", clause: "RFC 3261 §25.1",
			wire: end(v6("REGISTER sip:2001:db8::10 SIP/2.0", "v6bad", noBody), "")},
		{name: "ipv6-port-inside-brackets", ref: "5118 §4.3",
			about:  "the intended port is inside the brackets: it is read as part of the address",
			accept: true, clause: "RFC 5118 §4.3",
			wire: end(v6("REGISTER sip:[2001:db8::10:5070] SIP/2.0", "v6amb",
				"Contact: <sip:fern@[2001:db8::1]>", noBody), "")},
		{name: "ipv6-port-outside-brackets", ref: "5118 §4.4", about: "the port after the brackets",
			accept: true, clause: "RFC 3261 §25.1",
			wire: end(v6("REGISTER sip:[2001:db8::10]:5070 SIP/2.0", "v6port",
				"Contact: <sip:fern@[2001:db8::1]>", noBody), "")},
		{name: "received-in-brackets", ref: "5118 §4.5", about: "Via received= with a bracketed IPv6 address",
			accept: true, clause: "RFC 5118 §4.5",
			wire: end(with(base("BYE sip:[2001:db8::10] SIP/2.0", "v6recvd", noBody),
				"Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKrb"), "")},
		{name: "received-without-brackets", ref: "5118 §4.5",
			about:  "Via received= with a bare IPv6 address, as in the grammar of RFC 3261",
			accept: true, clause: "RFC 5118 §4.5",
			wire: end(with(base("OPTIONS sip:[2001:db8::10] SIP/2.0", "v6recv", noBody),
				"Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKrn"), "")},
		{name: "ipv6-in-sdp", ref: "5118 §4.6", about: "IPv6 addresses in the session description",
			accept: true, clause: "RFC 3261 §7.4",
			wire: end(v6("INVITE sip:moss@[2001:db8::10] SIP/2.0", "v6sdp", "Contact: <sip:fern@[2001:db8::20]>",
				sdpType, withBody), sdp6)},
		{name: "both-families-in-headers", ref: "5118 §4.7", about: "IPv4 and IPv6 addresses side by side in Via lines",
			accept: true, clause: "RFC 3261 §20.42",
			wire: end(with(base("BYE sip:moss@host.example.net SIP/2.0", "v6mult",
				"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK4;received=192.0.2.250", noBody),
				"Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bK6"), "")},
		{name: "both-families-in-sdp", ref: "5118 §4.8",
			about:  "one media line with an IPv4 and one with an IPv6 address",
			accept: true, clause: "RFC 3261 §7.4",
			wire: end(v6("INVITE sip:moss@[2001:db8::10] SIP/2.0", "v6sdp2", "Contact: <sip:fern@[2001:db8::20]>",
				sdpType, withBody), sdp6+"m=video 6002 RTP/AVP 31\r\nc=IN IP4 192.0.2.1\r\n")},
		{name: "ipv4-mapped", ref: "5118 §4.9",
			about:  "IPv4-mapped IPv6 addresses in Via, Contact and session description",
			accept: true, clause: "RFC 5118 §4.9",
			wire: end(with(base(inviteStart, "v6mapped", "Contact: <sip:fern@[::ffff:192.0.2.10]:19823>", sdpType,
				withBody), "Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKm"),
				"v=0\r\no=fern 1 1 IN IP6 ::ffff:192.0.2.10\r\ns=-\r\nc=IN IP6 ::ffff:192.0.2.10\r\nt=0 0\r\n"+
					"m=audio 6000 RTP/AVP 0\r\n")},
		{name: "two-colons-before-ipv4", ref: "5118 §4.10",
			about:  "a correctly written address that ends in an IPv4 part",
			accept: true, clause: "RFC 5954 §4",
			wire: end(v6("OPTIONS sip:moss@[2001:db8::192.0.2.1] SIP/2.0", "v6two", noBody), "")},
		{name: "three-colons-before-ipv4", ref: "5118 §4.10",
			about: "the same with the extra colon that an error in RFC 3261's grammar allowed. A receiver may " +
				"ignore it; Tandem rejects it",
			status: 400, text: "Request-URI", clause: "RFC 5954 §4",
			wire: end(v6("OPTIONS sip:moss@[2001:db8:::192.0.2.1] SIP/2.0", "v6three", noBody), "")},
	}
}

// ours are cases from networks, not from the RFCs.
func ours() []testCase {
	return []testCase{
		{name: "lower-case-method",
			about: "a lower-case method is a different, unknown method: well-formed, answered 501 by the " +
				"user agent",
			accept: true, clause: "RFC 3261 §7.1",
			wire: end(base("invite sip:moss@example.com SIP/2.0", "lower@192.0.2.33", contact, noBody), "")},
		{name: "bare-lf-line-ends", about: "lines that end in LF alone",
			status: 400, text: "CRLF", clause: "RFC 3261 §7",
			wire: strings.ReplaceAll(end(base(optionsStart, "lf@192.0.2.33", noBody), ""), "\r\n", "\n")},
		{name: "bare-cr-in-value", about: "a bare CR inside a header value, which other systems may read as a line end",
			status: 400, text: "bare CR", clause: "RFC 3261 §7.3.1",
			wire: end(base(optionsStart, "barecr@192.0.2.33", "Subject: a\rX-Injected: b", noBody), "")},
		{name: "nul-in-value", about: "a NUL octet in a header value",
			status: 400, text: "Control character", clause: "RFC 3261 §25.1",
			wire: end(base(optionsStart, "nul@192.0.2.33", "Subject: a\x00b", noBody), "")},
		{name: "header-without-colon", about: "a header line without a colon",
			status: 400, text: "colon", clause: "RFC 3261 §7.3.1",
			wire: end(base(optionsStart, "nocolon@192.0.2.33", "X-Nothing", noBody), "")},
		{name: "no-empty-line", about: "a datagram that ends within the header section",
			status: 400, text: "empty line", clause: "RFC 3261 §7",
			wire: strings.TrimSuffix(end(base(optionsStart, "noempty@192.0.2.33", noBody), ""), "\r\n")},
		{name: "long-request-uri", about: "a Request-URI of 300 bytes",
			status: 414, text: "Request-URI", clause: "RFC 3261 §21.4.12",
			wire: end(base("OPTIONS sip:moss@"+strings.Repeat("a", 280)+".example.com SIP/2.0",
				"uri300@192.0.2.33", noBody), "")},
		{name: "eleven-kilobytes-of-headers", about: "start line and headers of 11 KB",
			status: 513, text: "exceed", clause: "RFC 3261 §21.5.7",
			wire: end(base(optionsStart, "big@192.0.2.33",
				strings.TrimSuffix(strings.Repeat("X-Fill: "+strings.Repeat("x", 90)+"\r\n", 110), "\r\n"), noBody),
				"")},
		{name: "four-hundred-lines", about: "400 header lines",
			status: 513, text: "lines", clause: "RFC 3261 §21.5.7",
			wire: end(base(optionsStart, "lines@192.0.2.33", strings.TrimSuffix(strings.Repeat("a: b\r\n", 400),
				"\r\n"), noBody), "")},
		{name: "via-garbage", about: "an unreadable Via: the response goes to the packet's source",
			status: 400, text: "Via", clause: "RFC 3261 §20.42",
			wire: end(with(base(optionsStart, "viagarb@192.0.2.33", noBody), "Via: nonsense"), "")},
		{name: "no-via", about: "no Via: a response would match no transaction",
			clause: "RFC 3261 §18.2.2",
			wire:   end(without(base(optionsStart, "novia@192.0.2.33", noBody), "Via"), "")},
		{name: "bad-ack", about: "an invalid ACK: an ACK is never answered",
			clause: "RFC 3261 §17.1.1.3",
			wire: end(with(base("ACK sip:moss@example.com SIP/2.0", "badack@192.0.2.33", noBody),
				"CSeq: x ACK"), "")},
		{name: "empty-user-part", about: "an '@' with nothing before it",
			status: 400, text: "user", clause: "RFC 3261 §25.1",
			wire: end(base("OPTIONS sip:@example.com SIP/2.0", "emptyuser@192.0.2.33", noBody), "")},
		{name: "number-portability-parameters",
			about: "a telephone number with rn, npdi and verstat in the user part: looked up by its digits, passed " +
				"on unchanged",
			accept: true, clause: "RFC 4694, RFC 3966 §3",
			wire: end(base(
				"INVITE sip:+15551230000;rn=+15559990000;npdi;verstat=No-TN-Validation@example.com;user=phone SIP/2.0",
				"np@192.0.2.33", contact, sdpType, withBody), sdp)},
		{name: "tel-request-uri", about: "a tel URI as Request-URI",
			accept: true, clause: "RFC 3966, RFC 3261 §19.1.6",
			wire: end(base("INVITE tel:+1-555-123-0000;ext=7 SIP/2.0", "tel@192.0.2.33", contact, sdpType,
				withBody), sdp)},
		{name: "keep-alive", about: "two CRLFs only",
			clause: "RFC 5626 §3.5.1, RFC 3261 §7.5",
			wire:   "\r\n\r\n"},
		{name: "http-request", about: "another protocol on the SIP port",
			clause: "RFC 3261 §7",
			wire:   "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"},
		{name: "binary-noise", about: "a TLS ClientHello on a port without TLS",
			clause: "RFC 3261 §7",
			wire:   "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03\x9a\n\x00\r\n\r\n"},
	}
}

type section struct {
	title string
	cases []testCase
}

func sections() []section {
	return []section{
		{"Properties of RFC 4475", rfc4475()},
		{"Properties of RFC 5118 (IPv6)", rfc5118()},
		{"From networks", ours()},
	}
}
