package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// ErrNotFound is returned when the name servers answered and the name has no records of the requested type. After any
// other error of a [DNS] nothing is known, and the caller keeps its old answer.
var ErrNotFound = errors.New("no such DNS record")

// SRV is one SRV record.
type SRV struct {
	Host             string
	Port             uint16
	Priority, Weight uint16
}

// DNS is the name server client that the resolver needs. Implementations must be safe for concurrent use. Both methods
// return the time to live of the answer, and [ErrNotFound] (with the time to live of the negative answer, 0 if unknown)
// when the name has no such record.
type DNS interface {
	LookupSRV(ctx context.Context, name string) ([]SRV, time.Duration, error)
	// LookupAddr returns IPv4 addresses first; with v6 false it returns only those.
	LookupAddr(ctx context.Context, host string, v6 bool) ([]netip.Addr, time.Duration, error)
}

// Servers is a [DNS] client that queries the given name servers in order, trying the next when one does not answer or
// answers with an error such as SERVFAIL or REFUSED. It queries over UDP, and again over TCP if an answer is truncated.
type Servers struct {
	// Addrs lists recursive name servers as "host:port".
	Addrs []string
	// Timeout bounds one query to one server; 0 means 2 s.
	Timeout time.Duration
}

var _ DNS = (*Servers)(nil)

// LookupSRV implements [DNS].
func (s *Servers) LookupSRV(ctx context.Context, name string) ([]SRV, time.Duration, error) {
	m, err := s.ask(ctx, name, dns.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	var out []SRV
	ttl := time.Duration(-1)
	for _, rr := range m.Answer {
		ttl = lower(ttl, rr.Header().Ttl)
		if r, ok := rr.(*dns.SRV); ok {
			out = append(out, SRV{Host: canonical(r.Target), Port: r.Port, Priority: r.Priority, Weight: r.Weight})
		}
	}
	if len(out) == 0 {
		return nil, negative(m), fmt.Errorf("SRV %s: %w", name, ErrNotFound)
	}
	return out, ttl, nil
}

// LookupAddr implements [DNS].
func (s *Servers) LookupAddr(ctx context.Context, host string, v6 bool) ([]netip.Addr, time.Duration, error) {
	var out []netip.Addr
	ttl, neg := time.Duration(-1), time.Duration(0)
	types := []uint16{dns.TypeA}
	if v6 {
		types = append(types, dns.TypeAAAA)
	}
	var failed error
	for _, t := range types {
		m, err := s.ask(ctx, host, t)
		if err != nil {
			failed = err
			continue
		}
		n, least := len(out), ttl
		for _, rr := range m.Answer {
			least = lower(least, rr.Header().Ttl)
			switch r := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(r.A.To4()); ok {
					out = append(out, a)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(r.AAAA); ok {
					out = append(out, a)
				}
			}
		}
		if len(out) > n {
			ttl = least
		} else {
			neg = negative(m)
		}
	}
	switch {
	case len(out) > 0:
		return out, ttl, nil
	case failed != nil:
		return nil, 0, failed
	}
	return nil, neg, fmt.Errorf("address of %s: %w", host, ErrNotFound)
}

func lower(have time.Duration, ttl uint32) time.Duration {
	if t := time.Duration(ttl) * time.Second; have < 0 || t < have {
		return t
	}
	return have
}

// negative returns how long a "no such record" answer may be cached (RFC 2308 §5).
func negative(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second
		}
	}
	return 0
}

// ask returns an answer with code NOERROR or NXDOMAIN, or an error.
func (s *Servers) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	timeout := cmp.Or(s.Timeout, 2*time.Second)
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(1232, false)
	if len(s.Addrs) == 0 {
		return nil, errors.New("no name server is configured")
	}
	var last error
	for _, addr := range s.Addrs {
		m, err := exchange(ctx, q, addr, "udp", timeout)
		if err == nil && m.Truncated {
			m, err = exchange(ctx, q, addr, "tcp", timeout)
		}
		if err == nil && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) {
			return m, nil
		}
		if err == nil {
			err = fmt.Errorf("answered %s", dns.RcodeToString[m.Rcode])
		}
		last = fmt.Errorf("%s %s from name server %s: %w", dns.TypeToString[kind], name, addr, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func exchange(ctx context.Context, q *dns.Msg, addr, network string, timeout time.Duration) (*dns.Msg, error) {
	c := dns.Client{Net: network, Timeout: timeout}
	m, _, err := c.ExchangeContext(ctx, q.Copy(), addr)
	if err != nil {
		return nil, err
	}
	if len(m.Question) != 1 || canonical(m.Question[0].Name) != canonical(q.Question[0].Name) ||
		m.Question[0].Qtype != q.Question[0].Qtype {
		return nil, errors.New("the answer is not for this query")
	}
	return m, nil
}

// System is a [DNS] client that uses the operating system's resolver, which does not report times to live.
type System struct{}

// systemTTL is the time to live assumed for an answer of the operating system's resolver.
const systemTTL = 30 * time.Second

var _ DNS = (*System)(nil)

// LookupSRV implements [DNS].
func (*System) LookupSRV(ctx context.Context, name string) ([]SRV, time.Duration, error) {
	_, rrs, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, systemTTL, notFound(err)
	}
	out := make([]SRV, len(rrs))
	for i, r := range rrs {
		out[i] = SRV{Host: canonical(r.Target), Port: r.Port, Priority: r.Priority, Weight: r.Weight}
	}
	return out, systemTTL, nil
}

// LookupAddr implements [DNS].
func (*System) LookupAddr(ctx context.Context, host string, v6 bool) ([]netip.Addr, time.Duration, error) {
	network := "ip4"
	if v6 {
		network = "ip"
	}
	out, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, systemTTL, notFound(err)
	}
	for i, a := range out {
		out[i] = a.Unmap()
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return out, systemTTL, nil
}

func notFound(err error) error {
	var de *net.DNSError
	if errors.As(err, &de) && de.IsNotFound {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
