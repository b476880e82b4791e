package readiness

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/licence"
)

// Way is how the activation users of a tenant's names get their licences.
type Way string

// The ways. The zero value: not at all.
const (
	EachOwn Way = "each"   // one for each name
	Reused  Way = "reused" // one, used for the names one after the other
	// ResourceAccount is the free licence of resource accounts. It is not verified that it activates a domain.
	ResourceAccount Way = "resourceAccount"
	// NotNeeded: all names are active already.
	NotNeeded Way = "none"
)

// Seat is the answer of Seats.
type Seat struct {
	Way     Way
	Plan    string // the service plan, for plan.Settings
	Product string
	Level   Level
	Reason  string
	Remedy  string
}

// Seats says how the activation users of so many names can be licensed.
func Seats(skus []licence.SKU, names int) Seat {
	if names == 0 {
		return Seat{Way: NotNeeded, Level: Pass, Reason: "all names are active; no further licence is needed"}
	}
	choices := licence.Choose(skus)
	free := 0
	for _, c := range choices {
		if !c.ResourceAccount {
			free += c.Free
		}
	}
	if len(choices) == 0 {
		return Seat{Level: Fail, Remedy: "buy or free a licence with Teams, such as Office 365 E1",
			Reason: "no licence is free" + taken(skus)}
	}

	best := choices[0]
	s := Seat{Way: EachOwn, Plan: best.Plans[0], Product: best.Name, Level: Pass,
		Reason: fmt.Sprintf("%d free, by the service plan %s; needed: %d", best.Free, list(best.Plans), names)}
	switch {
	case free == 0:
		s.Way, s.Level = ResourceAccount, Warn
		s.Reason = "only the free licence of resource accounts is left; it is not verified that it activates a domain"
		s.Remedy = "free a licence with Teams, or try it"
	case free < names:
		s.Way, s.Level = Reused, Warn
		s.Reason = fmt.Sprintf("%d free for %d names: it is used for one name after the other, which takes longer",
			free, names)
		s.Remedy = "free another licence to do them at once"
	}
	if best.Remark != "" && s.Level == Pass {
		s.Level, s.Remedy = Warn, "renew the subscription, or free another licence"
	}
	if best.Remark != "" {
		s.Reason += "; " + best.Remark
	}
	return s
}

// taken says why products that would do have no free units.
func taken(skus []licence.SKU) string {
	var texts []string
	for _, c := range licence.All(skus) {
		i := slices.IndexFunc(skus, func(s licence.SKU) bool { return s.ID == c.SKU })
		if _, remark := skus[i].Free(); remark != "" {
			texts = append(texts, fmt.Sprintf("; %s: %s", c.Name, remark))
		}
	}
	return strings.Join(texts, "")
}
