package tenant

import (
	"context"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// object returns a configuration object of Teams in the words of package plan.
func object(t plan.Type, o teamsadmin.Object) plan.Object {
	f := plan.Fields{}
	for field, parameter := range types[t].fields {
		if v := fromTeams(field, o.Settings[parameter]); v != nil {
			f[field] = v
		}
	}
	if t == plan.Gateway {
		f["domain"] = o.Identity
	}
	return plan.Object{Ref: plan.Ref{Type: t, Name: o.Identity}, Fields: f}
}

func fromTeams(field string, v any) any {
	list, _ := v.([]any)
	switch field {
	case "usages", "gateways":
		names := make([]string, 0, len(list))
		for _, x := range list {
			s, _ := x.(string)
			names = append(names, s)
		}
		return names
	case "rules":
		rules := make([]plan.Rule, 0, len(list))
		for _, x := range list {
			o, _ := x.(map[string]any)
			internal, _ := o["IsInternalExtension"].(bool)
			_, name, found := strings.Cut(text(o, "Identity"), "/")
			if !found {
				name = text(o, "Name")
			}
			rules = append(rules, plan.Rule{Name: name, Description: text(o, "Description"),
				Pattern: text(o, "Pattern"), Translation: text(o, "Translation"), Internal: internal})
		}
		return rules
	case "numbers":
		numbers := make([]plan.EmergencyNumber, 0, len(list))
		for _, x := range list {
			o, _ := x.(map[string]any)
			numbers = append(numbers, plan.EmergencyNumber{DialString: text(o, "EmergencyDialString"),
				Mask: text(o, "EmergencyDialMask"), Usage: text(o, "OnlinePSTNUsage")})
		}
		return numbers
	}
	if n, ok := v.(float64); ok {
		return int(n)
	}
	return v
}

func text(o map[string]any, name string) string {
	s, _ := o[name].(string)
	return s
}

func toTeams(v any) any {
	switch v := v.(type) {
	case []plan.Rule:
		rules := make([]map[string]any, len(v))
		for i, r := range v {
			rules[i] = map[string]any{"Name": r.Name, "Description": r.Description, "Pattern": r.Pattern,
				"Translation": r.Translation, "IsInternalExtension": r.Internal}
		}
		return rules
	case []plan.EmergencyNumber:
		numbers := make([]map[string]any, len(v))
		for i, n := range v {
			numbers[i] = map[string]any{"EmergencyDialString": n.DialString, "EmergencyDialMask": n.Mask,
				"OnlinePSTNUsage": n.Usage}
		}
		return numbers
	}
	return v
}

// groupGrants returns the groups whose members get a policy. That the service can list them is not certain: without the
// list, Microsoft refuses to delete such a policy.
func (c *Cloud) groupGrants(ctx context.Context) ([]plan.Object, error) {
	grants, err := c.Teams.GroupGrants(ctx)
	if fault.HasCode(err, teamsadmin.CodeUnreadable) {
		return nil, nil
	}
	var objects []plan.Object
	for _, g := range grants {
		for field, t := range policies {
			if t == g.Type {
				objects = append(objects, plan.Object{Fields: plan.Fields{field: g.Policy},
					Ref: plan.Ref{Type: plan.GroupGrant, Name: g.GroupID + " " + field}})
			}
		}
	}
	return objects, err
}

// inUse adds to the refusal of a deletion which users have the policy directly. Perhaps they only seem to: that they
// have another takes a while to show.
func (c *Cloud) inUse(ctx context.Context, t teamsadmin.Type, policy string, refusal error) error {
	users, err := c.Teams.Users(ctx)
	if err != nil {
		return err
	}
	var holders []string
	for _, u := range users {
		if len(holders) < maxReferences && slices.ContainsFunc(u.Policies, func(p teamsadmin.EffectivePolicy) bool {
			return p.Type == t && p.Assignment.GroupID == "" && strings.EqualFold(p.Assignment.Policy, policy)
		}) {
			holders = append(holders, u.UserPrincipalName)
		}
	}
	if len(holders) == 0 {
		return refusal
	}
	return fault.New(fault.Unavailable, teamsadmin.CodeInUse, "%s %s cannot be removed while these users have it, to "+
		"whom Tandem did not give it: %s; give them another", t, policy, strings.Join(holders, ", ")).Because(refusal)
}

// doTeams creates, changes or deletes a configuration object.
func (c *Cloud) doTeams(ctx context.Context, s plan.Step) error {
	x := types[s.Type]
	if s.Action == plan.Delete {
		err := c.Teams.Delete(ctx, x.teams, s.Name)
		if fault.HasCode(err, teamsadmin.CodeInUse) {
			return c.inUse(ctx, x.teams, s.Name, err)
		}
		return err
	}
	o := teamsadmin.Object{Type: x.teams, Identity: s.Name, Settings: teamsadmin.Settings{}}
	for _, d := range s.Differences {
		if parameter, ok := x.fields[d.Field]; ok {
			o.Settings[parameter] = toTeams(d.New)
		}
	}
	if s.Action == plan.Create {
		err := c.Teams.Create(ctx, o)
		if fault.HasCode(err, teamsadmin.CodeExists) {
			err = nil // by an earlier attempt, which reads do not show yet
		}
		if err != nil || s.Type != plan.EmergencyPolicy {
			return err
		}
		// A new policy may begin with the numbers of the Global one (New-CsTeamsEmergencyCallRoutingPolicy, examples 1
		// and 2). If it is not visible yet, the next attempt sees them.
		if err = c.Teams.Change(ctx, o); fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	}
	return c.Teams.Change(ctx, o)
}
