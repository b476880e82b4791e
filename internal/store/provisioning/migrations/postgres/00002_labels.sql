-- +goose Up
-- An account can have a second Direct Routing label, the pending one: in lower case, and as a domain.Label.
-- second_active is 1 when the active label (subdomain_key) is in slot 2.
ALTER TABLE accounts ADD COLUMN pending_key TEXT COLLATE "C";
ALTER TABLE accounts ADD COLUMN pending TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN second_active BIGINT NOT NULL DEFAULT 0;

-- A number records slot 1 or 2 of its account's labels, or none (0). Most record none, so the index is small.
ALTER TABLE numbers ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
CREATE INDEX numbers_slot ON numbers (account, slot, number) WHERE slot > 0;

-- All labels, active and pending, so that they are unique together. Triggers keep it, so that it is complete also while
-- programs that know version 1 only are running.
CREATE TABLE labels (
	label   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	account TEXT COLLATE "C" NOT NULL
);
CREATE INDEX labels_account ON labels (account);
INSERT INTO labels (label, account) SELECT subdomain_key, name FROM accounts WHERE subdomain_key IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION account_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		DELETE FROM labels WHERE account = OLD.name;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO labels (label, account) SELECT l, NEW.name
			FROM (VALUES (NEW.subdomain_key), (NEW.pending_key)) AS v (l) WHERE l IS NOT NULL;
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER account_labels AFTER INSERT OR DELETE OR UPDATE OF subdomain_key, pending_key ON accounts
	FOR EACH ROW EXECUTE FUNCTION account_labels();

UPDATE schemas SET version = 2 WHERE package = 'provisioning';
