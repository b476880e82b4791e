package tenant_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// watching reports after each request which labels the tenant's route can use.
type watching struct {
	*bed
	after func(usable map[string]bool)
}

func (w watching) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.bed.RoundTrip(r)
	usable := map[string]bool{}
	w.edit(func(s *microsoft.State) {
		gateways, _ := s.Configurations["OnlineVoiceRoute"]["tandem-e164"]["OnlinePstnGatewayList"].([]any)
		count := map[string]int{}
		for _, g := range gateways {
			name, _ := g.(string)
			label, _, _ := strings.Cut(name, ".")
			active := slices.ContainsFunc(s.Domains, func(d *microsoft.Domain) bool {
				return strings.EqualFold(d.Name, name) && d.Active
			})
			if active {
				count[label]++
			} else if label != "" {
				usable["broken: "+name] = true
			}
		}
		for label, n := range count {
			usable[label] = n == len(regions)
		}
	})
	w.after(usable)
	return resp, err
}

// A tenant with gateway objects gets a second label with derived trunks, and then loses the first one. The old label
// can be used until the new one can, the new one from then on, and the route names no domain that is not there.
func TestConvertInATenant(t *testing.T) {
	t.Parallel()
	for _, from := range []plan.Trunk{plan.Gateways, plan.Derived} {
		scenario(t, nil, func(b *bed, m *memory, before string) {
			s := b.settings(from)
			b.waited(b.join(m, b.target(s)))

			must := []string{"contoso"}
			requests := 0
			b.connect(watching{b, func(usable map[string]bool) {
				requests++
				for _, l := range must {
					if !usable[l] {
						b.t.Errorf("request %d: the label %s cannot be used: %v", requests, l, usable)
					}
				}
				for l := range usable {
					if strings.HasPrefix(l, "broken") {
						b.t.Errorf("request %d: %s", requests, l)
					}
				}
			}})
			s.Labels = append(s.Labels, plan.Label{Name: "next", Trunk: plan.Derived})
			objects, err := b.reach.Read(b.t.Context(), nil)
			b.must(err)
			target := func() []plan.Object {
				return s.Objects(plan.NewState(objects), plan.NewLedger(slices.Collect(maps.Values(m.ledger))))
			}
			b.waited(b.join(m, target()))
			must = []string{"contoso", "next"}
			_, err = b.reach.Read(b.t.Context(), nil)
			b.must(err)

			must, s.Labels = []string{"next"}, s.Labels[1:]
			b.waited(b.join(m, target()))
			if requests < 20 {
				b.t.Errorf("%d requests only", requests)
			}
			b.edit(func(s *microsoft.State) {
				for _, d := range s.Domains {
					if strings.HasPrefix(d.Name, "contoso.1r") {
						b.t.Errorf("left: %s", d.Name)
					}
				}
				for name := range s.Configurations["OnlinePSTNGateway"] {
					if strings.HasPrefix(name, "contoso.") {
						b.t.Errorf("left: %s", name)
					}
				}
			})

			b.connect(b)
			b.join(m, nil)
			b.purge()
			b.same("after leaving", before, b.dump())
		})
	}
}
