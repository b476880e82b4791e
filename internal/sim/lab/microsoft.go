package lab

import (
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

// serviceUser begins the name of the account that was made for Tandem in the customer's tenant.
const serviceUser = "tandem.service@"

// CustomerUsers is how many users the customer's tenant has.
const CustomerUsers = 500

// Delays of the simulated cloud. Microsoft needs minutes, sometimes hours.
const (
	activation  = 2 * time.Second // of a domain
	operation   = 200 * time.Millisecond
	propagation = 200 * time.Millisecond
)

// startMicrosoft starts Microsoft's cloud: a tenant of the operator, and one of a customer with users, in which another
// operator has left objects.
func (l *Lab) startMicrosoft(observe func(microsoft.Exchange)) (err error) {
	l.Microsoft, err = microsoft.New(microsoft.Config{Authority: l.Authority, DNS: l.Gateway.DNS,
		Latency: time.Millisecond, Observe: observe})
	if err != nil {
		return err
	}
	l.Operator = l.Microsoft.AddTenant(microsoft.Spec{Name: "operator", Seed: 1})
	l.Customer = l.Microsoft.AddTenant(microsoft.Spec{Name: "adatum", Users: CustomerUsers, Foreign: 3, Seed: 2})
	for _, t := range []*microsoft.Tenant{l.Operator, l.Customer} {
		t.Set(func(s *microsoft.Settings) {
			s.ActivationDelay, s.OperationDelay, s.TeamsPropagation = activation, operation, propagation
		})
	}
	l.Customer.Edit(func(s *microsoft.State) {
		u := s.AddUser(&microsoft.User{UPN: l.ServiceUser(), DisplayName: "Tandem", UsageLocation: "GB"})
		s.Assign(u.ID, "Teams Administrator")
		s.Assign(u.ID, "User Administrator") // purges deleted users
	})
	return nil
}

// ServiceUser returns the name of the account in the customer's tenant that was made for Tandem.
func (l *Lab) ServiceUser() string { return serviceUser + l.Customer.Initial }

// onboarded reports whether the customer's tenant has a domain.
func (l *Lab) onboarded(domain string) (has bool) {
	if l.Customer != nil {
		l.Customer.Edit(func(s *microsoft.State) {
			has = slices.ContainsFunc(s.Domains, func(d *microsoft.Domain) bool {
				return strings.EqualFold(d.Name, domain)
			})
		})
	}
	return has
}

// owner returns the tenant of Microsoft's cloud that has a domain, and whether a user there has a number.
func (l *Lab) owner(host, number string) (tenant string, has bool) {
	if l.Microsoft == nil {
		return "", false
	}
	return l.Microsoft.Owner(host, number)
}

// gateway reports whether a tenant of Microsoft's cloud has a gateway object of that name.
func (l *Lab) gateway(host string) bool {
	return l.Microsoft != nil && slices.Contains(l.Microsoft.Gateways(), strings.ToLower(host))
}

// route returns the tenant of Microsoft's cloud in which a user has a number, and the name of the gateway that its
// calls to another number use, or to any if that is empty; empty if there is none.
func (l *Lab) route(number, to string) (tenant, gateway string) {
	if l.Microsoft == nil {
		return "", ""
	}
	tenant, gateways := l.Microsoft.Phone(number, to)
	if len(gateways) > 0 {
		gateway = gateways[0]
	}
	return tenant, gateway
}
