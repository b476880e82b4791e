-- +goose Up
-- The tables exist already in a database from the time when all packages shared one sequence of migrations.

-- Access to the API: clients of the embedded issuer and its signing keys (encrypted elsewhere, opaque here).
CREATE TABLE IF NOT EXISTS api_clients (
	id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	name    TEXT NOT NULL,
	roles   TEXT NOT NULL, -- separated by spaces
	secret  TEXT NOT NULL, -- hash
	created BIGINT NOT NULL,
	creator TEXT NOT NULL,
	revoked BIGINT NOT NULL -- 0 while not revoked
);
CREATE TABLE IF NOT EXISTS signing_keys (
	id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	algorithm TEXT NOT NULL,
	public    BYTEA NOT NULL,
	sealed    BYTEA NOT NULL,
	created   BIGINT NOT NULL
);

-- The state of shared rate limits, one number each. It may be lost in a crash, so it is not worth waiting for the disk.
CREATE UNLOGGED TABLE IF NOT EXISTS rate_limits (
	bucket TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	state  BIGINT NOT NULL
);

INSERT INTO schemas (package, version, oldest) VALUES ('auth', 1, 0);
