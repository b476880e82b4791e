package client

import "time"

// Account is one customer of the operator.
type Account struct {
	Name           string           `json:"name"`
	CorrelationID  string           `json:"correlationId,omitempty"`
	ServiceDetails *AccountServices `json:"serviceDetails,omitempty"`

	ProvisioningStatus string        `json:"serviceProvisioningStatus,omitempty"` // pending, synced, failed; read-only
	ProvisioningErrors []ErrorDetail `json:"serviceProvisioningErrors,omitempty"` // read-only
	ETag               string        `json:"-"`                                   // of the answer; for IfMatch
}

// AccountServices are the communications services of an account.
type AccountServices struct {
	TeamsTenantID               string                `json:"teamsTenantId,omitempty"`
	TeamsOperatorConnect        *AccountService       `json:"teamsOperatorConnect,omitempty"`
	TeamsDirectRouting          *DirectRoutingAccount `json:"teamsDirectRouting,omitempty"`
	TeamsPhoneMobile            *AccountService       `json:"teamsPhoneMobile,omitempty"`
	ZoomPhoneCloudPeering       *AccountService       `json:"zoomPhoneCloudPeering,omitempty"`
	AzureOperatorCallProtection *CallProtection       `json:"azureOperatorCallProtection,omitempty"`
}

// AccountService is a service on an account.
type AccountService struct {
	Enabled     bool  `json:"enabled"`
	SyncEnabled bool  `json:"syncEnabled"`
	NumberCount int64 `json:"numberCount,omitempty"` // read-only
}

// DirectRoutingAccount is Direct Routing on an account.
type DirectRoutingAccount struct {
	Enabled       bool                 `json:"enabled"`
	SyncEnabled   bool                 `json:"syncEnabled"`
	NumberCount   int64                `json:"numberCount,omitempty"` // read-only
	Configuration *DirectRoutingConfig `json:"configuration,omitempty"`
	// provisioned, notProvisioned or inconsistent; read-only
	SubdomainStatus string `json:"subdomainStatus,omitempty"`
}

// DirectRoutingConfig configures Direct Routing on an account.
type DirectRoutingConfig struct {
	CallScreening   bool            `json:"callScreening"`
	Subdomain       string          `json:"subdomain"`
	SubdomainTokens SubdomainTokens `json:"subdomainTokens"`
}

// SubdomainTokens are the TXT values that verify the customer's names with Microsoft 365.
type SubdomainTokens struct {
	Region1Token string `json:"region1Token"`
	Region2Token string `json:"region2Token"`
}

// CallProtection is Azure Operator Call Protection on an account.
type CallProtection struct {
	Enabled     bool  `json:"enabled"`
	NumberCount int64 `json:"numberCount,omitempty"` // read-only
}

// Number is one E.164 number of an account.
type Number struct {
	TelephoneNumber string               `json:"telephoneNumber"`
	AccountName     string               `json:"accountName"`
	ServiceDetails  NumberServices       `json:"serviceDetails"`
	Configuration   *NumberConfiguration `json:"configuration,omitempty"`

	ProvisioningStatus string        `json:"serviceProvisioningStatus,omitempty"` // pending, synced, failed; read-only
	ProvisioningErrors []ErrorDetail `json:"serviceProvisioningErrors,omitempty"` // read-only
	ETag               string        `json:"-"`                                   // of the answer; for IfMatch
}

// NumberServices are the communications services of a number.
type NumberServices struct {
	TeamsOperatorConnect        *TeamsNumber   `json:"teamsOperatorConnect,omitempty"`
	TeamsDirectRouting          *NumberService `json:"teamsDirectRouting,omitempty"`
	TeamsPhoneMobile            *TeamsNumber   `json:"teamsPhoneMobile,omitempty"`
	ZoomPhoneCloudPeering       *NumberService `json:"zoomPhoneCloudPeering,omitempty"`
	AzureOperatorCallProtection *NumberService `json:"azureOperatorCallProtection,omitempty"`
}

// NumberService is a service on a number that has no settings.
type NumberService struct {
	Enabled bool `json:"enabled"`
}

// TeamsNumber is Operator Connect or Teams Phone Mobile on a number.
type TeamsNumber struct {
	Enabled          bool               `json:"enabled"`
	AssignmentStatus string             `json:"assignmentStatus,omitempty"` // assigned or unassigned
	Configuration    *TeamsNumberConfig `json:"configuration,omitempty"`
}

// TeamsNumberConfig configures Operator Connect or Teams Phone Mobile on a number.
type TeamsNumberConfig struct {
	Usage                    string   `json:"usage"`
	ChoosableCapabilities    []string `json:"choosableCapabilities"`
	AcquiredCapabilities     []string `json:"acquiredCapabilities,omitempty"`  // read-only
	AvailableCapabilities    []string `json:"availableCapabilities,omitempty"` // read-only
	AdditionalUsages         []string `json:"additionalUsages,omitempty"`
	CivicAddressID           string   `json:"civicAddressId,omitempty"`
	LocationID               string   `json:"locationId,omitempty"`
	AllowTenantAddressUpdate bool     `json:"allowTenantAddressUpdate,omitempty"`
	DisplayedCountryCode     string   `json:"displayedCountryCode,omitempty"`
}

// NumberConfiguration holds the settings of a number that belong to no service.
type NumberConfiguration struct {
	CustomSIPHeader string `json:"customSipHeader,omitempty"`
}

// RequestForInformation is an enterprise's request to be served by this operator.
type RequestForInformation struct {
	ID                   string                `json:"id,omitempty"`
	TenantID             string                `json:"tenantId"`
	AccountName          string                `json:"accountName,omitempty"`
	OperatorID           string                `json:"operatorId,omitempty"`
	ProductContext       string                `json:"productContext,omitempty"`
	Status               string                `json:"status,omitempty"`
	ConsentedOn          time.Time             `json:"consentedOn"`
	LastModifiedOn       time.Time             `json:"lastModifiedOn"`
	ConsentedCountries   []string              `json:"consentedCountries,omitempty"`
	Contacts             []Contact             `json:"contacts,omitempty"`
	CustomerRelationship *CustomerRelationship `json:"customerRelationship,omitempty"`
	ETag                 string                `json:"-"`
}

// Contact is a person named in a request for information.
type Contact struct {
	FullName        string `json:"fullName"`
	Email           string `json:"email"`
	TelephoneNumber string `json:"telephoneNumber,omitempty"`
	CompanyName     string `json:"companyName,omitempty"`
	CompanySize     string `json:"companySize,omitempty"`
}

// CustomerRelationship is the operator's side of a request for information. An empty field of a patch is left
// unchanged.
type CustomerRelationship struct {
	Status         string     `json:"status,omitempty"`
	Comment        string     `json:"comment,omitempty"`
	LastModifiedOn *time.Time `json:"lastModifiedOn,omitempty"` // read-only
}

// CivicAddress is an emergency address of an account's Teams tenant.
type CivicAddress struct {
	ID                string     `json:"id"`
	Country           string     `json:"country,omitempty"`
	HouseNumber       string     `json:"houseNumber,omitempty"`
	StreetName        string     `json:"streetName,omitempty"`
	StreetSuffix      string     `json:"streetSuffix,omitempty"`
	StateOrProvince   string     `json:"stateOrProvince,omitempty"`
	CityOrTown        string     `json:"cityOrTown,omitempty"`
	PostalOrZipCode   string     `json:"postalOrZipCode,omitempty"`
	Description       string     `json:"description,omitempty"`
	CompanyName       string     `json:"companyName,omitempty"`
	DefaultLocationID string     `json:"defaultLocationId"`
	ValidationStatus  string     `json:"validationStatus,omitempty"`
	Locations         []Location `json:"locations,omitempty"`
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

// CapabilityPlan lists the capabilities that may be chosen for a usage in Operator Connect.
type CapabilityPlan struct {
	Name                  string   `json:"name"`
	OfferTypes            []string `json:"offerTypes,omitempty"`
	Usage                 string   `json:"usage"`
	MandatoryCapabilities []string `json:"mandatoryCapabilities,omitempty"`
	ChoosableCapabilities []string `json:"choosableCapabilities,omitempty"`
	SupportsTollFree      bool     `json:"supportsTollFree"`
}
