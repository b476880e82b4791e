package zone_test

import (
	"context"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/zone/check"
)

// becomes waits until an account has a status.
func (d *deployment) becomes(account, want string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	c := d.client()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		a, err := c.Account(ctx, account)
		if err != nil {
			d.t.Fatal(err)
		}
		got := a.ServiceDetails.TeamsDirectRouting.SubdomainStatus
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("account %s is %s, want %s", account, got, want)
		}
	}
}

// provisioned waits until an account is provisioned. Every name server must answer its names then.
func (d *deployment) provisioned(account, label string) {
	d.t.Helper()
	d.becomes(account, "provisioned")
	if _, found := check.Zone(d.t.Context(), base, 0, d.servers, names(label)); len(found) > 0 {
		d.t.Fatalf("account %s is provisioned, but %+v", account, found)
	}
}

// A BSS puts tokens: the account is provisioned only when every listed name server answers them and the addresses, in
// both regions.
func TestStatus(t *testing.T) {
	t.Parallel()
	d := deploy(t, "")
	for _, label := range []string{"acme", "again"} { // an account that is new, and one that gets another label
		d.put("contoso", label)
		d.provisioned("contoso", label)
	}
}
