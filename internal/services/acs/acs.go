// Package acs holds what is specific to Azure Communication Services (ACS) calling.
//
// ACS calls are not supported yet: calls/route refuses a call to an ACS number with that reason, because the service's
// traits say that it carries no calls, and there is no call profile here. The traits themselves are domain.ACS.Traits.
package acs

import "github.com/tandemgw/tandem/internal/domain"

// Service is the service of this package.
const Service = domain.ACS
