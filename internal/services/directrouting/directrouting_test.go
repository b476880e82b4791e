package directrouting_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

func TestMessages(t *testing.T) {
	p, err := directrouting.New(legtest.Rules(t),
		leg.Names{BaseDomain: "GW.example.com.", Regions: []string{"1r1", "1r2"}})
	if err != nil {
		t.Fatal(err)
	}
	legtest.Run(t, "testdata", p)
}

func TestNewNeedsNames(t *testing.T) {
	if _, err := directrouting.New(legtest.Rules(t), leg.Names{Regions: []string{"1r1"}}); err == nil {
		t.Error("New without a base domain: no error")
	}
	if _, err := directrouting.New(legtest.Rules(t), leg.Names{BaseDomain: "gw.example.com"}); err == nil {
		t.Error("New without this node's region: no error")
	}
}
