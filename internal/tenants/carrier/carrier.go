// Package carrier says what the operator's own side of onboarding must be, and what of it is missing: the multi-tenant
// app registration with its credential, and in the operator's tenant the domains and gateway objects from which trunks
// of customers are derived. The tenant is planned and kept in step like a customer's (package onboard, account
// ".carrier"); this package adds what is special about it.
package carrier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Missing returns what the operator's tenant lacks for derived trunks, in words; nothing if customers can be onboarded.
// A domain that Teams accepts counts, whoever activated it.
func Missing(objects []plan.Object, s *plan.CarrierSettings) []string {
	// As if all of it were ours: what differs is a step.
	have, wanted, ledger := plan.NewState(objects), []plan.Object{}, plan.Ledger{}
	for _, o := range s.Objects("", nil) {
		if o.Type != plan.ActivationUser {
			wanted = append(wanted, o)
			ledger.Set(plan.Made{Object: o})
		}
	}
	var missing []string
	for _, step := range plan.Compare(wanted, have, ledger).Steps {
		switch step.Type {
		case plan.Domain:
			missing = append(missing, step.Name+" is not a verified domain of the operator's tenant")
		case plan.SIPDomain:
			missing = append(missing, step.Name+" is not activated: Teams does not accept it for gateways yet")
		default:
			missing = append(missing, gateway(step))
		}
	}
	return missing
}

func gateway(s plan.Step) string {
	if s.Action == plan.Create {
		return s.Name + " has no gateway object"
	}
	var texts []string
	for _, d := range s.Differences {
		texts = append(texts, fmt.Sprintf("%s is %v instead of %v", d.Field, d.Old, d.New))
	}
	return fmt.Sprintf("the gateway object %s is different: %s", s.Name, strings.Join(texts, ", "))
}

// phoneSystem are the service plans of Phone System.
var phoneSystem = []string{"MCOEV", "MCOEV_GOV", "MCOEVSMB"}

// Remarks returns what should be different although customers can be onboarded: Microsoft asks that the operator's
// tenant keeps a user with Phone System in the base domain (direct-routing-sbc-multiple-tenants).
func Remarks(objects []plan.Object, s *plan.CarrierSettings) []string {
	kept := slices.ContainsFunc(objects, func(o plan.Object) bool {
		licence, _ := o.Fields["licence"].(string)
		return o.Type == plan.ActivationUser && slices.Contains(phoneSystem, licence)
	})
	if kept {
		return nil
	}
	return []string{"no activation user of " + s.Base + " has a Phone System licence; Microsoft asks that the " +
		"operator's tenant keeps one"}
}
