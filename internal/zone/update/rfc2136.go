package update

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

const (
	// fudge is how many seconds the clocks of the server and of this machine may differ (RFC 8945 §10).
	fudge = 300
	// answerWait bounds a connection, and the wait for one answer.
	answerWait = 10 * time.Second
	// askers is how many connections ask questions at a time.
	askers = 4
)

// server is a target: the primary name server of a zone, which takes updates by RFC 2136. Requests are over TCP and
// signed, and answers must be signed too. It is safe for concurrent use.
type server struct {
	at   string // ip:port
	zone string // absolute
	key  *tsig.Key
}

// change implements target. It is one update: all of it or none (RFC 2136 §3.4.2).
func (s *server) change(ctx context.Context, remove, add []zone.Record) error {
	m := new(dns.Msg).SetUpdate(s.zone)
	gone, err := parse(remove)
	if err != nil {
		return err
	}
	come, err := parse(add)
	if err != nil {
		return err
	}
	m.Remove(gone)
	m.Insert(come)

	r, err := s.update(ctx, m)
	if err == nil && r.Rcode != dns.RcodeSuccess {
		err = s.refusal(r.Rcode, true)
	}

	return err
}

// update sends an update, and returns its answer with any response code.
func (s *server) update(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()

	return s.exchange(ctx, c, m)
}

// parse returns records as the library has them.
func parse(rs []zone.Record) ([]dns.RR, error) {
	list := make([]dns.RR, len(rs))
	for i, r := range rs {
		var err error
		if list[i], err = dns.NewRR(fmt.Sprintf("%s. %d IN %s %s", r.Name, r.TTL, r.Type, r.Data)); err != nil {
			return nil, fmt.Errorf("record %s %s: %w", r.Name, r.Type, err)
		}
	}

	return list, nil
}

// present returns a record of the library in the form in which the zone lists it, but for its complete name.
func present(x dns.RR) zone.Record {
	h := x.Header()

	return zone.Record{Name: plain(h.Name), Type: dns.TypeToString[h.Rrtype], TTL: h.Ttl,
		Data: strings.TrimPrefix(x.String(), h.String())}
}

// look implements target. It asks about each set, which needs no permission to transfer the zone.
func (s *server) look(ctx context.Context, sets []set) ([]seen, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	list := make([]seen, len(sets))
	var running sync.WaitGroup
	for first := range min(askers, len(sets)) {
		running.Go(func() {
			c, err := s.dial(ctx)
			for i := first; i < len(sets) && err == nil; i += askers {
				if list[i], err = s.ask(ctx, c, sets[i]); err == nil || i == first {
					continue
				}
				_ = c.Close() // some servers do after a number of answers (RFC 7766 §6.2.4)
				if c, err = s.dial(ctx); err == nil {
					list[i], err = s.ask(ctx, c, sets[i])
				}
			}
			if c != nil {
				_ = c.Close() // nothing is under way
			}
			if err != nil {
				cancel(err) // the first counts
			}
		})
	}
	running.Wait()

	return list, context.Cause(ctx)
}

// ask asks about one set. The error concerns all sets.
func (s *server) ask(ctx context.Context, c *dns.Conn, x set) (seen, error) {
	m := new(dns.Msg).SetQuestion(x.name+".", dns.StringToType[x.kind])
	m.RecursionDesired = false
	r, err := s.exchange(ctx, c, m)
	if err != nil {
		return seen{}, err
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		f := s.refusal(r.Rcode, true)
		if f.whole {
			return seen{}, f
		}
		return seen{err: f}, nil
	}
	if !r.Authoritative {
		return seen{err: fmt.Errorf("%s is not authoritative for the name; if the operator delegates it to other "+
			"servers, set zone.update.zone and zone.update.server to those", s.at)}, nil
	}

	var found seen
	for _, rr := range r.Answer {
		if p := present(rr); setOf(p) == x {
			found.records = append(found.records, p)
		}
	}

	return found, nil
}

// dial connects to the server.
func (s *server) dial(ctx context.Context) (*dns.Conn, error) {
	c, err := (&dns.Client{Net: "tcp", Timeout: answerWait}).DialContext(ctx, s.at)
	if err != nil {
		f := s.silent(err)
		f.certain = true
		return nil, f
	}

	return c, nil
}

// exchange sends a signed request and returns its answer. The library's own exchange accepts answers without a
// signature, reports what the server says about the key as a bad signature, and cannot sign a second request.
func (s *server) exchange(ctx context.Context, c *dns.Conn, m *dns.Msg) (*dns.Msg, error) {
	if err := c.SetDeadline(time.Now().Add(answerWait)); err != nil {
		return nil, s.silent(err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })() // ends what is in progress
	keys := tsig.Keys{s.key.Name: s.key}
	m.SetTsig(s.key.Name, s.key.Algorithm, fudge, time.Now().Unix())
	out, mac, err := dns.TsigGenerateWithProvider(m, keys, "", false)
	if err != nil {
		return nil, err
	}
	if _, err = c.Write(out); err != nil {
		return nil, s.silent(err)
	}
	in, err := c.ReadMsgHeader(nil)
	if err != nil {
		return nil, s.silent(err)
	}

	r := new(dns.Msg)
	if err := r.Unpack(in); err != nil || r.Id != m.Id || !r.Response {
		return nil, s.silent(errors.Join(errors.New("its answer cannot be read"), err))
	}
	t := r.IsTsig()
	switch {
	case t == nil && r.Rcode != dns.RcodeSuccess: // some servers do not sign a refusal
		return nil, s.refusal(r.Rcode, false)
	case t == nil:
		return nil, s.unsigned(errors.New("it has no signature"))
	case t.Error != dns.RcodeSuccess:
		return nil, s.badKey(int(t.Error))
	}
	switch err := dns.TsigVerifyWithProvider(in, keys, mac, false); {
	case errors.Is(err, dns.ErrAuth): // the library verifies no answer with this code
		return nil, s.refusal(r.Rcode, false)
	case err != nil:
		return nil, s.unsigned(err)
	}

	return r, nil
}

// silent returns the failure of a connection.
func (s *server) silent(err error) *failure {
	return &failure{whole: true, error: fmt.Errorf("no answer from %s over TCP; check that it runs, "+
		"zone.update.server, and the firewall: %w", s.at, err)}
}

// unsigned returns the failure of an answer whose signature is missing or wrong (RFC 8945 §5.3).
func (s *server) unsigned(err error) *failure {
	return &failure{whole: true, error: fmt.Errorf("the answer of %s is not signed with the key %s: %w; it may be "+
		"another server, or does not know the key", s.at, s.key.Name, err)}
}

// badKey returns the failure that a server reports about a signature (RFC 8945 §5.2).
func (s *server) badKey(code int) *failure {
	f := &failure{whole: true, certain: true}
	switch code {
	case dns.RcodeBadSig:
		f.error = fmt.Errorf("%s has another secret for the key %s (BADSIG); correct zone.update.key.secretFile", s.at,
			s.key.Name)
	case dns.RcodeBadKey:
		f.error = fmt.Errorf("%s has no key %s with algorithm %s (BADKEY); create it there, or correct zone.update.key",
			s.at, s.key.Name, s.key.Algorithm)
	case dns.RcodeBadTime:
		f.error = fmt.Errorf("the clocks of %s and of this machine differ by more than 5 minutes (BADTIME); set them",
			s.at)
	default:
		f.error = fmt.Errorf("%s does not accept the key %s: error %s (%d)", s.at, s.key.Name,
			dns.RcodeToString[code], code)
	}

	return f
}

// refusal returns the failure that a response code means for an update or a question.
func (s *server) refusal(code int, signed bool) *failure {
	f := &failure{certain: signed}
	var text string
	switch code {
	case dns.RcodeNotAuth:
		f.whole = true
		text = "it is not the primary name server of " + s.zone + "; correct zone.update.server or zone.update.zone"
	case dns.RcodeNotZone:
		text = "a name is not in the zone " + s.zone + "; set zone.update.zone to the zone of that server in which " +
			"the base domain is"
	case dns.RcodeRefused:
		text = "it does not permit the key " + s.key.Name + " to do this; allow it there (BIND: update-policy, Knot: " +
			"an acl with action update), and questions too"
	case dns.RcodeServerFailure:
		f.whole = true
		text = "it failed, and its log says why; often it cannot write the zone's journal"
	case dns.RcodeNotImplemented:
		f.whole = true
		text = "it does not support updates; name the primary of " + s.zone + " in zone.update.server"
	case dns.RcodeFormatError:
		text = "it does not accept the form of the request; its log says why"
	default:
		text = "its log may say why"
	}
	f.error = fmt.Errorf("%s answers %s: %s", s.at, dns.RcodeToString[code], text)

	return f
}
