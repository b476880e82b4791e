-- +goose Up
-- The change feed. head is locked last in every transaction that adds to it, so positions are in the order of commits.
-- Entries with a negative position are parts of a transaction in progress.
CREATE TABLE feed_head (
	id       BIGINT NOT NULL PRIMARY KEY,
	position BIGINT NOT NULL,
	pruned   BIGINT NOT NULL -- entries up to here were removed
) WITHOUT ROWID;
INSERT INTO feed_head (id, position, pruned) VALUES (1, 0, 0);
CREATE TABLE feed (
	position INTEGER NOT NULL PRIMARY KEY,
	topic    TEXT NOT NULL,
	at       BIGINT NOT NULL,
	payload  BLOB NOT NULL
);

-- The audit chain. The head keeps the last row's hash, so that rows missing at the end are detected.
CREATE TABLE audit_head (
	id   BIGINT NOT NULL PRIMARY KEY,
	seq  BIGINT NOT NULL,
	hash BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO audit_head (id, seq, hash)
	VALUES (1, 0, x'0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE audit (
	seq        INTEGER NOT NULL PRIMARY KEY,
	at         BIGINT NOT NULL,
	actor_kind TEXT NOT NULL,
	actor_id   TEXT NOT NULL,
	request_id TEXT NOT NULL,
	action     TEXT NOT NULL,
	target     TEXT NOT NULL,
	items      BIGINT NOT NULL,
	digest     BLOB NOT NULL,
	summary    TEXT NOT NULL,
	prev       BLOB NOT NULL,
	hash       BLOB NOT NULL
);
