package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit"
)

// issue returns the Authorization header with a new token.
func issue(t *testing.T, n *node) []string {
	t.Helper()
	token, _, err := n.core.issuer.IssueToken(t.Context(), "test", auth.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"Bearer " + token.Reveal()}
}

func accepts(t *testing.T, n *node, when string, authorization []string) {
	t.Helper()
	if _, _, err := n.core.verifier.Authenticate(t.Context(), authorization); err != nil {
		t.Errorf("%s: %v", when, err)
	}
}

// allPrimary checks that every kind of value is there and sealed with the primary key.
func allPrimary(t *testing.T, when string, k api.Keyring, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	for _, h := range k.Values {
		if h.Primary == 0 || h.Older > 0 || h.Unreadable > 0 {
			t.Errorf("%s: %+v, want every value sealed with the primary key", when, h)
		}
	}
}

// TestTheKeyringIsRotatedWhileTheNodeRuns: tokens, the signing key and the index outlive the old key, also a restart.
func TestTheKeyringIsRotatedWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	running, err := n.supervisor.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.announce(t.Context(), nil)
	before := issue(t, n)
	eventually(t, "there are files", func() bool {
		index, _ := filepath.Glob(cfg.Path("index/snapshot-*[0-9]"))
		sets, _ := filepath.Glob(cfg.Path("keysets/*.keys"))
		return len(index) > 0 && len(sets) > 0
	})
	first, err := n.core.rotation.Keys(t.Context())
	allPrimary(t, "at the start", first, err)

	ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "local:ada.l"})
	k, err := n.core.rotation.Rotate(ctx, false)
	allPrimary(t, "rotated", k, err)
	if k.Primary == first.Primary || len(k.Older) != 1 || k.Older[0] != first.Primary {
		t.Errorf("keys %+v, before %+v", k, first)
	}
	if k, err = n.core.rotation.Prune(ctx); err != nil || len(k.Older) > 0 {
		t.Errorf("pruned: %+v, %v", k, err)
	}
	accepts(t, n, "a token from before the rotation", before)
	accepts(t, n, "a new token", issue(t, n))
	var rows []string
	for _, r := range testkit.AuditLog(t, n.core.db) {
		if r.Actor.ID == "local:ada.l" {
			rows = append(rows, r.Action)
		}
	}
	if got := strings.Join(rows, " "); got != "secret.add secret.rotate signingKey.seal secret.prune" {
		t.Errorf("the audit log has %s", got)
	}
	want := map[string]bool{fmt.Sprintf(`tandem_secret_primary_key{key="%d"} 1`, k.Primary): true,
		`tandem_secret_values{key="older",values="number index"} 0`: true}
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			delete(want, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.Gauge.GetValue()))
		}
	}
	if len(want) > 0 {
		t.Errorf("missing metrics: %v", want)
	}

	if err := running.stop(nil, time.Second, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	n.close()
	again, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if !again.calls.replica.Status().Loaded {
		t.Error("the index on disk does not open after the rotation")
	}
	accepts(t, again, "a token from before the rotation, after a restart", before)
}

// TestTheKeyringOfTwoNodes follows the runbook on PostgreSQL: each node can sign and check tokens after every step, and
// a reload takes the keyring over.
func TestTheKeyringOfTwoNodes(t *testing.T) {
	t.Parallel()
	database := testkit.PostgresConfig(t)
	start := func(name string, keyring []byte, p purpose) *node {
		t.Helper()
		dir := t.TempDir()
		if keyring != nil {
			if err := secret.WriteFile(filepath.Join(dir, "keyring.json"), keyring); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := config.Load(config.Source{Data: dir, FreePorts: true, Env: os.Environ(),
			Adjust: func(c *config.Config) { c.Database, c.Calls.Edge.Node = database, name }})
		if err != nil {
			t.Fatal(err)
		}
		n, err := build(t.Context(), cfg, "test", quiet(), p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.close)
		return n
	}
	read := func(n *node) []byte {
		t.Helper()
		raw, err := os.ReadFile(n.cfg.Path("keyring.json"))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	a := start("n1", nil, serving)
	b := start("n2", read(a), serving)
	ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "local:ada.l"})
	each := func(when string) {
		t.Helper()
		for _, x := range [][2]*node{{a, b}, {b, a}} {
			accepts(t, x[1], when, issue(t, x[0]))
		}
	}
	distribute := func() {
		t.Helper()
		if err := secret.WriteFile(b.cfg.Path("keyring.json"), read(a)); err != nil {
			t.Fatal(err)
		}
		if _, err := reload(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	each("at the start")
	k, err := a.core.rotation.Rotate(ctx, false)
	if err != nil || len(k.Added) != 1 || len(k.Older) > 0 {
		t.Fatalf("the first rotate: %+v, %v; want a key that does not seal yet", k, err)
	}
	each("key added")
	distribute()
	if k, err = a.core.rotation.Rotate(ctx, true); err != nil || len(k.Older) != 1 || k.Values[0].Primary != 1 {
		t.Fatalf("the second rotate: %+v, %v", k, err)
	}
	each("one node seals with the new key")
	distribute()
	if k, err = b.core.rotation.Keys(ctx); err != nil || k.Values[0].Older+k.Values[1].Older > 0 {
		t.Errorf("on the other node: %+v, %v", k, err)
	}
	if k, err = a.core.rotation.Prune(ctx); err != nil || len(k.Older) > 0 {
		t.Fatalf("prune: %+v, %v", k, err)
	}
	distribute()
	each("old key removed")
	if k, err := b.core.rotation.Keys(ctx); err != nil || k.Values[0].Unreadable+k.Values[1].Unreadable > 0 ||
		len(k.Older) > 0 {
		t.Errorf("on the other node: %+v, %v", k, err)
	}

	// As with a keyring in the environment: a command changes a copy in a directory of its own while the nodes run.
	c := start("n1", read(a), command)
	if k, err := c.core.rotation.Rotate(ctx, false); err != nil || len(k.Added) != 1 || k.Values[0].Primary == 0 {
		t.Errorf("rotate in a directory of its own: %+v, %v", k, err)
	}
	each("a copy of the keyring has another key")
}

// seed adds an account with 100 numbers.
func seed(ctx context.Context, d *directory.Directory) error {
	ctx = domain.WithActor(ctx, domain.Actor{Kind: "system", ID: "test"})
	on := map[domain.Service]domain.AccountService{zoom.Service: {Enabled: true}}
	account := domain.Account{Name: "contoso", HasServiceDetails: true, Services: on}
	if _, err := d.PutAccount(ctx, account, directory.Write{}); err != nil {
		return err
	}
	var numbers []domain.Number
	for i := range uint64(100) {
		numbers = append(numbers, domain.Number{TelephoneNumber: domain.E164FromKey(442079460100 + i),
			AccountName: "contoso",
			Services:    map[domain.Service]domain.NumberService{zoom.Service: {Enabled: true}}})
	}
	_, err := d.PutNumbers(ctx, "contoso", numbers, directory.Write{})
	return err
}

// TestTheKeyringIsRotatedOffline: without a server the same happens to the data directory, with the index in it.
func TestTheKeyringIsRotatedOffline(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	log := NewOutput(io.Discard)
	defer log.Close()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, Options{Config: cfg, Version: "test", Log: log, Seed: seed, Ready: func(Ready) { end() }})
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	n, err := build(t.Context(), cfg, "test", quiet(), command)
	if err != nil {
		t.Fatal(err)
	}
	token := issue(t, n)
	k, err := n.core.rotation.Rotate(domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "x"}), false)
	allPrimary(t, "rotated", k, err)
	if _, err := n.core.rotation.Prune(t.Context()); err != nil {
		t.Error(err)
	}
	n.close()
	if n, err = build(t.Context(), cfg, "test", quiet(), serving); err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if s := n.calls.replica.Status(); !s.Loaded || s.Numbers != 100 {
		t.Error("the index does not open after the rotation")
	}
	accepts(t, n, "a token from before the rotation", token)
}
