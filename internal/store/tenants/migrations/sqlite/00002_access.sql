-- +goose Up
-- Links for administrators of tenants, by account.
CREATE TABLE tenant_invitations (
	account    TEXT NOT NULL PRIMARY KEY,
	hash       TEXT NOT NULL, -- SHA-256 of the link's token
	invitation TEXT NOT NULL -- an invite.Invitation
) WITHOUT ROWID;
CREATE UNIQUE INDEX tenant_invitations_hash ON tenant_invitations (hash);

-- Browsers, and runs of the command line, in which an administrator authorises and signs in.
CREATE TABLE tenant_sessions (
	id      TEXT NOT NULL PRIMARY KEY, -- SHA-256 of the cookie
	account TEXT NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	session TEXT NOT NULL, -- an invite.Session
	sealed  BLOB -- the secret of its attempt
) WITHOUT ROWID;
CREATE INDEX tenant_sessions_account ON tenant_sessions (account, created);

-- How the tenants are reached, by account.
CREATE TABLE tenant_access (
	account TEXT NOT NULL PRIMARY KEY,
	tenant  TEXT NOT NULL, -- id at Microsoft, in lower case
	due     BIGINT NOT NULL, -- when the access is checked next; 0 before the sign-in
	access  TEXT NOT NULL, -- an invite.Access
	sealed  BLOB -- the newest refresh token
) WITHOUT ROWID;
CREATE UNIQUE INDEX tenant_access_tenant ON tenant_access (tenant);
CREATE INDEX tenant_access_due ON tenant_access (due, account);

UPDATE schemas SET version = 2 WHERE package = 'tenants';
