-- +goose Up
-- Which warnings about the expiry of the app registration's certificate were given.
CREATE TABLE tenant_credential_warnings (
	thumbprint TEXT NOT NULL, -- SHA-256 of the certificate, in hexadecimal
	days       BIGINT NOT NULL,
	PRIMARY KEY (thumbprint, days)
) WITHOUT ROWID;

UPDATE schemas SET version = 5 WHERE package = 'tenants';
