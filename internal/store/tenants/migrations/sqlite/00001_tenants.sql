-- +goose Up
-- Tenants that are onboarded, by account.
CREATE TABLE tenants (
	account TEXT NOT NULL PRIMARY KEY,
	pending BIGINT NOT NULL, -- 1 until the tenant has its target
	tenant  TEXT NOT NULL,   -- an onboard.Tenant
	target  TEXT NOT NULL    -- its list of plan.Object
) WITHOUT ROWID;
CREATE INDEX tenants_pending ON tenants (account) WHERE pending = 1;

-- The ledger: what Tandem has made in each.
CREATE TABLE tenant_made (
	account TEXT NOT NULL,
	type    TEXT NOT NULL,
	name    TEXT NOT NULL, -- in lower case
	made    TEXT NOT NULL, -- a plan.Made
	PRIMARY KEY (account, type, name)
) WITHOUT ROWID;

-- Plans that can be approved, and those that were.
CREATE TABLE tenant_plans (
	account TEXT NOT NULL,
	id      TEXT NOT NULL,
	made    BIGINT NOT NULL, -- microseconds
	plan    TEXT NOT NULL,   -- an onboard.Proposal
	PRIMARY KEY (account, id)
) WITHOUT ROWID;

INSERT INTO schemas (package, version, oldest) VALUES ('tenants', 1, 0);
