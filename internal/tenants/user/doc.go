// Package user keeps the users of tenants in step: it reads them from Microsoft, page by page and then by their
// changes, and gives those that are activated a number and Tandem's policies.
//
// An account of a tenant is a row, as the last pass saw it, with what it is to have. Two kinds of keys of package flow
// work on it:
//
//	tenantSync, id account: passes over all users (Syncer)
//	   full ──▶ delta ──▶ delta … ──▶ full, once a day or when Microsoft no longer knows where the last pass ended
//	tenantUser, id account/objectid: one activation, or its end (Activator)
//	   inactive ──activate──▶ activating ──read back──▶ active ──deactivate──▶ deactivating ──▶ inactive
//
// The states deleted, blocked and unlicensed come from Microsoft and hide the others. What a user had before is in the
// ledger of package plan, and is put back. Main types: User, Syncer, Activator, Service (what callers ask for).
package user
