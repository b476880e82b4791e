package certificate_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// copied is the disk of a node that has one certificate.
type copied struct{ content []byte }

func (c *copied) Load() ([]byte, error) { return c.content, nil }
func (c *copied) Save(b []byte) error   { c.content = b; return nil }

// empty is a database without values.
type empty struct{}

func (empty) Load(context.Context, string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "NotStored", "no value is stored")
}
func (empty) Save(context.Context, *flow.Run, string, []byte, *certificate.Audit) error { return nil }
func (empty) Request(context.Context, string, []byte, certificate.Audit) error          { return nil }
func (empty) Wake(context.Context) error                                                { return nil }

// A certificate of any lifetime is overdue when half of the time between its renewal and its expiry is over, and not
// before: one for 90 days that is renewed when a third is left, after 75 days. The first warning is logged an hour
// after the time of the renewal, further ones at 14, 7 and 1 days, and one at the expiry.
func TestOverdue(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		life, renewal time.Duration // the authority suggests a renewal; 0 if it suggests none
		renewed       time.Duration // when it is to be renewed
		warnings      int
	}{
		"90 days":                 {90 * day, 0, 60 * day, 4},
		"47 days":                 {47 * day, 0, 47 * day * 2 / 3, 4},
		"7 days":                  {7 * day, 0, 7 * day * 2 / 3, 2},
		"6 days, early renewal":   {6 * day, 3 * day, 3 * day, 2},
		"never, by the authority": {7 * day, 8 * day, 7 * day * 2 / 3, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := struct {
					Names                 []string
					Directory, Chain, Key string
					RenewAt               time.Time
				}{Names: []string{"1r1.example.com"}, Directory: "https://ca.example/dir"}
				if c.renewal > 0 {
					r.RenewAt = began.Add(c.renewal)
				}
				r.Chain, r.Key = issued(t, began, c.life, r.Names[0])
				raw, err := json.Marshal(map[string]any{"1r1": r})
				if err != nil {
					t.Fatal(err)
				}
				reg, log := prometheus.NewRegistry(), newLogs(t)
				m := certificate.New(certificate.Config{Directory: r.Directory},
					[]certificate.Wanted{{Name: "1r1", Names: r.Names}}, certificate.Parts{Store: empty{},
						Cache: &copied{raw}, Log: slog.New(log), Metrics: reg})
				at := func(since time.Duration, overdue bool) {
					t.Helper()
					for to := began.Add(since + time.Minute); time.Now().Before(to); { // a look every hour is enough
						time.Sleep(min(time.Hour, time.Until(to)))
						ctx, cancel := context.WithCancel(t.Context())
						ended := make(chan error)
						go func() { ended <- m.Run(ctx) }()
						synctest.Wait()
						cancel()
						if err := <-ended; err != nil {
							t.Error(err)
						}
					}
					s := m.Status()[0]
					if s.Overdue != overdue || !s.RenewAt.Equal(began.Add(c.renewed)) {
						t.Errorf("after %v: overdue %v, renewal after %v; want %v, %v", since, s.Overdue,
							s.RenewAt.Sub(began), overdue, c.renewed)
					}
				}
				logged := func(warnings, errors int) {
					t.Helper()
					if w, e := log.count("is about to expire"), log.count("has expired"); w != warnings || e != errors {
						t.Errorf("%d warnings, %d errors; want %d, %d", w, e, warnings, errors)
					}
				}
				at(c.renewed, false)
				logged(0, 0)
				at(c.renewed+time.Hour, false)
				logged(1, 0)
				half := (c.renewed + c.life) / 2
				at(half-time.Hour, false)
				at(half, true)
				at(c.life-time.Hour, true)
				logged(c.warnings, 0)
				at(c.life, true)
				logged(c.warnings, 1)

				for name, want := range map[string]time.Duration{"tandem_certificate_expiry_timestamp_seconds": c.life,
					"tandem_certificate_renewal_timestamp_seconds": c.renewed} {
					if got := metric(t, reg, name, "1r1"); got != float64(began.Add(want).Unix()) {
						t.Errorf("%s is %v after the start, want %v", name, time.Unix(int64(got), 0).Sub(began), want)
					}
				}
			})
		})
	}
}

// issued returns a certificate and its key in PEM.
func issued(t *testing.T, from time.Time, life time.Duration, name string) (chain, key string) {
	t.Helper()
	a, err := ca.New("authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.IssueFor(ca.ServerAndClient, from, from.Add(life), name)
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{}
	if files[0], files[1], err = ca.WriteFiles(t.TempDir(), "c", cert); err != nil {
		t.Fatal(err)
	}
	var text [2]string
	for i, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(b)
	}
	return text[0], text[1]
}
