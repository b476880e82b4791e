package certificate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/tandemgw/tandem/internal/platform/flow"
)

// errServers is wrapped by errors that are about the DNS.
var errServers = errors.New("the name servers do not answer the challenge")

// solver puts the values of an order's challenges into the DNS and waits until the name servers answer them. Both
// values of a name and its wildcard are published before it waits for the first. It is used by one goroutine.
type solver struct {
	m       *Manager
	run     *flow.Run
	began   time.Time // of the first wait
	values  []value   // that were published
	offered bool      // the authority was told to look for a value
}

// maxValues bounds the values in the DNS: if so many could not be removed, something is wrong that a person must see.
const maxValues = 500

// value returns the value of a challenge: as it was stored last, if it was.
func (s *solver) value(c acme.Challenge) value {
	v := value{Name: strings.ToLower(c.DNS01TXTRecordName()), Value: c.DNS01KeyAuthorization()}
	for _, x := range s.m.state.Values {
		if x.Name == v.Name && x.Value == v.Value {
			v.Path = x.Path
		}
	}
	return v
}

// Present implements acmez.Solver. The value is stored first, with its place: whatever happens to this process or to a
// CNAME, it will be removed there.
func (s *solver) Present(ctx context.Context, c acme.Challenge) error {
	v := s.value(c)
	if len(s.m.state.Values) >= maxValues {
		return fmt.Errorf("%w: %d values of earlier challenges could not be removed", errServers, maxValues)
	}
	path, err := s.m.p.Challenger.Path(ctx, v.Name)
	if err != nil {
		return fmt.Errorf("%w: find the place of the value: %w", errServers, err)
	}
	if v.Path = nil; len(path) > 1 {
		v.Path = path
		s.m.p.Log.Info("putting the value of a challenge where the CNAME of its name leads", "path", path)
	}
	if err := s.m.update(ctx, s.run, func(st *state) { st.Values = append(st.Values, v) }); err != nil {
		return err
	}
	if err := s.m.p.Challenger.Add(ctx, v.path(), v.Value); err != nil {
		return fmt.Errorf("%w: publish the value at %s: %w", errServers, v.Name, err)
	}
	s.values = append(s.values, v)
	return nil
}

const (
	checkEvery = time.Second // how often the name servers are asked
	// propagation is how long they have until all of them answer the values of an order.
	propagation = 3 * time.Minute
	// skipAfter is when an order continues without those that do not answer at all, if all others answer its values.
	skipAfter = time.Minute
)

// Wait implements acmez.Waiter. The challenge is offered when no name server answers without the value, and one at
// least answers it. Those that do not answer at all are waited for until skipAfter. The value of the wildcard's
// challenge, at the same name, must be answered too: a resolver of the authority may keep what it gets for the first.
func (s *solver) Wait(ctx context.Context, c acme.Challenge) error {
	v := s.value(c)
	if s.began.IsZero() {
		s.began = time.Now()
	}
	for {
		answers, err := s.m.p.Checker.Check(ctx, v.path(), v.Value)
		for _, o := range s.values {
			if err == nil && o.Name == v.Name && !o.is(v) {
				var more []Answer
				more, err = s.m.p.Checker.Check(ctx, o.path(), o.Value)
				answers = append(answers, more...)
			}
		}
		var has, lacking, silent []string
		if err != nil {
			silent = append(silent, err.Error())
		}
		for _, a := range answers {
			switch {
			case a.Has:
				has = append(has, a.Server)
			case a.NoAnswer != nil:
				silent = append(silent, fmt.Sprintf("%s: %v", a.Server, a.NoAnswer))
			default:
				lacking = append(lacking, a.Server)
			}
		}
		waited := time.Since(s.began)
		switch {
		case err == nil && len(has) > 0 && len(lacking) == 0 && (len(silent) == 0 || waited >= skipAfter):
			if len(silent) > 0 {
				s.m.p.Log.Warn("name servers do not answer; the challenge is offered without them", "name", v.Name,
					"servers", silent)
			}
			s.offered = true
			return nil
		case waited >= propagation:
			return fmt.Errorf("%w: %s after %s: answered by %q, not by %q, no answer from %q", errServers, v.Name,
				waited.Round(time.Second), has, lacking, silent)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(checkEvery):
		}
	}
}

// CleanUp implements acmez.Solver. It also works while the node stops. A value that is not removed stays stored, and is
// removed later.
func (s *solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	v := s.value(c)
	if err := s.m.p.Challenger.Remove(ctx, v.path(), v.Value); err != nil {
		s.m.p.Log.Warn("value of a challenge not removed from the DNS; trying again later", "name", v.Name, "error",
			err)
		return err
	}
	s.values = slices.DeleteFunc(s.values, v.is)
	return s.m.update(ctx, s.run, func(st *state) {
		st.Values = slices.DeleteFunc(st.Values, v.is)
	})
}

// limits is what the responses to the requests of one order said, under limitsKey in the requests' context.
type limits struct {
	limited  bool
	until    time.Time // from Retry-After
	status   int       // of the last response
	answered bool      // there was a response
}

type limitsKey struct{}

// guard sends requests to an authority. It notes what the ACME library ignores, and bounds responses.
type guard struct{ base http.RoundTripper }

const maxResponse = 1 << 20 // bytes

func newClient(base http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: guard{base},
		Timeout:   30 * time.Second,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("the authority redirects to %s; configure the directory's own URL", r.URL.Host)
		},
	}
}

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	l, _ := r.Context().Value(limitsKey{}).(*limits)
	if l == nil {
		l = &limits{}
	}
	resp, err := g.base.RoundTrip(r)
	if err != nil {
		l.status = 0
		return nil, err
	}
	l.status, l.answered = resp.StatusCode, true
	after := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if resp.StatusCode == http.StatusTooManyRequests ||
		resp.StatusCode == http.StatusServiceUnavailable && !after.IsZero() {
		l.limited, l.until = true, later(l.until, after)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxResponse)
	return resp, nil
}

// retryAfter reads a Retry-After header (RFC 9110, section 10.2.3). It returns the zero time if there is none.
func retryAfter(s string, now time.Time) time.Time {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return now.Add(time.Duration(n) * time.Second)
	}
	t, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}
