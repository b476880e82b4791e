-- +goose Up
-- The tables exist already in a database from the time when all packages shared one sequence of migrations.

-- Accounts, numbers and requests for information. Columns that listings filter on or rules look up are separate; the
-- rest of a resource is in "details". Bit n of a services column stands for service n of domain.Service.
CREATE TABLE IF NOT EXISTS accounts (
	name           TEXT NOT NULL PRIMARY KEY,
	correlation_id TEXT NOT NULL,
	has_details    BIGINT NOT NULL,
	tenant_id      TEXT NOT NULL,
	tenant_key     TEXT NOT NULL, -- tenant_id in lower case
	present        BIGINT NOT NULL, -- services for which the account has an object
	enabled        BIGINT NOT NULL,
	sync_enabled   BIGINT NOT NULL,
	subdomain_key  TEXT UNIQUE,   -- Direct Routing label in lower case
	details        TEXT NOT NULL,
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_tenant ON accounts (tenant_key, name);

-- How many numbers of an account have a service enabled; service 0 counts all its numbers.
CREATE TABLE IF NOT EXISTS account_counts (
	account TEXT NOT NULL,
	service BIGINT NOT NULL,
	n       BIGINT NOT NULL,
	PRIMARY KEY (account, service)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS numbers (
	number         TEXT NOT NULL PRIMARY KEY,
	account        TEXT NOT NULL,
	present        BIGINT NOT NULL,
	enabled        BIGINT NOT NULL,
	has_config     BIGINT NOT NULL,
	custom_header  TEXT NOT NULL,
	details        TEXT NOT NULL, -- empty if the bits above say it all
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS numbers_account ON numbers (account, number);

CREATE TABLE IF NOT EXISTS requests (
	tenant_id TEXT NOT NULL PRIMARY KEY,
	details   TEXT NOT NULL,
	status    TEXT NOT NULL, -- serviceProvisioningStatus
	errors    TEXT NOT NULL,
	version   BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS civic_addresses (
	tenant_id TEXT NOT NULL,
	id        TEXT NOT NULL,
	details   TEXT NOT NULL,
	version   BIGINT NOT NULL,
	modified  BIGINT NOT NULL,
	PRIMARY KEY (tenant_id, id)
) WITHOUT ROWID;

-- tenant_id is empty for the plans of every tenant that has none of its own.
CREATE TABLE IF NOT EXISTS capability_plans (
	tenant_id TEXT NOT NULL,
	place     BIGINT NOT NULL, -- order of the list
	details   TEXT NOT NULL,
	PRIMARY KEY (tenant_id, place)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS repeatability (
	scope      TEXT NOT NULL,
	id         TEXT NOT NULL,
	first_sent BIGINT NOT NULL,
	digest     BLOB NOT NULL,
	response   BLOB,
	made       BIGINT NOT NULL,
	PRIMARY KEY (scope, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS repeatability_made ON repeatability (made);

INSERT INTO schemas (package, version, oldest) VALUES ('provisioning', 1, 0);
