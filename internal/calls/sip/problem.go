package sip

import "strings"

// Limits bounds the sizes in a message. A zero field means its default. The
// defaults are the documented limits of the published gateway (message 10 KB, SDP
// body 128 KB and so on). Since a message of 10 KB cannot hold a body of 128 KB,
// the first is taken as the limit for the start line and header lines, the second
// as the limit for the body.
type Limits struct {
	// Head is the maximum size of the start line and header lines, in bytes. Larger messages get 513. 1024 to 1048576,
	// default 10240.
	Head int `yaml:"head"`
	// Body is the maximum size of the body, in bytes. Larger messages get 513. 1024 to 1048576, default 131072.
	Body int `yaml:"body"`
	// Lines is the maximum number of header lines. Messages with more get 513. 20 to 10000, default 200.
	Lines int `yaml:"lines"`
	// RequestURI is the maximum length of the Request-URI, in bytes. Longer ones get 414. 32 to 8192, default 256.
	RequestURI int `yaml:"requestUri"`
	// ContactURI is the maximum length of each Contact URI of a request, in bytes. Longer ones get 400. 32 to 8192,
	// default 256.
	ContactURI int `yaml:"contactUri"`
	// UserInfo is the maximum length of the user part of Request-URI, From, To and Contact, in bytes. Longer ones get
	// 400. 16 to 8192, default 256.
	UserInfo int `yaml:"userInfo"`
	// FromDomain is the maximum length of the host of From, in bytes. Longer ones get 400. 16 to 255, default 255.
	FromDomain int `yaml:"fromDomain"`
	// HeaderName is the maximum length of a header field name of a request, in bytes. Longer ones get 400. 32 to 255,
	// default 32.
	HeaderName int `yaml:"headerName"`
	// BodyName is the maximum length of the media type in Content-Type, in bytes. Longer ones get 400. 16 to 255,
	// default 64.
	BodyName int `yaml:"bodyName"`
	// OptionList is the maximum length of the value of Supported, Require and Proxy-Require, in bytes. Longer ones get
	// 400. 32 to 8192, default 256.
	OptionList int `yaml:"optionList"`
	// OptionTag is the maximum length of one option tag, in bytes. Longer ones get 400. 16 to 255, default 32.
	OptionTag int `yaml:"optionTag"`
}

// DefaultLimits returns the limits used for a nil *Limits.
func DefaultLimits() Limits {
	return Limits{
		Head: 10 << 10, Body: 128 << 10, Lines: 200,
		RequestURI: 256, ContactURI: 256, UserInfo: 256, FromDomain: 255,
		HeaderName: 32, BodyName: 64, OptionList: 256, OptionTag: 32,
	}
}

var defaultLimits = DefaultLimits()

// or fills zero fields with defaults.
func (l *Limits) or() Limits {
	d := &defaultLimits
	if l == nil {
		return *d
	}
	return Limits{
		Head: either(l.Head, d.Head), Body: either(l.Body, d.Body), Lines: either(l.Lines, d.Lines),
		RequestURI: either(l.RequestURI, d.RequestURI), ContactURI: either(l.ContactURI, d.ContactURI),
		UserInfo: either(l.UserInfo, d.UserInfo), FromDomain: either(l.FromDomain, d.FromDomain),
		HeaderName: either(l.HeaderName, d.HeaderName), BodyName: either(l.BodyName, d.BodyName),
		OptionList: either(l.OptionList, d.OptionList), OptionTag: either(l.OptionTag, d.OptionTag),
	}
}

// either is cmp.Or without its loop: each message takes 22 of them.
func either(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

// Problem says why a message is rejected and which response to send. It is an
// error.
type Problem struct {
	// Status is the status code for the response to a request: 400, 414, 416, 420,
	// 483, 505, 513 and so on. 0 means that no response can be sent: discard and log.
	Status int
	// Field names the header field at fault, "" for the start line or the whole
	// message.
	Field string
	// Text says what is wrong, in English, for the reason phrase and a Warning. It
	// contains no phone numbers.
	Text string
	// Clause is the rule that is broken, such as "RFC 3261 §8.1.1".
	Clause string
	// Unsupported lists option tags for the Unsupported header of a 420.
	Unsupported []string
}

// Error returns text, clause and status.
func (p *Problem) Error() string {
	if p.Status == 0 {
		return p.explained() + ", discard"
	}
	return p.explained() + ", answer " + itoa(p.Status)
}

// explained returns text and clause.
func (p *Problem) explained() string {
	if p.Clause == "" {
		return p.Text
	}
	return p.Text + " (" + p.Clause + ")"
}

// Answer builds the response to m (RFC 3261 §8.2.6), with the problem as reason
// phrase (for 400, as §21.4.1 advises) and as Warning 399 from agent (a host or a
// pseudonym such as "tandem"). It returns nil where no response may be sent: for
// responses, ACK, and requests without a Via. If the Via is present but
// unreadable, the response goes to the packet's source.
func (p *Problem) Answer(m *Message, toTag, agent string) *Message {
	if p.Status == 0 || !m.Answerable() {
		return nil
	}
	phrase := ""
	if p.Status == 400 {
		phrase = p.Text
	}
	r := NewResponse(m, p.Status, phrase, toTag)
	if len(p.Unsupported) > 0 {
		r.Add(KindUnsupported, strings.Join(p.Unsupported, ", "))
	}
	r.Add(KindWarning, Warning(399, agent, p.explained()))
	return r
}

// Answerable reports whether a response to m can be built and delivered: m is a
// request, is not ACK (RFC 3261 §17.1.1.3), and has a Via.
func (m *Message) Answerable() bool {
	return m != nil && m.IsRequest() && m.method != "" && m.method != ACK && m.Has(KindVia)
}

func bad(field, clause, text string) *Problem {
	return &Problem{Status: 400, Field: field, Text: text, Clause: clause}
}

// tooLarge says that a part of a message exceeds a limit.
func tooLarge(field, text string) *Problem {
	return &Problem{Status: 513, Field: field, Text: text, Clause: "RFC 3261 §21.5.7"}
}
