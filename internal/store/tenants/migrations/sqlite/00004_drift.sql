-- +goose Up
-- Snapshots of what tenants have by Tandem.
CREATE TABLE tenant_snapshots (
	account  TEXT NOT NULL,
	id       TEXT NOT NULL, -- later ones are greater
	tenant   TEXT NOT NULL, -- its id at Microsoft
	taken    BIGINT NOT NULL, -- microseconds
	reason   TEXT NOT NULL,
	objects  BIGINT NOT NULL,
	users    BIGINT NOT NULL,
	imported BIGINT NOT NULL, -- 1 if it was
	export   BLOB NOT NULL, -- a signed snapshot.Document
	report   TEXT NOT NULL, -- a snapshot.Report; empty before the tenant was left
	PRIMARY KEY (account, id)
);

-- What the last comparison of each tenant showed.
CREATE TABLE tenant_drift (
	account     TEXT NOT NULL PRIMARY KEY,
	due         BIGINT NOT NULL, -- when to compare again, microseconds
	checked     BIGINT NOT NULL, -- when it was compared, microseconds; 0 if it was not
	differences BIGINT NOT NULL,
	per_hour    BIGINT NOT NULL, -- requests to Microsoft
	state       TEXT NOT NULL -- a drift.State
);

-- When Tandem last changed the object, microseconds.
ALTER TABLE tenant_made ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;

UPDATE schemas SET version = 4 WHERE package = 'tenants';
