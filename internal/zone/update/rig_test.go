package update_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/flow"
	store "github.com/tandemgw/tandem/internal/store/zone"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/tsig"
	"github.com/tandemgw/tandem/internal/zone/update"
)

const (
	base    = "gw.operator.example" // in the zone of the operator
	parent  = "operator.example."
	keyName = "update.operator.example."
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// operators is a zone file with records of others.
const operators = `$TTL 3600
operator.example.    SOA ns1.operator.example. dns.operator.example. 1 3600 600 86400 60
operator.example.    NS  ns1.operator.example.
ns1.operator.example. A  192.0.2.53
www.operator.example. A  192.0.2.80
`

func key(tb testing.TB) tsig.Config {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(secret)), 0o600); err != nil {
		tb.Fatal(err)
	}

	return tsig.Config{Name: keyName, SecretFile: file}
}

func primary() dnspeer.Primary { return dnspeer.Primary{Zone: parent, Key: keyName, Secret: secret} }

// bind starts BIND with the operator's zone and more records.
func bind(tb testing.TB, more string) *dnspeer.Peer {
	tb.Helper()
	return dnspeer.BINDUpdated(tb, primary(), operators+more, "grant "+keyName+" zonesub ANY;")
}

// config returns the configuration for a server.
func config(tb testing.TB, at netip.AddrPort) update.Config {
	tb.Helper()
	c := update.Config{Zone: parent, Server: at.String(), Key: key(tb)}
	if errs := c.Validate(base); len(errs) > 0 {
		tb.Fatal(errs)
	}

	return c
}

// logs is what was logged. It is safe for concurrent use.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.b.String()
}

// node is a node with an updater.
type node struct {
	t   *testing.T
	s   *store.Store
	q   *flow.Queue
	u   *update.Updater
	log *logs
	reg *prometheus.Registry
	// ended has an element for each run that ended.
	ended chan flow.Item
	stop  func()
}

// newNode returns a node that does not run, on a database.
func newNode(t *testing.T, d *db.DB, c update.Config) *node {
	t.Helper()
	n := &node{t: t, log: &logs{}, reg: prometheus.NewRegistry(), ended: make(chan flow.Item, 10_000)}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	n.q = flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
		tx.OnCommit(func() { n.ended <- i })
		return nil
	}, log, nil)
	n.s = store.New(d, outbox.New(d, outbox.Default(), log, nil), n.q)
	var err error
	if n.u, err = update.New(c, base, n.s, log, n.reg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of a node:\n%.20000s", n.log)
		}
	})

	return n
}

// run starts the node's worker.
func (n *node) run() *node {
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.q.Run(ctx, []*flow.Kind{n.u.Kind()}) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.stop)

	return n
}

// again stops the node, and runs another one at once, which checks everything in its first run.
func (n *node) again(d *db.DB, c update.Config) *node {
	n.t.Helper()
	n.stop()
	n = newNode(n.t, d, c)
	if err := d.Update(n.t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return n.q.Enqueue(ctx, tx, update.Work().Kind, time.Time{}, update.Work().ID)
	}); err != nil {
		n.t.Fatal(err)
	}

	return n.run()
}

// publish makes records those of a source.
func (n *node) publish(source string, rs ...zone.Record) {
	n.t.Helper()
	if err := zone.Publish(n.t.Context(), n.s, base, map[string][]zone.Record{source: rs}); err != nil {
		n.t.Fatal(err)
	}
}

// until waits for the end of a run after which a condition holds.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for limit := time.After(time.Minute); !holds(); {
		select {
		case <-n.ended:
		case <-limit:
			n.t.Fatalf("not seen: %s; problem: %s; table: %v", what, n.u.Problem(), n.table())
		}
	}
}

// settled waits until the next run is due in minutes: there is nothing to do.
func (n *node) settled() {
	n.t.Helper()
	n.until("nothing to do", func() bool {
		items, err := n.q.List(n.t.Context(), update.Work().Kind, flow.Queued, flow.Key{}, 1)
		return err == nil && len(items) == 1 && time.Until(items[0].Due) > 2*time.Minute
	})
	if why := n.u.Problem(); why != "" {
		n.t.Errorf("nothing to do, and the problem is %q", why)
	}
}

// metric returns the value of a metric.
func (n *node) metric(name string) float64 {
	n.t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	n.t.Fatalf("no metric %s", name)

	return 0
}

// table returns the published records.
func (n *node) table() []string {
	n.t.Helper()
	list, err := n.s.Published(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	texts := []string{}
	for _, e := range list {
		texts = append(texts, fmt.Sprintf("%s %s %s %t", e.Name, e.Type, e.Data, e.There))
	}
	slices.Sort(texts)

	return texts
}

// has returns the records that a server has of a name below the base domain and a type, each with its TTL, sorted.
func has(t *testing.T, p *dnspeer.Peer, name, kind string) []string {
	t.Helper()
	name = strings.TrimPrefix(name+"."+base+".", zone.Apex+".")
	r, err := p.Ask(t.Context(), "tcp", name, dns.StringToType[kind])
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, x := range r.Answer {
		texts = append(texts, fmt.Sprintf("%d %s", x.Header().Ttl, strings.TrimPrefix(x.String(), x.Header().String())))
	}
	slices.Sort(texts)

	return texts
}

func expect(t *testing.T, p *dnspeer.Peer, name, kind string, want ...string) {
	t.Helper()
	if got := has(t, p, name, kind); !slices.Equal(got, want) {
		t.Errorf("%s %s: the operator's server has %q, want %q", name, kind, got, want)
	}
}

// stranger changes the operator's zone with another program's update.
func stranger(t *testing.T, p *dnspeer.Peer, change func(m *dns.Msg, rrs []dns.RR), records ...string) {
	t.Helper()
	m := new(dns.Msg).SetUpdate(parent)
	var rrs []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	change(m, rrs)
	m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{keyName: base64.StdEncoding.EncodeToString(secret)}}
	r, _, err := c.ExchangeContext(t.Context(), m, p.Addr.String())
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("update of a stranger: %v %v", r, err)
	}
}

func address(name string, ttl uint32, a string) zone.Record {
	return zone.Address(name, ttl, netip.MustParseAddr(a))
}

func sqlite(t *testing.T) *db.DB {
	t.Helper()
	return testkit.Open(t, testkit.SQLiteConfig(t))
}
