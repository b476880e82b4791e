-- +goose Up
-- Which warnings about the expiry of the app registration's certificate were given.
CREATE TABLE tenant_credential_warnings (
	thumbprint TEXT COLLATE "C" NOT NULL, -- SHA-256 of the certificate, in hexadecimal
	days       BIGINT NOT NULL,
	PRIMARY KEY (thumbprint, days)
);

UPDATE schemas SET version = 5 WHERE package = 'tenants';
