-- +goose Up
-- The event log has the form of the change feed (platform/feed/outbox). events_head is locked last but one in every
-- transaction that adds to it. The identity of the database is in feed_head.
CREATE TABLE events_head (
	id           BIGINT NOT NULL PRIMARY KEY,
	position     BIGINT NOT NULL,
	pruned       BIGINT NOT NULL, -- events up to here were removed
	pruned_entry BIGINT NOT NULL  -- id of the last of them
) WITHOUT ROWID;
INSERT INTO events_head (id, position, pruned, pruned_entry) VALUES (1, 0, 0, 0);
CREATE TABLE events (
	position INTEGER NOT NULL PRIMARY KEY,
	entry    BIGINT NOT NULL,
	topic    TEXT NOT NULL,
	at       BIGINT NOT NULL,
	payload  BLOB NOT NULL
);

INSERT INTO schemas (package, version, oldest) VALUES ('events', 1, 0);
