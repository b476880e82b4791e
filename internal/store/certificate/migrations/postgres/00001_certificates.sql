-- +goose Up
-- What the certificate job shares between nodes: certificates with their keys, accounts, rate limits, all sealed.
CREATE TABLE certificate_values (
	name    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	sealed  BYTEA NOT NULL,
	changed BIGINT NOT NULL
);

INSERT INTO schemas (package, version, oldest) VALUES ('certificate', 1, 0);
