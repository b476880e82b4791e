//go:build deep

package tenant_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/testkit"
)

// The whole way with a gateway object for each name, on PostgreSQL.
func TestWholeWayWithGateways(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	wholeWay(t, start(t, "database.driver=postgres", "database.url="+c.URL("tandem")), "gateways")
}
