package tenant

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// errFewer ends the reading of pages when the rest takes fewer requests in batches.
var errFewer = errors.New("batches take fewer requests")

// ReadUsers implements snapshot.Source. It reads these users only, 20 in a request and some requests at the same time,
// unless the pages of all users are fewer requests, which they are if more than about every 50th user is read. What it
// reads in pages ends when they turn out to be more.
func (c *Cloud) ReadUsers(ctx context.Context, ids []string) (users []plan.Object, requests int, err error) {
	left := make(map[string]*user.Change, len(ids))
	for _, id := range ids {
		left[strings.ToLower(id)] = &user.Change{Profile: user.Profile{ID: strings.ToLower(id)}}
	}
	batches := func() int { return (len(left) + batchSize - 1) / batchSize }

	if all := c.Graph.Users(); all > 0 && (all+pageSize-1)/pageSize < batches() {
		most := batches()
		err := c.Voices(ctx, "", func(page []user.Voice, next string) error {
			requests++
			for _, v := range page {
				if left[v.ID] != nil {
					users = append(users, voiced(v))
					delete(left, v.ID)
				}
			}
			if next != "" && requests >= most {
				return errFewer
			}
			return nil
		})
		if err == nil {
			return users, requests, nil
		}
		if !errors.Is(err, errFewer) {
			return nil, requests, err
		}
	}

	changes := slices.Collect(maps.Values(left))
	if err := c.addVoices(ctx, changes); err != nil {
		return nil, requests, err
	}
	for _, x := range changes {
		if x.Voice != nil {
			users = append(users, voiced(*x.Voice))
		}
	}
	return users, requests + batches(), nil
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
