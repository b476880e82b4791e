// Package store lists what the packages below it, and others, keep in the database. Each of them stores the data of one
// job; this package stores nothing itself.
package store

import (
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/store/auth"
	"github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/store/zone"
)

// Schemas returns the schemas of all packages besides platform/db, for [db.Open]. A new package that stores something
// is added here.
func Schemas() []db.Schema {
	return []db.Schema{events.Schema(), flow.Schema(), provisioning.Schema(), auth.Schema(),
		certificate.Schema(), zone.Schema(), tenants.Schema()}
}
