// Package callprotection holds what is specific to Azure Operator Call Protection.
//
// The service receives forked copies of calls over SIPREC rather than calls of its own. That is not supported yet:
// calls/route refuses a call to a number that has only this service, because the service's traits say that it carries
// no calls, and there is no call profile here.
package callprotection

import "github.com/tandemgw/tandem/internal/domain"

// ID is the service's ID, which is stored.
const ID = 5

// Service is Azure Operator Call Protection.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "azureOperatorCallProtection",
	Title: "Azure Operator Call Protection", InContract: true,
	ExcludedBy: []string{"teamsOperatorConnect", "teamsPhoneMobile", "zoomPhoneCloudPeering"}})
