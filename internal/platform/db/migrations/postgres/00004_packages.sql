-- +goose Up
-- Each package has migrations of its own, numbered from 1. A row says which programs may use the tables of a package.
-- Every migration sets version to its own number, and oldest to the number of the last migration of the package that a
-- program must know to work with the result: lower while tables only grow, 0 for a program that lacks the package.
CREATE TABLE schemas (
	package TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	version BIGINT NOT NULL,
	oldest  BIGINT NOT NULL
);
INSERT INTO schemas (package, version, oldest) VALUES ('platform', 4, 1);

-- For programs from the time when all packages shared one sequence. A migration of a package that they cannot work with
-- also sets oldest of platform to 4.
DROP TABLE schema_info;
CREATE VIEW schema_info AS SELECT 1 AS id, version, oldest FROM schemas WHERE package = 'platform';
