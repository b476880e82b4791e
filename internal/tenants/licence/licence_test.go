package licence_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/tenants/licence"
)

// Seats by licenseUnitsDetail and subscribedSku of Microsoft Graph, and reports of what can be assigned.
func TestFree(t *testing.T) {
	for name, c := range map[string]struct {
		sku    licence.SKU
		free   int
		remark string
	}{
		"some":         {licence.SKU{AppliesTo: "User", Enabled: 25, Consumed: 20}, 5, ""},
		"none":         {licence.SKU{AppliesTo: "User", Enabled: 20, Consumed: 20}, 0, ""},
		"grace period": {licence.SKU{AppliesTo: "User", Warning: 25, Consumed: 20}, 5, "grace period"},
		"some of both": {licence.SKU{AppliesTo: "User", Enabled: 10, Warning: 5, Consumed: 12}, 3, "grace period"},
		"too many":     {licence.SKU{AppliesTo: "User", Enabled: 5, Consumed: 6}, 0, "1 more in use than paid for"},
		"suspended":    {licence.SKU{AppliesTo: "User", Suspended: 50}, 0, "suspended units: 50"},
		"locked out":   {licence.SKU{AppliesTo: "User", LockedOut: 3}, 0, "suspended units: 3"},
		"company":      {licence.SKU{AppliesTo: "Company", Enabled: 100}, 0, "not assigned to users"},
	} {
		free, remark := c.sku.Free()
		if free != c.free || !strings.Contains(remark, c.remark) || (remark == "") != (c.remark == "") {
			t.Errorf("%s: %d, %q, want %d, %q", name, free, remark, c.free, c.remark)
		}
	}
}

func TestChoose(t *testing.T) {
	plans := func(names ...string) (ps []licence.Plan) {
		for _, n := range names {
			ps = append(ps, licence.Plan{ID: "id-" + n, Name: n, AppliesTo: "User"})
		}
		return ps
	}
	skus := []licence.SKU{
		{ID: "virtual", Name: "PHONESYSTEM_VIRTUALUSER", AppliesTo: "User", Enabled: 25,
			Plans: plans("MCOEV_VIRTUALUSER")},
		{ID: "teams", Name: "Microsoft_Teams_Enterprise_New", AppliesTo: "User", Enabled: 5,
			Plans: plans("MCOIMP", "TEAMS1")},
		{ID: "e5", Name: "ENTERPRISEPREMIUM", AppliesTo: "User", Enabled: 5,
			Plans: plans("MCOSTANDARD", "TEAMS1", "MCOEV", "EXCHANGE")},
		{ID: "e3 ended", Name: "ENTERPRISEPACK", AppliesTo: "User", Warning: 5, Plans: plans("MCOSTANDARD", "TEAMS1")},
		{ID: "e1 full", Name: "STANDARDPACK", AppliesTo: "User", Enabled: 5, Consumed: 5, Plans: plans("MCOSTANDARD")},
		{ID: "no voice", Name: "EXCHANGESTANDARD", AppliesTo: "User", Enabled: 5, Plans: plans("EXCHANGE")},
		{ID: "f3", Name: "SPE_F1", AppliesTo: "User", Enabled: 5, Plans: append(plans("MCOIMP", "TEAMS1"),
			licence.Plan{ID: "id-COMPANY", Name: "COMPANY", AppliesTo: "Company"})},
	}
	var got []string
	choices := licence.Choose(skus)
	for _, c := range choices {
		got = append(got, c.SKU)
	}
	if diff := cmp.Diff([]string{"e5", "e3 ended", "teams", "f3", "virtual"}, got); diff != "" {
		t.Errorf("choices (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"id-TEAMS1", "id-MCOEV", "id-EXCHANGE"}, choices[0].Disabled); diff != "" {
		t.Errorf("disabled (-want +got):\n%s", diff)
	}
	if choices[3].Disabled != nil {
		t.Errorf("a plan of the company is disabled: %v", choices[3].Disabled)
	}
	if !choices[4].ResourceAccount || choices[0].ResourceAccount {
		t.Errorf("resource account: %v", choices)
	}
}
