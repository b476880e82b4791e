-- +goose Up
-- One row for each running node. The node writes it every few seconds to check that the database accepts writes.
CREATE TABLE nodes (
	id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	written BIGINT NOT NULL
);

-- Which programs may use this schema. Every migration from here on sets version to its own number, and oldest to the
-- number of the last migration that a program must know to work with the result: lower while tables only grow.
CREATE TABLE schema_info (
	id      BIGINT NOT NULL PRIMARY KEY,
	version BIGINT NOT NULL,
	oldest  BIGINT NOT NULL
);
INSERT INTO schema_info (id, version, oldest) VALUES (1, 3, 1);
