package update

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
)

const (
	// maxAliases is how many CNAMEs of a name are followed.
	maxAliases = 8
	// valueTTL is that of a value, in seconds, unless there are others with another one.
	valueTTL = 60
)

// ErrNotServed is wrapped by errors about a name in a zone that the server does not have, or about which it refuses
// questions.
var ErrNotServed = errors.New("it is in no zone of the update server, or questions are refused")

// Aliases puts the values of challenges where the CNAMEs of their names lead, into any zone of the update server that
// accepts the key. It stores nothing: whoever adds a value stores its place before. It is safe for concurrent use.
type Aliases struct{ server *server }

// NewAliases returns those of a valid configuration for the provider RFC2136. The error is about its file.
func NewAliases(cfg Config) (*Aliases, error) {
	t, errs := cfg.open()
	s, ok := t.(*server)
	if !ok {
		return nil, fmt.Errorf("the provider %s follows no CNAMEs", cfg.Provider)
	}

	return &Aliases{s}, errors.Join(errs...)
}

// Path follows the CNAMEs of the last name of a path, and returns the path with all their targets. The value of a
// challenge at its first name belongs at its last one (RFC 8555 §8.4, RFC 1034 §3.6.2). It is an error if no value can
// be put at a target. Names are in lower case, without the final dot.
func (a *Aliases) Path(ctx context.Context, path ...string) ([]string, error) {
	for {
		name := path[len(path)-1]
		target, err := a.target(ctx, name)
		if err == nil && target == "" && len(path) > 1 {
			err = a.Remove(ctx, name, rand.Text()) // changes nothing, and is refused like a value
		}
		switch {
		case err != nil && len(path) > 1:
			return nil, fmt.Errorf("%s is a CNAME to %s, where Tandem cannot put the value of the challenge: %w; let "+
				"it lead to a name in a zone of %s in which the key %s may change TXT records, or remove it",
				path[len(path)-2], name, err, a.server.at, a.server.key.Name)
		case err != nil:
			return nil, err
		case target == "":
			return path, nil
		case slices.Contains(path, target) || len(path) > maxAliases:
			return nil, fmt.Errorf("the CNAMEs from %s to %s are a loop, or more than %d; correct them",
				strings.Join(path, " to "), target, maxAliases)
		}
		path = append(path, target)
	}
}

// target returns the target of the CNAME at a name, empty if there is none, or only one that a wildcard makes: that is
// not followed, because a value at the name itself takes precedence over it (RFC 1034 §4.3.3). An answer does not show
// which it is. To compare it with the one of "*", or of a random name beside it, is wrong for a CNAME that has the same
// target as the wildcard. So the server is asked by an update that requires the CNAME and changes nothing: updates know
// no wildcards (RFC 2136 §1.1.3, §2.4.1).
func (a *Aliases) target(ctx context.Context, name string) (string, error) {
	records, err := a.records(ctx, name, "CNAME")
	if err != nil || len(records) == 0 {
		return "", err
	}
	above, _ := dns.NextLabel(name, 0) // the zone begins above a CNAME, and a question for another type would follow it
	s, err := a.at(ctx, name[above:])
	if err != nil {
		return "", err
	}
	m := new(dns.Msg).SetUpdate(s.zone)
	m.RRsetUsed([]dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name + ".", Rrtype: dns.TypeCNAME}}})
	r, err := s.update(ctx, m)
	switch {
	case err != nil:
		return "", err
	case r.Rcode == dns.RcodeNXRrset:
		return "", nil
	case r.Rcode != dns.RcodeSuccess:
		return "", s.refusal(r.Rcode, true)
	}

	return plain(records[0].Data), nil
}

// records returns the records of a name and type that the server has or a wildcard makes.
func (a *Aliases) records(ctx context.Context, name, kind string) ([]zone.Record, error) {
	list, err := a.server.look(ctx, []set{{name, kind}})
	if err != nil {
		return nil, err
	}
	if err := list[0].err; err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotServed, err)
	}

	return list[0].records, nil
}

// at returns the server for the zone of a name: that of the longest name at or above it with an SOA record.
func (a *Aliases) at(ctx context.Context, name string) (*server, error) {
	for apex := name; ; {
		records, err := a.records(ctx, apex, "SOA")
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			return &server{a.server.at, apex + ".", a.server.key}, nil
		}
		next, last := dns.NextLabel(apex, 0)
		if last {
			return nil, fmt.Errorf("%w: it has no SOA record above %s", ErrNotServed, name)
		}
		apex = apex[next:]
	}
}

// Add adds a value at a name. Other texts stay, and their TTL is that of all (RFC 2181 §5.2).
func (a *Aliases) Add(ctx context.Context, name, value string) error {
	s, err := a.at(ctx, name)
	if err != nil {
		return err
	}
	others, err := a.records(ctx, name, "TXT")
	if err != nil {
		return err
	}
	r := zone.Text(name, valueTTL, value)
	if len(others) > 0 {
		r.TTL = others[0].TTL
	}

	return s.change(ctx, nil, []zone.Record{r})
}

// Remove removes a value at a name, and no other text.
func (a *Aliases) Remove(ctx context.Context, name, value string) error {
	s, err := a.at(ctx, name)
	if err != nil {
		return err
	}

	return s.change(ctx, []zone.Record{zone.Text(name, valueTTL, value)}, nil)
}

// Find reports whether the update server has a value at a name, and returns the name servers of the zone of that name.
func (a *Aliases) Find(ctx context.Context, name, value string) (has bool, servers []string, err error) {
	texts, err := a.records(ctx, name, "TXT")
	if err != nil {
		return false, nil, err
	}
	s, err := a.at(ctx, name)
	if err != nil {
		return false, nil, err
	}
	list, err := a.records(ctx, plain(s.zone), "NS")
	for _, r := range list {
		servers = append(servers, plain(r.Data))
	}

	return slices.ContainsFunc(texts, func(r zone.Record) bool { return text(r) == value }), servers, err
}
