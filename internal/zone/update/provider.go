package update

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

// Config is how the operator's zone is updated.
type Config struct {
	// Provider is "rfc2136", DNS UPDATE to the primary name server, or the name of one that was compiled in. Default
	// "rfc2136".
	Provider string `yaml:"provider"`
	// Zone is the operator's zone, in which the base domain is. Default the base domain.
	Zone string `yaml:"zone"`
	// Server is the zone's primary name server, "ip:port", which accepts updates over TCP. Required with "rfc2136",
	// else not used.
	Server string `yaml:"server"`
	// Key is the shared key that signs updates (TSIG, RFC 8945). Required with "rfc2136", else not used.
	Key tsig.Config `yaml:"key"`
	// Settings are those of a provider that was compiled in, by its names. Default none.
	Settings map[string]string `yaml:"settings"`
	// SecretFiles are further settings of such a provider: for each name, the file that holds the value. Default none.
	SecretFiles map[string]string `yaml:"secretFiles"`
}

// RFC2136 is the provider that is always there.
const RFC2136 = "rfc2136"

// Provider changes the records of a zone, as the interfaces of libdns describe it: it adds records and leaves those
// that exist, and it deletes exactly those that it is told.
type Provider interface {
	libdns.RecordGetter
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Constructor makes a provider from the settings, to which the contents of the secret files were added.
type Constructor func(settings map[string]string) (Provider, error)

// constructors are the providers that were compiled in.
var constructors = map[string]Constructor{}

// Register adds a provider, under the name that zone.update.provider gives. It is called from init functions; two
// providers of one name are a programmer's mistake.
func Register(name string, c Constructor) {
	if _, ok := constructors[name]; ok || name == RFC2136 {
		panic("update: two providers are named " + name)
	}
	constructors[name] = c
}

// Validate returns every mistake, and sets the defaults, for a base domain. It reads no files.
func (c *Config) Validate(base string) []error {
	var errs fault.Problems
	if c.Provider == "" {
		c.Provider = RFC2136
	}
	if c.Zone == "" {
		c.Zone = base
	}
	if _, ok := dns.IsDomainName(c.Zone); !ok || plain(c.Zone) == "" ||
		!dns.IsSubDomain(dns.CanonicalName(c.Zone), dns.CanonicalName(base)) {
		errs.Add("zone", "%q does not contain the base domain %s; name the zone in which the base domain is", c.Zone,
			base)
	}

	if c.Provider != RFC2136 {
		if constructors[c.Provider] == nil {
			errs.Add("provider", "%q is not a provider of this program, which has %s", c.Provider,
				strings.Join(append(slices.Sorted(maps.Keys(constructors)), RFC2136), ", "))
		}
		if c.Server != "" || c.Key != (tsig.Config{}) {
			errs.Add("server", "is for the provider %s, like key; put the settings of %s into settings and secretFiles",
				RFC2136, c.Provider)
		}
		return errs
	}
	if a, err := netip.ParseAddrPort(c.Server); err != nil || a.Port() == 0 {
		errs.Add("server", "%q is not an address; use the ip:port of the zone's primary name server", c.Server)
	}
	for _, err := range c.Key.Validate() {
		errs.Add("key."+fault.As(err).Target, "%s", fault.As(err).Message)
	}
	if len(c.Settings)+len(c.SecretFiles) > 0 {
		errs.Add("settings", "are for other providers, like secretFiles; %s has server and key", RFC2136)
	}

	return errs
}

// CheckFiles returns the mistakes of the files that a valid configuration names.
func (c *Config) CheckFiles() []error {
	_, errs := c.open()
	return errs
}

// open makes the target of a valid configuration.
func (c *Config) open() (target, []error) {
	var errs fault.Problems
	if c.Provider == RFC2136 {
		key, err := c.Key.Read()
		if err != nil {
			errs.Add("key.secretFile", "%v", err)
		}
		return &server{c.Server, dns.CanonicalName(c.Zone), key}, errs
	}

	settings := map[string]string{}
	maps.Copy(settings, c.Settings)
	for name, file := range c.SecretFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			errs.Add("secretFiles."+name, "%v", err)
		}
		settings[name] = strings.TrimSpace(string(text))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	p, err := constructors[c.Provider](settings)
	if err != nil {
		errs.Add("settings", "the provider %s refuses them: %v", c.Provider, err)
	}

	return &provided{p, dns.CanonicalName(c.Zone)}, errs
}

// provided is a target: the zone at a provider of libdns.
type provided struct {
	Provider
	zone string // absolute
}

// look implements target. The interface can only list everything.
func (p *provided) look(ctx context.Context, sets []set) ([]seen, error) {
	all, err := p.GetRecords(ctx, p.zone)
	if err != nil {
		return nil, &failure{whole: true, error: fmt.Errorf("list the records of %s: %w", p.zone, err)}
	}
	have := map[set][]zone.Record{}
	for _, x := range all {
		if r, err := p.from(x.RR()); err == nil { // else it is of a kind that is never ours
			have[setOf(r)] = append(have[setOf(r)], r)
		}
	}
	list := make([]seen, len(sets))
	for i, s := range sets {
		list[i].records = have[s]
	}

	return list, nil
}

// change implements target. What moves has an address at any time: records are added before others are deleted, except
// one that only gets another TTL, which no interface of libdns changes in place.
func (p *provided) change(ctx context.Context, remove, add []zone.Record) error {
	var first, last []libdns.Record
	for _, r := range remove {
		if slices.ContainsFunc(add, func(a zone.Record) bool { return key(a) == key(r) }) {
			first = append(first, p.to(r))
		} else {
			last = append(last, p.to(r))
		}
	}
	come := make([]libdns.Record, len(add))
	for i, r := range add {
		come[i] = p.to(r)
	}

	for _, step := range []struct {
		call func(context.Context, string, []libdns.Record) ([]libdns.Record, error)
		what []libdns.Record
	}{{p.DeleteRecords, first}, {p.AppendRecords, come}, {p.DeleteRecords, last}} {
		if len(step.what) == 0 {
			continue
		}
		if _, err := step.call(ctx, p.zone, step.what); err != nil {
			return fmt.Errorf("change the records of %s: %w", p.zone, err)
		}
	}

	return nil
}

// to returns a record as libdns has it: texts without quotes.
func (p *provided) to(r zone.Record) libdns.Record {
	rr := libdns.RR{Name: libdns.RelativeName(r.Name+".", p.zone), TTL: time.Duration(r.TTL) * time.Second,
		Type: r.Type, Data: r.Data}
	if r.Type == "TXT" {
		rr.Data = text(r)
	}
	if x, err := rr.Parse(); err == nil {
		return x
	}

	return rr
}

// text returns the text of a TXT record: its strings, joined.
func text(r zone.Record) string {
	rrs, err := parse([]zone.Record{r})
	if err != nil {
		return r.Data
	}
	wire := make([]byte, dns.Len(rrs[0])+1)
	end, err := dns.PackRR(rrs[0], wire, 0, nil, false)
	if err != nil {
		return r.Data
	}
	var joined strings.Builder
	for rest := wire[end-int(rrs[0].Header().Rdlength) : end]; len(rest) > 0; rest = rest[1+int(rest[0]):] {
		joined.Write(rest[1 : 1+int(rest[0])])
	}

	return joined.String()
}

// from returns a record of libdns in the form in which the zone lists it.
func (p *provided) from(x libdns.RR) (zone.Record, error) {
	r := zone.Record{Name: plain(libdns.AbsoluteName(x.Name, p.zone)), Type: x.Type, TTL: uint32(x.TTL / time.Second),
		Data: x.Data}
	if x.Type == "TXT" {
		r = zone.Text(r.Name, r.TTL, x.Data)
	}
	rrs, err := parse([]zone.Record{r})
	if err == nil && rrs[0] == nil {
		err = errors.New("no data")
	}
	if err != nil {
		return r, err
	}

	return present(rrs[0]), nil
}
