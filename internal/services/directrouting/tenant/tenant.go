// Package tenant gives package onboard the tenants that it works on: it reads and changes what package plan calls
// objects, by Microsoft Graph and the administration of Teams.
package tenant

import (
	"context"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Cloud is a tenant. It implements onboard.Cloud and is safe for concurrent use.
type Cloud struct {
	Graph     *graph.Client // as the application
	Delegated *graph.Client // as the person who signed in; nil if no person has
	Teams     teamsadmin.Admin
	AppID     string // application id of Tandem

	application *entra.Source // the tokens of Graph; nil if not known
	// Prove publishes the text that proves who owns a domain, and returns nil when every name server answers it.
	Prove func(ctx context.Context, domain, text string) error
}

// types are the types of objects that are configuration of Teams, with the names of the cmdlets' parameters.
var types = map[plan.Type]struct {
	teams  teamsadmin.Type
	fields map[string]string
}{
	plan.RoutingPolicy: {teamsadmin.VoiceRoutingPolicy, map[string]string{"usages": "OnlinePstnUsages"}},
	plan.Gateway: {teamsadmin.Gateway, map[string]string{"port": "SipSignalingPort", "enabled": "Enabled",
		"sendSipOptions": "SendSipOptions", "forwardCallHistory": "ForwardCallHistory", "forwardPai": "ForwardPai",
		"pidfLoSupported": "PidfLoSupported", "mediaBypass": "MediaBypass"}},
	plan.Route: {teamsadmin.VoiceRoute, map[string]string{"pattern": "NumberPattern",
		"gateways": "OnlinePstnGatewayList", "usages": "OnlinePstnUsages", "priority": "Priority"}},
	plan.DialPlan:        {teamsadmin.DialPlan, map[string]string{"rules": "NormalizationRules"}},
	plan.EmergencyPolicy: {teamsadmin.EmergencyPolicy, map[string]string{"numbers": "EmergencyNumbers"}},
}

// policies are the fields of a user that name a policy.
var policies = map[string]teamsadmin.Type{"routingPolicy": teamsadmin.VoiceRoutingPolicy,
	"dialPlan": teamsadmin.DialPlan, "callerID": teamsadmin.CallerID, "emergencyPolicy": teamsadmin.EmergencyPolicy}

// Read implements onboard.Cloud. Users are read by ReadUsers and changed by SetVoice.
func (c *Cloud) Read(ctx context.Context, of []plan.Ref) ([]plan.Object, error) {
	var objects []plan.Object
	for t, x := range types {
		list, err := c.Teams.List(ctx, x.teams)
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			objects = append(objects, object(t, o))
		}
	}

	usages, err := c.Teams.Usages(ctx)
	if err != nil {
		return nil, err
	}
	for i, u := range usages {
		objects = append(objects, plan.Object{Ref: plan.Ref{Type: plan.Usage, Name: u},
			Fields: plan.Fields{"place": i}})
	}

	sip, err := c.Teams.SIPDomains(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range sip {
		objects = append(objects, plan.Object{Ref: plan.Ref{Type: plan.SIPDomain, Name: d},
			Fields: plan.Fields{"domain": d}})
	}

	for _, r := range of {
		if r.Type != plan.Domain && r.Type != plan.ActivationUser {
			continue
		}
		o, ok, err := c.Get(ctx, r)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		objects = append(objects, o)
		if r.Type == plan.Domain {
			foreign, err := c.foreign(ctx, r.Name, of)
			if err != nil {
				return nil, err
			}
			objects = append(objects, foreign...)
		}
	}

	grants, err := c.groupGrants(ctx)
	return append(objects, grants...), err
}

// Get implements onboard.Cloud.
func (c *Cloud) Get(ctx context.Context, r plan.Ref) (o plan.Object, ok bool, err error) {
	o.Ref = r
	switch r.Type {
	case plan.Domain:
		var d graph.Domain
		d, err = graph.GetDomain(r.Name).Do(ctx, c.Graph)
		o.Fields = plan.Fields{"verified": d.IsVerified}
	case plan.ActivationUser:
		o.Fields, err = c.activationUser(ctx, r.Name)
	case plan.SIPDomain:
		var names []string
		names, err = c.Teams.SIPDomains(ctx)
		o.Fields, ok = plan.Fields{"domain": r.Name}, contains(names, r.Name)
		return o, ok, err
	case plan.Usage:
		var names []string
		names, err = c.Teams.Usages(ctx)
		o.Fields, ok = plan.Fields{}, contains(names, r.Name)
		return o, ok, err
	default:
		var t teamsadmin.Object
		t, err = c.Teams.Read(ctx, types[r.Type].teams, r.Name)
		if err == nil {
			o = object(r.Type, t)
		}
	}
	if fault.Is(err, fault.NotFound) {
		return plan.Object{}, false, nil
	}
	return o, err == nil, err
}

// Do implements onboard.Cloud.
func (c *Cloud) Do(ctx context.Context, s plan.Step) error {
	var err error
	switch s.Type {
	case plan.Domain:
		err = c.doDomain(ctx, s)
	case plan.ActivationUser:
		err = c.doActivationUser(ctx, s)
	case plan.Usage:
		if s.Action == plan.Delete {
			return c.Teams.RemoveUsages(ctx, s.Name)
		}
		if err = c.Teams.AddUsages(ctx, s.Name); fault.Is(err, fault.Invalid) {
			err = fault.New(fault.Unavailable, "UsageRefused", "the PSTN usage %s was refused; it may be there, and "+
				"not visible yet: %s", s.Name, fault.As(err).Message).Because(err)
		}
	default:
		err = c.doTeams(ctx, s)
	}
	switch {
	case !fault.Is(err, fault.NotFound):
		return passing(err)
	case s.Action == plan.Delete:
		return nil
	}
	return fault.New(fault.Unavailable, "NotVisible", "%s %s, or what it needs, is not visible yet", s.Type, s.Name).
		Because(err)
}

// passing returns a conflict that is temporary as one of kind fault.Unavailable: another change of the same object is
// in progress [K].
func passing(err error) error {
	if fault.HasCode(err, "Directory_ConcurrencyViolation") {
		return fault.New(fault.Unavailable, "Busy", "another change of the object is in progress").Because(err)
	}
	return err
}

func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
}
