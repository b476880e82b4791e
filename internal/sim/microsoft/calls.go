package microsoft

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
)

// Phone returns the id of the tenant in which a user has a number, and the gateways by which that user's calls to
// another number leave Teams: those of the routes that match it, by the order of the usages in the user's policy and
// then by priority. Gateways whose domain Teams has not activated are left out. If to is empty every route matches. The
// id is empty if no user has the number.
func (c *Cloud) Phone(number, to string) (tenant string, gateways []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for _, t := range c.tenants {
		n := t.state.Numbers[number]
		if n == nil || n.Target == "" {
			continue
		}
		u := t.state.live(n.Target)
		if u == nil {
			continue
		}
		name, _ := t.state.effective(u)["OnlineVoiceRoutingPolicy"]["displayName"].(string)
		return t.ID, t.state.gateways(cmp.Or(name, "global"), to)
	}

	return "", nil
}

// Owner returns the id of the tenant for which Teams accepts calls from a host, which is a domain that it has activated
// there, and whether a user of that tenant has a number. The id is empty if there is none.
func (c *Cloud) Owner(host, number string) (tenant string, has bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for _, t := range c.tenants {
		if d := t.state.domain(host); d != nil && d.Active {
			n := t.state.Numbers[number]
			return t.ID, n != nil && n.Target != "" && t.state.live(n.Target) != nil
		}
	}

	return "", false
}

// Gateways returns the names of the gateway objects of all tenants, in lower case.
func (c *Cloud) Gateways() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for _, t := range c.tenants {
		names = slices.AppendSeq(names, maps.Keys(t.state.Configurations["OnlinePSTNGateway"]))
	}
	return names
}

// gateways returns where a voice routing policy leads calls to a number.
func (s *State) gateways(policy, to string) (gateways []string) {
	routes := slices.SortedFunc(maps.Values(s.Configurations["OnlineVoiceRoute"]), func(a, b Object) int {
		x, _ := a["Priority"].(float64)
		y, _ := b["Priority"].(float64)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(plainName(a), plainName(b)))
	})
	usages, _ := s.Configurations["OnlineVoiceRoutingPolicy"][configKey(policy)]["OnlinePstnUsages"].([]any)
	for _, usage := range usages {
		for _, r := range routes {
			of, _ := r["OnlinePstnUsages"].([]any)
			pattern, _ := r["NumberPattern"].(string)
			if matched, err := regexp.MatchString(pattern, to); !slices.Contains(of, usage) ||
				to != "" && (err != nil || !matched) {
				continue
			}
			list, _ := r["OnlinePstnGatewayList"].([]any)
			for _, g := range list {
				if name, _ := g.(string); s.domain(name) != nil && s.domain(name).Active {
					gateways = append(gateways, name)
				}
			}
		}
	}

	return gateways
}
