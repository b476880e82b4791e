package certificate

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// asked is a Checker whose answers are a function of the time since it was first asked.
type asked struct {
	began   time.Time
	answers func(since time.Duration) ([]Answer, error)
}

func (a *asked) Check(context.Context, []string, string) ([]Answer, error) {
	return a.answers(time.Since(a.began))
}

// A challenge is offered when no name server answers without its value. Servers that give no answer are waited for and
// then left out, those with wrong content never.
func TestWhenAChallengeIsOffered(t *testing.T) {
	t.Parallel()
	has, lacks := Answer{Server: "ns1", Has: true}, Answer{Server: "ns2"}
	silent := Answer{Server: "ns3", NoAnswer: errors.New("timeout")}
	after := func(d time.Duration, late ...Answer) func(time.Duration) ([]Answer, error) {
		return func(since time.Duration) ([]Answer, error) {
			if since < d {
				return []Answer{has, lacks}, nil
			}
			return late, nil
		}
	}
	always := func(err error, a ...Answer) func(time.Duration) ([]Answer, error) {
		return func(time.Duration) ([]Answer, error) { return a, err }
	}
	for name, c := range map[string]struct {
		answers func(time.Duration) ([]Answer, error)
		at      time.Duration // when it is offered; -1 for never
		text    string        // in the error
	}{
		"all have it":            {always(nil, has, has), 0, ""},
		"one is 20 s late":       {after(20*time.Second, has, has), 20 * time.Second, ""},
		"one does not answer":    {always(nil, has, silent), time.Minute, ""},
		"one lacks it":           {always(nil, has, lacks, silent), -1, "ns2"},
		"none answers":           {always(nil, silent, silent), -1, "timeout"},
		"no server is listed":    {always(nil), -1, "1r1"},
		"the list is unreadable": {always(errors.New("no NS records"), has), -1, "no NS records"},
		"one that was silent answers without it": {func(since time.Duration) ([]Answer, error) {
			if since < 30*time.Second {
				return []Answer{has, silent}, nil
			}
			return []Answer{has, lacks}, nil
		}, -1, "ns2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &solver{m: &Manager{p: Parts{Checker: &asked{time.Now(), c.answers},
					Log: slog.New(slog.DiscardHandler)}}}
				began := time.Now()
				err := s.Wait(t.Context(), acme.Challenge{Identifier: acme.Identifier{Value: "1r1.example.com"}})
				if c.at < 0 {
					if !errors.Is(err, errServers) || !strings.Contains(err.Error(), c.text) || s.offered {
						t.Errorf("error %v, offered %v; want an error with %q", err, s.offered, c.text)
					}
					return
				}
				if took := time.Since(began); err != nil || !s.offered || took != c.at {
					t.Errorf("offered %v after %s, %v; want %s", s.offered, took, err, c.at)
				}
				// The value of the wildcard was published at the same time.
				err = s.Wait(t.Context(), acme.Challenge{Identifier: acme.Identifier{Value: "1r1.example.com"}})
				if took := time.Since(began); err != nil || took != c.at {
					t.Errorf("the second value is offered after %s, %v; want %s", took, err, c.at)
				}
			})
		})
	}
}

// late is a Checker that finds one value at once, and another one later.
type late struct {
	began time.Time
	value string
	after time.Duration
}

func (l late) Check(_ context.Context, _ []string, value string) ([]Answer, error) {
	return []Answer{{Server: "ns1", Has: value != l.value || time.Since(l.began) >= l.after}}, nil
}

// The first challenge of a name is offered when the value of the second one is answered too.
func TestBothValuesAreAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, other := time.Now(), value{Name: "_acme-challenge.1r1.example.com", Value: "of the wildcard"}
		s := &solver{m: &Manager{p: Parts{Checker: late{began, other.Value, 20 * time.Second},
			Log: slog.New(slog.DiscardHandler)}}, values: []value{other, {Name: "_acme-challenge.r1.example.com"}}}
		err := s.Wait(t.Context(), acme.Challenge{Identifier: acme.Identifier{Value: "1r1.example.com"}})
		if took := time.Since(began); err != nil || took != 20*time.Second {
			t.Errorf("offered after %s, %v; want when both are there", took, err)
		}
	})
}

func TestEndOfARateLimit(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		header time.Time
		detail string
		want   time.Duration
	}{
		{now.Add(time.Hour), "retry after 2026-11-29 09:00:00 UTC", time.Hour},
		{time.Time{}, "too many orders, retry after 2026-11-29 03:30:00 UTC: see https://…", 150 * time.Minute},
		{time.Time{}, "retry after 2026-11-29T03:30:00Z", 150 * time.Minute},
		{time.Time{}, "retry after 2026-11-29T04:30:00.123+01:00", 150 * time.Minute},
		{time.Time{}, "window from 2026-11-29 01:10:00 to 2026-11-29 02:00:00", time.Hour},
		{time.Time{}, "slow down", time.Hour},
		{time.Time{}, "retry after 2026-13-99 99:99:99 UTC", time.Hour},
		{time.Time{}, "retry after 2026-11-28 03:30:00 UTC", time.Minute}, // their clock is behind
		{now.Add(-time.Hour), "", time.Minute},
		{now.AddDate(10, 0, 0), "", 7 * 24 * time.Hour},
	} {
		if got := limitedUntil(c.header, acme.Problem{Detail: c.detail}, now); !got.Equal(now.Add(c.want)) {
			t.Errorf("limitedUntil(%v, %q) = %v, want %v", c.header, c.detail, got, now.Add(c.want))
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{"3600": now.Add(time.Hour), "0": now, "": {}, "-1": {}, "soon": {},
		"99999999999999999999": {}, "Sun, 29 Nov 2026 03:00:00 GMT": now.Add(2 * time.Hour)} {
		if got := retryAfter(in, now); !got.Equal(want) {
			t.Errorf("retryAfter(%q) = %v, want %v", in, got, want)
		}
	}
}

// Whatever fails, an identifier with two challenges fails at most five times within any hour.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	var a attempt
	var times []time.Time
	for now := time.Unix(0, 0); len(times) < 30; now = a.Next {
		times = append(times, now)
		a = a.next(now, longWait, causeChallenge, "")
	}
	for i, from := range times {
		n := 0
		for _, t := range times[i:] {
			if t.Sub(from) < time.Hour {
				n++
			}
		}
		if 2*n > 5 {
			t.Errorf("%d attempts within the hour from %v", n, from)
		}
	}
	if wait := a.Next.Sub(a.At); wait != mostWait {
		t.Errorf("the wait grows to %s, want %s", wait, mostWait)
	}
}

func TestKeyOfAnExternalAccount(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hmac")
	c := Config{ExternalAccount: ExternalAccount{KeyID: "1", HMACKeyFile: file}}
	if f := fault.As(c.CheckFiles()); f.Target != "externalAccount.hmacKeyFile" {
		t.Errorf("no file: %v", f)
	}
	for text, good := range map[string]bool{"MDEyMw\n": true, "MDEyMw==\n": true, "_-8": true, "": false, "\n": false,
		"+/8": false, "secret key": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckFiles(); (err == nil) != good {
			t.Errorf("key %q: %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	known := []Wanted{{Name: "provapi"}, {Name: "1r1"}, {Name: "onboard", Optional: true}}
	good := func() Config {
		return Config{Directory: "https://ca.example/dir", AcceptTerms: true, Contact: "ca@example.com",
			Order: []string{"1r1", "onboard"}}
	}
	for _, c := range []Config{{}, good()} {
		if errs := c.Validate(known); len(errs) != 0 {
			t.Errorf("Validate of a good configuration: %v", errs)
		}
	}
	for target, spoil := range map[string]func(*Config){
		"directory":       func(c *Config) { c.Directory = "" },
		"directory ":      func(c *Config) { c.Directory = "http://ca.example/dir" },
		"acceptTerms":     func(c *Config) { c.AcceptTerms = false },
		"contact":         func(c *Config) { c.Contact = "ca" },
		"externalAccount": func(c *Config) { c.ExternalAccount.KeyID = "1" },
		"order":           func(c *Config) { c.Order[0] = "1r2" },
		"order ":          func(c *Config) { c.Order[0] = "onboard" },
	} {
		c := good()
		spoil(&c)
		errs := c.Validate(known)
		if len(errs) != 1 || fault.As(errs[0]).Target != strings.TrimSpace(target) {
			t.Errorf("%s: %v", target, errs)
		}
	}

	c := good()
	if got := list(c.Choose(known)); got != "1r1, onboard" {
		t.Errorf("ordered: %s", got)
	}
	c.Order = nil
	if got := list(c.Choose(known)); got != "provapi, 1r1" {
		t.Errorf("ordered by default: %s", got)
	}
}
