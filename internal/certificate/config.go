package certificate

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config says which certificates are wanted, and from which authority.
type Config struct {
	// Directory is the URL of the authority's ACME directory, https. No other directory is ever asked. When it is
	// changed, all certificates are replaced at once. Every directory has one account, whose key is in the database.
	Directory string
	// AcceptTerms is set if the operator accepts the authority's terms of service. Without it there is no account.
	AcceptTerms bool
	// Certificates are what the roles of this deployment need. Clients that name no server get the first one.
	Certificates []Wanted
	// Propagation is how long the name servers have until all of them answer the values of an order. Default 3 minutes,
	// at most 4.
	Propagation time.Duration
	// SkipAfter is after which part of Propagation an order continues without the name servers that do not answer at
	// all, if all others answer the value. Default 1 minute.
	SkipAfter time.Duration
}

// Wanted is one certificate.
type Wanted struct {
	Name string // identifies the certificate in the store, in logs and to people, e.g. "r1"; it never changes
	// Names are the host names in it, in lower case. "*.r1.example.com" covers one label below r1.example.com only.
	Names []string
}

// maxNames bounds the host names of a certificate, and the certificates. It is the limit of Let's Encrypt.
const maxNames = 100

var (
	hostName = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	identity = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

// Validate returns every problem found.
func (c *Config) Validate() []error {
	var p fault.Problems
	if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		p.Add("directory", "want the https URL of the authority's ACME directory")
	}
	if !c.AcceptTerms {
		p.Add("acceptTerms", "read the authority's terms of service, then set acceptTerms")
	}
	if c.SkipAfter < 0 || c.propagation() < c.skipAfter() || c.propagation() > 4*time.Minute {
		p.Add("propagation", "want at most 4m, and skipAfter at most propagation")
	}
	if n := len(c.Certificates); n == 0 || n > maxNames {
		p.Add("certificates", "want 1 to %d certificates, not %d", maxNames, n)
	}

	seen := map[string]string{} // identifiers of authorities and names of certificates, by where they were seen
	for _, w := range c.Certificates {
		if !identity.MatchString(w.Name) || seen[w.Name] != "" {
			p.Add("certificates", "%q: want a unique name of at most 64 letters, digits, dots and hyphens", w.Name)
		}
		seen[w.Name] = w.Name
		if n := len(w.Names); n == 0 || n > maxNames || len(slices.Compact(sorted(w.Names))) != n {
			p.Add("certificates", "%s: want 1 to %d different host names", w.Name, maxNames)
		}
		for _, n := range w.Names {
			// An authority counts failures by the name without the wildcard, over all certificates.
			id := strings.TrimPrefix(n, "*.")
			if len(n) > 253 || !hostName.MatchString(n) || cmp.Or(seen[id], w.Name) != w.Name {
				p.Add("certificates", "%s: %q is no host name in lower case, or is in another certificate", w.Name, n)
			}
			seen[id] = w.Name
		}
	}
	return p
}

func (c *Config) propagation() time.Duration { return cmp.Or(c.Propagation, 3*time.Minute) }
func (c *Config) skipAfter() time.Duration   { return cmp.Or(c.SkipAfter, time.Minute) }

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }
