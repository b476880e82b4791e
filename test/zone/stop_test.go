//go:build deep

package zone_test

import (
	"syscall"
	"testing"
)

// An account is inconsistent while one of the secondaries has stopped, and provisioned again by itself.
func TestStatusWhileAServerStops(t *testing.T) {
	d := deploy(t, "")
	d.put("contoso", "acme")
	d.provisioned("contoso", "acme")

	nsd := d.peers[0]
	nsd.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { nsd.Signal(t, syscall.SIGCONT) })
	d.becomes("contoso", "inconsistent")
	d.put("fabrikam", "fab")
	d.becomes("fabrikam", "inconsistent")
	nsd.Signal(t, syscall.SIGCONT)
	d.provisioned("contoso", "acme")
	d.provisioned("fabrikam", "fab")
}
