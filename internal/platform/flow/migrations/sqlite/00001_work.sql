-- +goose Up
-- The work queue: one row for each key that is to be reconciled. It may be emptied.
CREATE TABLE work (
	kind       TEXT NOT NULL,
	id         TEXT NOT NULL,
	generation BIGINT NOT NULL, -- grows with each change
	state      TEXT NOT NULL, -- queued, running, waiting, parked
	due        BIGINT NOT NULL, -- not run before; 0: at once; the largest number: not by itself
	attempts   BIGINT NOT NULL, -- runs since the last change or success
	reason     TEXT NOT NULL,
	since      BIGINT NOT NULL, -- of the state
	owner      TEXT NOT NULL, -- lease of the worker that runs it
	token      BIGINT NOT NULL, -- of the claim, unique for the owner
	PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX work_due ON work (state, kind, due, since);

-- The leases of workers. A worker increases its beat as long as it lives.
CREATE TABLE workers (
	id   TEXT NOT NULL PRIMARY KEY,
	beat BIGINT NOT NULL
) WITHOUT ROWID;

INSERT INTO schemas (package, version, oldest) VALUES ('flow', 1, 0);
