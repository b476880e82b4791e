package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/zone"
)

// TestAZoneIsAccepted: a name server whose database has lost the customers keeps its zone, says so, and follows when an
// administrator accepts that, which is audited.
func TestAZoneIsAccepted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func(database string) (n *node, stop func()) {
		t.Helper()
		cfg, err := config.Load(config.Source{Data: dir, FreePorts: true, Env: os.Environ(), Set: []string{
			"database.file=" + filepath.Join(t.TempDir(), database), "calls.routing.baseDomain=gw.example.com",
			`zone={nameServers: [{name: ns1.example.net}], contact: hostmaster@example.net, listen: ["127.0.0.1:0"],
			regions: [{edges: [{name: e1, addresses: [192.0.2.1], tls: 5061}]}]}`}})
		if err != nil {
			t.Fatal(err)
		}
		if n, err = build(t.Context(), cfg, "test", quiet(), serving); err != nil {
			t.Fatal(err)
		}
		r, err := n.supervisor.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n, func() {
			if err := r.stop(nil, 0, 5*time.Second); err != nil {
				t.Error(err)
			}
			n.close()
		}
	}
	n, stop := start("full.db")
	if code, body := n.ask(t, "POST", "/manage/v1/zone/accept", ""); code != 409 ||
		!strings.Contains(body, "ZoneNotHeld") {
		t.Errorf("accept when nothing is held back: %d %s", code, body)
	}
	var customers []zone.Record
	for i := range 300 {
		customers = append(customers, zone.Address(fmt.Sprintf("c%d.1r1", i), 60, netip.MustParseAddr("192.0.2.1")))
	}
	err := zone.Publish(t.Context(), n.core.zone, "gw.example.com.", map[string][]zone.Record{"test": customers})
	if err != nil {
		t.Fatal(err)
	}
	records := func() float64 {
		all, err := n.gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == "tandem_zone_records" {
				return f.Metric[0].Gauge.GetValue()
			}
		}
		return -1
	}
	eventually(t, "the zone has the customers", func() bool { return records() > 300 })
	stop()

	n, stop = start("empty.db")
	defer stop()
	warning := "the old zone is used until tandem zone accept"
	eventually(t, warning, func() bool {
		_, body := n.ask(t, "GET", "/readyz?role=dns", "")
		return strings.Contains(body, warning)
	})
	if code, body := n.ask(t, "POST", "/manage/v1/zone/accept", ""); code != 202 {
		t.Errorf("accept: %d %s", code, body)
	}
	eventually(t, "the zone follows the database", func() bool { return records() < 100 })
	if code, body := n.ask(t, "GET", "/readyz?role=dns", ""); strings.Contains(body, warning) {
		t.Errorf("after the acceptance: %d %s", code, body)
	}
	audited := 0
	for _, row := range testkit.AuditLog(t, n.core.db) {
		if row.Action == "zone.accept" {
			audited++
		}
	}
	if audited != 1 {
		t.Errorf("%d rows in the audit log, want 1", audited)
	}
}
