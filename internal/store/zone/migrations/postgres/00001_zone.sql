-- +goose Up

-- The records that each source publishes in the zone of the base domain. Names are relative to it.
CREATE TABLE zone_records (
	source TEXT COLLATE "C" NOT NULL,
	name   TEXT COLLATE "C" NOT NULL,
	type   TEXT COLLATE "C" NOT NULL,
	data   TEXT COLLATE "C" NOT NULL, -- at most 1,000 characters
	ttl    BIGINT NOT NULL, -- seconds
	added  BIGINT NOT NULL, -- microseconds since 1970
	PRIMARY KEY (source, name, type, data)
);
CREATE INDEX zone_records_set ON zone_records (name, type);

-- The serial of the newest version. Whoever changes records locks the row first.
CREATE TABLE zone_serial (
	id     BIGINT NOT NULL PRIMARY KEY,
	serial BIGINT NOT NULL
);
INSERT INTO zone_serial (id, serial) VALUES (1, 0);

-- The nodes that serve the Provisioning API, each with a counter that it increases while it can.
CREATE TABLE zone_beats (
	node   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	region BIGINT NOT NULL,
	beat   BIGINT NOT NULL
);

INSERT INTO schemas (package, version, oldest) VALUES ('zone', 1, 0);
