-- +goose Up
-- The tables exist already in a database from the time when all packages shared one sequence of migrations.

-- Access to the API: clients of the embedded issuer and its signing keys (encrypted elsewhere, opaque here).
CREATE TABLE IF NOT EXISTS api_clients (
	id      TEXT NOT NULL PRIMARY KEY,
	name    TEXT NOT NULL,
	roles   TEXT NOT NULL, -- separated by spaces
	secret  TEXT NOT NULL, -- hash
	created BIGINT NOT NULL,
	creator TEXT NOT NULL,
	revoked BIGINT NOT NULL -- 0 while not revoked
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signing_keys (
	id        TEXT NOT NULL PRIMARY KEY,
	algorithm TEXT NOT NULL,
	public    BLOB NOT NULL,
	sealed    BLOB NOT NULL,
	created   BIGINT NOT NULL
) WITHOUT ROWID;

-- The state of shared rate limits, one number each.
CREATE TABLE IF NOT EXISTS rate_limits (
	bucket TEXT NOT NULL PRIMARY KEY,
	state  BIGINT NOT NULL
) WITHOUT ROWID;

INSERT INTO schemas (package, version, oldest) VALUES ('auth', 1, 0);
