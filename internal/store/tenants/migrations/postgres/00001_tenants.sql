-- +goose Up
-- Tenants that are onboarded, by account.
CREATE TABLE tenants (
	account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	pending BIGINT NOT NULL, -- 1 until the tenant has its target
	tenant  TEXT NOT NULL,   -- an onboard.Tenant
	target  TEXT NOT NULL    -- its list of plan.Object
);
CREATE INDEX tenants_pending ON tenants (account) WHERE pending = 1;

-- The ledger: what Tandem has made in each.
CREATE TABLE tenant_made (
	account TEXT COLLATE "C" NOT NULL,
	type    TEXT COLLATE "C" NOT NULL,
	name    TEXT COLLATE "C" NOT NULL, -- in lower case
	made    TEXT NOT NULL, -- a plan.Made
	PRIMARY KEY (account, type, name)
);

-- Plans that can be approved, and those that were.
CREATE TABLE tenant_plans (
	account TEXT COLLATE "C" NOT NULL,
	id      TEXT COLLATE "C" NOT NULL,
	made    BIGINT NOT NULL, -- microseconds
	plan    TEXT NOT NULL,   -- an onboard.Proposal
	PRIMARY KEY (account, id)
);

INSERT INTO schemas (package, version, oldest) VALUES ('tenants', 1, 0);
