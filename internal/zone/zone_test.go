package zone_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/zone"
)

const origin = "customers.example."

func newZone() *zone.Zone {
	return zone.New("customers.example", "ns1.operator.example", "dns.admin@operator.example")
}

func address(name, a string) zone.Record { return zone.Address(name, 60, netip.MustParseAddr(a)) }

// records is a zone as it may look with one region and one customer.
func records() []zone.Record {
	return []zone.Record{
		zone.NameServer(zone.Apex, 3600, "ns1.operator.example"),
		zone.NameServer(zone.Apex, 3600, "ns2.customers.example"),
		address("ns2", "192.0.2.53"),
		zone.Authority(zone.Apex, 3600, 0, "issue", "ca.example"),
		zone.Service("_sips._tcp.r1", 60, 10, 50, 5061, "e1.r1.customers.example"),
		address("e1.r1", "192.0.2.1"), address("e1.r1", "2001:db8::1"),
		address("acme.1r1", "192.0.2.1"), zone.Text("acme.1r1", 60, "MS=ms10000001"),
	}
}

func load(t *testing.T, z *zone.Zone, serial zone.Serial, rs []zone.Record) {
	t.Helper()
	if err := z.Apply(&zone.Version{To: serial, Added: rs}); err != nil {
		t.Fatal(err)
	}
}

func texts(rrs []dns.RR) []string {
	var list []string
	for _, rr := range rrs {
		list = append(list, strings.Join(strings.Fields(rr.String()), " "))
	}

	return list
}

// A name exists if anything is at or below it (RFC 4592 §2.2.2, RFC 8020 §2).
func TestLook(t *testing.T) {
	z := newZone()
	load(t, z, 7, records())
	soa := "customers.example. 60 IN SOA ns1.operator.example. dns\\.admin.operator.example. 7 900 60 1209600 60"

	for _, x := range []struct {
		name   string
		kind   uint16
		result zone.Result
		want   []string
	}{
		{"acme.1r1.customers.example.", dns.TypeA, zone.Found,
			[]string{"acme.1r1.customers.example. 60 IN A 192.0.2.1"}},
		{"aCmE.1r1.CUSTOMERS.example.", dns.TypeTXT, zone.Found,
			[]string{`acme.1r1.customers.example. 60 IN TXT "MS=ms10000001"`}},
		{"acme.1r1.customers.example.", dns.TypeAAAA, zone.NoData, nil},
		{"acme.1r1.customers.example.", 64999, zone.NoData, nil},
		{"_tcp.r1.customers.example.", dns.TypeA, zone.NoData, nil},
		{"r1.customers.example.", dns.TypeCAA, zone.NoData, nil},
		{"1r1.customers.example.", dns.TypeDS, zone.NoData, nil},
		{"nosuch.1r1.customers.example.", dns.TypeA, zone.NoName, nil},
		{"x.acme.1r1.customers.example.", dns.TypeA, zone.NoName, nil},
		{"customers.example.", dns.TypeSOA, zone.Found, []string{soa}},
		{"customers.example.", dns.TypeCAA, zone.Found,
			[]string{`customers.example. 3600 IN CAA 0 issue "ca.example"`}},
		{"customers.example.", dns.TypeMX, zone.NoData, nil},
		{"example.", dns.TypeA, zone.Outside, nil},
		{"xcustomers.example.", dns.TypeA, zone.Outside, nil},
		{".", dns.TypeNS, zone.Outside, nil},
	} {
		a := z.Look(x.name, x.kind)
		if diff := cmp.Diff(x.want, texts(a.Records)); a.Result != x.result || diff != "" {
			t.Errorf("%s %s: result %d, want %d\n%s", x.name, dns.TypeToString[x.kind], a.Result, x.result, diff)
		}
		negative := a.Result == zone.NoData || a.Result == zone.NoName
		if negative != (a.SOA != nil) || negative && texts([]dns.RR{a.SOA})[0] != soa {
			t.Errorf("%s %s: SOA %v", x.name, dns.TypeToString[x.kind], a.SOA)
		}
	}

	a := z.Look("_sips._tcp.r1."+origin, dns.TypeSRV)
	want := []string{"e1.r1.customers.example. 60 IN A 192.0.2.1", "e1.r1.customers.example. 60 IN AAAA 2001:db8::1"}
	if diff := cmp.Diff(want, texts(a.Extra)); diff != "" {
		t.Error(diff)
	}
}

// The contact in the SOA record is the mail address, with what is before the "@" in one label.
func TestContact(t *testing.T) {
	for contact, want := range map[string]string{
		"hostmaster@operator.example":   "hostmaster.operator.example.",
		"host.master@Operator.example.": `host\.master.operator.example.`,
		`a\b@operator.example`:          `a\\b.operator.example.`,
		"a b@operator.example":          `a\ b.operator.example.`,
	} {
		z := zone.New("gw.example.com", "ns1.gw.example.com", contact)
		if err := z.Apply(&zone.Version{To: 1}); err != nil {
			t.Fatal(err)
		}
		m := &dns.Msg{Answer: []dns.RR{z.Look("nosuch.gw.example.com.", dns.TypeA).SOA}}
		data, err := m.Pack()
		if err == nil {
			err = m.Unpack(data)
		}
		if err != nil {
			t.Errorf("%s: %v", contact, err)
			continue
		}
		if got := m.Answer[0].(*dns.SOA).Mbox; got != want {
			t.Errorf("%s: %s, want %s", contact, got, want)
		}
	}
}

// A zone that has not been loaded denies nothing.
func TestLookNotLoaded(t *testing.T) {
	z := newZone()
	if a := z.Look("acme.1r1."+origin, dns.TypeA); a.Result != zone.NotLoaded {
		t.Errorf("result %d", a.Result)
	}
	if z.All() != nil || z.Since(1) != nil {
		t.Error("a transfer of nothing")
	}
}

// A version is applied whole or not at all, and what is wrong with it is named.
func TestApplyRefused(t *testing.T) {
	add := func(r zone.Record) *zone.Version { return &zone.Version{From: 7, To: 8, Added: []zone.Record{r}} }
	long := strings.Repeat("a", 63)
	for name, x := range map[string]struct {
		v    *zone.Version
		want string
	}{
		"another serial":  {&zone.Version{From: 6, To: 8}, "from serial 6 to 8, and the zone has 7"},
		"an older serial": {&zone.Version{From: 7, To: 6}, "from serial 7 to 6"},
		"serial 0":        {&zone.Version{From: 7, To: 0}, "to 0"},
		"a second start":  {&zone.Version{From: 0, To: 9}, "from serial 0"},
		"there already":   {add(records()[2]), "already"},
		"not there": {&zone.Version{From: 7, To: 8, Removed: []zone.Record{address("x", "192.0.2.9")}},
			"does not have"},
		"two TTLs":       {add(zone.Record{"ns2", "A", 61, "192.0.2.54"}), "different TTLs"},
		"a type":         {add(zone.Record{"x", "CNAME", 60, "y."}), "type CNAME is not published"},
		"an address":     {add(zone.Record{"x", "A", 60, "192.0.2"}), "not valid data"},
		"no data":        {add(zone.Record{"x", "A", 60, ""}), "not valid data"},
		"two records":    {add(zone.Record{"x", "A", 60, "192.0.2.1\ny A 192.0.2.1"}), "not valid data"},
		"long data":      {add(zone.Text("x", 60, strings.Repeat("a", 1000))), "at most 1000"},
		"a comment":      {add(zone.Record{"x", "A", 60, "192.0.2.1 ; y"}), "not valid data"},
		"upper case":     {add(address("Acme", "192.0.2.1")), `got 'A'`},
		"a wildcard":     {add(address("*.1r1", "192.0.2.1")), `got '*'`},
		"an empty label": {add(address("a..b", "192.0.2.1")), "1 to 63 characters"},
		"a long label":   {add(address(long+"a", "192.0.2.1")), "1 to 63 characters"},
		"a long name":    {add(address(strings.Repeat(long+".", 3)+long, "192.0.2.1")), "at most 253"},
		"a long TTL":     {add(zone.Record{"x", "A", 86401, "192.0.2.1"}), "at most 86400 seconds"},
		"half of it wrong": {&zone.Version{From: 7, To: 8, Removed: records(), Added: []zone.Record{{Name: "x"}}},
			"type"},
		"half of it absent": {&zone.Version{From: 7, To: 8, Removed: append(records(), address("x", "192.0.2.9"))},
			"not have"},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone()
			load(t, z, 7, records())
			before := texts(z.All())
			err := z.Apply(x.v)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("error %v, want one with %q", err, x.want)
			}
			slices.Sort(before)
			after := texts(z.All())
			slices.Sort(after)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the zone has changed\n%s", diff)
			}
		})
	}
}

// Serials only go forward, in the arithmetic of RFC 1982 §3.2, are never 0 (RFC 2136 §7.11), and follow the clock when
// it is ahead.
func TestSerial(t *testing.T) {
	now := uint32(1_795_000_000)
	for _, x := range []struct {
		s    zone.Serial
		at   uint32
		want zone.Serial
	}{
		{zone.Serial(now), now, zone.Serial(now + 1)}, // two changes in one second
		{zone.Serial(now), now - 2*86400, zone.Serial(now + 1)},
		{zone.Serial(now - 500), now, zone.Serial(now)},
		{4294967290, 5, 5},
		{4294967295, 4294967295, 1},
		{4294967294, 4294967295, 4294967295},
		{0, now, zone.Serial(now)},
	} {
		if got := x.s.Next(x.at); got != x.want || x.s != 0 && !got.After(x.s) {
			t.Errorf("after %d at %d comes %d, want %d", x.s, x.at, got, x.want)
		}
	}

	s := zone.Serial(4294967290)
	for range 20 {
		next := s.Next(1)
		if !next.After(s) || s.After(next) || next == 0 {
			t.Fatalf("%d after %d", next, s)
		}
		s = next
	}
}

// TestVersions applies random versions beside a plain set of records. The zone has what the set has, each transfer
// reproduces it, and a copy on disk that is cut anywhere is one of the versions.
func TestVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{zone.Apex, "a", "b.a", "c.b.a", "d.b.a", "x"}
		pool := []zone.Record{}
		for _, n := range names {
			pool = append(pool, address(n, "192.0.2.1"), address(n, "192.0.2.2"), address(n, "2001:db8::1"),
				zone.Text(n, 300, "one"), zone.Text(n, 300, `T"w\o; `+strings.Repeat("é", 100)))
		}
		dir, err := os.MkdirTemp("", "zone-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)

		z := newZone()
		files, _, err := zone.Open(dir, z, unreadable(t))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { files.Close() }()
		have := map[zone.Record]bool{}
		var serials []zone.Serial
		was := map[zone.Serial][]zone.Record{}
		serial := zone.Serial(rapid.Uint32().Draw(t, "first serial")).Next(0)
		for i := range rapid.IntRange(1, 12).Draw(t, "versions") {
			v := zone.Version{To: serial}
			if i > 0 {
				v.From, v.To = serial, serial.Next(rapid.Uint32Range(0, 3).Draw(t, "clock"))
			}
			for _, r := range pool {
				switch {
				case rapid.IntRange(0, 3).Draw(t, "change") > 0:
				case have[r]:
					v.Removed = append(v.Removed, r)
					delete(have, r)
				default:
					v.Added = append(v.Added, r)
					have[r] = true
				}
			}
			if err := files.Append(z, feed.Cursor{Position: feed.Position(i + 1)}, &v); err != nil {
				t.Fatal(err)
			}
			if err := z.Apply(&v); err != nil {
				t.Fatal(err)
			}
			serial = v.To
			serials = append(serials, serial)
			was[serial] = sorted(maps.Keys(have))
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				files.Close()
				again := newZone()
				var place zone.Place
				if files, place, err = zone.Open(dir, again, unreadable(t)); err != nil {
					t.Fatal(err)
				}
				if place.Cursor.Position != feed.Position(i+1) {
					t.Errorf("place %+v after version %d", place, i+1)
				}
				z = again
			}
		}

		if diff := cmp.Diff(was[serial], contents(z)); diff != "" {
			t.Fatalf("contents\n%s", diff)
		}
		exists := map[string]bool{origin: true}
		for r := range have {
			for n := r.Name; n != ""; _, n, _ = strings.Cut(n, ".") {
				exists[strings.TrimPrefix(n+"."+origin, "@.")] = true
			}
		}
		for _, n := range names {
			n := strings.TrimPrefix(n+"."+origin, "@.")
			if got := z.Look(n, dns.TypeMX).Result == zone.NoData; got != exists[n] {
				t.Errorf("%s exists: %v, want %v", n, got, exists[n])
			}
		}
		whole := z.All()
		if got := read(t, whole); !slices.Equal(got, was[serial]) {
			t.Errorf("transfer of the whole zone: %v, want %v", got, was[serial])
		}
		for i, s := range serials {
			if got := follow(t, was[s], s, z.Since(s)); !slices.Equal(got, was[serial]) {
				t.Errorf("transfer since version %d of %d: %v, want %v", i+1, len(serials), got, was[serial])
			}
		}
		for _, s := range []zone.Serial{serial + 1, serial + 1000} {
			if got := z.Since(s); len(got) != 1 {
				t.Errorf("a newer serial gets %d records", len(got))
			}
		}
		if got := z.Since(serials[0] - 1); len(got) != len(whole) {
			t.Errorf("a serial from before gets %d records; the zone has %d", len(got), len(whole))
		}
		files.Close()
		cut(t, dir, was)
	})
}

// unreadable fails the test: every file must be readable.
func unreadable(t *rapid.T) func(string, error) {
	return func(file string, err error) { t.Errorf("%s: %v", file, err) }
}

func sorted(rs func(func(zone.Record) bool)) []zone.Record {
	return slices.SortedFunc(rs, zone.Compare)
}

func contents(z *zone.Zone) []zone.Record {
	rs, _ := z.Records()
	slices.SortFunc(rs, zone.Compare)
	if len(rs) == 0 {
		return nil
	}

	return rs
}

// back returns a record from its wire form.
func back(rr dns.RR) zone.Record {
	name := strings.TrimSuffix(rr.Header().Name, "."+origin)
	if name == origin {
		name = zone.Apex
	}

	return zone.Record{Name: name, Type: dns.TypeToString[rr.Header().Rrtype], TTL: rr.Header().Ttl,
		Data: strings.TrimPrefix(rr.String(), rr.Header().String())}
}

// read returns the records of a transfer of a whole zone.
func read(t *rapid.T, rrs []dns.RR) []zone.Record {
	if len(rrs) < 2 || rrs[0].String() != rrs[len(rrs)-1].String() || rrs[0].Header().Rrtype != dns.TypeSOA {
		t.Fatalf("no whole zone: %v", rrs)
	}
	have := map[zone.Record]bool{}
	for _, rr := range rrs[1 : len(rrs)-1] {
		have[back(rr)] = true
	}

	return sorted(maps.Keys(have))
}

// follow does as a secondary with a copy at a serial: it applies the differences of a transfer (RFC 1995 §4).
func follow(t *rapid.T, have []zone.Record, at zone.Serial, rrs []dns.RR) []zone.Record {
	newest := rrs[0].(*dns.SOA).Serial
	if len(rrs) == 1 {
		if newest != uint32(at) {
			t.Errorf("serial %d gets only the SOA record of %d", at, newest)
		}
		return have
	}
	if s, ok := rrs[1].(*dns.SOA); !ok || s.Serial == newest {
		return read(t, rrs)
	}
	set := map[zone.Record]bool{}
	for _, r := range have {
		set[r] = true
	}
	removing := false
	for _, rr := range rrs[1 : len(rrs)-1] {
		soa, ok := rr.(*dns.SOA)
		switch {
		case ok && !removing:
			if zone.Serial(soa.Serial) != at {
				t.Fatalf("the difference starts at serial %d; the copy has %d", soa.Serial, at)
			}
			removing = true
		case ok:
			removing, at = false, zone.Serial(soa.Serial)
		case removing && !set[back(rr)]:
			t.Fatalf("%s is removed, but not there", rr)
		case removing:
			delete(set, back(rr))
		case set[back(rr)]:
			t.Fatalf("%s is added, but there", rr)
		default:
			set[back(rr)] = true
		}
	}
	if uint32(at) != newest {
		t.Errorf("the differences end at serial %d; the zone has %d", at, newest)
	}

	return sorted(maps.Keys(set))
}

// cut cuts the file anywhere: what is read is a version of the zone, or nothing.
func cut(t *rapid.T, dir string, was map[zone.Serial][]zone.Record) {
	data, err := os.ReadFile(filepath.Join(dir, "zone"))
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "part")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		n := rapid.IntRange(0, len(data)-1).Draw(t, "bytes of the file")
		if err := os.WriteFile(filepath.Join(part, "zone"), data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		z := newZone()
		_, place, err := zone.Open(part, z, func(string, error) {})
		if err != nil {
			t.Fatal(err)
		}
		want, ok := was[z.Serial()]
		if z.Serial() == 0 && place == (zone.Place{}) {
			continue
		}
		if got := contents(z); !ok || !slices.Equal(got, want) {
			t.Fatalf("cut at byte %d: serial %d with %v, want %v", n, z.Serial(), got, want)
		}
	}
}

// When the file is damaged, the one before it is used; when both are, nothing is.
func TestFilesDamaged(t *testing.T) {
	dir := t.TempDir()
	write := func(serial zone.Serial) {
		z := newZone()
		files, _, err := zone.Open(dir, z, func(string, error) {})
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		v := &zone.Version{From: z.Serial(), To: serial, Added: []zone.Record{address(fmt.Sprint("n", serial),
			"192.0.2.1")}}
		if err := errors.Join(files.Append(z, feed.Cursor{Position: feed.Position(serial)}, v),
			z.Apply(v)); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	write(2)
	damage := func(file string) {
		path := filepath.Join(dir, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[20] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		damaged string
		serial  zone.Serial
		reports int
	}{{"zone", 1, 1}, {"zone.old", 0, 2}} {
		damage(x.damaged)
		z := newZone()
		reports := 0
		_, place, err := zone.Open(dir, z, func(string, error) { reports++ })
		if err != nil || z.Serial() != x.serial || reports != x.reports ||
			place.Cursor.Position != feed.Position(x.serial) {
			t.Errorf("%s damaged: serial %d, place %+v, %d reports, error %v", x.damaged, z.Serial(), place, reports,
				err)
		}
	}
}

// A copy that could not be completed does not take up the disk.
func TestFilesNotReplaced(t *testing.T) {
	dir := t.TempDir()
	z := newZone()
	files, _, err := zone.Open(dir, z, func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	put := func(from, to zone.Serial) error {
		v := &zone.Version{From: from, To: to, Added: []zone.Record{address(fmt.Sprint("n", to), "192.0.2.1")}}
		return errors.Join(files.Append(z, feed.Cursor{}, v), z.Apply(v))
	}
	if err := put(0, 1); err != nil {
		t.Fatal(err)
	}
	files.Close()
	if err := os.MkdirAll(filepath.Join(dir, "zone.old", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := put(1, 2); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "zone.new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new copy is left: %v", err)
	}
}
