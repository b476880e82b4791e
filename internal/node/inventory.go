package node

import (
	"context"
	"fmt"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// inventory has the numbers of accounts, for the users of their tenants.
type inventory struct {
	d       *directory.Directory
	service domain.Service // which a number must have
}

// find returns a number of an account; false if it is not among them.
func (i inventory) find(ctx context.Context, account string, n domain.E164) (domain.Number, bool, error) {
	x, err := i.d.Number(ctx, onboard.Owner(account), n)
	if fault.Is(err, fault.NotFound) {
		return x, false, nil
	}
	return x, err == nil, err
}

// Unusable implements user.Inventory.
func (i inventory) Unusable(ctx context.Context, account string, ns []domain.E164) (map[domain.E164]string, error) {
	why := map[domain.E164]string{}
	for _, n := range ns {
		x, found, err := i.find(ctx, account, n)
		switch {
		case err != nil:
			return nil, err
		case !found:
			why[n] = "it is not a number of the account"
		case !x.Services[i.service].Enabled:
			why[n] = "it is not enabled for " + i.service.Traits().Title
		}
	}
	return why, nil
}

// Usable implements user.Inventory.
func (i inventory) Usable(ctx context.Context, account string, after domain.E164, limit int) ([]domain.E164, error) {
	var usable []domain.E164
	for q := (directory.Query{After: string(after), Limit: directory.MaxPage}); ; {
		page, err := i.d.Numbers(ctx, onboard.Owner(account), q)
		if err != nil {
			return nil, err
		}
		for _, x := range page.Items {
			if x.Services[i.service].Enabled {
				if usable = append(usable, x.TelephoneNumber); len(usable) == limit {
					return usable, nil
				}
			}
		}
		if q.After = page.Next; q.After == "" {
			return usable, nil
		}
	}
}

// Missing implements drift.Inventory.
func (i inventory) Missing(ctx context.Context, account string, ns []string) (missing []string, err error) {
	has, err := i.among(account)(ctx, ns)
	if err != nil {
		return nil, err
	}
	for _, n := range ns {
		if len(has) > 0 && has[0] == n {
			has = has[1:]
			continue
		}
		missing = append(missing, n)
	}
	return missing, nil
}

// among returns the function that returns those of some numbers that an account has, in their order.
func (i inventory) among(account string) func(ctx context.Context, ns []string) ([]string, error) {
	return func(ctx context.Context, ns []string) (has []string, err error) {
		for _, n := range ns {
			_, found, err := i.find(ctx, account, user.Base(n))
			if err != nil {
				return nil, err
			}
			if found {
				has = append(has, n)
			}
		}
		return has, nil
	}
}

// Add implements drift.Inventory.
func (i inventory) Add(ctx context.Context, account, number string) error {
	n := domain.Number{TelephoneNumber: user.Base(number), AccountName: onboard.Owner(account),
		Services: map[domain.Service]domain.NumberService{i.service: {Enabled: true}}}
	if _, err := i.d.PutNumber(ctx, n, directory.Write{}); err != nil {
		return fmt.Errorf("add a number to account %s: %w", account, err)
	}
	return nil
}
