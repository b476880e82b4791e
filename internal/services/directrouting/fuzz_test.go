package directrouting_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

// FuzzShape passes any message that the parser and validator accept to facts, relay and both directions of the profile.
// The result must again be a valid message, with our Contact where there is one, the custom header towards the core
// only, and the body unchanged.
func FuzzShape(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		in := strings.TrimSuffix(strings.Split(string(text), "---\n")[1], "\n")
		f.Add(strings.ReplaceAll(in, "\n", "\r\n") + "\r\n\r\n")
	}
	f.Add(benchInvite)
	rules := legtest.Rules(f)
	p, err := directrouting.New(rules, leg.Names{BaseDomain: "gw.example.com", Regions: []string{"1r1"}})
	if err != nil {
		f.Fatal(err)
	}
	call := &route.Decision{Service: directrouting.Service, Header: "CT-100",
		Label: "contoso"}
	l := &leg.Leg{Call: call, Local: leg.Addr{Host: "r1.gw.example.com", Port: 5060},
		Remote: leg.Addr{Host: "peer.example.net", Port: 5060}}
	f.Fuzz(func(t *testing.T, raw string) {
		var check sip.Validator
		src, problem := sip.Parse(raw, nil)
		if problem != nil || check.Check(src) != nil {
			return
		}
		leg.Facts(src, "group")
		for _, towardsCore := range []bool{false, true} {
			dst := src.Clone()
			for i := dst.Len() - 1; i >= 0; i-- {
				switch dst.At(i).Kind() {
				case sip.KindVia, sip.KindFrom, sip.KindTo, sip.KindCallID, sip.KindCSeq:
				default:
					dst.RemoveAt(i)
				}
			}
			rules.Relay(dst, src)
			host := "contoso.1r1.gw.example.com"
			if towardsCore {
				host = "r1.gw.example.com"
				p.ToCore(dst, l)
			} else {
				p.ToService(dst, l)
			}
			back, problem := sip.Parse(dst.String(), &sip.Limits{Head: 1 << 30, Body: 1 << 30, Lines: 1 << 30,
				RequestURI: 1 << 30})
			if problem != nil {
				t.Fatalf("%q became %q: %v", raw, dst, problem)
			}
			if back.Body() != src.Body() {
				t.Fatalf("body %q became %q", src.Body(), back.Body())
			}
			if back.FromTag() != src.FromTag() || back.ToTag() != src.ToTag() {
				t.Fatalf("tags of %q became those of %q", raw, dst)
			}
			custom := 0
			for _, h := range back.Headers() {
				if h.Is(leg.DefaultCustomSIPHeader) {
					custom++
					if h.Value() != "CT-100" {
						t.Fatalf("a foreign custom header value passed: %q", dst)
					}
				}
				if h.Kind() == sip.KindContact {
					a, err := sip.ParseNameAddr(h.Value())
					if err != nil {
						t.Fatalf("Contact %q: %v", h.Value(), err)
					}
					if u, err := a.URI(); err != nil || u.Host != host {
						t.Fatalf("Contact %q, want host %s", h.Value(), host)
					}
				}
			}
			if want := map[bool]int{false: 0, true: 1}[towardsCore]; custom != want {
				t.Fatalf("%d custom headers, want %d, in %q", custom, want, dst)
			}
		}
	})
}
