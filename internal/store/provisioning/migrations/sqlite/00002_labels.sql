-- +goose Up
-- An account can have a second Direct Routing label, the pending one: in lower case, and as a domain.Label.
-- second_active is 1 when the active label (subdomain_key) is in slot 2.
ALTER TABLE accounts ADD COLUMN pending_key TEXT;
ALTER TABLE accounts ADD COLUMN pending TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN second_active BIGINT NOT NULL DEFAULT 0;

-- A number records slot 1 or 2 of its account's labels, or none (0). Most record none, so the index is small.
ALTER TABLE numbers ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
CREATE INDEX numbers_slot ON numbers (account, slot, number) WHERE slot > 0;

-- All labels, active and pending, so that they are unique together. Triggers keep it, so that it is complete also while
-- programs that know version 1 only are running.
CREATE TABLE labels (
	label   TEXT NOT NULL PRIMARY KEY,
	account TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX labels_account ON labels (account);
INSERT INTO labels (label, account) SELECT subdomain_key, name FROM accounts WHERE subdomain_key IS NOT NULL;

-- +goose StatementBegin
CREATE TRIGGER account_labels_insert AFTER INSERT ON accounts BEGIN
	INSERT INTO labels (label, account)
		SELECT l, NEW.name FROM (SELECT NEW.subdomain_key AS l UNION ALL SELECT NEW.pending_key) WHERE l IS NOT NULL;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER account_labels_update AFTER UPDATE OF subdomain_key, pending_key ON accounts BEGIN
	DELETE FROM labels WHERE account = OLD.name;
	INSERT INTO labels (label, account)
		SELECT l, NEW.name FROM (SELECT NEW.subdomain_key AS l UNION ALL SELECT NEW.pending_key) WHERE l IS NOT NULL;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER account_labels_delete AFTER DELETE ON accounts BEGIN
	DELETE FROM labels WHERE account = OLD.name;
END;
-- +goose StatementEnd

UPDATE schemas SET version = 2 WHERE package = 'provisioning';
