-- +goose Up
-- Readers of the feed verify their place with the identity of the database, a random id of every entry, and the id of
-- the entry up to which the feed was pruned.
ALTER TABLE feed_head ADD COLUMN database TEXT NOT NULL DEFAULT gen_random_uuid()::text;
ALTER TABLE feed_head ADD COLUMN pruned_entry BIGINT NOT NULL DEFAULT 0;

-- The default is for nodes that still run the previous version, which sets no entry id. 60 of its 64 bits are random.
ALTER TABLE feed ADD COLUMN entry BIGINT NOT NULL
	DEFAULT ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint;
