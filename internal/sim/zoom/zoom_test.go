package zoom_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/core"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/internal/sim/zoom"
)

func TestZoomIsStrictOnIdentity(t *testing.T) {
	authority, err := ca.New("lab")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(ca.ServerAndClient, "zoom.gw.example")
	if err != nil {
		t.Fatal(err)
	}
	edge, err := zoom.New(zoom.Config{Authority: authority, Gateway: "zoom.gw.example",
		Forbidden: []string{"X-MS-Operator-Content"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := edge.Close(); err != nil {
			t.Error(err)
		}
	}()
	gw, err := core.New(core.Config{TLS: "127.0.0.1:0", ServerTLS: authority.Server(cert),
		ClientTLS: authority.Client(cert, "us01peer01.zoom.example")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := gw.Close(); err != nil {
			t.Error(err)
		}
	}()
	edge.AddNumber("crm-4711", "+15550100")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	call := core.Call{Destination: edge.Addr("tls"), From: "+15550199", To: "+15550100"}
	for _, c := range []struct {
		name   string
		change func(*core.Call)
		want   int
	}{
		{"good", func(*core.Call) {}, 200},
		{"number not uploaded", func(c *core.Call) { c.To = "+15550101" }, 404},
		{"called number without plus", func(c *core.Call) { c.To = "15550100" }, 400},
		{"no P-Asserted-Identity", func(c *core.Call) { c.Asserted = "-" }, 403},
		{"P-Asserted-Identity without plus", func(c *core.Call) { c.Asserted = "15550199" }, 403},
		{"delayed offer", func(c *core.Call) { c.Body = "-" }, 488},
	} {
		x := call
		c.change(&x)
		p, err := gw.Place(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Wait(ctx)
		if err != nil || m.Status() != c.want {
			t.Errorf("%s: got %v, %v, want %d", c.name, m, err, c.want)
			continue
		}
		if m.Status() == 200 {
			if _, err := p.Bye(ctx); err != nil {
				t.Error(err)
			}
		}
	}

	out, err := edge.Place(ctx, zoom.Call{From: "+15550100", To: "+15550199", Host: "zoom.gw.example",
		Destination: gw.Addr("tls")})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := out.Wait(ctx); err != nil || m.Status() != 200 {
		t.Fatalf("call from Zoom: got %v, %v, want 200", m, err)
	}
	edge.Judge(out)
	if v := edge.Violations(); len(v) != 0 {
		t.Errorf("violations %q, want none", v)
	}
	got := gw.Log().Received("INVITE")[0]
	if got.Header("X-TO-CARRIER-ACCOUNT") != "crm-4711" ||
		!strings.HasPrefix(got.Header("P-Asserted-Identity"), "<sip:+15550100@") {
		t.Errorf("INVITE from Zoom lacks its identity:\n%s", got.Raw)
	}

	gw.Script.Default(ua.Behaviour{Headers: []ua.Header{{Name: "X-MS-Operator-Content", Value: "x"}}})
	bad, err := edge.Place(ctx, zoom.Call{From: "+15550100", To: "+15550198", Host: "zoom.gw.example",
		Destination: gw.Addr("tls")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	edge.Judge(bad)
	if v := edge.Violations(); len(v) == 0 {
		t.Error("the custom header on a response to Zoom was not noticed")
	}
}
