//go:build deep

package static

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// record holds the fields of a call record that these tests read.
type record struct {
	Called  string    `json:"called"`
	Status  int       `json:"status"`
	End     time.Time `json:"end"`
	EndedBy string    `json:"endedBy"`
	Tried   []struct {
		Group  string `json:"group"`
		Status int    `json:"status"`
	} `json:"tried"`
	CustomHeader string `json:"customHeader"`
}

// records reads every call record on disk.
func (s *site) records() ([]record, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "calls", "calls-*"))
	if err != nil {
		return nil, err
	}
	var all []record
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			var r record
			if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
				return nil, fmt.Errorf("call record %q: %w", sc.Text(), err)
			}
			all = append(all, r)
		}
		if err := sc.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// checkRecords waits until there are calls call records, and fails the test if one of them is of a failed call.
func (s *site) checkRecords(t *testing.T, calls int) {
	t.Helper()
	var all []record
	eventually(t, 10*time.Second, "every call has its record", func() (err error) {
		if all, err = s.records(); err == nil && len(all) != calls {
			err = fmt.Errorf("%d records of %d calls", len(all), calls)
		}
		return err
	})
	for _, r := range all {
		if r.Status != 200 || r.EndedBy != "near" || len(r.Tried) != 1 || r.Tried[0].Status != 200 {
			t.Errorf("call record %+v; want an answered call that the caller ended", r)
			return
		}
	}
}

// watch polls the Provisioning API and readiness while the database is unavailable, and records wrong responses.
type watch struct {
	asked    int
	slowest  time.Duration
	problems []string
}

func (w *watch) note(format string, args ...any) {
	if len(w.problems) < 10 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

// run polls until ctx ends. Every request must get 503 with Retry-After within 3 s.
func (w *watch) run(ctx context.Context, s *site, token string) {
	n := nth(firstOC, 1)
	item := fmt.Sprintf(`{"telephoneNumber":%q,"accountName":%q,"serviceDetails":{"teamsOperatorConnect":{
		"enabled":true,"configuration":{"usage":"CallingUserAssignment","choosableCapabilities":["InboundCalling"]}}}}`,
		n, account)
	requests := [][3]string{
		{"PUT", "/accounts/" + account + "/numbers/" + n, item},
		{"POST", "/accounts/" + account + ":createOrUpdateNumbers", `{"numbers":[` + item + `]}`},
		{"POST", "/accounts/" + account + ":deleteNumbers", fmt.Sprintf(`{"numbers":[{"telephoneNumber":%q}]}`, n)},
		{"DELETE", "/accounts/" + account + "/numbers/" + n, ""},
		{"GET", "/accounts/" + account + "/numbers/" + n, ""},
		{"GET", "/accounts", ""},
	}
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for i := 0; ; i++ {
		q := requests[i%len(requests)]
		a, err := ask(ctx, q[0], s.url(q[1]), token, q[2])
		if ctx.Err() != nil {
			return
		}
		w.asked++
		w.slowest = max(w.slowest, a.took)
		switch {
		case err != nil:
			w.note("%s %s: %v after %v", q[0], q[1], err, a.took)
		case a.status != 503 || a.retryAfter == "" || a.code == "" || a.took > 3*time.Second:
			w.note("%s %s: %v; want 503 with Retry-After and a code within 3 s", q[0], q[1], a)
		}
		for _, role := range []string{"edge", ""} {
			if a, err := s.readyz(ctx, role); ctx.Err() == nil &&
				(err != nil || a.status != 200 || !strings.Contains(a.body, "database")) {
				w.note("/readyz?role=%s: %v %v; want 200 with a warning about the database", role, a, err)
			}
		}
		if a, err := s.readyz(ctx, "api"); ctx.Err() == nil &&
			(err != nil || a.status != 503 || !strings.Contains(a.body, "database")) {
			w.note("/readyz?role=api: %v %v; want 503 that names the database", a, err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// loadFor returns how long calls are placed.
func loadFor(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv("TANDEM_STATIC_FOR")
	if v == "" {
		return 2 * time.Minute
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 8*time.Second {
		t.Fatalf("TANDEM_STATIC_FOR=%q: want a duration of 8s or more", v)
	}
	return d
}

// TestDatabaseKilledUnderLoad places 100 calls a second, both ways and to three services, and kills PostgreSQL after a
// quarter of the time. No call may fail, no record may be lost, and the API must report the cause quickly.
func TestDatabaseKilledUnderLoad(t *testing.T) {
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	s.provision(t)
	token := s.token(t)

	total := loadFor(t)
	seconds := int(total.Seconds())
	hold := 2 * time.Second
	limit := total + 90*time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit+30*time.Second)
	defer cancel()
	// 75 a second from the core, a third to each service; 25 a second from Direct Routing.
	var fromCore, fromTeams []call
	for i := range perKind {
		for _, first := range []int64{firstDR, firstOC, firstZoom} {
			n := nth(first, i)
			fromCore = append(fromCore, call{outside, n, s.trunks["core"].bind, usual(n)})
		}
		fromTeams = append(fromTeams, call{nth(firstDR, i), outside, label + ".1r1." + baseDomain, ""})
	}
	each := 25 * seconds
	var ps []*sipp
	for _, x := range []string{"direct-routing", "operator-connect", "zoom", "core"} {
		ps = append(ps, s.take(ctx, t, x, each, limit))
	}
	begin := time.Now()
	callers := []*sipp{
		s.place(ctx, t, "core", fromCore, 3*each, 75, hold, limit),
		s.place(ctx, t, "direct-routing", fromTeams, each, 25, hold, limit),
	}
	pause(t, total/4)
	h, err := s.local.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pg.Kill(t)
	killed := time.Now()
	t.Logf("PostgreSQL killed %v after the first call, with %d calls up",
		killed.Sub(begin).Round(time.Millisecond), h.Calls.Active)
	if h.Calls.Active < 100 {
		t.Errorf("only %d calls are up when the database is killed", h.Calls.Active)
	}

	// The first write fails at once, whether or not the probe has noticed the kill.
	a, err := s.putZoom(ctx, token, nth(firstOC, 0))
	if err != nil || a.status != 503 || a.retryAfter == "" || a.took > 3*time.Second {
		t.Errorf("the first PUT after the kill: %v %v; want 503 with Retry-After within 3 s", a, err)
	}
	t.Logf("the first PUT after the kill: %v", a)
	eventually(t, 3*time.Second, "/readyz reports the database", func() error {
		a, err := s.readyz(ctx, "api")
		if err == nil && (a.status != 503 || !strings.Contains(a.body, "database")) {
			err = fmt.Errorf("%v", a)
		}
		return err
	})
	t.Logf("/readyz?role=api reports it %v after the kill", time.Since(killed).Round(time.Millisecond))
	var w watch
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.run(watching, s, token) })

	sent := finish(t, callers...)
	stop()
	wg.Wait()
	took := finish(t, ps...)
	t.Logf("%d calls placed in %v (%d correct, %d failed, %d retransmissions), %d accepted correctly (%d failed, %d "+
		"retransmissions)", 4*each, time.Since(begin).Round(time.Second),
		sent.ok, sent.failed, sent.repeated, took.ok, took.failed, took.repeated)
	if sent.ok != 4*each || took.ok != 4*each {
		t.Errorf("%d placed and %d accepted calls were correct, want %d each", sent.ok, took.ok, 4*each)
	}
	t.Logf("%d requests to the Provisioning API while PostgreSQL was down; the slowest took %v", w.asked,
		w.slowest.Round(time.Millisecond))
	for _, p := range w.problems {
		t.Error(p)
	}
	if w.asked < seconds/4 {
		t.Errorf("only %d requests were made while the database was down", w.asked)
	}
	s.checkRecords(t, 4*each)
	if d := s.metric(t, "tandem_call_records_dropped_total"); d != 0 {
		t.Errorf("%v call records dropped", d)
	}

	pg.Start(t)
	at := time.Now()
	eventually(t, 15*time.Second, "writes succeed again", func() error {
		return put(t.Context(), s.api(t), nth(firstOC, 0), route{zoom, "S-back"})
	})
	s.waitRoutes(t, map[string]route{nth(firstOC, 0): {zoom, "S-back"}})
	t.Logf("a write is routed %v after PostgreSQL is available again", time.Since(at).Round(time.Millisecond))
}

// putZoom moves a number to Zoom with one PUT, which is not retried.
func (s *site) putZoom(ctx context.Context, token, number string) (answer, error) {
	body := fmt.Sprintf(`{"telephoneNumber":%q,"accountName":%q,
		"serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true}}}`, number, account)
	return ask(ctx, "PUT", s.url("/accounts/"+account+"/numbers/"+number), token, body)
}
