package tenant

import (
	"context"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// few is how many users are read one by one: more of them take fewer requests as pages of all users.
const few = 10

// ReadUsers implements snapshot.Source.
func (c *Cloud) ReadUsers(ctx context.Context, ids []string) (users []plan.Object, requests int, err error) {
	if len(ids) <= few {
		for _, id := range ids {
			requests++
			u, err := graph.GetUserConfiguration(id).Do(ctx, c.Graph)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return nil, requests, err
			}
			users = append(users, voiced(voice(u)))
		}
		return users, requests, nil
	}

	wanted := make(map[string]bool, len(ids))
	for _, id := range ids {
		wanted[strings.ToLower(id)] = true
	}
	err = c.Voices(ctx, "", func(page []user.Voice, _ string) error {
		requests++
		for _, v := range page {
			if wanted[v.ID] {
				users = append(users, voiced(v))
			}
		}
		return nil
	})
	return users, requests, err
}

// voiced returns the voice settings of a user in the words of package plan: policies that it has directly only.
func voiced(v user.Voice) plan.Object {
	_, domain, _ := strings.Cut(v.UPN, "@")
	f := plan.Fields{"domain": domain}
	if v.Number != "" {
		f["number"] = v.Number
	}
	for field, p := range v.Policies {
		if p.Group == "" {
			f[field] = p.Name
		}
	}
	return plan.Object{Ref: plan.Ref{Type: plan.User, Name: v.ID}, Fields: f}
}
