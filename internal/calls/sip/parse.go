package sip

import "strings"

// parseLines is the number of header lines parsed without a second allocation.
const parseLines = 32

// Parse splits a datagram, or one message cut from a stream, into start line,
// header lines and body. Nil limits mean the defaults.
//
// It checks what is needed to split the message: the form of the start line and
// header lines, CRLF line ends, the protocol version, sizes, and Content-Length
// against the bytes received (RFC 3261 §18.3: a datagram with too short a body is
// rejected, bytes beyond the body are discarded). Validator.Check does the rest.
//
// Along with a problem Parse returns a message with the parts that could be read,
// so that a response can be built: see Problem.Answer.
//
// Empty lines before the start line are skipped (§7.5).
func Parse(data string, limits *Limits) (*Message, *Problem) {
	m := new(Message)
	p := parser{m: m, lim: limits.or()}
	p.run(data)
	return m, p.problem
}

type parser struct {
	m       *Message
	lim     Limits
	problem *Problem // the first one found
}

func (p *parser) fail(pr *Problem) {
	if p.problem == nil {
		p.problem = pr
	}
}

// bad records a 400 (for a response: discard, as responses are never answered).
func (p *parser) bad(field, clause, text string) {
	if p.problem == nil {
		p.problem = bad(field, clause, text)
	}
}

func (p *parser) run(data string) {
	m := p.m
	m.parsed = true
	for len(data) > 0 && (data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	nl := strings.IndexByte(data, '\n')
	if nl < 0 {
		p.fail(&Problem{Text: "not a SIP message: no line end", Clause: "RFC 3261 §7"})
		p.startLine(data)
		return
	}
	line, hasCR := strings.CutSuffix(data[:nl], "\r")
	p.startLine(line)
	if !hasCR {
		p.bad("", "RFC 3261 §7", "start line does not end in CRLF")
	}
	bodyAt := p.headerLines(data, nl+1)
	if bodyAt > p.lim.Head {
		p.fail(tooLong(p.lim.Head))
	}
	end := p.cutBody(data, bodyAt)
	if p.problem == nil {
		m.raw = data[:end]
	} else if m.status != 0 {
		p.problem.Status = 0
	}
}

// startLine parses Request-Line or Status-Line (RFC 3261 §7.1, §7.2).
func (p *parser) startLine(s string) {
	m := p.m
	m.start = s
	if strings.IndexByte(s, '\r') >= 0 {
		p.bad("", "RFC 3261 §7", "start line contains a bare CR")
	}
	sp := strings.IndexByte(s, ' ')
	if len(s) >= 4 && equalFold(s[:4], "SIP/") {
		p.statusLine(s, sp)
		return
	}
	if sp < 0 {
		p.fail(&Problem{Text: "not a SIP message: start line has one word", Clause: "RFC 3261 §7"})
		return
	}
	word, rest := s[:sp], s[sp+1:]
	m.method = knownMethod(word)
	if m.method == "" {
		m.method = Method(word)
		if !isToken(word) {
			if !looksSIP(rest) {
				m.method = ""
				p.problem = &Problem{Text: "not a SIP message", Clause: "RFC 3261 §7"}
				return
			}
			p.bad("", "RFC 3261 §7.1", "method is not a token")
		}
	}
	last := strings.LastIndexByte(rest, ' ')
	if last < 0 {
		m.uri = rest
		p.noVersion()
		return
	}
	m.uri, m.vers = rest[:last], rest[last+1:]
	if m.vers != Version && !equalFold(m.vers, Version) {
		if isVersion(m.vers) {
			p.fail(&Problem{Status: 505, Text: "only SIP/2.0 is supported", Clause: "RFC 3261 §21.5.6"})
		} else {
			p.noVersion()
		}
		return
	}
	if len(m.uri) > p.lim.RequestURI {
		p.fail(&Problem{Status: 414, Text: "Request-URI exceeds " + itoa(p.lim.RequestURI) + " bytes",
			Clause: "RFC 3261 §21.4.12"})
	}
	if m.uri == "" || strings.IndexByte(m.uri, ' ') >= 0 || strings.IndexByte(m.uri, '\t') >= 0 {
		p.bad("", "RFC 3261 §7.1", "request line must be method, URI and version, separated by one space")
	}
}

// noVersion handles a request line that does not end in "SIP/…": a bad request if
// its URI is sip, sips or tel, otherwise a message of another protocol.
func (p *parser) noVersion() {
	uri := strings.TrimLeft(p.m.uri, " ")
	if i := strings.IndexByte(uri, ':'); i > 0 {
		switch strings.ToLower(uri[:i]) {
		case "sip", "sips", "tel":
			p.bad("", "RFC 3261 §7.1", "request line does not end in a SIP version")
			return
		}
	}
	p.problem = &Problem{Text: "not a SIP message", Clause: "RFC 3261 §7"}
}

func (p *parser) statusLine(s string, sp int) {
	m := p.m
	m.status = -1 // a response, whatever else is wrong with it
	if sp < 0 {
		p.bad("", "RFC 3261 §7.2", "status line has no status code")
		return
	}
	m.vers = s[:sp]
	if m.vers != Version && !equalFold(m.vers, Version) {
		p.bad("", "RFC 3261 §7.2", "response is not SIP/2.0")
	}
	s = s[sp+1:]
	// §25.1 requires the space even before an empty phrase; many senders omit it.
	code, reason, _ := strings.Cut(s, " ")
	m.reason = reason
	n, ok := parseUint(code, 999)
	if !ok || len(code) != 3 || n < 100 || n > 699 {
		p.bad("", "RFC 3261 §7.2", "status code is not a number from 100 to 699")
		return
	}
	m.status = int(n)
}

// looksSIP reports whether a start line ends in a SIP version.
func looksSIP(s string) bool {
	i := strings.LastIndexByte(trim(s), ' ')
	v := trim(s)[i+1:]
	return len(v) > 4 && equalFold(v[:4], "SIP/")
}

// isVersion matches SIP-Version (RFC 3261 §25.1).
func isVersion(v string) bool {
	if len(v) < 7 || !equalFold(v[:4], "SIP/") {
		return false
	}
	major, minor, ok := strings.Cut(v[4:], ".")
	_, ok1 := parseUint(major, 1<<31)
	_, ok2 := parseUint(minor, 1<<31)
	return ok && ok1 && ok2
}

func knownMethod(s string) Method {
	switch s {
	case "INVITE":
		return INVITE
	case "ACK":
		return ACK
	case "BYE":
		return BYE
	case "CANCEL":
		return CANCEL
	case "OPTIONS":
		return OPTIONS
	case "REGISTER":
		return REGISTER
	case "PRACK":
		return PRACK
	case "UPDATE":
		return UPDATE
	case "INFO":
		return INFO
	case "SUBSCRIBE":
		return SUBSCRIBE
	case "NOTIFY":
		return NOTIFY
	case "REFER":
		return REFER
	case "MESSAGE":
		return MESSAGE
	case "PUBLISH":
		return PUBLISH
	}
	return ""
}

// headerLines parses the lines from pos on and returns the index of the body.
func (p *parser) headerLines(data string, pos int) int {
	if pos < len(data) && (data[pos] == ' ' || data[pos] == '\t') {
		p.bad("", "RFC 3261 §7.1", "start line is folded")
	}
	var store [parseLines]Header // on the stack; the message gets a slice of the right size
	lines := store[:0]
	for {
		raw, last := p.cutLine(data[pos:])
		pos += len(raw)
		if len(raw) > 2 || len(raw) > 0 && raw[0] != '\r' && raw[0] != '\n' {
			n := len(lines)
			h, ok := p.headerLine(raw)
			if ok && (n < p.lim.Lines || answerKind(h.kind) && n/2 < p.lim.Lines) {
				lines = append(lines, h) // beyond the limit only what a response needs, up to twice the limit
			}
			if n+1 > p.lim.Lines {
				p.fail(tooLarge("", "more than "+itoa(p.lim.Lines)+" header lines"))
			}
		}
		if last {
			p.m.lines = append(make([]Header, 0, len(lines)), lines...)
			return pos
		}
	}
}

// cutLine cuts off one line with its line end and folds. last is true for the
// empty line that ends the header section, and at the end of the data.
func (p *parser) cutLine(s string) (raw string, last bool) {
	nl := strings.IndexByte(s, '\n')
	if nl >= 0 && nl <= 1 && (nl == 0 || s[0] == '\r') {
		if nl == 0 {
			p.bad("", "RFC 3261 §7", "header lines do not end in CRLF")
		}
		return s[:nl+1], true
	}
	for end := 0; nl >= 0; nl = strings.IndexByte(s[end:], '\n') {
		end += nl + 1
		if end == len(s) || s[end] != ' ' && s[end] != '\t' {
			return s[:end], false
		}
	}
	p.bad("", "RFC 3261 §7", "header section does not end in an empty line")
	return s, true
}

// headerLine parses one line with its line end and folds (RFC 3261 §7.3.1).
func (p *parser) headerLine(raw string) (h Header, ok bool) {
	line, clean := raw, true
	if n := len(line); n >= 2 && line[n-2] == '\r' && line[n-1] == '\n' {
		line = line[:n-2]
	} else {
		p.bad("", "RFC 3261 §7", "header line does not end in CRLF")
		clean = false
		line = strings.TrimRight(line, "\r\n")
	}
	c := strings.IndexByte(line, ':')
	if c < 0 {
		p.bad("", "RFC 3261 §7.3.1", "header line has no colon")
		return h, false
	}
	name := line[:c]
	for len(name) > 0 && (name[len(name)-1] == ' ' || name[len(name)-1] == '\t') {
		name = name[:len(name)-1]
	}
	k := KindOf(name)
	if k == KindOther && (!isToken(name) || len(name) > 1<<16-1) {
		p.bad("", "RFC 3261 §7.3.1", "header field name is not a token")
		return h, false
	}
	value, control := trim(line[c+1:]), false
	if !printable(value) { // a fold, a tab or another control character
		var ok bool
		value, ok = unfold(line[c+1:])
		if !ok {
			// A lone CR or LF could be taken for a line end by the next element.
			p.bad("", "RFC 3261 §7.3.1", "header value contains a bare CR or LF")
			clean = false
		}
		value = trim(value)
		control = !printable(value)
	}
	h = Header{raw: raw, value: value, nameLen: uint16(len(name)), kind: k, control: control}
	if !clean {
		h = NamedLine(name, h.value) // so that a response does not repeat the fault
	}
	return h, true
}

// answerKind reports whether a response copies the field (RFC 3261 §8.2.6.2).
func answerKind(k Kind) bool {
	switch k {
	case KindVia, KindFrom, KindTo, KindCallID, KindCSeq:
		return true
	}
	return false
}

// unfold replaces each fold (CRLF and the white space around it) by one space. ok
// is false if a CR or LF is not part of a fold; it is replaced by a space too.
func unfold(s string) (value string, ok bool) {
	b := make([]byte, 0, len(s))
	ok = true
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\r' && c != '\n' {
			b = append(b, c)
			i++
			continue
		}
		if c != '\r' || i+2 >= len(s) || s[i+1] != '\n' || s[i+2] != ' ' && s[i+2] != '\t' {
			ok = false
			b = append(b, ' ')
			i++
			continue
		}
		i += 2
		for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
			i++
		}
		for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
			b = b[:len(b)-1]
		}
		b = append(b, ' ')
	}
	return string(b), ok
}

// cutBody sets the body and returns the end of the message (RFC 3261 §18.3).
func (p *parser) cutBody(data string, at int) (end int) {
	m := p.m
	n := len(data) - at
	if i := m.Find(KindContentLength); i >= 0 {
		want, ok := parseUint(m.lines[i].value, 1<<31-1)
		switch {
		case !ok:
			p.bad("Content-Length", "RFC 3261 §20.14", "Content-Length is not a number")
		case int(want) > n:
			p.bad("Content-Length", "RFC 3261 §18.3", "body is shorter than Content-Length")
		default:
			n = int(want)
		}
	}
	if n > p.lim.Body {
		p.fail(tooLarge("", "body exceeds "+itoa(p.lim.Body)+" bytes"))
		return at
	}
	m.body = data[at : at+n]
	return at + n
}
