-- +goose Up
-- What the certificate job shares between nodes: certificates with their keys, accounts, rate limits, all sealed.
CREATE TABLE certificate_values (
	name    TEXT NOT NULL PRIMARY KEY,
	sealed  BLOB NOT NULL,
	changed BIGINT NOT NULL
) WITHOUT ROWID;

INSERT INTO schemas (package, version, oldest) VALUES ('certificate', 1, 0);
