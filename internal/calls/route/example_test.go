package route_test

import (
	"fmt"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

func ExampleDecide() {
	c := route.Config{BaseDomain: "gw.example.com", Countries: []string{"GB"}}
	p, problems := c.Compile(services.All().Services(),
		[]route.Group{{Name: "core-a"}, {Name: "teams", Service: directrouting.Service}})
	if len(problems) > 0 {
		panic(problems)
	}
	for _, called := range []string{"+442079460100", "+442079460123"} {
		d := route.Decide(newWorld(), p, domain.CallFacts{PeerGroup: "core-a", Called: called,
			From: domain.Party{Number: "+12025550199"}})
		fmt.Printf("%s %s %v %q %d %q\n", d.Outcome, d.Service, d.Groups, d.Header, d.Status, d.Warning)
	}
	// Output:
	// toService teamsDirectRouting [teams] "CT-100" 0 ""
	// rejected none [] "" 404 "+442079460123 is not provisioned; peer group core-a has no default service"
}

func ExampleExplain() {
	c := route.Config{BaseDomain: "gw.example.com", Countries: []string{"GB"}}
	p, _ := c.Compile(services.All().Services(),
		[]route.Group{{Name: "core-a"}, {Name: "teams", Service: directrouting.Service}})
	x := route.Explain(newWorld(), p, domain.CallFacts{PeerGroup: "teams", Called: "+12025550199", HostUnknown: true,
		From: domain.Party{Number: "+442079460100"}})
	for _, s := range x.Steps {
		fmt.Printf("%s: %s\n", s.Rule, s.Text)
	}
	// Output:
	// peer-group: the call comes from Microsoft Teams Direct Routing
	// emergency: not an emergency number
	// services-to-core: a call from Microsoft Teams Direct Routing goes to the core only
	// calling-account: no Request-URI host was given: the caller's own account is assumed
	// calling-identity: +442079460100 in From belongs to the customer
	// caller-screening: the caller is a number of account contoso
	// presented-number: From shows a number of account contoso, or none
	// custom-header: messages to the core carry the calling number's custom header value
	// target-peer-group: to the core
}
