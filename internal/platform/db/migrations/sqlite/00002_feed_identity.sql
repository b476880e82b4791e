-- +goose Up
-- Readers of the feed verify their place with the identity of the database, a random id of every entry, and the id of
-- the entry up to which the feed was pruned.
ALTER TABLE feed_head ADD COLUMN database TEXT NOT NULL DEFAULT '';
ALTER TABLE feed_head ADD COLUMN pruned_entry BIGINT NOT NULL DEFAULT 0;
UPDATE feed_head SET database = lower(
	hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
	|| '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)));

-- The default is for a program of the previous version, which sets no entry id. ALTER TABLE accepts no such default.
CREATE TABLE feed_new (
	position INTEGER NOT NULL PRIMARY KEY,
	topic    TEXT NOT NULL,
	at       BIGINT NOT NULL,
	payload  BLOB NOT NULL,
	entry    BIGINT NOT NULL DEFAULT (random())
);
INSERT INTO feed_new (position, topic, at, payload) SELECT position, topic, at, payload FROM feed;
DROP TABLE feed;
ALTER TABLE feed_new RENAME TO feed;
