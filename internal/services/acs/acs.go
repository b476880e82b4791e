// Package acs is all that is special about Azure Communication Services (ACS) calling.
//
// Its calls come in later work: until then calls/route refuses a call to an ACS number with that reason, because the
// service's traits say that it carries no calls, and there is no call profile here. The traits themselves are
// domain.ACS.Traits.
package acs

import "github.com/tandemgw/tandem/internal/domain"

// Service is the service this package is about.
const Service = domain.ACS
