-- +goose Up
-- Accounts, numbers and requests for information. Columns that listings filter on or rules look up are separate; the
-- rest of a resource is in "details". Bit n of a services column stands for service n of domain.Service.
CREATE TABLE accounts (
	name           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	correlation_id TEXT NOT NULL,
	has_details    BIGINT NOT NULL,
	tenant_id      TEXT NOT NULL,
	tenant_key     TEXT COLLATE "C" NOT NULL, -- tenant_id in lower case
	present        BIGINT NOT NULL, -- services for which the account has an object
	enabled        BIGINT NOT NULL,
	sync_enabled   BIGINT NOT NULL,
	subdomain_key  TEXT COLLATE "C" UNIQUE,   -- Direct Routing label in lower case
	details        TEXT NOT NULL,
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
);
CREATE INDEX accounts_tenant ON accounts (tenant_key, name);

-- How many numbers of an account have a service enabled; service 0 counts all its numbers.
CREATE TABLE account_counts (
	account TEXT COLLATE "C" NOT NULL,
	service BIGINT NOT NULL,
	n       BIGINT NOT NULL,
	PRIMARY KEY (account, service)
);

CREATE TABLE numbers (
	number         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	account        TEXT COLLATE "C" NOT NULL,
	present        BIGINT NOT NULL,
	enabled        BIGINT NOT NULL,
	has_config     BIGINT NOT NULL,
	custom_header  TEXT NOT NULL,
	details        TEXT NOT NULL, -- empty if the bits above say it all
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
);
CREATE INDEX numbers_account ON numbers (account, number);

CREATE TABLE requests (
	tenant_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	details   TEXT NOT NULL,
	status    TEXT NOT NULL, -- serviceProvisioningStatus
	errors    TEXT NOT NULL,
	version   BIGINT NOT NULL
);

CREATE TABLE civic_addresses (
	tenant_id TEXT COLLATE "C" NOT NULL,
	id        TEXT COLLATE "C" NOT NULL,
	details   TEXT NOT NULL,
	version   BIGINT NOT NULL,
	modified  BIGINT NOT NULL,
	PRIMARY KEY (tenant_id, id)
);

-- tenant_id is empty for the plans of every tenant that has none of its own.
CREATE TABLE capability_plans (
	tenant_id TEXT COLLATE "C" NOT NULL,
	place     BIGINT NOT NULL, -- order of the list
	details   TEXT NOT NULL,
	PRIMARY KEY (tenant_id, place)
);

CREATE TABLE repeatability (
	scope      TEXT COLLATE "C" NOT NULL,
	id         TEXT COLLATE "C" NOT NULL,
	first_sent BIGINT NOT NULL,
	digest     BYTEA NOT NULL,
	response   BYTEA,
	made       BIGINT NOT NULL,
	PRIMARY KEY (scope, id)
);
CREATE INDEX repeatability_made ON repeatability (made);

-- The change feed. head is locked last in every transaction that adds to it, so positions are in the order of commits.
-- Entries with a negative position are parts of a transaction in progress.
CREATE TABLE feed_head (
	id       BIGINT NOT NULL PRIMARY KEY,
	position BIGINT NOT NULL,
	pruned   BIGINT NOT NULL -- entries up to here were removed
);
INSERT INTO feed_head (id, position, pruned) VALUES (1, 0, 0);
CREATE TABLE feed (
	position BIGINT NOT NULL PRIMARY KEY,
	topic    TEXT COLLATE "C" NOT NULL,
	at       BIGINT NOT NULL,
	payload  BYTEA NOT NULL
);

-- The audit chain. The head keeps the last row's hash, so that rows missing at the end are detected.
CREATE TABLE audit_head (
	id   BIGINT NOT NULL PRIMARY KEY,
	seq  BIGINT NOT NULL,
	hash BYTEA NOT NULL
);
INSERT INTO audit_head (id, seq, hash)
	VALUES (1, 0, '\x0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE audit (
	seq        BIGINT NOT NULL PRIMARY KEY,
	at         BIGINT NOT NULL,
	actor_kind TEXT NOT NULL,
	actor_id   TEXT NOT NULL,
	request_id TEXT NOT NULL,
	action     TEXT NOT NULL,
	target     TEXT NOT NULL,
	items      BIGINT NOT NULL,
	digest     BYTEA NOT NULL,
	summary    TEXT NOT NULL,
	prev       BYTEA NOT NULL,
	hash       BYTEA NOT NULL
);

-- Access to the API: clients of the embedded issuer and its signing keys (encrypted elsewhere, opaque here).
CREATE TABLE api_clients (
	id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	name    TEXT NOT NULL,
	roles   TEXT NOT NULL, -- separated by spaces
	secret  TEXT NOT NULL, -- hash
	created BIGINT NOT NULL,
	creator TEXT NOT NULL,
	revoked BIGINT NOT NULL -- 0 while not revoked
);
CREATE TABLE signing_keys (
	id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	algorithm TEXT NOT NULL,
	public    BYTEA NOT NULL,
	sealed    BYTEA NOT NULL,
	created   BIGINT NOT NULL
);

-- The state of shared rate limits, one number each. It may be lost in a crash, so it is not worth waiting for the disk.
CREATE UNLOGGED TABLE rate_limits (
	bucket TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	state  BIGINT NOT NULL
);
