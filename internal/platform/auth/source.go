package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// SourcesConfig says which addresses may use a server.
type SourcesConfig struct {
	// AllowedSources lists the addresses that may use the API, as CIDR prefixes or single addresses. Default empty:
	// every address may. Others are answered 403.
	AllowedSources []string `yaml:"allowedSources"`
	// TrustedProxies lists the proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are trusted, as
	// CIDR prefixes or single addresses. Default none. Requests through a proxy that is not listed appear to come from
	// the proxy.
	TrustedProxies []string `yaml:"trustedProxies"`
}

// Validate returns every problem found.
func (c *SourcesConfig) Validate() []error {
	_, problems := c.Parse()
	return problems
}

// Parse reads the lists. Problems are *fault.Error with the field as target.
func (c *SourcesConfig) Parse() (*Sources, []error) {
	var s Sources
	var problems fault.Problems
	read := func(list []string, at string) (out []netip.Prefix) {
		for i, text := range list {
			p, err := domain.ParsePrefix(text)
			if err != nil {
				problems.Add(fmt.Sprintf("%s[%d]", at, i), "%q: %v", text, err)
				continue
			}
			out = append(out, p)
		}
		return out
	}
	s.now.Store(&sourceLists{read(c.AllowedSources, "allowedSources"), read(c.TrustedProxies, "trustedProxies")})
	return &s, problems
}

// Sources determines the source address of a request and reports whether it may use a server. It is safe for concurrent
// use.
type Sources struct{ now atomic.Pointer[sourceLists] }

type sourceLists struct {
	allowed []netip.Prefix // empty: every address may
	proxies []netip.Prefix
}

// Allowed returns the prefixes that may use a server; empty for every address.
func (s *Sources) Allowed() []string {
	allowed := []string{}
	for _, p := range s.now.Load().allowed {
		allowed = append(allowed, p.String())
	}
	return allowed
}

// Replace replaces the lists by those of other. It may be called while requests are served.
func (s *Sources) Replace(other *Sources) { s.now.Store(other.now.Load()) }

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// IsProxy reports whether a is a proxy whose forwarding headers are trusted.
func (s *Sources) IsProxy(a netip.Addr) bool { return within(s.now.Load().proxies, a) }

// Permits reports whether a may use the server.
func (s *Sources) Permits(a netip.Addr) bool {
	l := s.now.Load()
	return len(l.allowed) == 0 || within(l.allowed, a)
}

// TrustsPeer reports whether the other end of the connection is a proxy whose forwarding headers are trusted.
func (s *Sources) TrustsPeer(r *http.Request) bool { return s.IsProxy(peer(r)) }

// Of returns the real source address of the request: the other end of the connection or, behind trusted proxies, the
// right-most address of X-Forwarded-For that is not a trusted proxy. Addresses to its left come from an untrusted
// party. If the header is malformed at that point, the address returned is invalid, which no list permits.
func (s *Sources) Of(r *http.Request) netip.Addr {
	a, proxies := peer(r), s.now.Load().proxies
	if !within(proxies, a) {
		return a
	}
	// Several header lines are one list, in order (RFC 9110 §5.3).
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if hop = strings.TrimSpace(hop); hop == "" {
			continue
		}
		next, err := parseHop(hop)
		if err != nil {
			return netip.Addr{}
		}
		a = next
		if !within(proxies, a) {
			return a
		}
	}
	return a
}

// parseHop reads an address, which may have a port or brackets as some proxies write it.
func parseHop(s string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err
}

func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a Unix socket
	}
	return ap.Addr().Unmap().WithZone("")
}
