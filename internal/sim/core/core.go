// Package core simulates an operator's core network: a neighbour that sends calls to the gateway over a trunk and
// accepts calls from it, over UDP, TCP or TLS.
//
// It does what gateway-calls §2 says a core does: E.164 with "+" in Request-URI, From and P-Asserted-Identity, calls to
// the gateway without any knowledge of tenants, OPTIONS both ways. It refuses called numbers that are neither E.164 nor
// an emergency string. It is not a switch: every incoming call is handled by a ua.Script.
package core

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/sim/ua"
)

// Config configures a core.
type Config struct {
	Name          string // peer name, "core" if empty
	UDP, TCP, TLS string // addresses to listen on; UDP on a free port of 127.0.0.1 if all are empty
	ServerTLS     *tls.Config
	ClientTLS     *tls.Config
	Domain        string   // host in From and P-Asserted-Identity; "core.example" if empty
	Emergency     []string // called strings accepted without "+"; 911, 933, 112 and 999 if empty
	Resolve       func(host string, port int) (string, error)
	Loss          *ua.Loss
	Keep          int
	Log           *slog.Logger
}

// Network is a running core. It is safe for concurrent use.
type Network struct {
	*ua.Agent
	Script ua.Script // what it does with incoming calls
	cfg    Config
}

// New starts a core.
func New(cfg Config) (*Network, error) {
	if cfg.Name == "" {
		cfg.Name = "core"
	}
	if cfg.Domain == "" {
		cfg.Domain = "core.example"
	}
	if cfg.UDP == "" && cfg.TCP == "" && cfg.TLS == "" {
		cfg.UDP = "127.0.0.1:0"
	}
	if len(cfg.Emergency) == 0 {
		cfg.Emergency = []string{"911", "933", "112", "999"}
	}
	n := &Network{cfg: cfg}
	a, err := ua.New(ua.Config{Name: cfg.Name, UDP: cfg.UDP, TCP: cfg.TCP, TLS: cfg.TLS, ServerTLS: cfg.ServerTLS,
		ClientTLS: cfg.ClientTLS,
		Resolve:   cfg.Resolve, Invite: n.invite, Loss: cfg.Loss, Keep: cfg.Keep, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	n.Agent = a
	return n, nil
}

func (n *Network) invite(ctx context.Context, in *ua.Incoming) {
	called := ua.ParseAddress(in.Invite.RequestURI()).User
	if !n.accepts(called) {
		_ = in.Reply(484, "Address Incomplete", ua.Answer{}) // the gateway's own timers deal with loss
		return
	}
	_, _ = in.Play(ctx, n.Script.For(called)) // failures are visible in the log of messages
}

func (n *Network) accepts(called string) bool {
	if _, err := domain.ParseE164(called); err == nil {
		return true
	}
	for _, e := range n.cfg.Emergency {
		// Zoom's form (gateway-calls §7)
		if called == e || strings.HasPrefix(called, "+") && strings.HasSuffix(called, e) {
			return true
		}
	}
	return false
}

// Call is a call from the core into the gateway.
type Call struct {
	Transport   string // udp, tcp or tls; the first that the core listens on if empty
	Destination string // socket address of the gateway
	Host        string // host of the Request-URI; the destination if empty
	From, To    string // E.164; From may be "" for an anonymous caller with the number in Asserted only
	Asserted    string // number in P-Asserted-Identity; From if empty, none if "-"
	URI         string // whole Request-URI instead of the usual one (tel: form, number portability parameters …)
	Headers     []ua.Header
	Body        string // session description; a plain one if empty, none if "-"
}

// Place sends the INVITE of a call.
func (n *Network) Place(ctx context.Context, c Call) (*ua.Call, error) {
	return n.Agent.Call(ctx, n.Request(c))
}

// Request writes the INVITE of a call without sending it.
func (n *Network) Request(c Call) ua.Request {
	if c.Transport == "" {
		for _, t := range []string{"udp", "tcp", "tls"} {
			if n.Addr(t) != "" {
				c.Transport = t
				break
			}
		}
	}
	if c.Host == "" {
		c.Host = c.Destination
	}
	from := fmt.Sprintf("<sip:%s@%s;user=phone>", c.From, n.cfg.Domain)
	if c.From == "" {
		from = `"Anonymous" <sip:anonymous@anonymous.invalid>`
	}
	headers := []ua.Header{{Name: "Allow", Value: ua.Allow}, {Name: "Supported", Value: "timer"}}
	if c.Asserted == "" {
		c.Asserted = c.From
	}
	if c.Asserted != "-" && c.Asserted != "" {
		headers = append(headers, ua.Header{Name: "P-Asserted-Identity", Value: fmt.Sprintf("<sip:%s@%s;user=phone>",
			c.Asserted, n.cfg.Domain)})
	}
	headers = append(headers, c.Headers...)
	switch c.Body {
	case "":
		c.Body = ua.SDP(n.cfg.Name, 1)
	case "-":
		c.Body = ""
	}
	uri := c.URI
	if uri == "" {
		uri = fmt.Sprintf("sip:%s@%s;user=phone", c.To, c.Host)
	}
	return ua.Request{Transport: c.Transport, Destination: c.Destination, URI: uri, From: from,
		To: fmt.Sprintf("<sip:%s@%s;user=phone>", c.To, c.Host), Headers: headers, Body: c.Body}
}

// Ping sends OPTIONS to the gateway and returns the response.
func (n *Network) Ping(ctx context.Context, transport, destination string) (*ua.Message, error) {
	if transport == "" {
		transport = "udp"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return n.Do(ctx, ua.Request{Method: "OPTIONS", Transport: transport, Destination: destination,
		URI:  "sip:" + destination,
		From: "<sip:" + n.cfg.Domain + ">", To: "<sip:" + destination + ">"})
}
