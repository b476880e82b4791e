// Package callprotection holds what is specific to Azure Operator Call Protection.
//
// The service receives forked copies of calls over SIPREC rather than calls of its own. That is not supported yet:
// calls/route refuses a call to a number that has only this service, because the service's traits say that it carries
// no calls, and there is no call profile here. The traits themselves are domain.CallProtection.Traits.
package callprotection

import "github.com/tandemgw/tandem/internal/domain"

// Service is the service of this package.
const Service = domain.CallProtection
