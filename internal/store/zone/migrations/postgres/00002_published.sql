-- +goose Up

-- The records that were published in a zone of the operator. Names are complete, without the final dot.
CREATE TABLE zone_published (
	name  TEXT COLLATE "C" NOT NULL,
	type  TEXT COLLATE "C" NOT NULL,
	data  TEXT COLLATE "C" NOT NULL, -- at most 1,000 characters
	ttl   BIGINT NOT NULL, -- seconds
	there BIGINT NOT NULL, -- 1: it was seen in the zone; 0: it is about to be published
	PRIMARY KEY (name, type, data)
);

UPDATE schemas SET version = 2 WHERE package = 'zone';
