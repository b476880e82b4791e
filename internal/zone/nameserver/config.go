package nameserver

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

// Config is the part of the configuration that a Server needs.
type Config struct {
	// Listen are the addresses on which processes with the role "dns" answer, each "ip:port", over UDP and TCP. Name
	// servers use port 53. Default none: such a process answers nothing.
	Listen []string `yaml:"listen"`
	// Secondaries are the name servers of others that transfer the zone from this one. Default none.
	Secondaries []Secondary `yaml:"secondaries"`
	// AnswersPerSecond is how many equal answers a second go to one network (an IPv4 /24, an IPv6 /56) over UDP. Above
	// it every second one is not sent, and the others ask the client to use TCP. Number, 0 to 100000; default 200; 0
	// for no limit.
	AnswersPerSecond int `yaml:"answersPerSecond"`
}

// Secondary is a name server that transfers the zone.
type Secondary struct {
	// Name is for logs and metrics: 1 to 32 letters, digits, "-" or "_". Required.
	Name string `yaml:"name"`
	// Address is where the secondary is notified of changes, "ip:port". Required.
	Address string `yaml:"address"`
	// Sources are further address ranges (CIDR) from which its transfers come. Default none: they come from address.
	Sources []string `yaml:"sources"`
	// Key is the shared key that signs its transfers (TSIG, RFC 8945).
	Key tsig.Config `yaml:"key"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config { return Config{AnswersPerSecond: 200} }

var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Validate returns every mistake, and sets the defaults of list items. It reads no files.
func (c *Config) Validate() []error {
	var errs fault.Problems
	for i, a := range c.Listen {
		if _, err := netip.ParseAddrPort(a); err != nil {
			errs.Add(fmt.Sprintf("listen[%d]", i), "%q is not an address; use ip:port", a)
		}
	}
	if c.AnswersPerSecond < 0 || c.AnswersPerSecond > 100_000 {
		errs.Add("answersPerSecond", "%d is out of range; use 0 to 100000", c.AnswersPerSecond)
	}
	names := map[string]bool{}
	for i := range c.Secondaries {
		s, at := &c.Secondaries[i], fmt.Sprintf("secondaries[%d].", i)
		if !validName.MatchString(s.Name) || names[s.Name] {
			errs.Add(at+"name", "%q must be 1 to 32 letters, digits, \"-\" or \"_\", and unique", s.Name)
		}
		names[s.Name] = true
		if a, err := netip.ParseAddrPort(s.Address); err != nil || a.Port() == 0 {
			errs.Add(at+"address", "%q is not an address; use ip:port", s.Address)
		}
		for j, p := range s.Sources {
			if _, err := netip.ParsePrefix(p); err != nil {
				errs.Add(fmt.Sprintf("%ssources[%d]", at, j),
					"%q is not an address range; use CIDR, such as 192.0.2.0/24", p)
			}
		}
		for _, err := range s.Key.Validate() {
			errs.Add(at+"key."+fault.As(err).Target, "%s", fault.As(err).Message)
		}
	}

	return errs
}

// CheckFiles returns the mistakes of the files that a valid configuration names.
func (c *Config) CheckFiles() []error {
	_, _, errs := c.secondaries()
	return errs
}

// secondary is a Secondary, read.
type secondary struct {
	name    string
	address netip.AddrPort
	sources []netip.Prefix
	key     *tsig.Key
}

// secondaries reads the secondaries of a valid configuration, and their keys.
func (c *Config) secondaries() (list []secondary, keys tsig.Keys, _ []error) {
	var errs fault.Problems
	keys = tsig.Keys{}
	for i, s := range c.Secondaries {
		x := secondary{name: s.Name, address: netip.MustParseAddrPort(s.Address)}
		for _, p := range s.Sources {
			x.sources = append(x.sources, netip.MustParsePrefix(p))
		}
		at := fmt.Sprintf("secondaries[%d].key", i)
		var err error
		if x.key, err = s.Key.Read(); err != nil {
			errs.Add(at+".secretFile", "%v", err)
		}
		if o := keys[x.key.Name]; o != nil && !o.Equal(x.key) {
			errs.Add(at+".name", "another secondary has a different key of the name %s", s.Key.Name)
		}
		list, keys[x.key.Name] = append(list, x), x.key
	}

	return list, keys, errs
}

// from reports whether a is an address of the secondary.
func (s *secondary) from(a netip.Addr) bool {
	if s.address.Addr() == a {
		return true
	}
	for _, p := range s.sources {
		if p.Contains(a) {
			return true
		}
	}

	return false
}
