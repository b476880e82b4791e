-- +goose Up
-- What tenants are listed by.
ALTER TABLE tenants ADD COLUMN state TEXT NOT NULL DEFAULT 'new';
ALTER TABLE tenants ADD COLUMN waits TEXT NOT NULL DEFAULT ''; -- for whom
ALTER TABLE tenants ADD COLUMN since BIGINT NOT NULL DEFAULT 0; -- microseconds
ALTER TABLE tenants ADD COLUMN template TEXT NOT NULL DEFAULT '';
CREATE INDEX tenants_template ON tenants (template, account) WHERE template <> '';

-- What tenants have in common.
CREATE TABLE tenant_templates (
	name     TEXT NOT NULL PRIMARY KEY,
	template TEXT NOT NULL -- a rollout.Template
) WITHOUT ROWID;

-- The way of changed templates to their tenants.
CREATE TABLE tenant_rollouts (
	id       TEXT NOT NULL PRIMARY KEY,
	template TEXT NOT NULL,
	state    TEXT NOT NULL,
	begun    BIGINT NOT NULL, -- microseconds
	rollout  TEXT NOT NULL -- a rollout.Rollout
) WITHOUT ROWID;
CREATE INDEX tenant_rollouts_template ON tenant_rollouts (template, begun);

-- Accounts that move to another tenant, or to another trunk model.
CREATE TABLE tenant_moves (
	account TEXT NOT NULL PRIMARY KEY,
	move    TEXT NOT NULL -- a move.Move
) WITHOUT ROWID;

UPDATE schemas SET version = 6 WHERE package = 'tenants';
