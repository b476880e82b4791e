package node

import (
	"context"
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

// rotate rotates the keyring, as an administrator.
func rotate(t *testing.T, n *node, distributed bool) api.Keyring {
	t.Helper()
	ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "local:ada.l"})
	answer, err := n.core.rotation().RotateKeyring(ctx,
		api.RotateKeyringRequestObject{Body: &api.KeyringRotation{Distributed: distributed}})
	if err != nil {
		t.Fatal(err)
	}
	k := api.Keyring(answer.(api.RotateKeyring200JSONResponse))
	if k.Unreadable > 0 || k.Added == 0 && k.Sealed == 0 {
		t.Errorf("%+v, want every signing key sealed again", k)
	}
	return k
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
	rotate(t, n, false)
	accepts(t, n, "a token from before the rotation", before)
	accepts(t, n, "a new token", issue(t, n))
	var rows []string
	for _, r := range testkit.AuditLog(t, n.core.db) {
		if r.Actor.ID == "local:ada.l" {
			rows = append(rows, r.Action)
		}
	}
	if got := strings.Join(rows, " "); got != "secret.add secret.rotate signingKey.seal" {
		t.Errorf("the audit log has %s", got)
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

// TestTheKeyringOfTwoNodes follows the runbook on PostgreSQL: each node can sign and check tokens after every step.
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
		cfg, err := config.Load(config.Source{Data: dir, FreePorts: true, Env: os.Environ()})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Database, cfg.Calls.Edge.Node = database, name
		n, err := build(t.Context(), cfg, "test", quiet(), p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.close)
		return n
	}
	a := start("n1", nil, serving)
	ring := func() []byte {
		t.Helper()
		raw, err := os.ReadFile(a.cfg.Path("keyring.json"))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	b := start("n2", ring(), serving)
	each := func(when string) {
		t.Helper()
		for _, x := range [][2]*node{{a, b}, {b, a}} {
			accepts(t, x[1], when, issue(t, x[0]))
		}
	}
	each("at the start")
	if k := rotate(t, a, false); k.Added == 0 {
		t.Fatalf("the first rotate: %+v; want a key that does not seal yet", k)
	}
	each("key added")
	b = start("n3", ring(), serving) // as after a restart
	each("key on both nodes")
	if k := rotate(t, a, true); k.Added != 0 || k.Sealed != 1 {
		t.Fatalf("the second rotate: %+v", k)
	}
	each("one node seals with the new key")
	b = start("n4", ring(), serving)
	each("both nodes seal with it")

	// As with a keyring in the environment: a command changes a copy in a directory of its own while the nodes run.
	c := start("n1", ring(), command)
	if k := rotate(t, c, false); k.Added == 0 {
		t.Errorf("rotate in a directory of its own: %+v", k)
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
	rotate(t, n, false)
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
