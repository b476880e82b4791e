package node

import (
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/tenantapi"
)

// A filter or a rule whose value cannot exist is refused, and does not look like an empty list.
func TestUnknownFilters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	sealer := f.n.core.keyring
	users := tenantapi.Users{Service: f.users, Sealer: sealer}
	tenants := tenantapi.Tenants{Planner: f.planner, Store: f.store, Sealer: sealer, Fleet: f.store.Fleet}
	list := func(location string) error {
		_, err := users.ListUsers(t.Context(), api.ListUsersRequestObject{Account: "acme",
			Params: api.ListUsersParams{UsageLocation: &location}})
		return err
	}
	f.must(list("gb"))
	_, unknown := tenants.ListTenants(t.Context(), api.ListTenantsRequestObject{
		Params: api.ListTenantsParams{Template: new("bogus")}})
	_, activate := users.ActivateUsers(t.Context(), api.ActivateUsersRequestObject{Account: "acme",
		Body: &api.UserActivation{UsageLocation: "1"}})
	_, deactivate := users.DeactivateUsers(t.Context(), api.DeactivateUsersRequestObject{Account: "acme",
		Body: &api.UserDeactivation{UsageLocation: "G8"}})
	for _, c := range []struct {
		err          error
		code, target string
	}{{list("G8"), "InvalidUsageLocation", "usageLocation"}, {activate, "InvalidUsageLocation", "usageLocation"},
		{deactivate, "InvalidUsageLocation", "usageLocation"}, {unknown, "TemplateNotFound", "template"}} {
		if !fault.HasCode(c.err, c.code) || !fault.Is(c.err, fault.Invalid) || fault.As(c.err).Target != c.target {
			t.Errorf("%v, want %s at %s", c.err, c.code, c.target)
		}
	}
}
