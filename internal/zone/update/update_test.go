package update_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
)

// all are records of every type that Tandem publishes, and the name servers' of the base domain, which it does not.
func all() []zone.Record {
	return []zone.Record{
		zone.NameServer(zone.Apex, 3600, "ns1.elsewhere.example"),
		zone.Authority(zone.Apex, 3600, 0, "issue", "ca.example"),
		address("provapi", 60, "192.0.2.10"), address("provapi", 60, "2001:db8::10"),
		zone.Service("_sips._tcp.r1", 3600, 10, 20, 5061, "E1.r1."+base),
		address("acme.1r1", 60, "192.0.2.11"), address("acme.1r1", 60, "192.0.2.12"),
		zone.Text("acme.1r1", 60, "MS=ms1"), zone.Text("acme.1r1", 60, `quote " backslash \ ; ( ) é `+"\x00\xff"),
		zone.Text("long.1r1", 60, strings.Repeat("0123456789", 70)),
	}
}

// The operator's server answers as Tandem's own does for the same records, except for what belongs to the operator: the
// SOA record and the name servers of the base domain. Everything goes again, and only that.
func TestAllTypes(t *testing.T) {
	t.Parallel()
	p := bind(t, "")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	n.publish("configuration", all()...)
	n.settled()

	own := zone.New(base, "ns1.elsewhere.example", "dns@operator.example")
	if err := own.Apply(&zone.Version{To: 1, Added: all()}); err != nil {
		t.Fatal(err)
	}
	records, _ := own.Records()
	compared := 0
	for _, r := range records {
		if r.Type == "NS" {
			continue // of the operator
		}
		want := []string{}
		name := strings.TrimPrefix(r.Name+"."+base+".", zone.Apex+".")
		for _, x := range own.Look(name, dns.StringToType[r.Type]).Records {
			data := strings.TrimPrefix(x.String(), x.Header().String())
			want = append(want, fmt.Sprintf("%d %s", x.Header().Ttl, data))
		}
		slices.Sort(want)
		expect(t, p, r.Name, r.Type, want...)
		compared++
	}
	t.Logf("%d answers compared", compared)
	expect(t, p, zone.Apex, "NS")

	n.publish("configuration")
	n.settled()
	for _, r := range all() {
		expect(t, p, r.Name, r.Type)
	}
	if got := n.table(); len(got) > 0 {
		t.Errorf("table %q after everything was removed", got)
	}
}

// Records of others at the same names, of the same and other types, and one that is equal to one of ours, stay as they
// are whatever happens to ours.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	p := bind(t, `
acme.1r1.gw.operator.example. 300 A 203.0.113.1
acme.1r1.gw.operator.example. 300 A 203.0.113.2
acme.1r1.gw.operator.example. 300 MX 10 mail.operator.example.
acme.1r2.gw.operator.example. 300 A 198.51.100.1
`)
	d := sqlite(t)
	c := config(t, p.Addr)
	n := newNode(t, d, c).run()
	// 198.51.100.1 is published by the operator already.
	n.publish("account:a", address("acme.1r1", 60, "192.0.2.1"), address("acme.1r2", 60, "198.51.100.1"))
	n.settled()
	foreign := []string{"300 203.0.113.1", "300 203.0.113.2"}
	expect(t, p, "acme.1r1", "A", append([]string{"300 192.0.2.1"}, foreign...)...) // a set has one TTL
	expect(t, p, "acme.1r2", "A", "300 198.51.100.1")
	if got := n.table(); !slices.Equal(got, []string{"acme.1r1.gw.operator.example A 192.0.2.1 true"}) {
		t.Errorf("table %q, want our record only", got)
	}

	n.publish("account:a", address("acme.1r1", 30, "192.0.2.2"), address("acme.1r2", 30, "198.51.100.1"))
	n.settled()
	expect(t, p, "acme.1r1", "A", append([]string{"300 192.0.2.2"}, foreign...)...)

	n = n.again(d, c)
	n.publish("account:a")
	n.settled()
	expect(t, p, "acme.1r1", "A", foreign...)
	expect(t, p, "acme.1r1", "MX", "300 10 mail.operator.example.")
	expect(t, p, "acme.1r2", "A", "300 198.51.100.1")
}

// Both values of an order for a name and its wildcard are there at once beside the text of somebody else, and only ours
// are removed.
func TestChallenges(t *testing.T) {
	t.Parallel()
	p := bind(t, `_acme-challenge.1r1.gw.operator.example. 120 TXT "foreign"`+"\n")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	name := "_acme-challenge.1r1"
	n.publish("certificate", zone.Text(name, 60, "one"), zone.Text(name, 60, "two"))
	n.settled()
	expect(t, p, name, "TXT", `120 "foreign"`, `120 "one"`, `120 "two"`)

	n.publish("certificate", zone.Text(name, 60, "two"))
	n.settled()
	expect(t, p, name, "TXT", `120 "foreign"`, `120 "two"`)
	n.publish("certificate")
	n.settled()
	expect(t, p, name, "TXT", `120 "foreign"`)
}

// Another TTL replaces the former one, and what moves has an address in every answer.
func TestChanges(t *testing.T) {
	t.Parallel()
	p := bind(t, "")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	n.publish("provapi", address("provapi", 3600, "192.0.2.1"), address("provapi", 3600, "192.0.2.2"))
	n.settled()
	n.publish("provapi", address("provapi", 60, "192.0.2.1"), address("provapi", 60, "192.0.2.2"))
	n.settled()
	expect(t, p, "provapi", "A", "60 192.0.2.1", "60 192.0.2.2")

	ctx, cancel := context.WithCancel(t.Context())
	empty := make(chan int)
	go func() {
		count := 0
		for ctx.Err() == nil {
			if r, err := p.Ask(ctx, "udp", "provapi."+base+".", dns.TypeA); err == nil && len(r.Answer) == 0 {
				count++
			}
		}
		empty <- count
	}()
	n.publish("provapi", address("provapi", 60, "198.51.100.1"))
	n.settled()
	cancel()
	if count := <-empty; count > 0 {
		t.Errorf("%d answers had no address while it moved", count)
	}
	expect(t, p, "provapi", "A", "60 198.51.100.1")
}

// What a stranger removes is put back, with a warning; what a stranger adds stays.
func TestRemovedByAStranger(t *testing.T) {
	t.Parallel()
	p := bind(t, "")
	d := sqlite(t)
	c := config(t, p.Addr)
	n := newNode(t, d, c).run()
	n.publish("account:a", address("acme.1r1", 60, "192.0.2.1"), zone.Text("acme.1r1", 60, "token"))
	n.settled()
	stranger(t, p, (*dns.Msg).Remove, "acme.1r1."+base+". 0 IN A 192.0.2.1")
	stranger(t, p, (*dns.Msg).Insert, "acme.1r1."+base+`. 60 IN TXT "added"`)

	n = n.again(d, c)
	n.settled()
	expect(t, p, "acme.1r1", "A", "60 192.0.2.1")
	expect(t, p, "acme.1r1", "TXT", `60 "added"`, `60 "token"`)
	log := n.log.String()
	if !strings.Contains(log, "level=WARN") || !strings.Contains(log, "acme.1r1."+base+" A 192.0.2.1") {
		t.Errorf("no warning about the record that was removed:\n%s", log)
	}
}

// A record that covers a name by a wildcard of the operator is no reason to leave the name without it, once the name
// has a record of its own; and it does not look like a record of ours that was not removed.
func TestWildcard(t *testing.T) {
	t.Parallel()
	p := bind(t, "*.1r1.gw.operator.example. 60 A 192.0.2.1\n")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	n.publish("account:a", address("acme.1r1", 60, "192.0.2.1"), zone.Text("acme.1r1", 60, "token"))
	n.settled()
	expect(t, p, "acme.1r1", "TXT", `60 "token"`)
	expect(t, p, "acme.1r1", "A", "60 192.0.2.1")
	n.publish("account:a")
	n.settled()
	expect(t, p, "acme.1r1", "TXT")
	if got := n.table(); len(got) > 0 {
		t.Errorf("table %q after everything was removed", got)
	}
}

// While the server is unavailable the problem is known; when it is available again, all changes are published.
func TestServerUnavailable(t *testing.T) {
	t.Parallel()
	p := bind(t, "")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	n.publish("account:a", address("a.1r1", 60, "192.0.2.1"))
	n.settled()
	p.Kill()
	n.publish("account:a")
	n.publish("account:b", address("b.1r1", 60, "192.0.2.2"))
	n.until("a problem", func() bool { return strings.Contains(n.u.Problem(), "no answer from "+p.Addr.String()) })

	pending, success := "tandem_zone_update_pending", "tandem_zone_update_success_timestamp_seconds"
	before := n.metric(success)
	n.until("two names pending", func() bool { return n.metric(pending) == 2 })

	p.Start(t)
	n.settled()
	if n.metric(pending) != 0 || n.metric(success) <= before {
		t.Errorf("metrics: %v pending, last success %v, before %v", n.metric(pending), n.metric(success), before)
	}
	expect(t, p, "a.1r1", "A")
	expect(t, p, "b.1r1", "A", "60 192.0.2.2")
	log := n.log.String()
	if strings.Count(log, "records not published") != 1 || !strings.Contains(log, "operator's zone again") {
		t.Errorf("log:\n%s", log)
	}
}

// Records that the server refuses hold up no others, and are not taken for ours if the operator adds them by hand.
func TestRefused(t *testing.T) {
	t.Parallel()
	p := dnspeer.BINDUpdated(t, primary(), operators, "grant "+keyName+" zonesub A TXT;")
	d := sqlite(t)
	c := config(t, p.Addr)
	n := newNode(t, d, c).run()
	var rs []zone.Record
	for i := range 30 {
		rs = append(rs, address(fmt.Sprintf("c%02d.1r1", i), 60, "192.0.2.1"))
	}
	n.publish("account:a", rs...)
	n.publish("account:b", address("c00.1r1", 60, "2001:db8::1"), address("c29.1r1", 60, "2001:db8::1"))
	n.until("a problem", func() bool { return strings.Contains(n.u.Problem(), "REFUSED") })
	n.until("all others", func() bool { return len(n.table()) == len(rs) })
	why := n.u.Problem()
	if !strings.Contains(why, "c00.1r1."+base+" AAAA") || !strings.Contains(why, "update-policy") {
		t.Errorf("problem %q", why)
	}
	expect(t, p, "c29.1r1", "A", "60 192.0.2.1")

	n.publish("account:b")
	n.settled()
	if got := n.table(); len(got) != len(rs) {
		t.Errorf("%d records are ours, want %d", len(got), len(rs))
	}
}

// A name that is a CNAME in the operator's zone takes no other records, without an error of the server.
func TestAlias(t *testing.T) {
	t.Parallel()
	p := bind(t, "acme.1r1.gw.operator.example. 60 CNAME www.operator.example.\n")
	n := newNode(t, sqlite(t), config(t, p.Addr)).run()
	n.publish("account:a", zone.Text("acme.1r1", 60, "token"), zone.Text("other.1r1", 60, "token"))
	n.until("a problem", func() bool { return strings.Contains(n.u.Problem(), "CNAME") })
	expect(t, p, "other.1r1", "TXT", `60 "token"`)
	stranger(t, p, (*dns.Msg).Remove, "acme.1r1."+base+". 0 IN CNAME www.operator.example.")
	n.settled()
	expect(t, p, "acme.1r1", "TXT", `60 "token"`)
}
