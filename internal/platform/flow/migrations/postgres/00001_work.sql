-- +goose Up
-- The work queue: one row for each key that is to be reconciled. It may be emptied.
CREATE TABLE work (
	kind       TEXT COLLATE "C" NOT NULL,
	id         TEXT COLLATE "C" NOT NULL,
	generation BIGINT NOT NULL, -- grows with each change
	state      TEXT COLLATE "C" NOT NULL, -- queued, running, waiting, parked
	due        BIGINT NOT NULL, -- not run before; 0: at once; the largest number: not by itself
	attempts   BIGINT NOT NULL, -- runs since the last change or success
	reason     TEXT NOT NULL,
	since      BIGINT NOT NULL, -- of the state
	owner      TEXT COLLATE "C" NOT NULL, -- lease of the worker that runs it
	token      BIGINT NOT NULL, -- of the claim, unique for the owner
	PRIMARY KEY (kind, id)
);
CREATE INDEX work_due ON work (state, kind, due, since);

-- The leases of workers. A worker increases its beat as long as it lives.
CREATE TABLE workers (
	id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	beat BIGINT NOT NULL
);

INSERT INTO schemas (package, version, oldest) VALUES ('flow', 1, 0);
