package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/store"
	authstore "github.com/tandemgw/tandem/internal/store/auth"
	certificatestore "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	tenantstore "github.com/tandemgw/tandem/internal/store/tenants"
	zonestore "github.com/tandemgw/tandem/internal/store/zone"
)

// core is what depends on the database and what its users share.
type core struct {
	keyring   *secret.Keyring
	db        *db.DB
	feed      *outbox.Outbox
	events    *events.Log
	store     *provisioning.Store
	access    *authstore.Store
	directory *directory.Directory
	zone      *zonestore.Store
	sealed    *certificatestore.Store // of package certificate
	tenants   *tenantstore.Store
	clients   *auth.Clients
	issuer    *auth.Issuer // nil when disabled
	verifier  *auth.Verifier
	work      *flow.Queue
}

// buildData locks the data directory.
func (n *node) buildData(_ context.Context, r *role) error {
	if !n.purpose.serves { // before anything is created there
		if err := checkUse(n.cfg); err != nil {
			return err
		}
	}
	if !n.purpose.creates {
		if err := checkDatabase(n.cfg); err != nil {
			return err
		}
	}
	if err := makeDataDir(n.cfg.Data, n.log); err != nil {
		return err
	}
	lock, err := db.LockDir(n.cfg.Data)
	if err != nil {
		return err
	}
	r.close = func() { _ = lock.Close() } // the operating system releases it with the process
	if n.purpose.serves {
		return noteUse(n.cfg)
	}
	return nil
}

// buildCore opens the contents of the data directory and the database. It returns only errors that waiting does not
// fix; a PostgreSQL server that is unavailable is no error.
func (n *node) buildCore(ctx context.Context, r *role) (err error) {
	cfg, log, reg := n.cfg, n.log, n.metrics
	c := &core{}
	n.core = c
	if c.keyring, err = secret.Open(cfg.Data, cfg.Secrets, cfg.Source.Getenv); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if c.db, err = db.Open(ctx, cfg.Database, log.With("part", "database"), reg, store.Schemas()...); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	r.close = func() {
		if err := c.db.Close(); err != nil {
			log.Warn("database closed with an error", "error", err)
		}
	}
	c.events = events.New(c.db, log.With("part", "feed"), reg)
	if n.purpose.serves {
		if err := c.db.Join(ctx, cfg.Calls.Edge.Node); err != nil {
			return fmt.Errorf("database: %w", err)
		}
	}
	c.feed = outbox.New(c.db, cfg.Feed, log.With("part", "feed"), reg)
	c.store, c.access = provisioning.New(c.db, c.feed, services.All().Services()), authstore.New(c.db)
	c.directory = directory.New(c.store, directory.Config{BaseDomain: cfg.Calls.Routing.BaseDomain,
		Observed: cfg.Zone.Enabled()},
		log.With("part", "directory"), reg)
	deps := auth.Deps{Log: log.With("part", "auth"), Metrics: reg, Keyring: c.keyring, CacheDir: cfg.Path("keysets")}
	c.clients = auth.NewClients(c.access)
	if cfg.Auth.Embedded.Enabled {
		c.issuer = auth.NewIssuer(cfg.Auth.Embedded, c.access, c.clients, deps)
	}
	if c.verifier, err = auth.NewVerifier(cfg.Auth, c.issuer, deps); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	c.work = flow.New(c.db, c.progress, log.With("part", "work"), reg)
	var updates *flow.Queue
	if cfg.Zone.Publish == config.PublishUpdate {
		updates = c.work
	}
	c.zone = zonestore.New(c.db, c.feed, updates)
	c.sealed = certificatestore.New(c.db, c.keyring, c.work)
	c.tenants = tenantstore.New(c.db, c.keyring, c.work, c.events)
	c.store.Deleting = tenantstore.DeleteAccount

	r.parts = []part{running("database", c.db.Run), running("feed", c.feed.Run), running("events", c.events.Run)}
	if len(cfg.Auth.Issuers) > 0 {
		r.parts = append(r.parts, running("auth", c.verifier.Run))
	}
	if c.issuer != nil && cfg.Has(config.RoleAPI) {
		r.parts = append(r.parts, running("issuer", c.issuer.Run))
	}
	r.ready = n.databaseReady
	r.health = func(h *api.Health) {
		s := c.db.Status()
		h.Database = &api.Database{Engine: api.DatabaseEngine(c.db.Driver()), Location: s.Where,
			Available: s.Available, Writable: s.Writable, Since: s.Since.UTC(), Error: s.Cause}
	}
	r.started = func(*Ready) {
		if host, err := cfg.Database.PlaintextHost(); err == nil && host != "" {
			log.Warn("insecure: the database connection may not use TLS; anyone on the network can read and change "+
				"customer data", "setting", "database.insecure", "host", host)
		}
	}
	return nil
}

// progress makes an event of what becomes of work. Reasons are left out: they may quote outside services.
func (c *core) progress(ctx context.Context, tx *db.Tx, i flow.Item) error {
	e := api.Event{Kind: "work." + cmp.Or(i.State, "done"), Subject: i.Kind + "/" + i.ID}
	if i.State == flow.Running {
		e.Data = map[string]any{"step": i.Reason}
	}
	return c.events.Append(ctx, tx, e)
}

// databaseReady says whether the database accepts writes, and whether the node's id is its own.
func (n *node) databaseReady(r *readiness) {
	if s := n.core.db.Status(); !s.Writable {
		what := map[bool]string{true: "accepts no writes", false: "unavailable"}[s.Available]
		say := r.blocked
		if r.static {
			say = r.warn
		}
		say("database %s: %s since %s: %s", s.Where, what, s.Since.UTC().Format(time.RFC3339), s.Cause)
	} else if s.Rival != "" {
		r.warn("node id %q is held by %s: give each node its own id (calls.node)", n.cfg.Calls.Edge.Node, s.Rival)
	}
}

// makeDataDir creates the data directory, accessible to its owner only: it holds keys. An existing one is not changed.
func makeDataDir(dir string, log *slog.Logger) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w (name another with --data)", err)
		}
	case err != nil:
		return fmt.Errorf("data directory: %w", err)
	case !st.IsDir():
		return fmt.Errorf("data directory %s is a file; name a directory with --data", dir)
	case st.Mode().Perm()&0o077 != 0:
		log.Warn("data directory is accessible to other users; it holds keys and call records: chmod 700 it",
			"data", dir, "mode", st.Mode().Perm().String())
	}
	return nil
}

// use records which configuration the last server on the data directory had.
type use struct {
	Database string `json:"database"`
	Config   string `json:"config"` // file; empty for none
}

// useFile is the name of the file in the data directory that holds a use.
const useFile = "serve.json"

// noteUse writes useFile.
func noteUse(cfg *config.Loaded) error {
	b, err := json.Marshal(use{Database: cfg.Database.Driver, Config: cfg.Source.File})
	if err != nil {
		return err
	}
	return secret.WriteFile(cfg.Path(useFile), b)
}

// checkDatabase prevents a command with a wrong data directory from creating another gateway there, with keys of its
// own: its tokens would be valid nowhere. A PostgreSQL database is named in the configuration, and Tandem does not
// create it.
func checkDatabase(cfg *config.Loaded) error {
	_, err := os.Stat(cfg.Database.File)
	if cfg.Database.Driver == db.SQLite && errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "NoDatabase", "there is no database %s yet; name the server's data "+
			"directory with --data (or TANDEM_DATA), or start tandem serve to create a new one",
			cfg.Database.File)
	}
	return nil // opening it gives a better error for anything else
}

// checkUse prevents a command that lacks the server's configuration from working on another database than the server
// does: it would find nothing, and leave an unwanted database behind.
func checkUse(cfg *config.Loaded) error {
	path := cfg.Path(useFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var last use
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if last.Database != cfg.Database.Driver {
		return fmt.Errorf("the server of %s keeps its data in %s, but this command is configured for %s; pass the "+
			"server's configuration (--config %s)", cfg.Data, last.Database, cfg.Database.Driver,
			cmp.Or(last.Config, "FILE, or --set"))
	}
	return nil
}

// audit writes a row about what the actor in ctx did.
func (c *core) audit(ctx context.Context, action, target string, items int, what any) error {
	return c.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		return tx.AuditOf(ctx, action, target, items, what)
	})
}
