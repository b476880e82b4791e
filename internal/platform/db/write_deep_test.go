//go:build deep

package db_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
)

const cutStep = 1 // statements between the points at which an upgrade is interrupted

// TestWritesAreProvedOnPostgresInDepth goes through the faults that TestWritesAreProvedOnPostgres leaves out.
func TestWritesAreProvedOnPostgresInDepth(t *testing.T) {
	t.Parallel()
	disk := testkit.SmallDisk(t, 250)
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true, Parent: disk})
	conf := db.Default() // with the timeouts of production
	conf.Driver, conf.URL = db.Postgres, c.CreateOwned(t, "tandem", "tandem")
	d := serve(t, conf, "n1")
	d.works(t, "untouched")

	c.Admin(t, "tandem", "REVOKE ALL ON rate_limits FROM tandem")
	d.fails(t, "one table revoked", "rate_limits", true)
	d.refuses(t, "one table revoked")
	c.Admin(t, "tandem", "GRANT ALL ON rate_limits TO tandem")
	d.works(t, "granted again")

	// A missing privilege that the check does not cover is found by the first transaction that needs it.
	c.Admin(t, "tandem", "REVOKE INSERT ON rate_limits FROM tandem")
	d.refuses(t, "insert revoked")
	d.fails(t, "insert revoked", "permission denied", true)
	c.Admin(t, "tandem", "GRANT ALL ON rate_limits TO tandem")
	d.works(t, "insert granted")

	empty := testkit.FillDisk(t, disk)
	d.fails(t, "disk full", "No space left on device", true)
	d.refuses(t, "disk full")
	empty()
	d.works(t, "room again")

	c.Pause(t)
	d.fails(t, "stopped", "", false)
	d.refuses(t, "stopped")
	c.Resume(t)
	d.works(t, "continued")
}
