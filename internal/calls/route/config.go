package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config holds the operator's routing settings. Every field has a usable zero value. The peer groups themselves are
// configured with the peers; these settings only refer to them by name.
type Config struct {
	// BaseDomain is the deployment's base domain, at most 34 characters, e.g. "gw.example.com". Direct Routing names
	// are <label>.<region>.<baseDomain>. Default: none; then calls from Direct Routing cannot be assigned to a customer
	// and are refused.
	BaseDomain string `yaml:"baseDomain"`
	// Regions are the DNS labels of the Direct Routing regions, one or two. Default: ["1r1", "1r2"]. Older deployments
	// used "1-r1" and "1-r2".
	Regions []string `yaml:"regions"`
	// PeerGroupToService gives, for each peer group of the core, the service that receives calls to numbers that are
	// not provisioned: usually teamsOperatorConnect for fixed and teamsPhoneMobile for mobile traffic. Default: none;
	// calls to such numbers are answered 404.
	PeerGroupToService map[string]string `yaml:"peerGroupToService"`
	// ServiceToPeerGroup gives, for each service, the peer group of the core that its calls go to. Default: the core's
	// only peer group; with more than one, every service that has peers must be listed.
	ServiceToPeerGroup map[string]string `yaml:"serviceToPeerGroup"`
	// EmergencyDialStrings are the emergency numbers as dialled: 2 to 6 digits, without "+" and without country code.
	// Calls to them, with or without "+", go to the core only and are never screened, limited or refused. Test numbers
	// such as 933 are listed here too. Default: ["911", "933"] if countries is empty too. With peers of a service whose
	// callers are screened (teamsDirectRouting) there is no default: list the numbers here or their countries in
	// countries.
	EmergencyDialStrings []string `yaml:"emergencyDialStrings"`
	// Countries are ISO 3166 codes ("GB") of the countries whose emergency numbers, as libphonenumber knows them, are
	// added to emergencyDialStrings. Default: none. "tandem config check" and the log at startup show the complete
	// list.
	Countries []string `yaml:"countries"`
	// EmergencyCountryCodes are the country codes (digits only) that may precede an emergency number, as Zoom sends it:
	// "+44999" for 44 and 999. Default: every assigned country code.
	EmergencyCountryCodes []string `yaml:"emergencyCountryCodes"`
	// VerificationNumbers are the service-verification numbers (E.164) of each service. A call from the core to one of
	// them goes to its service; provisioning such a number has no effect on calls. Default: none.
	VerificationNumbers map[string][]string `yaml:"verificationNumbers"`
	// MobileControlPoints names the peer groups of the core that are Mobile Control Points: INVITEs from them carry
	// X-MS-FMC because the control point has just added it, and do go to Phone System. Default: none; an INVITE from
	// the core that carries X-MS-FMC is never sent to Phone System again.
	MobileControlPoints []string `yaml:"mobileControlPoints"`
	// PresentationAccounts lists the names of the accounts, as provisioned, whose screened calls may show in From a
	// number that is not theirs, along with their asserted identity (presentation numbers). Default: none; From is then
	// replaced by the asserted identity.
	PresentationAccounts []string `yaml:"presentationAccounts"`
}

// DefaultEmergencyDialStrings are the emergency numbers of a deployment that sets none.
var DefaultEmergencyDialStrings = []string{"911", "933"}

// defaultRegions are the DNS labels of the Direct Routing regions of a deployment that sets none.
var defaultRegions = []string{"1r1", "1r2"}

// Regions returns the labels that a configuration means: in lower case, or the default ones if there are none.
func Regions(labels []string) []string {
	if len(labels) == 0 {
		return slices.Clone(defaultRegions)
	}
	list := make([]string, len(labels))
	for i, r := range labels {
		list[i] = strings.ToLower(r)
	}

	return list
}

// labelLetters are the characters allowed in a DNS host label, and with "_" in an account's name.
const labelLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"

// Group is what routing knows about a configured peer group.
type Group struct {
	Name string
	// Service is the service its peers belong to; NoService for the operator's core.
	Service domain.Service
	// Numbers are the rules for the numbers that its peers send.
	Numbers Numbers
}

// Policy is a Config, checked and compiled. It is read-only and safe for concurrent use.
type Policy struct {
	baseDomain   string // "." + base domain, lower case; empty for none
	regions      []string
	known        domain.Services
	groups       map[string]*group
	services     []target // by a service's ID
	emergency    map[string]bool
	emergencyCC  map[string]bool // nil: every assigned country code
	longestDial  int
	verification map[domain.E164]domain.Service
	presenters   map[string]bool // PresentationAccounts
}

// group is a peer group that calls come from.
type group struct {
	name         string
	service      domain.Service // NoService: core
	numbers      Numbers
	fallback     domain.Service // core: default service
	controlPoint bool
}

// target is where calls to and from a service go.
type target struct {
	peers []string // the service's own peer groups
	core  []string // the core's peer group for its calls
}

// Default returns the settings of a deployment that sets none. The emergency numbers stay empty, so that a deployment
// that sets some can be told from one that sets none.
func Default() Config { return Config{Regions: Regions(nil)} }

// Validate checks the settings as far as they can be checked without the peer groups; Check checks the rest. known
// are the services that the settings may name. It returns every problem as a *fault.Error whose Target is the field.
func (c *Config) Validate(known domain.Services) []error {
	_, problems := c.compile(known, nil, false)
	return problems
}

// Check is Validate with the peer groups: everything that Compile refuses.
func (c *Config) Check(known domain.Services, groups []Group) []error {
	_, problems := c.compile(known, groups, true)
	return problems
}

// Compile returns the policy for the known services and a set of peer groups, or every problem as a *fault.Error whose
// Target is the field. The order of groups is the order in which a service's groups are tried.
func (c *Config) Compile(known domain.Services, groups []Group) (*Policy, []error) {
	p, problems := c.compile(known, groups, true)
	if len(problems) > 0 {
		return nil, problems
	}
	return p, nil
}

// Services returns the services that the policy knows.
func (p *Policy) Services() domain.Services { return p.known }

func (c *Config) compile(known domain.Services, groups []Group, complete bool) (*Policy, []error) {
	var problems fault.Problems
	bad := problems.Add
	p := &Policy{groups: map[string]*group{}, known: known, services: make([]target, domain.MaxServiceID+1)}

	base := strings.ToLower(strings.TrimSuffix(c.BaseDomain, "."))
	switch {
	case base == "":
	case len(base) > 34:
		bad("baseDomain", "%q has %d characters; at most 34 are allowed, so that customers' names stay within 48",
			base, len(base))
	case !domainName(base):
		bad("baseDomain", "%q is not a DNS name of at least two labels of letters, digits and inner \"-\"", base)
	default:
		p.baseDomain = "." + base
	}
	p.regions = Regions(c.Regions)
	if len(p.regions) > 2 {
		bad("regions", "%d regions; at most two are allowed", len(p.regions))
	}
	for i, r := range p.regions {
		if !hostLabel(r) {
			bad(fmt.Sprintf("regions[%d]", i), "%q is not a single DNS label", r)
		}
		if slices.Contains(p.regions[:i], r) {
			bad(fmt.Sprintf("regions[%d]", i), "%q is listed twice", r)
		}
	}

	var cores []string
	for _, g := range groups {
		if g.Name == "" || p.groups[g.Name] != nil {
			bad("peerGroups", "peer group name %q is empty or used twice; give each group a name of its own", g.Name)
			continue
		}
		p.groups[g.Name] = &group{name: g.Name, service: g.Service, numbers: g.Numbers}
		if g.Service == domain.NoService {
			cores = append(cores, g.Name)
			continue
		}
		t := &p.services[g.Service.ID()]
		t.peers = append(t.peers, g.Name)
	}

	// core returns a peer group of the core, or nil if it has reported why name is none.
	core := func(path, name, only string) *group {
		g := p.groups[name]
		switch {
		case g == nil:
			bad(path, "peer group %q is not configured; peer groups of the core: %s", name, list(cores))
		case g.service != domain.NoService:
			bad(path, "peer group %q belongs to %s; %s", name, g.service, only)
		default:
			return g
		}
		return nil
	}

	for _, name := range slices.Sorted(maps.Keys(c.PeerGroupToService)) {
		path := "peerGroupToService." + name
		s, ok := known.ByName(c.PeerGroupToService[name])
		switch {
		case !ok:
			bad(path, "%q is not a service; use one of %s", c.PeerGroupToService[name],
				serviceNames(known, func(t *domain.Traits) bool { return t.DefaultFor }))
			continue
		case !s.Traits().DefaultFor:
			bad(path, "%s cannot be a default service: it has no calls to unprovisioned numbers; use one of %s", s,
				serviceNames(known, func(t *domain.Traits) bool { return t.DefaultFor }))
			continue
		case !complete:
			continue
		}
		g := core(path, name, "only a peer group of the core has a default service")
		switch {
		case g == nil:
		case len(p.services[s.ID()].peers) == 0:
			bad(path, "%s has no peer group; configure one or name another service", s)
		default:
			g.fallback = s
		}
	}

	for _, name := range slices.Sorted(maps.Keys(c.ServiceToPeerGroup)) {
		path := "serviceToPeerGroup." + name
		s, ok := known.ByName(name)
		if !ok {
			bad(path, "%q is not a service; use one of %s", name, serviceNames(known, nil))
			continue
		}
		if !complete {
			continue
		}
		if g := core(path, c.ServiceToPeerGroup[name], "a service's calls go to the core only"); g != nil {
			p.services[s.ID()].core = []string{g.name}
		}
	}
	if complete {
		for _, s := range known {
			t := &p.services[s.ID()]
			if len(t.peers) == 0 || len(t.core) > 0 || c.ServiceToPeerGroup[s.String()] != "" {
				continue
			}
			if len(cores) == 1 {
				t.core = cores
				continue
			}
			bad("serviceToPeerGroup", "%s has peers and the core has %d peer groups (%s); choose the one for its calls",
				s, len(cores), list(cores))
		}
		for i, name := range c.MobileControlPoints {
			path := fmt.Sprintf("mobileControlPoints[%d]", i)
			if g := core(path, name, "a Mobile Control Point is part of the core"); g != nil {
				g.controlPoint = true
			}
		}
	}

	c.compileEmergency(p, bad)
	if len(c.EmergencyCountryCodes) > 0 {
		p.emergencyCC = map[string]bool{}
	}
	for i, cc := range c.EmergencyCountryCodes {
		if !digits(cc, 1, 3) || !countryCode(cc) {
			bad(fmt.Sprintf("emergencyCountryCodes[%d]", i),
				"%q is not an assigned country code; write digits only, such as \"44\"", cc)
			continue
		}
		p.emergencyCC[cc] = true
	}

	p.presenters = map[string]bool{}
	for i, name := range c.PresentationAccounts {
		path := fmt.Sprintf("presentationAccounts[%d]", i)
		switch {
		case len(name) == 0, len(name) > 100, strings.Trim(name, labelLetters+"_") != "":
			bad(path, "%q is not an account name: 1 to 100 letters, digits, \"-\" and \"_\"", name)
		case p.presenters[name]:
			bad(path, "%q is listed twice", name)
		}
		p.presenters[name] = true
	}
	p.verification = map[domain.E164]domain.Service{}
	for _, name := range slices.Sorted(maps.Keys(c.VerificationNumbers)) {
		path := "verificationNumbers." + name
		s, ok := known.ByName(name)
		if !ok {
			bad(path, "%q is not a service; use one of %s", name, serviceNames(known, nil))
			continue
		}
		if !s.Traits().CarriesCalls {
			bad(path, "%s carries no calls through this gateway yet; remove its numbers", s)
			continue
		}
		if complete && len(p.services[s.ID()].peers) == 0 {
			bad(path, "%s has no peer group; configure one or remove its numbers", s)
		}
		for i, text := range c.VerificationNumbers[name] {
			n, err := domain.ParseE164(text)
			if err != nil {
				bad(fmt.Sprintf("%s[%d]", path, i), "%q: %v", text, err)
				continue
			}
			if other, dup := p.verification[n]; dup {
				bad(fmt.Sprintf("%s[%d]", path, i), "%s is already listed for %s", n, other)
				continue
			}
			p.verification[n] = s
		}
	}
	return p, problems
}

// Label returns the Direct Routing label that a host <label>.<region>.<base domain> names, in lower case. ok is false
// for any other host, including the carrier trunks' own names.
func (p *Policy) Label(host string) (label string, ok bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(host), p.baseDomain)
	label, region, _ := strings.Cut(rest, ".")
	if !ok || p.baseDomain == "" || !hostLabel(label) || !slices.Contains(p.regions, region) {
		return "", false
	}
	return label, true
}

// twoDigitCodes are the country codes of ITU-T E.164 that have two digits; 1 and 7 have one, all others three.
const twoDigitCodes = "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 " +
	"65 66 81 82 84 86 90 91 92 93 94 95 98"

// countryCode reports whether s has the form of an assigned country code: codes are prefix-free, so the leading digits
// decide the length. Three-digit codes that are not assigned today are accepted: they may be tomorrow.
func countryCode(s string) bool {
	switch {
	case len(s) == 0 || s[0] == '0':
		return false
	case s[0] == '1' || s[0] == '7':
		return len(s) == 1
	case len(s) == 1:
		return false
	}
	two := strings.Contains(twoDigitCodes, s[:2])
	return two && len(s) == 2 || !two && len(s) == 3
}

func serviceNames(known domain.Services, want func(*domain.Traits) bool) string {
	var names []string
	for _, s := range known {
		if want == nil || want(s.Traits()) {
			names = append(names, s.String())
		}
	}
	return list(names)
}

func list(names []string) string {
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

func digits(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && strings.Trim(s, "0123456789") == ""
}

// hostLabel reports whether s is one DNS host label: letters, digits and inner "-" (RFC 1123 §2.1).
func hostLabel(s string) bool {
	return len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, labelLetters) == ""
}

func domainName(s string) bool {
	labels := strings.Split(s, ".")
	return len(labels) >= 2 && !slices.ContainsFunc(labels, func(l string) bool { return !hostLabel(l) })
}
