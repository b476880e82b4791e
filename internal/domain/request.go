package domain

import "time"

// RequestForInformation is an enterprise's request, made in the Teams admin centre, to be served by this operator.
type RequestForInformation struct {
	ID                 string
	TenantID           string // Teams tenant GUID, lower case; the key
	AccountName        string // account now linked to that tenant; empty for none
	OperatorID         string
	Status             string // active, suspended or removed
	ConsentedOn        time.Time
	LastModifiedOn     time.Time
	ConsentedCountries []string
	Contacts           []Contact
	Relationship       *CustomerRelationship // nil until the operator has answered
	State              ProvisioningState
	Version            int64
}

// Contact is a person named in a request for information.
type Contact struct {
	FullName        string `json:"fullName"`
	Email           string `json:"email"`
	TelephoneNumber string `json:"telephoneNumber,omitempty"`
	CompanyName     string `json:"companyName,omitempty"`
	CompanySize     string `json:"companySize,omitempty"`
}

// CustomerRelationship is the operator's side of a request for information: its only writable part.
type CustomerRelationship struct {
	Status         string    `json:"status,omitempty"`
	Comment        string    `json:"comment,omitempty"`
	LastModifiedOn time.Time `json:"lastModifiedOn"` // read-only, UTC
}

// CivicAddress is an emergency address that the enterprise keeps in its Teams tenant; read-only here.
type CivicAddress struct {
	ID                string     `json:"id"`
	Country           string     `json:"country,omitempty"`
	HouseNumber       string     `json:"houseNumber,omitempty"`
	HouseNumberSuffix string     `json:"houseNumberSuffix,omitempty"`
	PreDirectional    string     `json:"preDirectional,omitempty"`
	StreetName        string     `json:"streetName,omitempty"`
	StreetSuffix      string     `json:"streetSuffix,omitempty"`
	PostDirectional   string     `json:"postDirectional,omitempty"`
	StateOrProvince   string     `json:"stateOrProvince,omitempty"`
	CountyOrDistrict  string     `json:"countyOrDistrict,omitempty"`
	CityOrTown        string     `json:"cityOrTown,omitempty"`
	CityOrTownAlias   string     `json:"cityOrTownAlias,omitempty"`
	PostalOrZipCode   string     `json:"postalOrZipCode,omitempty"`
	Description       string     `json:"description,omitempty"`
	CompanyName       string     `json:"companyName,omitempty"`
	CompanyID         string     `json:"companyId,omitempty"`
	DefaultLocationID string     `json:"defaultLocationId"`
	ValidationStatus  string     `json:"validationStatus,omitempty"` // notValidated or validated
	TenantID          string     `json:"tenantId,omitempty"`
	PartnerID         string     `json:"partnerId,omitempty"`
	Locations         []Location `json:"locations,omitempty"`
	Latitude          string     `json:"latitude,omitempty"`
	Longitude         string     `json:"longitude,omitempty"`
}

// Location is a place inside a civic address.
type Location struct {
	ID             string `json:"id"`
	CivicAddressID string `json:"civicAddressId"`
	Description    string `json:"description,omitempty"`
	AdditionalInfo string `json:"additionalInfo,omitempty"`
	IsDefault      bool   `json:"isDefault,omitempty"`
	ELIN           string `json:"elin,omitempty"`
}

// CapabilityPlan says which capabilities may be chosen for a usage in Operator Connect.
type CapabilityPlan struct {
	Name                  string   `json:"name"`
	OfferTypes            []string `json:"offerTypes,omitempty"`
	Usage                 string   `json:"usage"`
	MandatoryCapabilities []string `json:"mandatoryCapabilities,omitempty"`
	ChoosableCapabilities []string `json:"choosableCapabilities,omitempty"`
	SupportsTollFree      bool     `json:"supportsTollFree"`
}
