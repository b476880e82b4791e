//go:build deep

package crash_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

const (
	writers   = 3  // concurrent streams of writes
	batchSize = 20 // numbers in a batch
	version   = "api-version=2024-02-29-preview"
)

// rounds returns how often the program is killed; TANDEM_CRASH_ROUNDS overrides the default.
func rounds(t *testing.T) int {
	if s := os.Getenv("TANDEM_CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("TANDEM_CRASH_ROUNDS: %v", err)
		}
		return n
	}
	return 50
}

func TestNothingAcknowledgedIsLostOnSQLite(t *testing.T) {
	t.Parallel()
	w := &witness{t: t, dir: t.TempDir(), bin: rig.Binary(t)}
	conf := db.Default()
	conf.File = filepath.Join(w.dir, "tandem.db")
	w.run(conf, nil)
}

func TestNothingAcknowledgedIsLostOnPostgreSQL(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	w := &witness{t: t, dir: t.TempDir(), bin: rig.Binary(t),
		set: []string{"database.driver=postgres", "database.url=" + c.URL("tandem")}}
	conf := db.Default()
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	w.run(conf, c)
}

// witness observes the program from outside.
type witness struct {
	t     *testing.T
	dir   string
	bin   string
	set   []string
	base  string // of the Provisioning API
	token string
	p     *child.Process
	log   bytes.Buffer // of the current process; read after it has ended
	heads []string     // of the audit chain, recorded in earlier rounds

	groups []*group // of all rounds
	acks   int
}

// group is a set of numbers that are only changed together, in one batch, by one writer.
type group struct {
	account string
	numbers []string
	acked   string   // their custom header after the last acknowledged batch; "" if they do not exist
	pending *request // sent, response unknown
	after   string   // the header once pending is done
}

// request is one batch write, so that it can be sent again.
type request struct {
	path, id, sent string
	body           []byte
}

func (w *witness) run(conf db.Config, cluster *testkit.Cluster) {
	w.start()
	n := rounds(w.t)
	killed := map[string]int{}
	for round := range n {
		victim := "tandem"
		if cluster != nil {
			victim = []string{"tandem", "tandem", "both", "tandem", "postgres"}[round%5]
		}
		killed[victim]++
		w.round(round, victim, cluster)
		if w.t.Failed() {
			w.t.Fatalf("round %d (%s killed) failed; the program's log:\n%s", round, victim, w.tail())
		}
	}
	w.verify(w.groups)
	w.stop()
	w.inspect(conf)
	deleted := 0
	for _, g := range w.groups {
		if g.acked == "" {
			deleted++
		}
	}
	w.t.Logf("%d kills %v, %d batches acknowledged, %d groups of %d numbers, %d of them deleted in the end", n, killed,
		w.acks, len(w.groups), batchSize, deleted)
	if w.acks < n*writers {
		w.t.Errorf("only %d batches acknowledged in %d rounds: the kills are too early to show anything", w.acks, n)
	}
}

func (w *witness) round(round int, victim string, cluster *testkit.Cluster) {
	var mu sync.Mutex
	var fresh []*group
	var wg sync.WaitGroup
	for i := range writers {
		account := fmt.Sprintf("r%dw%d", round, i)
		w.must(w.call("PUT", "/accounts/"+account, `{"name":"`+account+
			`","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false}}}`, nil))
		wg.Go(func() {
			gs, acks := w.write(account, fmt.Sprintf("+44%03d%d", round, i))
			mu.Lock()
			defer mu.Unlock()
			fresh = append(fresh, gs...)
			w.acks += acks
		})
	}
	// The moment is random: this is not synchronisation.
	<-time.After(time.Duration(20+mrand.IntN(500)) * time.Millisecond)
	if victim != "tandem" {
		cluster.Kill(w.t)
	}
	if victim != "postgres" {
		w.kill()
	}
	wg.Wait()
	if victim != "tandem" {
		cluster.Start(w.t)
	}
	if victim != "postgres" {
		w.start()
	}
	w.back()
	w.verify(fresh)
	w.repeat(fresh)
	w.verify(fresh)
	w.groups = append(w.groups, fresh...)
	w.audit()
}

// write sends batches until one is not acknowledged. It returns the groups it made and the number of acknowledged
// batches.
func (w *witness) write(account, prefix string) (gs []*group, acks int) {
	header := 0
	for {
		var g *group
		if len(gs) == 0 || mrand.IntN(2) == 0 {
			g = &group{account: account}
			for i := range batchSize {
				g.numbers = append(g.numbers, fmt.Sprintf("%s%04d%02d", prefix, len(gs), i))
			}
			gs = append(gs, g)
		} else {
			g = gs[mrand.IntN(len(gs))]
		}
		header++
		g.prepare(fmt.Sprint("h", header), g.acked != "" && mrand.IntN(4) == 0)
		status, body, err := w.send(g.pending)
		switch {
		case err == nil && status/100 == 2:
			g.acked, g.pending = g.after, nil
			acks++
		case err != nil || status == http.StatusServiceUnavailable:
			return gs, acks // killed
		default:
			w.t.Errorf("batch for %s: %d %s", account, status, body)
			return gs, acks
		}
	}
}

// prepare makes the group's next request: all its numbers get the header, or are deleted.
func (g *group) prepare(header string, deletion bool) {
	var items []string
	g.after = header
	action := ":createOrUpdateNumbers"
	if deletion {
		g.after, action = "", ":deleteNumbers"
	}
	for _, n := range g.numbers {
		if deletion {
			items = append(items, `{"telephoneNumber":"`+n+`"}`)
		} else {
			items = append(items, `{"telephoneNumber":"`+n+`","accountName":"`+g.account+
				`","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true}},`+
				`"configuration":{"customSipHeader":"`+header+`"}}`)
		}
	}
	g.pending = &request{path: "/accounts/" + g.account + action, id: rand.Text(),
		sent: time.Now().UTC().Format(http.TimeFormat), body: []byte(`{"numbers":[` + strings.Join(items, ",") + `]}`)}
}

func (w *witness) send(r *request) (int, []byte, error) {
	return w.call("POST", r.path, string(r.body),
		map[string]string{"Repeatability-Request-ID": r.id, "Repeatability-First-Sent": r.sent})
}

// verify reads the groups' accounts and compares them with what was acknowledged.
func (w *witness) verify(gs []*group) {
	w.t.Helper()
	stored := map[string]map[string]string{} // account -> number -> header
	for _, g := range gs {
		if _, ok := stored[g.account]; !ok {
			stored[g.account] = w.numbers(g.account)
		}
	}
	for _, g := range gs {
		first, whole := stored[g.account][g.numbers[0]], true
		for _, n := range g.numbers {
			whole = whole && stored[g.account][n] == first
			delete(stored[g.account], n)
		}
		if !whole {
			w.t.Errorf("a batch is stored in part for the group at %s of %s", g.numbers[0], g.account)
			continue
		}
		if first != g.acked && (g.pending == nil || first != g.after) {
			w.t.Errorf("the group at %s of %s has %q; acknowledged was %q, in flight: %v (%q)", g.numbers[0], g.account,
				first, g.acked, g.pending != nil, g.after)
		}
	}
	for account, rest := range stored {
		if len(rest) > 0 {
			w.t.Errorf("account %s has %d numbers that were not sent", account, len(rest))
		}
	}
}

// repeat sends the requests in flight again. They must succeed, whether or not they took effect before.
func (w *witness) repeat(gs []*group) {
	w.t.Helper()
	for _, g := range gs {
		if g.pending == nil {
			continue
		}
		for range 2 {
			status, body, err := w.send(g.pending)
			if err != nil || status/100 != 2 {
				w.t.Errorf("repeated batch for %s: %d %s %v", g.account, status, body, err)
			}
		}
		g.acked, g.pending = g.after, nil
	}
}

// numbers reads all numbers of an account and their headers.
func (w *witness) numbers(account string) map[string]string {
	w.t.Helper()
	found := map[string]string{}
	next := "/accounts/" + account + "/numbers?maxpagesize=500&" + version
	for next != "" {
		status, body, err := w.call("GET", next, "", nil)
		if err != nil || status != http.StatusOK {
			w.t.Fatalf("list numbers of %s: %d %s %v", account, status, body, err)
		}
		var page struct {
			Value []struct {
				TelephoneNumber string
				Configuration   struct{ CustomSIPHeader string }
			}
			NextLink string
		}
		if err := json.Unmarshal(body, &page); err != nil {
			w.t.Fatal(err)
		}
		for _, n := range page.Value {
			found[n.TelephoneNumber] = n.Configuration.CustomSIPHeader
		}
		next = strings.TrimPrefix(page.NextLink, w.base)
	}
	return found
}

// audit runs "tandem audit verify" with all heads recorded so far, and records the current one.
func (w *witness) audit() {
	w.t.Helper()
	args := []string{"audit", "verify", "--data", w.dir, "--output", "json"}
	for _, h := range w.heads {
		args = append(args, "--head", h)
	}
	out, err := exec.Command(w.bin, args...).Output()
	var rep struct {
		OK   bool
		Rows int64
		Head string
	}
	if err == nil {
		err = json.Unmarshal(out, &rep)
	}
	if err != nil || !rep.OK || rep.Rows == 0 {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			out = append(out, ee.Stderr...)
		}
		w.t.Errorf("tandem audit verify: %v: %s", err, out)
	}
	w.heads = append(w.heads, rep.Head)
}

// inspect opens the database and checks durability and the state that a reader of the feed arrives at.
func (w *witness) inspect(conf db.Config) {
	w.t.Helper()
	ctx := w.t.Context()
	d := testkit.Open(w.t, conf) // refuses a database that is not durable
	err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		checks := map[string]string{"PRAGMA synchronous": "2", "PRAGMA journal_mode": "wal"}
		if conf.Driver == db.Postgres {
			checks = map[string]string{"SHOW synchronous_commit": "on", "SHOW fsync": "on",
				"SHOW full_page_writes": "on"}
		}
		for q, want := range checks {
			var got string
			if _, err := tx.QueryRow(ctx, q, nil, &got); err != nil {
				return err
			}
			if got != want {
				w.t.Errorf("%s: %s, want %s", q, got, want)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	o := outbox.New(d, outbox.Default(), slog.New(slog.DiscardHandler), nil)
	follower, entries := map[string]string{}, 0
	head, err := o.Head(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	after := feed.Position(0)
	for at := (feed.Cursor{Database: head.Database}); ; {
		p, err := o.Read(ctx, feed.Provisioning, at, 500)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(p.Entries) == 0 {
			if head != at {
				w.t.Errorf("the feed ends at %v but its head is %v", at, head)
			}
			break
		}
		at = p.Next
		for _, e := range p.Entries {
			if e.Position != after+1 {
				w.t.Fatalf("the feed has a gap between %d and %d", after, e.Position)
			}
			after = e.Position
			entries++
			var cs []domain.Change
			if err := json.Unmarshal(e.Payload, &cs); err != nil {
				w.t.Fatalf("feed entry %d: %v", after, err)
			}
			apply(follower, cs)
		}
	}
	scanned := map[string]string{}
	if _, err := provisioning.New(d, o, services.All().Services()).Source().Scan(ctx,
		func(cs []domain.Change) error { apply(scanned, cs); return nil }); err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(scanned, follower); diff != "" {
		w.t.Errorf("the feed leads to a state other than the rows (-rows +feed):\n%s", diff)
	}
	w.t.Logf("%d feed entries without a gap lead to the %d resources stored", entries, len(scanned))
}

func apply(state map[string]string, cs []domain.Change) {
	for _, c := range cs {
		key, deleted := "", false
		if c.Account != nil {
			key, deleted = "account "+c.Account.Name, c.Account.Deleted
		} else {
			key, deleted = fmt.Sprint("number ", c.Number.Key), c.Number.Deleted
		}
		if deleted {
			delete(state, key)
			continue
		}
		b, err := json.Marshal(c)
		if err != nil {
			panic(err)
		}
		state[key] = string(b)
	}
}

// start runs the program and waits until it reports that it is ready.
func (w *witness) start() {
	w.t.Helper()
	args := []string{"--data", w.dir, "--free-ports", "--set", "provisioning.requestsPerMinute=1000000"}
	for _, s := range w.set {
		args = append(args, "--set", s)
	}
	w.log.Reset()
	p, err := child.Start(&w.log, []string{w.bin}, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.p = p
	w.t.Cleanup(p.Kill)
	ready, err := p.Ready(w.t.Context())
	if err != nil {
		w.kill()
		w.t.Fatalf("%v\n%s", err, w.log.String())
	}
	w.base = ready.Provisioning
	tok, err := exec.Command(w.bin, "token", "--data", w.dir, "--role", "ProvisioningAPI.Admin").Output()
	if err != nil {
		w.t.Fatalf("tandem token: %v", err)
	}
	w.token = strings.TrimSpace(string(tok))
}

// back waits until the program answers reads: the database may still be starting.
func (w *witness) back() {
	w.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, body, err := w.call("GET", "/accounts?top=1", "", nil)
		if err == nil && status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the program is not available again: %d %s %v\n%s", status, body, err, w.tail())
		}
		<-tick.C
	}
}

func (w *witness) kill() { w.p.Kill() }

func (w *witness) stop() {
	w.t.Helper()
	if err := w.p.Stop(time.Minute); err != nil {
		w.t.Fatalf("stop tandem: %v", err)
	}
}

// tail returns the end of the program's log. It kills the program first, because the program writes to the log until
// then.
func (w *witness) tail() string {
	w.kill()
	s := w.log.String()
	return s[max(0, len(s)-4000):]
}

var client = &http.Client{Timeout: 30 * time.Second}

// call sends one request.
func (w *witness) call(method, path, body string, headers map[string]string) (int, []byte, error) {
	u, err := url.Parse(w.base + path)
	if err != nil {
		return 0, nil, err
	}
	if !strings.Contains(u.RawQuery, "api-version") {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+version, "&")
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, u.String(), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

func (w *witness) must(status int, body []byte, err error) {
	w.t.Helper()
	if err != nil || status/100 != 2 {
		w.t.Fatalf("%d %s %v\n%s", status, body, err, w.tail())
	}
}
