package route_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nyaruka/phonenumbers"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// longestEmergencyString is the maximum length of the strings tried: the longest that the library accepts are South
// Africa's 10111 and Sweden's 90000.
const longestEmergencyString = 5

// TestEmergencyTable compares emergency.txt, the golden file with a line for each country, with libphonenumber. It
// fails if an update of the library removes a number and, with build tag deep, if it adds one; review the difference
// before running it with -update.
func TestEmergencyTable(t *testing.T) {
	const file = "emergency.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		table[f[0]] = f[1:]
	}

	regions := slices.Sorted(maps.Keys(phonenumbers.GetSupportedRegions()))
	lines := make([]string, len(regions))
	var wg sync.WaitGroup
	for i, region := range regions {
		wg.Go(func() {
			tried := table[region]
			switch {
			case deep || *update: // half a minute, more with the race detector
				tried = allStrings(longestEmergencyString)
			case slices.Contains([]string{"AU", "DE", "FR", "GB", "IE", "US", "ZA"}, region):
				tried = append(allStrings(3),
					slices.DeleteFunc(slices.Clone(tried), func(s string) bool { return len(s) <= 3 })...)
			}
			line := region
			for _, s := range tried {
				if phonenumbers.IsEmergencyNumber(s, region) {
					line += " " + s
				}
			}
			lines[i] = line
		})
	}
	wg.Wait()

	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), got); diff != "" {
		t.Errorf("emergency numbers of libphonenumber differ from emergency.txt (-file +library):\n%s", diff)
	}
}

// allStrings returns every string of 2 to longest digits, shortest first.
func allStrings(longest int) (all []string) {
	for length, end := 2, 100; length <= longest; length, end = length+1, end*10 {
		for n := range end {
			all = append(all, fmt.Sprintf("%0*d", length, n))
		}
	}
	return all
}

// compiled compiles settings with a core peer group and a peer group of one service.
func compiled(t *testing.T, c route.Config, s domain.Service) (*route.Policy, []string) {
	t.Helper()
	c.BaseDomain = "gw.example.com"
	p, problems := c.Compile(services.All().Services(), []route.Group{{Name: "core"}, {Name: "service", Service: s}})
	var at []string
	for _, err := range problems {
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Fatalf("problem %v is not a fault", err)
		}
		at = append(at, f.Target+": "+f.Message)
	}
	return p, at
}

// TestEmergencyStrings: the expected lists are those of libphonenumber, and the documented defaults.
func TestEmergencyStrings(t *testing.T) {
	for _, c := range []struct {
		explicit, countries, want string
	}{
		{"", "", "911 933"},
		{"112 999", "", "112 999"},
		{"", "GB", "112 999"},
		{"", "US", "112 911"},
		{"", "GB US", "112 911 999"},
		{"933", "GB US", "112 911 933 999"},
		{"999", "GB", "112 999"},
		{"", "DE FR", "110 112 15 17 18"},
		{"", "AU", "000 106 112"},
		{"", "NO", "110 112 113"},
		{"", "ZA", "10111 10177 112"}, // the police answer 10111
	} {
		cfg := route.Config{EmergencyDialStrings: strings.Fields(c.explicit), Countries: strings.Fields(c.countries)}
		p, problems := compiled(t, cfg, zoom.Service)
		if p == nil {
			t.Errorf("%q and %q: %v", c.explicit, c.countries, problems)
			continue
		}
		if got := strings.Join(cfg.EmergencyStrings(), " "); got != c.want {
			t.Errorf("emergencyDialStrings %q, countries %q: %q, want %q", c.explicit, c.countries, got, c.want)
		}
	}
}

func TestCountryWithoutEmergencyNumbers(t *testing.T) {
	cfg := route.Config{Countries: []string{"GB", "gb", "UK", "XX", "", "GN"}}
	_, problems := compiled(t, cfg, zoom.Service)
	for i, want := range []string{"countries[1]: \"gb\" is not an ISO", "countries[2]: \"UK\" is not an ISO",
		"countries[3]: \"XX\" is not an ISO", "countries[4]: \"\" is not an ISO",
		"countries[5]: no emergency number of GN is known; list"} {
		if i >= len(problems) || !strings.HasPrefix(problems[i], want) {
			t.Errorf("problem %d of %q, want %q", i, problems, want)
		}
	}
}

// TestScreeningDemandsEmergencyStrings: only a service that has peers and whose callers are screened requires them.
func TestScreeningDemandsEmergencyStrings(t *testing.T) {
	for _, s := range services.All().Services() {
		if !s.Traits().CarriesCalls {
			continue
		}
		_, problems := compiled(t, route.Default(), s)
		asked := slices.ContainsFunc(problems, func(p string) bool {
			return strings.HasPrefix(p, "emergencyDialStrings: ") && strings.Contains(p, "countries: [GB]")
		})
		if asked != s.Traits().Screening || len(problems) > 1 {
			t.Errorf("%s without emergency numbers: problems %q, want one only where callers are screened", s, problems)
		}
		for _, c := range []route.Config{{EmergencyDialStrings: []string{"112"}}, {Countries: []string{"GB"}}} {
			if _, problems := compiled(t, c, s); len(problems) > 0 {
				t.Errorf("%s with %+v: problems %q, want none", s, c, problems)
			}
		}
	}
	c := route.Default()
	if problems := c.Validate(services.All().Services()); len(problems) > 0 {
		t.Errorf("without peers: %v, want no problem", problems)
	}
}

// TestEmergencyForms: an emergency number is recognised with and without "+" and after a country code, for every
// service; no other number is.
func TestEmergencyForms(t *testing.T) {
	cfg := route.Config{EmergencyDialStrings: []string{"911", "999", "112"}, EmergencyCountryCodes: []string{"44", "1"}}
	for _, s := range services.All().Services() {
		if !s.Traits().CarriesCalls {
			continue
		}
		p, problems := compiled(t, cfg, s)
		if p == nil {
			t.Fatalf("%s: %v", s, problems)
		}
		for called, want := range map[string]bool{
			"911": true, "+911": true, "112": true, "+112": true, "999": true, "+999": true, "+44999": true,
			"+1911": true, "+44112": true,
			"+33112": false, "44999": false, "++911": false, "+": false, "": false, "9": false, "9111": false,
			"+9111": false, "0911": false, "+1120": false, "+11234567890": false, "+112345678901": false,
			"+9112345678": false, "+999123456789": false, "+449991": false, "+441": false, "911*": false,
			"+911 ": false, "*911": false,
		} {
			if got := p.Emergency(called); got != want {
				t.Errorf("%s: Emergency(%q) = %v, want %v", s, called, got, want)
			}
			for _, view := range []route.View{newWorld(), route.NoNumbers} {
				d := route.Decide(view, p, domain.CallFacts{PeerGroup: "service", Called: called,
					Host: "nobody.example.net"})
				if d.Emergency != want || want && (d.Outcome != route.ToCore || d.Groups[0] != "core") {
					t.Errorf("%s: a call to %q gives %+v, want emergency %v", s, called, d, want)
				}
				d = route.Decide(view, p, domain.CallFacts{PeerGroup: "core", Called: called})
				if d.Outcome == route.ToCore || d.Emergency != want || want && d.Status != 403 {
					t.Errorf("%s: a call of the core to %q gives %+v, want emergency %v", s, called, d, want)
				}
			}
		}
	}
}
