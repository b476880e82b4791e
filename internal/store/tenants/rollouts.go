package tenants

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
)

// ViewRollouts implements rollout.Store.
func (s *Store) ViewRollouts(ctx context.Context, fn func(context.Context, rollout.Tx) error) error {
	return view(ctx, s, "", fn)
}

// UpdateRollouts implements rollout.Store.
func (s *Store) UpdateRollouts(ctx context.Context, run *flow.Run, progress string,
	fn func(context.Context, rollout.Tx) error) error {
	return update(ctx, s, run, "", progress, fn)
}

// PendingRollouts implements rollout.Store.
func (s *Store) PendingRollouts(ctx context.Context, after string, limit int) ([]string, error) {
	return list(ctx, s, "rollouts with work to do", db.Column[string], "SELECT id FROM tenant_rollouts WHERE id > $1 "+
		"AND state IN ('planning', 'running') ORDER BY id LIMIT $2", after, limit)
}

const templateColumns = "name, template, (SELECT COUNT(*) FROM tenants WHERE tenants.template = name)"

func scanTemplate(rows *sql.Rows) (*rollout.Template, error) {
	t, text := &rollout.Template{}, ""
	if err := rows.Scan(&t.Name, &text, &t.Tenants); err != nil {
		return nil, err
	}
	return t, json.Unmarshal([]byte(text), t)
}

// Templates implements rollout.Store.
func (s *Store) Templates(ctx context.Context, after string, limit int) ([]*rollout.Template, error) {
	return list(ctx, s, "templates", scanTemplate, "SELECT "+templateColumns+" FROM tenant_templates WHERE name > $1 "+
		"ORDER BY name LIMIT $2", after, limit)
}

// Template implements rollout.Tx.
func (t *transaction) Template(ctx context.Context, name string) (*rollout.Template, error) {
	found, err := db.Rows(ctx, t.Tx, scanTemplate, "SELECT "+templateColumns+" FROM tenant_templates WHERE name = $1"+
		t.ForUpdate(), name)
	switch {
	case err != nil:
		return nil, wrap(err, "read a template")
	case len(found) == 0:
		return nil, fault.New(fault.NotFound, "TemplateNotFound", "there is no template %q (tandem tenant template "+
			"list)", name).At("template")
	}
	return found[0], nil
}

// SetTemplate implements rollout.Tx.
func (t *transaction) SetTemplate(ctx context.Context, x *rollout.Template) error {
	text, err := json.Marshal(x)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_templates (name, template) VALUES ($1, $2) ON CONFLICT (name) "+
		"DO UPDATE SET template = excluded.template", x.Name, string(text))
	return wrap(err, "store a template")
}

// DeleteTemplate implements rollout.Tx.
func (t *transaction) DeleteTemplate(ctx context.Context, name string) error {
	_, err := t.Exec(ctx, "DELETE FROM tenant_templates WHERE name = $1", name)
	return wrap(err, "delete a template")
}

// Members implements rollout.Tx.
func (t *transaction) Members(ctx context.Context, template string) ([]string, error) {
	all, err := db.Rows(ctx, t.Tx, db.Column[string], "SELECT account FROM tenants WHERE template = $1 AND state IN "+
		"('working', 'waiting', 'onboarded') ORDER BY account", template)
	return all, wrap(err, "list the tenants of a template")
}

func scanRollout(rows *sql.Rows) (*rollout.Rollout, error) {
	r, text := &rollout.Rollout{}, ""
	if err := rows.Scan(&r.ID, &r.Template, &r.State, &text); err != nil {
		return nil, err
	}
	return r, json.Unmarshal([]byte(text), r)
}

// Rollout implements rollout.Tx.
func (t *transaction) Rollout(ctx context.Context, id string) (*rollout.Rollout, error) {
	found, err := db.Rows(ctx, t.Tx, scanRollout, "SELECT id, template, state, rollout FROM tenant_rollouts WHERE "+
		"id = $1"+t.ForUpdate(), id)
	switch {
	case err != nil:
		return nil, wrap(err, "read a rollout")
	case len(found) == 0:
		return nil, rollout.NotFound(id)
	}
	return found[0], nil
}

// Rollouts implements rollout.Tx.
func (t *transaction) Rollouts(ctx context.Context, template string) ([]*rollout.Rollout, error) {
	all, err := db.Rows(ctx, t.Tx, scanRollout, "SELECT id, template, state, rollout FROM tenant_rollouts WHERE "+
		"template = $1 ORDER BY begun DESC, id LIMIT $2", template, rollout.MaxRollouts)
	return all, wrap(err, "list rollouts")
}

// SetRollout implements rollout.Tx.
func (t *transaction) SetRollout(ctx context.Context, r *rollout.Rollout) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_rollouts (id, template, state, begun, rollout) VALUES ($1, $2, $3, "+
		"$4, $5) ON CONFLICT (id) DO UPDATE SET state = excluded.state, rollout = excluded.rollout", r.ID, r.Template,
		string(r.State), db.Micros(r.Begun), string(text))
	if err == nil {
		_, err = t.Exec(ctx, "DELETE FROM tenant_rollouts WHERE template = $1 AND id <> $3 AND id NOT IN (SELECT "+
			"id FROM tenant_rollouts WHERE template = $1 ORDER BY begun DESC, id LIMIT $2)", r.Template,
			rollout.MaxRollouts, r.ID)
	}
	if err == nil && r.State.Works() {
		err = t.enqueue(ctx, rollout.Kind, r.ID)
	}
	return wrap(err, "store a rollout")
}
