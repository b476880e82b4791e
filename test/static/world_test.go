//go:build deep

package static

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// The customer of these tests and its services.
const (
	account   = "northwind"
	label     = "nwind"
	outside   = "+442890180001" // not provisioned
	perKind   = 100             // numbers of each service at the start
	firstDR   = 441632960000
	firstOC   = 442079460000
	firstZoom = 12025550000
)

// service is a service's contract name.
type service string

const (
	dr   service = "teamsDirectRouting"
	oc   service = "teamsOperatorConnect"
	zoom service = "zoomPhoneCloudPeering"
)

// trunkOf is the peer group of each service.
var trunkOf = map[service]string{dr: "direct-routing", oc: "operator-connect", zoom: "zoom"}

// route is what is provisioned for calls to a number. The zero value is a number that is not provisioned.
type route struct {
	service service
	header  string
}

func nth(first int64, i int) string { return fmt.Sprintf("+%d", first+int64(i)) }

// usual returns the custom header value that a number has at the start.
func usual(number string) string { return "S-" + number[len(number)-4:] }

// number returns the resource of a number.
func number(n string, r route) client.Number {
	x := client.Number{TelephoneNumber: n, AccountName: account,
		Configuration: &client.NumberConfiguration{CustomSIPHeader: r.header}}
	switch r.service {
	case dr:
		x.ServiceDetails.TeamsDirectRouting = &client.NumberService{Enabled: true}
	case oc:
		x.ServiceDetails.TeamsOperatorConnect = &client.TeamsNumber{Enabled: true,
			Configuration: &client.TeamsNumberConfig{Usage: "CallingUserAssignment",
				ChoosableCapabilities: []string{"InboundCalling", "OutboundCalling"}}}
	case zoom:
		x.ServiceDetails.ZoomPhoneCloudPeering = &client.NumberService{Enabled: true}
	}
	return x
}

// provision creates the customer with its numbers, waits until all are routed, and returns them.
func (s *site) provision(t *testing.T) map[string]route {
	t.Helper()
	c := s.api(t)
	on := &client.AccountService{Enabled: true}
	if _, err := c.PutAccount(t.Context(), &client.Account{Name: account, ServiceDetails: &client.AccountServices{
		TeamsTenantID: "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d", TeamsOperatorConnect: on, ZoomPhoneCloudPeering: on,
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true,
			Configuration: &client.DirectRoutingConfig{Subdomain: label, CallScreening: true,
				SubdomainTokens: client.SubdomainTokens{
					Region1Token: "MS=ms10000001", Region2Token: "MS=ms10000002"}}}}}, client.Condition{}); err != nil {
		t.Fatal(err)
	}
	want := map[string]route{}
	for _, k := range []struct {
		first   int64
		service service
	}{{firstDR, dr}, {firstOC, oc}, {firstZoom, zoom}} {
		var batch []client.Number
		for i := range perKind {
			n := nth(k.first, i)
			want[n] = route{k.service, usual(n)}
			batch = append(batch, number(n, want[n]))
		}
		if err := c.CreateOrUpdateNumbers(t.Context(), account, batch); err != nil {
			t.Fatal(err)
		}
	}
	s.waitRoutes(t, want)
	return want
}

// routed returns how a call from outside to the number is routed, according to explain.
func (s *site) routed(ctx context.Context, n string) (route, error) {
	e, err := s.local.Explain(ctx, api.Question{From: outside, To: n, Peer: "core"})
	if err != nil {
		return route{}, err
	}
	if e.Account == "" {
		return route{}, nil // the group's default service, or none: the number is not provisioned
	}
	return route{service(e.Service), e.Header}, nil
}

// compare returns an error that says how the index differs from want, or nil.
func (s *site) compare(ctx context.Context, want map[string]route) error {
	wrong, example := 0, ""
	for n, w := range want {
		got, err := s.routed(ctx, n)
		if err != nil {
			return err
		}
		if got != w {
			wrong++
			example = fmt.Sprintf("calls to %s are routed by %+v, want %+v", n, got, w)
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d numbers are not routed as provisioned; %s", wrong, len(want), example)
	}
	return nil
}

func (s *site) waitRoutes(t *testing.T, want map[string]route) {
	t.Helper()
	eventually(t, 20*time.Second, "every number is routed as provisioned",
		func() error { return s.compare(t.Context(), want) })
}

// put writes one number.
func put(ctx context.Context, c *client.Client, n string, r route) error {
	x := number(n, r)
	_, err := c.PutNumber(ctx, &x, client.Condition{})
	return err
}

// refusal returns the status and Retry-After of an error response; 0 if err is not one.
func refusal(err error) (status int, retryAfter time.Duration) {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Status, e.RetryAfter
	}
	return 0, 0
}

// level returns nil if the index holds everything up to the newest position in the feed.
func (s *site) level(t *testing.T) error {
	t.Helper()
	h, err := s.local.Health(t.Context())
	if err != nil {
		return err
	}
	if r := h.Replica; r == nil || !r.Current || r.Position != r.Head {
		return fmt.Errorf("the index is not level: %+v", h.Replica)
	}
	return nil
}
