// Package legtest runs a service's profile over messages in files, as the edge would. It is for tests of profiles only.
// A case is one file: settings, a line "---", the message as received on one leg, a line "---", the message as it must
// be sent on the other. The expected part is written by hand from the services' published rules.
package legtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Rules returns the header rules of every case: the default custom header, product "Tandem/Tandem/1.0", region 1.
func Rules(t testing.TB) *leg.Rules {
	t.Helper()
	c := leg.Default()
	return c.Rules("1.0")
}

// Profile returns the profile that a service's constructor makes of Rules, for base domain gw.example.com and regions
// 1r1 and 1r2.
func Profile(t testing.TB, build func(*leg.Rules, leg.Names) (leg.Profile, error)) leg.Profile {
	t.Helper()
	p, err := build(Rules(t), leg.Names{BaseDomain: "gw.example.com", Regions: []string{"1r1", "1r2"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Run runs the cases of a folder. Settings, one "name: value" per line ("#" begins a comment):
//
//	to       service, core or ping
//	local    our address on the leg on which the message is sent: host:port;transport
//	remote   the peer's address there, in the same form
//	label    the account's Direct Routing label
//	header   the decision's custom header value
//	refer    yes if REFER is accepted from that leg
func Run(t *testing.T, dir string, p leg.Profile) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s (%v)", dir, err)
	}
	rules := Rules(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(text), "---\n")
			if len(parts) != 3 {
				t.Fatalf("%d parts, want settings, message in and message out", len(parts))
			}
			l, to := settings(t, parts[0], p.Service())
			raw := strings.ReplaceAll(strings.TrimSuffix(parts[1], "\n"), "\n", "\r\n")
			if !strings.Contains(raw, "\r\n\r\n") {
				raw += "\r\n\r\n"
			}
			src, problem := sip.Parse(raw, nil)
			if problem != nil {
				t.Fatalf("message in: %v", problem)
			}
			dst := cross(rules, src)
			switch to {
			case "service":
				p.ToService(dst, l)
			case "core":
				p.ToCore(dst, l)
			case "ping":
				p.Ping(dst, l)
			default:
				t.Fatalf("to: %q, want service, core or ping", to)
			}
			want := strings.TrimRight(parts[2], "\n")
			got := strings.TrimRight(strings.ReplaceAll(dst.String(), "\r\n", "\n"), "\n")
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("message out differs (-want +got):\n%s", diff)
			}
			if back, problem := sip.Parse(dst.String(), nil); problem != nil {
				t.Errorf("message out does not parse: %v", problem)
			} else if back.Body() != src.Body() {
				t.Errorf("body = %q, want it unchanged: %q", back.Body(), src.Body())
			}
		})
	}
}

// cross makes the message for the other leg as the edge does: its own hop-by-hop lines, then what is passed on.
func cross(rules *leg.Rules, src *sip.Message) *sip.Message {
	req := src
	if src.IsResponse() {
		c, _ := src.CSeq()
		req = sip.NewRequest(c.Method, "sip:unused")
	} else {
		req = sip.NewRequest(src.Method(), src.RequestURI())
	}
	req.Add(sip.KindVia, "SIP/2.0/TLS edge.example.com;branch=z9hG4bK1")
	if src.IsRequest() {
		req.Add(sip.KindMaxForwards, "69")
	}
	req.CopyFrom(src, sip.KindFrom, sip.KindTo)
	req.Add(sip.KindCallID, "b-leg")
	req.CopyFrom(src, sip.KindCSeq)
	dst := req
	if src.IsResponse() {
		dst = sip.NewResponse(req, src.Status(), src.Reason(), "")
	}
	rules.Relay(dst, src)
	return dst
}

func settings(t *testing.T, text string, s domain.Service) (*leg.Leg, string) {
	t.Helper()
	l, to := &leg.Leg{}, ""
	call := &route.Decision{Service: s}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "to":
			to = value
		case "local":
			l.Local = addr(t, value)
		case "remote":
			l.Remote = addr(t, value)
		case "label":
			call.Account, call.Label = &domain.AccountRouting{Name: value, Subdomain: value}, value
		case "header":
			call.Header = value
		case "refer":
			l.Refer = value == "yes"
		default:
			t.Fatalf("unknown setting %q", name)
		}
	}
	if to != "ping" {
		l.Call = call
	}
	return l, to
}

func addr(t *testing.T, s string) (a leg.Addr) {
	t.Helper()
	s, a.Transport, _ = strings.Cut(s, ";")
	h, port, ok := strings.Cut(s, ":")
	a.Host = h
	if ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		a.Port = uint16(n)
	}
	return a
}
