// Package acs holds what is specific to Azure Communication Services (ACS) calling.
//
// ACS calls are not supported yet: calls/route refuses a call to an ACS number with that reason, because the service's
// traits say that it carries no calls, and there is no call profile here.
package acs

import "github.com/tandemgw/tandem/internal/domain"

// ID is the service's ID, which is stored.
const ID = 6

// Service is Azure Communication Services. The published contract has no field for it, so it cannot be provisioned yet.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "azureCommunicationServices",
	Title: "Azure Communication Services", Exclusive: true, CustomHeader: true})
