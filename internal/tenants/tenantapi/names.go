package tenantapi

import (
	"context"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// Names returns the names of users of an account by object id, of those that are or were known.
type Names func(ctx context.Context, account string, ids []string) (map[string]user.Name, error)

// shown is an object in an answer, and where its names go if it is a user.
type shown struct {
	kind, id     string
	upn, display *string
}

// fill enters the names of users.
func (n Names) fill(ctx context.Context, account string, objects []shown) error {
	var ids []string
	for _, o := range objects {
		if o.kind == string(plan.User) {
			ids = append(ids, o.id)
		}
	}
	if n == nil || len(ids) == 0 {
		return nil
	}
	names, err := n(ctx, account, ids)
	for _, o := range objects {
		if o.kind == string(plan.User) {
			name := names[strings.ToLower(o.id)]
			*o.upn, *o.display = name.UPN, name.Display
		}
	}
	return err
}
