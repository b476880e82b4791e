package update_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
)

// Thousands of accounts are published at knot, whose zone would need many messages to transfer, and one that a stranger
// removes is found among them. A change of provapi during the first publication does not wait for its end.
func TestLarge(t *testing.T) {
	t.Parallel()
	accounts := 300
	if deep {
		accounts = 3000
	}
	p := dnspeer.KnotUpdated(t, primary(), operators)
	d := sqlite(t)
	c := config(t, p.Addr)
	n := newNode(t, d, c)
	var rs []zone.Record
	for i := range accounts {
		for region := 1; region <= 2; region++ {
			name := fmt.Sprintf("c%04d.1r%d", i, region)
			rs = append(rs, address(name, 60, "192.0.2.1"), zone.Text(name, 60, fmt.Sprintf("MS=ms%08d", i*2+region)))
		}
	}
	for i := 0; i < len(rs); i += 10_000 {
		n.publish(fmt.Sprintf("accounts:%d", i), rs[i:min(i+10_000, len(rs))]...)
	}
	began := time.Now()
	n.run()
	n.until("the first records", func() bool { return len(n.table()) > 0 })
	n.publish("provapi", address("provapi", 60, "192.0.2.10"))
	n.until("provapi", func() bool { return len(has(t, p, "provapi", "A")) == 1 })
	at := len(n.table())
	if last := has(t, p, fmt.Sprintf("c%04d.1r2", accounts-1), "TXT"); deep && len(last) > 0 {
		t.Errorf("provapi was published when all accounts were")
	}
	n.settled()
	t.Logf("%d records in %v; provapi after %d", len(rs), time.Since(began), at)
	for _, i := range []int{0, accounts / 2, accounts - 1} {
		expect(t, p, fmt.Sprintf("c%04d.1r2", i), "TXT", fmt.Sprintf(`60 "MS=ms%08d"`, i*2+2))
	}
	if got := len(n.table()); got != len(rs)+1 {
		t.Errorf("%d entries, want %d", got, len(rs)+1)
	}

	name := fmt.Sprintf("c%04d.1r1", accounts/2)
	stranger(t, p, (*dns.Msg).RemoveName, name+"."+base+". 0 IN A 192.0.2.1")
	began = time.Now()
	n = n.again(d, c)
	n.settled()
	t.Logf("checked in %v", time.Since(began))
	expect(t, p, name, "A", "60 192.0.2.1")
}
