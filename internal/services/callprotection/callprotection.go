// Package callprotection is all that is special about Azure Operator Call Protection.
//
// It gets forked copies of calls over SIPREC rather than calls of its own, in later work: until then calls/route refuses
// a call to a number that has this service alone, because the service's traits say that it carries no calls, and there
// is no call profile here. The traits themselves are domain.CallProtection.Traits.
package callprotection

import "github.com/tandemgw/tandem/internal/domain"

// Service is the service this package is about.
const Service = domain.CallProtection
