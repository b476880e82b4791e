// Command sync measures how fast the users of a Microsoft 365 tenant are read: all of them, then 100 that changed, then
// one. The tenant is simulated in another process, which answers each request after 100 ms and applies the published
// limits.
//
//	bench/sync/run [-users 10000] [-latency 100ms] [-changes 100] [-naive 100]
//	bench/sync/run million
//
// Beside it, in the same run, there are two peers. The first only downloads what the fewest requests that the API
// allows give: Graph's pages hold at most 999 users, and a page names the next one, so N users are ⌈N/999⌉ requests one
// after the other; the voice configurations are as many, beside them: 11 + 11 requests for 10,000 users, at least 11 ×
// 100 ms. The changes of 100 users are 1 request and, with 20 users in a batch, 5 for their voice configurations. The
// second peer reads user by user, as portals on cmdlets do, for -naive users, from which its time for all is computed.
//
// The last line is "sync: users=… seconds=… delta_seconds=… requests=…"; requests are those of the pass over all users.
package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/store"
	"github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

const (
	clientID = "aaaaaaaa-0000-4000-8000-000000000001"
	account  = "contoso"
	resource = "https://graph.microsoft.com"
)

var (
	users    = flag.Int("users", 10_000, "users of the tenant")
	latency  = flag.Duration("latency", 100*time.Millisecond, "before each answer")
	changes  = flag.Int("changes", 100, "users that change")
	naive    = flag.Int("naive", 100, "users that the peer reads one by one; 0 for none")
	simulate = flag.Bool("simulate", false, "simulate the tenant (for the command itself)")
)

func main() {
	flag.Parse()
	run := measure
	switch {
	case *simulate:
		run = serve
	case flag.Arg(0) == "million":
		*users, *naive = 1_000_000, 0
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sync:", err)
		os.Exit(1)
	}
}

// place is where the simulated tenant is.
type place struct{ Login, Graph, Tenant, User, CA string }

var permissions = []string{"User.Read.All", "TeamsUserConfiguration.Read.All"}

// serve simulates the tenant until its standard input ends. A line there changes users; it answers with a line.
func serve() error {
	authority, err := ca.New("bench")
	if err != nil {
		return err
	}
	cloud, err := microsoft.New(microsoft.Config{Authority: authority, Latency: *latency})
	if err != nil {
		return err
	}
	defer cloud.Close()
	t := cloud.AddTenant(microsoft.Spec{Name: account, Users: *users, Foreign: 3, Seed: 1})
	cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: t.ID, MultiTenant: true, Application: permissions,
		Secrets: []microsoft.Secret{{Value: "secret"}}})
	t.Consent(clientID, permissions, nil)

	out := json.NewEncoder(os.Stdout)
	at := place{Login: cloud.URL(microsoft.Login), Graph: cloud.URL(microsoft.Graph) + "/v1.0", Tenant: t.ID,
		CA: string(authority.PEM())}
	t.Edit(func(s *microsoft.State) { at.User = s.Users[1].ID })
	if err := out.Encode(at); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "change" {
			t.Edit(func(s *microsoft.State) {
				for _, u := range s.Users[1 : 1+*changes] {
					u.Department = "Changed"
					s.Changed(u)
				}
			})
		}
		requests := 0
		for c, n := range cloud.Requests() {
			if c.Service == microsoft.Graph {
				requests += n
			}
		}
		if err := out.Encode(requests); err != nil {
			return err
		}
	}
	return nil
}

// simulation is the process of the simulated tenant.
type simulation struct {
	place
	in  io.WriteCloser
	out *json.Decoder
}

func start() (*simulation, error) {
	cmd := exec.Command(os.Args[0], append([]string{"-simulate"}, os.Args[1:]...)...)
	if flag.Arg(0) == "million" {
		cmd.Args = []string{os.Args[0], "-simulate", "-users", fmt.Sprint(*users)}
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s := &simulation{in: in, out: json.NewDecoder(out)}
	return s, errors.Join(cmd.Start(), s.out.Decode(&s.place))
}

// ask sends a line and returns how many requests Graph has had.
func (s *simulation) ask(line string) (requests int, err error) {
	_, err = fmt.Fprintln(s.in, line)
	return requests, errors.Join(err, s.out.Decode(&requests))
}

func measure() error {
	fmt.Printf("simulating %d users\n", *users)
	s, err := start()
	if err != nil {
		return fmt.Errorf("simulate the tenant: %w", err)
	}
	defer s.in.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CA))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	app, err := entra.New(entra.Config{Authority: s.Login, ClientID: clientID, Secret: secret.New("secret"),
		Transport: transport})
	if err != nil {
		return err
	}
	tokens := app.Connect(s.Tenant, nil, time.Time{}).Source(resource)
	g, err := graph.New(graph.Config{BaseURL: s.Graph, Tenant: s.Tenant, Tokens: tokens, Budget: graph.NewBudget(),
		UserAgent: "Tandem/bench", Transport: transport})
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "bench-sync-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := newReader(filepath.Join(dir, "tandem.db"), s, &tenant.Cloud{Graph: g})
	if err != nil {
		return err
	}
	full, delta, requests, err := r.passes(s)
	if err != nil {
		return err
	}
	one := time.Now()
	if _, err := r.service.Refresh(context.Background(), account, s.User); err != nil {
		return err
	}
	fmt.Printf("tandem: all users %v, %d changes %v, one user %v; peak memory of the process %s\n", round(full),
		*changes, round(delta), round(time.Since(one)), peak())

	if *naive > 0 {
		p := peer{&http.Client{Transport: transport}, tokens}
		fewest, n, err := p.download(s)
		if err != nil {
			return err
		}
		fmt.Printf("the fewest requests (%d), without storing anything: %v; ratio %.2f\n", n, round(fewest),
			full.Seconds()/fewest.Seconds())
		single, err := p.oneByOne(s)
		if err != nil {
			return err
		}
		all := single * time.Duration(*users) / time.Duration(*naive)
		fmt.Printf("user by user: %d in %v, so %d in about %v; ratio %.4f\n", *naive, round(single), *users, round(all),
			full.Seconds()/all.Seconds())
	}
	fmt.Printf("sync: users=%d seconds=%.2f delta_seconds=%.2f requests=%d\n", *users, full.Seconds(), delta.Seconds(),
		requests)
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// peak returns the highest resident memory that the process has had.
func peak() string {
	status, err := os.ReadFile("/proc/self/status")
	m := regexp.MustCompile(`VmHWM:\s+(\d+ kB)`).FindSubmatch(status)
	if err != nil || m == nil {
		return "unknown on " + runtime.GOOS
	}
	return string(m[1])
}

// reader is Tandem's synchronisation on a database of its own.
type reader struct {
	service *user.Service
	store   tenants.Users
	queue   *flow.Queue
	syncer  *user.Syncer
}

func newReader(file string, s *simulation, cloud user.Cloud) (*reader, error) {
	ctx := context.Background()
	log, reg := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		prometheus.NewRegistry()
	c := db.Default()
	c.Driver, c.File = db.SQLite, file
	d, err := db.Open(ctx, c, log, reg, store.Schemas()...)
	if err != nil {
		return nil, err
	}
	r := &reader{queue: flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, reg)}
	r.store = tenants.Users{Store: tenants.New(d, nil, r.queue, events.New(d, log, reg))}
	clouds := func(context.Context, *onboard.Tenant) (user.Cloud, error) { return cloud, nil }
	r.service = &user.Service{Store: r.store, Clouds: clouds}
	r.syncer = &user.Syncer{Store: r.store, Clouds: clouds, Metrics: user.NewMetrics(reg), Log: log}
	return r, r.store.Store.Update(ctx, nil, account, "", func(ctx context.Context, tx onboard.Tx) error {
		return tx.SetTenant(ctx, &onboard.Tenant{Account: account, ID: s.Tenant})
	})
}

// passes measures a pass over all users and one over changes, and counts the requests of the first.
func (r *reader) passes(s *simulation) (full, delta time.Duration, requests int, err error) {
	ctx, stop := context.WithCancel(context.Background())
	var worker sync.WaitGroup
	defer worker.Wait()
	defer stop()
	worker.Go(func() { _ = r.queue.Run(ctx, []*flow.Kind{r.syncer.Kind()}) }) // returns nil

	p, err := r.pass(ctx, user.Full)
	if err != nil {
		return 0, 0, 0, err
	}
	full = p.Ended.Sub(p.Began)
	if requests, err = s.ask("count"); err != nil {
		return 0, 0, 0, err
	}
	if _, err = s.ask("change"); err != nil {
		return 0, 0, 0, err
	}
	if p, err = r.pass(ctx, user.Delta); err == nil && p.Users != int64(*changes) {
		err = fmt.Errorf("the pass over changes had %d users", p.Users)
	}
	return full, p.Ended.Sub(p.Began), requests, err
}

// pass asks for a pass and waits until it has ended.
func (r *reader) pass(ctx context.Context, mode string) (p user.Pass, err error) {
	if err := r.service.Sync(ctx, account, mode); err != nil {
		return p, err
	}
	for p.Ended.IsZero() {
		if !db.Sleep(ctx, 50*time.Millisecond) {
			return p, ctx.Err()
		}
		err := r.store.View(ctx, account, func(ctx context.Context, tx user.Tx) error {
			all, err := tx.Passes(ctx, 1)
			p = all[0]
			return err
		})
		if err != nil || p.Failure != "" {
			return p, cmp.Or(err, errors.New(p.Failure))
		}
	}
	if p.Mode != mode {
		err = fmt.Errorf("a pass %q was done instead of %q", p.Mode, mode)
	}
	return p, err
}

// peer reads without Tandem's client.
type peer struct {
	client *http.Client
	tokens graph.Tokens
}

func (p *peer) get(address string) (body []byte, err error) {
	token, err := p.tokens.Token(context.Background())
	if err != nil {
		return nil, err
	}
	for {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token.Reveal())
		answer, err := p.client.Do(r)
		if err != nil {
			return nil, err
		}
		body, err = io.ReadAll(answer.Body)
		answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusTooManyRequests:
			time.Sleep(time.Second)
		case answer.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("%s: %s", address, answer.Status)
		default:
			return body, err
		}
	}
}

var next = regexp.MustCompile(`"@odata.nextLink":"([^"]+)"`)

// download reads both lists, at the same time, and returns how many requests that were.
func (p *peer) download(s *simulation) (time.Duration, int, error) {
	began := time.Now()
	var lists sync.WaitGroup
	var errs [2]error
	var requests [2]int
	for i, link := range []string{"/users?$top=999&$select=" + strings.Join(graph.UserFields, ","),
		"/admin/teams/userConfigurations?$top=999"} {
		lists.Go(func() {
			for link := s.Graph + link; link != ""; requests[i]++ {
				body, err := p.get(link)
				if err != nil {
					errs[i] = err
					return
				}
				if link = ""; next.Match(body) {
					link = strings.ReplaceAll(string(next.FindSubmatch(body)[1]), `\u0026`, "&")
				}
			}
		})
	}
	lists.Wait()
	return time.Since(began), requests[0] + requests[1], errors.Join(errs[:]...)
}

// oneByOne reads users one after the other, each with its voice configuration.
func (p *peer) oneByOne(s *simulation) (time.Duration, error) {
	began := time.Now()
	for range *naive {
		for _, path := range []string{"/users/" + s.User + "?$select=" + strings.Join(graph.UserFields, ","),
			"/admin/teams/userConfigurations/" + s.User} {
			if _, err := p.get(s.Graph + path); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}
