// Package licence chooses the licences of activation users: the users whose names make a verified domain one that Teams
// accepts for gateways. It is pure.
package licence

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SKU is a product that a tenant has bought (Microsoft Graph, subscribedSku). Products are chosen by their service
// plans: names and ids of products say little.
type SKU struct {
	ID        string
	Name      string // skuPartNumber
	AppliesTo string // "User" or "Company"
	// Enabled units are paid for. Warning units are those of a subscription that has ended, in its grace period: they
	// can still be assigned. Suspended and locked out units cannot.
	Enabled, Warning, Suspended, LockedOut int
	Consumed                               int
	Plans                                  []Plan
}

// Plan is a service plan of a product.
type Plan struct {
	ID        string
	Name      string // servicePlanName
	AppliesTo string
}

// Free returns how many units of a product can be assigned, and what a person should know about them, if anything.
func (s *SKU) Free() (n int, remark string) {
	free := s.Enabled + s.Warning - s.Consumed
	switch {
	case s.AppliesTo != "User":
		return 0, "it is not assigned to users"
	case free < 0:
		return 0, fmt.Sprintf("%d more in use than paid for", -free)
	case free == 0 && s.Suspended+s.LockedOut > 0:
		return 0, fmt.Sprintf("suspended units: %d", s.Suspended+s.LockedOut)
	case free > max(0, s.Enabled-s.Consumed):
		return free, "the subscription has ended and is in its grace period: renew it"
	}
	return free, ""
}

// Spare returns how many more users can be given Phone System.
func Spare(skus []SKU) (n int) {
	for _, s := range skus {
		if slices.ContainsFunc(s.Plans, func(p Plan) bool {
			return p.Name == "MCOEV" || p.Name == "MCOEV_GOV" || p.Name == "MCOEVSMB"
		}) {
			free, _ := s.Free()
			n += free
		}
	}
	return n
}

// need is a set of service plans that activates a domain, any one with its alternatives of other clouds.
type need struct {
	plans []string // names; all are needed
	// resourceAccount is set for the licence of resource accounts, of which no page of Microsoft says that it activates
	// a domain.
	resourceAccount bool
}

// needs are in the order of preference. The classic choice is MCOSTANDARD; the pages that accept others are
// direct-routing-sbc-multiple-tenants and manage-enterprise-teams-direct-routing.
var needs = []need{
	{plans: []string{"MCOSTANDARD"}},
	{plans: []string{"MCOSTANDARD_GOV"}},
	{plans: []string{"TEAMS1", "MCOIMP"}},
	{plans: []string{"MCOEV"}},
	{plans: []string{"MCOEV_GOV"}},
	{plans: []string{"MCOEVSMB"}},
	{plans: []string{"MCOEV_VIRTUALUSER"}, resourceAccount: true},
}

// Plans returns the service plans by which a person can choose the licence of activation users.
func Plans() []string {
	names := make([]string, len(needs))
	for i, n := range needs {
		names[i] = n.plans[0]
	}
	return names
}

// Choice is a licence for an activation user.
type Choice struct {
	SKU      string   // its id
	Name     string   // of the product
	Plans    []string // names of the service plans that are used
	Disabled []string // ids of the other plans, so that no mailbox and the like is made
	Free     int
	Remark   string
	// ResourceAccount is set if the licence is for a resource account. It is not verified that it activates a domain.
	ResourceAccount bool
}

// Choose returns the licences that activation users can have, the best first. If the first cannot be assigned after all
// (CountViolation), the next is tried.
func Choose(skus []SKU) []Choice {
	var choices []Choice
	for _, n := range needs {
		var equal []Choice
		for _, s := range skus {
			free, remark := s.Free()
			used := s.used(n)
			if free == 0 || used == nil {
				continue
			}
			c := Choice{SKU: s.ID, Name: s.Name, Plans: n.plans, Free: free, Remark: remark,
				ResourceAccount: n.resourceAccount}
			for _, p := range s.Plans {
				if p.AppliesTo != "Company" && !slices.Contains(used, p.ID) {
					c.Disabled = append(c.Disabled, p.ID)
				}
			}
			equal = append(equal, c)
		}
		slices.SortStableFunc(equal, func(a, b Choice) int {
			return cmp.Or(strings.Compare(a.Remark, b.Remark), cmp.Compare(len(a.Disabled), len(b.Disabled)),
				strings.Compare(a.Name, b.Name))
		})
		for _, c := range equal {
			if !slices.ContainsFunc(choices, func(x Choice) bool { return x.SKU == c.SKU }) {
				choices = append(choices, c)
			}
		}
	}
	return choices
}

// All returns the licences that can activate a domain whether units are free or not, in the order of Choose.
func All(skus []SKU) []Choice {
	free := make([]SKU, len(skus))
	for i, s := range skus {
		s.Enabled, s.Consumed = 1, 0
		free[i] = s
	}
	return Choose(free)
}

// used returns the ids of a product's plans that meet a need; nil if they do not.
func (s *SKU) used(n need) []string {
	var ids []string
	for _, name := range n.plans {
		i := slices.IndexFunc(s.Plans, func(p Plan) bool { return p.Name == name })
		if i < 0 {
			return nil
		}
		ids = append(ids, s.Plans[i].ID)
	}
	return ids
}
