package edge

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services"
)

// The bounds of message parts are configuration (row S8).
func TestMessageLimitsAreConfiguration(t *testing.T) {
	covers(t, "S8")
	long := strings.Repeat("9", 300)
	b := setup(t, func(c *bedConfig) {
		m := &c.cfg.Limits.Message
		m.Lines, m.Body, m.RequestURI, m.ContactURI, m.UserInfo, m.HeaderName, m.OptionTag = 20, 1024,
			600, 64, 512, 40, 16
	})
	for _, c := range []struct {
		name, status string
		uri, body    string
		lines        []string
	}{
		{name: "longer Request-URI and user part than the default", uri: long, status: "484"},
		{name: "Request-URI", uri: long + long, status: "414"},
		{name: "body", body: sdp + strings.Repeat("a=x\r\n", 250), status: "513"},
		{name: "header lines", lines: slices.Repeat([]string{"X-List: 1"}, 20), status: "513"},
		{name: "Contact URI", lines: []string{"Contact: <sip:" + strings.Repeat("c", 64) + "@h.example>"},
			status: "400"},
		{name: "header name longer than the default", lines: []string{"X-" + strings.Repeat("n", 36) + ": 1"},
			uri: "1", status: "484"},
		{name: "header name", lines: []string{"X-" + strings.Repeat("n", 40) + ": 1"}, status: "400"},
		{name: "option tag", lines: []string{"Supported: " + strings.Repeat("o", 17)}, status: "400"},
	} {
		up := b.core.newCall(outside, served)
		if c.uri != "" {
			up.target = "sip:" + c.uri + "@" + b.core.edge.String()
		}
		body := sdp
		if c.body != "" {
			body = c.body
		}
		b.core.send(up.request("INVITE", body, c.lines...))
		m := b.core.next(patience)
		if !m.is(c.status) {
			t.Errorf("%s: got %q, want %s", c.name, m.start, c.status)
		}
		b.core.send(up.ackFailure(m))
	}
	b.idle()
}

// Connections above the limit per source are refused, counted and logged.
func TestConnectionsPerSource(t *testing.T) {
	covers(t, "S12")
	b := setup(t, func(c *bedConfig) {
		c.cfg.Limits.ConnectionsPerSource = 2
		c.core.Bind.TCP = "127.0.0.1:0"
	})
	for range 2 {
		conn, at := b.core.overTCP(b)
		up := conn.newCall(outside, served)
		up.target = "sip:" + at
		conn.send(up.request("OPTIONS", ""))
		conn.expect("200")
	}
	_, at := b.core.overTCP(b)
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection over the bound: %v, want it closed", err)
	}
	await(t, "the refusals to be counted", func() bool {
		return b.events("tandem_sip_transport_events_total", "connection_refused_source") == 2
	})
	if log := b.log.String(); !strings.Contains(log, "SIP connection refused") ||
		!strings.Contains(log, "from this source: 2 are open") {
		t.Errorf("the log does not name the refusal:\n%s", log)
	}
}

// Limits and number rules out of range are reported by their keys.
func TestLimitsAndNumbersAreChecked(t *testing.T) {
	c := Default()
	c.Limits.ConnectionsPerSource = 0
	c.Limits.Message.Head, c.Limits.Message.FromDomain = 1<<20+1, 256
	c.Groups = []Group{{Name: "core", Transport: "udp", Bind: Addresses{UDP: "127.0.0.1:0"},
		Numbers: route.Numbers{Prefixes: []route.Prefix{
			{Prefix: "0", Replace: "+44"}, {Prefix: "00", Replace: "+"}, {Prefix: "+44", Replace: "+44"},
			{Replace: "+44"}, {Prefix: "0", Digits: 16, Replace: "+44"},
			{Prefix: "0", Replace: "44"}, {Prefix: "0", Replace: "+0"}, {Prefix: "0"}}}}}
	want := []string{"limits.connectionsPerSource", "limits.message.head", "limits.message.fromDomain",
		"groups[0].numbers.prefixes[2].prefix",
		"groups[0].numbers.prefixes[3].digits", "groups[0].numbers.prefixes[4].digits",
		"groups[0].numbers.prefixes[5].replace", "groups[0].numbers.prefixes[6].replace",
		"groups[0].numbers.prefixes[7].replace"}
	var got []string
	for _, err := range c.Validate(services.All().Services()) {
		got = append(got, err.(*fault.Error).Target)
	}
	if !slices.Equal(got, want) {
		t.Errorf("errors at %q,\nwant %q", got, want)
	}
}
