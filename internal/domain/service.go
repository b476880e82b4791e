package domain

// Service is a communications service a number can use. The values are small, stable integers: they are stored in
// snapshots of the number index.
type Service uint8

// The services. NoService is the zero value. The first five are in the published contract; ACS is set in the management
// API only.
const (
	NoService       Service = iota
	DirectRouting           // Microsoft Teams Direct Routing
	OperatorConnect         // Microsoft Teams Operator Connect
	PhoneMobile             // Microsoft Teams Phone Mobile
	Zoom                    // Zoom Phone Cloud Peering
	CallProtection          // Azure Operator Call Protection
	ACS                     // Azure Communication Services
	serviceEnd
)

// HeaderRule says where the operator's custom SIP header is sent for a service.
type HeaderRule uint8

// The header rules. See gateway-calls §2.1.
const (
	HeaderNever HeaderRule = iota // the service has no custom header
	// HeaderTowardsCore puts it on every message of the call that goes to the operator's core, never towards the
	// service.
	HeaderTowardsCore
)

// Traits describes in data what is specific to a service. Packages use the traits; none compares a Service with a
// constant to decide behaviour.
type Traits struct {
	Service Service
	// Name is the property name in the Provisioning API's serviceDetails.
	Name string
	// Title is the service's display name.
	Title string
	// Exclusive services exclude each other on one number.
	Exclusive bool
	// ExcludedBy lists further services that may not be on the same number.
	ExcludedBy []Service
	// InContract is false for services the published contract has no field for.
	InContract bool
	// Syncable services have a back end that flow-through can push to (syncEnabled has meaning).
	Syncable bool
	// SyncFlag services have syncEnabled in the contract's account object, meaningful or not.
	SyncFlag bool
	// TenantBound services tie numbers to the account's Teams tenant: teamsTenantId is frozen while such numbers exist.
	TenantBound bool
	// CustomHeader says where the number's custom header value goes.
	CustomHeader HeaderRule
	// CarriesCalls is false while calls to a number of this service are refused.
	CarriesCalls bool
	// Screening services have their calling numbers checked against the account when the account asks for it.
	Screening bool
	// DefaultFor services may serve a peer group as the default for numbers that are not provisioned.
	DefaultFor bool
	// Labelled services identify a customer by the name <label>.<region>.<base domain>, in the Contact towards the
	// service and in the Request-URI of its calls.
	Labelled bool
	// PhoneSystem services end in Microsoft Phone System: a call already anchored there (X-MS-FMC) is not sent there
	// again.
	PhoneSystem bool
}

var traits = [serviceEnd]Traits{
	DirectRouting: {Service: DirectRouting, Name: "teamsDirectRouting", Title: "Microsoft Teams Direct Routing",
		Exclusive: true, InContract: true, SyncFlag: true, CustomHeader: HeaderTowardsCore, CarriesCalls: true,
		Screening: true, Labelled: true, PhoneSystem: true},
	OperatorConnect: {Service: OperatorConnect, Name: "teamsOperatorConnect", Title: "Operator Connect",
		Exclusive: true, InContract: true, SyncFlag: true, Syncable: true, TenantBound: true,
		CustomHeader: HeaderTowardsCore, CarriesCalls: true, DefaultFor: true, PhoneSystem: true},
	PhoneMobile: {Service: PhoneMobile, Name: "teamsPhoneMobile", Title: "Teams Phone Mobile",
		Exclusive: true, InContract: true, SyncFlag: true, Syncable: true, TenantBound: true,
		CarriesCalls: true, DefaultFor: true, PhoneSystem: true},
	Zoom: {Service: Zoom, Name: "zoomPhoneCloudPeering", Title: "Zoom Phone Cloud Peering",
		Exclusive: true, InContract: true, SyncFlag: true, CustomHeader: HeaderTowardsCore, CarriesCalls: true},
	CallProtection: {Service: CallProtection, Name: "azureOperatorCallProtection",
		Title: "Azure Operator Call Protection", InContract: true, Syncable: true,
		ExcludedBy: []Service{OperatorConnect, PhoneMobile, Zoom}},
	ACS: {Service: ACS, Name: "azureCommunicationServices", Title: "Azure Communication Services", Exclusive: true,
		CustomHeader: HeaderTowardsCore},
}

// Traits returns the service's traits. NoService and unknown values have zero traits.
func (s Service) Traits() *Traits {
	if s >= serviceEnd {
		s = NoService
	}
	return &traits[s]
}

// String returns the contract's property name, or "none".
func (s Service) String() string {
	if t := s.Traits(); t.Name != "" {
		return t.Name
	}
	return "none"
}

// MarshalText writes the contract's property name.
func (s Service) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ServiceByName finds a service by the contract's property name. The second result is false for unknown names.
func ServiceByName(name string) (Service, bool) {
	for i := DirectRouting; i < serviceEnd; i++ {
		if traits[i].Name == name {
			return i, true
		}
	}
	return NoService, false
}

// Services returns every service in a fixed order.
func Services() []Service {
	s := make([]Service, 0, serviceEnd-1)
	for i := DirectRouting; i < serviceEnd; i++ {
		s = append(s, i)
	}
	return s
}

// ServiceSet is a set of services, one bit each (bit n = Service n).
type ServiceSet uint8

// Has reports whether s is in the set.
func (x ServiceSet) Has(s Service) bool { return x&(1<<s) != 0 }

// With returns the set with s added.
func (x ServiceSet) With(s Service) ServiceSet { return x | 1<<s }

// List returns the set's members in their fixed order.
func (x ServiceSet) List() []Service {
	var l []Service
	for s := DirectRouting; s < serviceEnd; s++ {
		if x.Has(s) {
			l = append(l, s)
		}
	}
	return l
}
