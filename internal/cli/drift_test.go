package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/tenantapi"
	"github.com/tandemgw/tandem/internal/testkit"
)

// objects is a tenant that can be read.
type objects struct{ list []plan.Object }

func (o *objects) Read(context.Context, []plan.Ref) ([]plan.Object, error) { return o.list, nil }

func (o *objects) ReadUsers(context.Context, []string) ([]plan.Object, int, error) {
	return nil, 0, nil
}

// tenantCommands returns a function that runs commands with the management API of a database in which the account
// contoso has a tenant with a route and a usage.
func tenantCommands(t *testing.T) (tenant *objects, snapshots *snapshot.Snapshots, run func(...string) (int, string)) {
	d, log := testkit.Open(t, testkit.SQLiteConfig(t)), slog.New(slog.DiscardHandler)
	q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
	s := store.New(d, nil, q, events.New(d, log, nil))
	route := plan.Object{Ref: plan.Ref{Type: plan.Route, Name: "Tandem-E164"}, Fields: plan.Fields{"pattern": ".*",
		"priority": 1}}
	usage := plan.Object{Ref: plan.Ref{Type: plan.Usage, Name: "Tandem-E164"}, Fields: plan.Fields{}}
	err := s.Update(t.Context(), nil, "contoso", "", func(ctx context.Context, tx onboard.Tx) error {
		return errors.Join(tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", ID: "t"}),
			tx.Record(ctx, plan.Made{Object: route}, plan.Made{Object: usage}))
	})
	if err == nil { // longer ago than Microsoft needs
		err = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE tenant_made SET changed = 0")
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	ring, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}

	tenant = &objects{[]plan.Object{route, usage}}
	reader := snapshot.Reader{Tenants: s,
		Sources: func(context.Context, *onboard.Tenant) (snapshot.Source, error) { return tenant, nil }}
	snapshots = &snapshot.Snapshots{Reader: reader, Store: s, Sealer: ring}
	checker := &drift.Checker{Reader: reader, Store: store.Drift{Store: s}, Log: log,
		Every: func(string) time.Duration { return time.Hour },
		Repair: func(_ context.Context, _ string, p *plan.Plan, _ []plan.Made) (string, error) {
			return fmt.Sprintf("p%d", len(p.Steps)), nil
		}}
	ops := manage.Operations{SnapshotsOperations: tenantapi.Snapshots{Snapshots: snapshots, Cursors: ring},
		DriftOperations: tenantapi.Drift{Checker: checker}}
	server := httptest.NewServer(manage.New(ops, http.NewServeMux(), log, nil).Local(
		func(*http.Request) domain.Actor { return domain.Actor{Kind: "local", ID: "test"} }))
	t.Cleanup(server.Close)

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- q.Run(ctx, []*flow.Kind{checker.Kind(nil)}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return tenant, snapshots, func(args ...string) (int, string) {
		var out strings.Builder
		code := Run(t.Context(), Program{Args: append(args, "--url", server.URL), Stdout: &out, Stderr: &out})
		return code, out.String()
	}
}

// times returns how many times a text has as commands for tenants print them, 0 if some are in another form.
func times(out string) int {
	all := regexp.MustCompile(`\d{4}-\d\d-\d\d`).FindAllString(out, -1)
	stamps := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`).FindAllString(out, -1)
	if len(all) != len(stamps) {
		return 0
	}
	return len(stamps)
}

// Snapshots are taken, listed, exported and imported, and the report of a leave is shown, by commands.
func TestSnapshotCommands(t *testing.T) {
	t.Parallel()
	tenant, snapshots, run := tenantCommands(t)
	want := func(code int, parts []string, args ...string) string {
		t.Helper()
		got, out := run(args...)
		if got != code {
			t.Errorf("%v: exit code %d, want %d: %s", args, got, code, out)
		}
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("%v: no %q in:\n%s", args, p, out)
			}
		}
		return out
	}
	out := want(exitOK, []string{"2 objects, 0 users"}, "tenant", "snapshot", "take", "contoso")
	id := strings.TrimSuffix(strings.Fields(out)[1], ":")
	if out := want(exitOK, []string{id, "request"}, "tenant", "snapshot", "list", "contoso"); times(out) != 1 {
		t.Errorf("times are not all like 2026-11-29 11:45 UTC:\n%s", out)
	}
	text := want(exitOK, []string{`"signature"`}, "tenant", "snapshot", "export", "contoso", id)

	file := filepath.Join(t.TempDir(), "contoso.json")
	for content, code := range map[string]int{text: exitOK, strings.Replace(text, `".*"`, `"^1"`, 1): exitUsage} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		want(code, []string{either(code == exitOK, "2 objects", "SnapshotDamaged")}, "tenant", "snapshot", "import",
			"contoso", file)
	}
	want(exitOK, []string{"request, imported"}, "tenant", "snapshot", "list", "contoso")
	want(exitNotFound, []string{"SnapshotNotFound"}, "tenant", "snapshot", "export", "contoso", "none")
	want(exitNotFound, []string{"ReportNotFound"}, "tenant", "report", "contoso")

	tenant.list = tenant.list[1:]
	notes := []plan.Note{{Ref: tenant.list[0].Ref, Text: "a route of another names it"}}
	if _, err := snapshots.ReportLeave(t.Context(), "contoso", id, notes); err != nil {
		t.Fatal(err)
	}
	want(exitOK, []string{"gone", "kept: a route of another names it", "2 in all, 1 kept"}, "tenant", "report",
		"contoso")
	want(exitOK, []string{`"fate": "kept"`}, "tenant", "report", "contoso", id, "--output", "json")
}

// Differences are compared, shown, repaired and accepted by commands.
func TestDriftCommands(t *testing.T) {
	t.Parallel()
	tenant, _, run := tenantCommands(t)
	want := func(parts []string, args ...string) {
		t.Helper()
		code, out := run(append([]string{"tenant", "drift"}, args...)...)
		for _, p := range parts {
			if code != exitOK || !strings.Contains(strings.Join(strings.Fields(out), " "), p) {
				t.Errorf("%v: exit code %d, no %q in:\n%s", args, code, p, out)
			}
		}
	}
	tenant.list = []plan.Object{{Ref: tenant.list[0].Ref, Fields: plan.Fields{"pattern": `^\+44`, "priority": 1}}}
	want([]string{"route Tandem-E164 pattern", `".*"`, "usage Tandem-E164", "it does not exist",
		"7 requests in an hour"}, "contoso", "--check")
	want([]string{"differ from what Tandem made there: 1 of 1; differences: 2", "7 requests to Microsoft in an hour"})
	if _, out := run("tenant", "drift", "contoso"); times(out) < 4 {
		t.Errorf("times are not all like 2026-11-29 11:45 UTC:\n%s", out)
	}
	want([]string{"plan p2 repairs that"}, "contoso", "--repair", "1", "--repair", "2")
	want([]string{"2 route Tandem-E164 pattern"}, "contoso", "--accept", "1")
	want([]string{`"differences": [ {`, `"found": "^\\+44"`}, "contoso", "--output", "json")
	if code, out := run("tenant", "drift", "--check"); code != exitUsage {
		t.Errorf("--check without ACCOUNT: exit code %d: %s", code, out)
	}
	if code, out := run("tenant", "drift", "contoso", "--accept", "9"); code != exitNotFound {
		t.Errorf("an unknown difference: exit code %d: %s", code, out)
	}
}

// Differences that are about what Tandem knows itself say so in words.
func TestDifferencesInWords(t *testing.T) {
	t.Parallel()
	p := &page{}
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	printDrift(p, &api.Drift{Account: "acme", Checked: at, Next: at, Differences: []api.DriftDifference{
		{ID: 1, Cause: "missing", Type: "route", Name: "Tandem-E164", Since: at},
		{ID: 2, Cause: "notInInventory", Type: "user", Name: "u-1", User: "anna@acme.example", Field: "number",
			Found: "+442079460001", Since: at},
		{ID: 3, Cause: "notActive", Type: "user", Name: "u-2", User: "bert@acme.example", Since: at}}})
	for _, want := range []string{"it does not exist", "assigned in the tenant, not in the inventory: ",
		"bert@acme.example", "active: the settings select it", "not active"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("without %q:\n%s", want, p)
		}
	}
}
