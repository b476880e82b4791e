-- +goose Up
-- Users and resource accounts of tenants: as the last pass saw them, and what they are to have.
CREATE TABLE tenant_users (
	account    TEXT NOT NULL,
	id         TEXT NOT NULL, -- the object id
	-- From the directory.
	upn        TEXT NOT NULL DEFAULT '',
	login      TEXT NOT NULL DEFAULT '', -- upn in lower case
	name       TEXT NOT NULL DEFAULT '',
	folded     TEXT NOT NULL DEFAULT '', -- name in lower case
	department TEXT NOT NULL DEFAULT '',
	location   TEXT NOT NULL DEFAULT '',
	blocked    BIGINT NOT NULL DEFAULT 0, -- 1: may not sign in
	licensed   BIGINT NOT NULL DEFAULT 0, -- 1: has a Phone System plan
	facts      TEXT NOT NULL DEFAULT '{}', -- what is only shown: a user.Facts
	seen       BIGINT NOT NULL DEFAULT 0, -- the last pass that listed it
	deleted    BIGINT NOT NULL DEFAULT 0, -- since when it is known to be in the bin; Unix µs
	-- From the voice configurations.
	kind       TEXT NOT NULL DEFAULT 'user',
	number     TEXT NOT NULL DEFAULT '',
	policies   TEXT NOT NULL DEFAULT '{}', -- user.Policy by field of plan.User
	heard      BIGINT NOT NULL DEFAULT 0, -- the last pass that listed it there
	-- What it is to have.
	wanted     TEXT NOT NULL DEFAULT '', -- its number; empty unless it is activated
	activation TEXT NOT NULL DEFAULT '', -- a user.Activation
	pending    BIGINT NOT NULL DEFAULT 0, -- 1 until it is as asked for
	waiting    TEXT NOT NULL DEFAULT '', -- an onboard.Waiting
	state      TEXT NOT NULL GENERATED ALWAYS AS (CASE
		WHEN deleted > 0 THEN 'deleted'
		WHEN blocked = 1 AND kind <> 'resourceAccount' THEN 'blocked'
		WHEN licensed = 0 THEN 'unlicensed'
		WHEN wanted <> '' AND pending = 0 AND number = wanted THEN 'active'
		WHEN wanted <> '' THEN 'activating'
		WHEN pending = 1 THEN 'deactivating'
		ELSE 'inactive' END) STORED,
	PRIMARY KEY (account, id)
) WITHOUT ROWID;
CREATE INDEX tenant_users_login ON tenant_users (account, login, id);
CREATE INDEX tenant_users_state ON tenant_users (state);
CREATE INDEX tenant_users_number ON tenant_users (account, number) WHERE number <> '';
CREATE INDEX tenant_users_pending ON tenant_users (account, id) WHERE pending = 1;
CREATE UNIQUE INDEX tenant_users_wanted ON tenant_users (account, wanted) WHERE wanted <> '';

-- Which user had which number when, by Tandem.
CREATE TABLE tenant_number_history (
	account TEXT NOT NULL,
	number  TEXT NOT NULL,
	id      TEXT NOT NULL,
	began   BIGINT NOT NULL, -- Unix µs
	ended   BIGINT NOT NULL, -- 0: has it still
	upn     TEXT NOT NULL,
	PRIMARY KEY (account, number, began, id)
) WITHOUT ROWID;
CREATE INDEX tenant_number_history_user ON tenant_number_history (account, id);

-- The passes of the synchronisation. The last one of an account may be under way.
CREATE TABLE tenant_syncs (
	account  TEXT NOT NULL,
	pass     BIGINT NOT NULL,
	mode     TEXT NOT NULL, -- full or delta
	why      TEXT NOT NULL,
	began    BIGINT NOT NULL, -- Unix µs
	ended    BIGINT NOT NULL DEFAULT 0,
	failure  TEXT NOT NULL DEFAULT '', -- why it was abandoned
	users    BIGINT NOT NULL DEFAULT 0, -- listed, or changed
	voices   BIGINT NOT NULL DEFAULT 0,
	removed  BIGINT NOT NULL DEFAULT 0,
	restarts BIGINT NOT NULL DEFAULT 0,
	user_page  TEXT NOT NULL DEFAULT '', -- the next page; empty for the first, "end" after the last
	voice_page TEXT NOT NULL DEFAULT '',
	delta    TEXT NOT NULL DEFAULT '', -- the link to what changes after this pass
	PRIMARY KEY (account, pass)
) WITHOUT ROWID;

UPDATE schemas SET version = 3 WHERE package = 'tenants';
