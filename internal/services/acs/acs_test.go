package acs_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/services/acs"
)

// TestCarriesNoCalls: without a profile here, routing must refuse the service's calls.
func TestCarriesNoCalls(t *testing.T) {
	if tr := acs.Service.Traits(); tr.CarriesCalls {
		t.Errorf("%s carries calls by its traits, but has no call profile", tr.Title)
	}
}
