-- +goose Up

-- When the node last counted, by its clock, in microseconds since 1970; null with nodes of an earlier release.
ALTER TABLE zone_beats ADD COLUMN at BIGINT;

UPDATE schemas SET version = 3 WHERE package = 'zone';
