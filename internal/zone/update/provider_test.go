package update_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// service is a provider of libdns that keeps records in memory.
type service struct {
	token string
	mu    sync.Mutex
	have  map[libdns.RR]bool
}

func (s *service) GetRecords(context.Context, string) ([]libdns.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []libdns.Record
	for rr := range s.have {
		x, err := rr.Parse()
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}

	return list, nil
}

func (s *service) AppendRecords(_ context.Context, _ string, rs []libdns.Record) ([]libdns.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		rr := r.RR()
		for old := range s.have {
			if old.Name == rr.Name && old.Type == rr.Type && old.Data == rr.Data {
				return nil, errors.New("409 the record exists")
			}
		}
		s.have[rr] = true
	}

	return rs, nil
}

func (s *service) DeleteRecords(_ context.Context, _ string, rs []libdns.Record) ([]libdns.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		delete(s.have, r.RR()) // exactly
	}

	return rs, nil
}

// records returns the records of a type, as "name TTL data", sorted.
func (s *service) records(kind string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for rr := range s.have {
		if rr.Type == kind {
			list = append(list, rr.Name+" "+rr.TTL.String()+" "+rr.Data)
		}
	}
	slices.Sort(list)

	return list
}

var cloud = &service{have: map[libdns.RR]bool{}}

func init() {
	update.Register("cloud", func(settings map[string]string) (update.Provider, error) {
		cloud.token = settings["account"] + ":" + settings["token"]
		return cloud, nil
	})
}

// A provider of libdns gets names relative to the operator's zone and texts without quotes; single records are added
// and removed.
func TestProvider(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := update.Config{Provider: "cloud", Zone: parent, Settings: map[string]string{"account": "a1"},
		SecretFiles: map[string]string{"token": file}}
	if errs := c.Validate(base); len(errs) > 0 {
		t.Fatal(errs)
	}
	foreign := libdns.RR{Name: "acme.1r1.gw", Type: "TXT", TTL: 5 * time.Minute, Data: `their "text"`}
	cloud.have[foreign] = true
	cloud.have[libdns.RR{Name: "www", Type: "CNAME", TTL: time.Hour, Data: "example.net."}] = true

	n := newNode(t, sqlite(t), c).run()
	if cloud.token != "a1:secret" {
		t.Errorf("the provider got the settings %q", cloud.token)
	}
	long := strings.Repeat("0123456789", 30)
	n.publish("a", append(all(), zone.Text("acme.1r1", 60, "MS=ms2"), zone.Text("long.1r1", 60, long))...)
	n.settled()
	for kind, want := range map[string][]string{
		"A":    {"acme.1r1.gw 1m0s 192.0.2.11", "acme.1r1.gw 1m0s 192.0.2.12", "provapi.gw 1m0s 192.0.2.10"},
		"AAAA": {"provapi.gw 1m0s 2001:db8::10"},
		"NS":   nil,
		"CAA":  {`gw 1h0m0s 0 issue "ca.example"`},
		"SRV":  {"_sips._tcp.r1.gw 1h0m0s 10 20 5061 E1.r1." + base + "."},
	} {
		if got := cloud.records(kind); !slices.Equal(got, want) {
			t.Errorf("%s: the provider has %q, want %q", kind, got, want)
		}
	}
	for _, want := range []string{`acme.1r1.gw 5m0s quote " backslash \ ; ( ) é ` + "\x00\xff",
		"long.1r1.gw 1m0s " + long, `acme.1r1.gw 5m0s their "text"`} {
		if !slices.Contains(cloud.records("TXT"), want) {
			t.Errorf("TXT: the provider lacks %q, and has %q", want, cloud.records("TXT"))
		}
	}

	n.publish("a", address("provapi", 30, "192.0.2.10"))
	n.settled()
	if got, want := cloud.records("A"), []string{"provapi.gw 30s 192.0.2.10"}; !slices.Equal(got, want) {
		t.Errorf("A with another TTL: the provider has %q, want %q", got, want)
	}
	n.publish("a")
	n.settled()
	if cloud.mu.Lock(); len(cloud.have) != 2 || !cloud.have[foreign] {
		t.Errorf("at the end the provider has %q", slices.Collect(maps.Keys(cloud.have)))
	}
	cloud.mu.Unlock()
}

// Mistakes of the configuration are found by Validate, those of its files by CheckFiles.
func TestConfig(t *testing.T) {
	t.Parallel()
	c := update.Config{Provider: "cloud", SecretFiles: map[string]string{"token": "/nonexistent"}}
	if errs := c.Validate(base); len(errs) > 0 || c.Zone != base {
		t.Errorf("Validate = %v, zone %q", errs, c.Zone)
	}
	if errs := c.CheckFiles(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "/nonexistent") {
		t.Errorf("CheckFiles = %v", errs)
	}
	c = update.Config{Server: "192.0.2.1:53", Key: key(t)}
	c.Key.SecretFile = "/nonexistent"
	if errs := c.Validate(base); len(errs) > 0 {
		t.Errorf("Validate = %v", errs)
	}
	if errs := c.CheckFiles(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "/nonexistent") {
		t.Errorf("CheckFiles = %v", errs)
	}
}
