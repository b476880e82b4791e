package onboard_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/tenants/dialplan"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// What a tenant leaves open comes from its template, field by field; lists are taken as a whole.
func TestWishesWithATemplate(t *testing.T) {
	t.Parallel()
	template := onboard.Wishes{Label: "never", OwnLabel: true, Template: "never", Trunk: plan.Gateways,
		Dial: onboard.Dial{Country: "GB", AreaCode: "20", Extensions: []dialplan.Extensions{{Range: "2xxx"}},
			Emergency: []plan.EmergencyNumber{{DialString: "112"}}},
		Rules: []plan.Rule{{Name: "a"}, {Name: "b"}}, OwnUsageOnly: true, Licence: "MCOEV", Prefix: "Branch",
		RoutePattern: ".*", Users: onboard.Selection{Department: "Sales", Location: "GB"}}
	own := onboard.Wishes{Label: "own", Template: "branch", Trunk: plan.Derived,
		Dial: onboard.Dial{Country: "DE", AreaCode: "30", Extensions: []dialplan.Extensions{{Range: "3xxx"}},
			Emergency: []plan.EmergencyNumber{{DialString: "110"}}},
		Rules: []plan.Rule{{Name: "c"}}, Licence: "MCOSTANDARD", Prefix: "Own", RoutePattern: `\d`,
		Users: onboard.Selection{Location: "DE"}, ExceptUsers: []string{"u-1"}}
	taken := template
	taken.Label, taken.OwnLabel, taken.Template = "", false, ""
	both, abroad := own, taken
	abroad.Country, abroad.AreaCode = "IE", ""
	both.OwnUsageOnly = true
	for name, c := range map[string]struct{ own, template, want onboard.Wishes }{
		"nothing is said":       {onboard.Wishes{}, template, taken},
		"all is said":           {own, template, both},
		"the template is empty": {own, onboard.Wishes{}, own},
		"one field of the dials": {onboard.Wishes{Dial: onboard.Dial{AreaCode: "161"}}, template,
			withArea(taken, "161")},
		"another country": {onboard.Wishes{Dial: onboard.Dial{Country: "IE"}}, template, abroad},
	} {
		if diff := cmp.Diff(c.want, c.own.With(c.template)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func withArea(w onboard.Wishes, code string) onboard.Wishes {
	w.AreaCode = code
	return w
}
