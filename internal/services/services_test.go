package services_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

// TestList: what other packages rely on. IDs are stored, so those of the first six services are written out here.
func TestList(t *testing.T) {
	ids := map[string]uint8{"teamsDirectRouting": 1, "teamsOperatorConnect": 2, "teamsPhoneMobile": 3,
		"zoomPhoneCloudPeering": 4, "azureOperatorCallProtection": 5, "azureCommunicationServices": 6}
	known := services.All().Services()
	names := map[string]bool{}
	last := uint8(0)
	for _, d := range services.All() {
		tr := d.Service.Traits()
		if want, ok := ids[tr.Name]; ok && tr.ID != want {
			t.Errorf("%s has ID %d, want %d: rows and snapshots hold it", tr.Name, tr.ID, want)
		}
		delete(ids, tr.Name)
		if tr.ID <= last || names[tr.Name] || tr.Title == "" {
			t.Errorf("%s: ID %d after %d, name used before: %v, title %q", tr.Name, tr.ID, last, names[tr.Name],
				tr.Title)
		}
		last, names[tr.Name] = tr.ID, true
		for _, other := range tr.ExcludedBy {
			if _, ok := known.ByName(other); !ok {
				t.Errorf("%s is excluded by %s, which is not a service", tr.Name, other)
			}
		}
		// Routing refuses the calls of a service by its traits; without a profile it must.
		if tr.CarriesCalls != (d.Profile != nil) {
			t.Errorf("%s carries calls: %v, has a profile: %v", tr.Name, tr.CarriesCalls, d.Profile != nil)
		}
		if d.Profile == nil {
			continue
		}
		if p := legtest.Profile(t, d.Profile); p.Service() != d.Service {
			t.Errorf("the profile of %s is for %s", tr.Name, p.Service())
		}
	}
	if len(ids) > 0 {
		t.Errorf("services %v are missing", ids)
	}
}
