package domain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Service is a communications service a number can use. It carries its traits, so that the packages that use them need
// no table of services. Services are comparable, and each is made once, by NewService; the zero value is NoService.
type Service struct{ traits *Traits }

// NoService is the absence of a service.
var NoService Service

// MaxServiceID is the largest ID of a service. The two bits of a ServiceSet above it are never set: the number index
// uses them.
const MaxServiceID = 29

// Traits describes in data what is specific to a service. Packages use the traits; none compares a Service with a
// constant to decide behaviour.
type Traits struct {
	// ID is a small, stable integer of 1 to MaxServiceID: it is stored, and so never changes and is never used again.
	ID uint8
	// Name is the property name in the Provisioning API's serviceDetails.
	Name string
	// Title is the service's display name.
	Title string
	// Exclusive services exclude each other on one number.
	Exclusive bool
	// ExcludedBy lists the names of further services that may not be on the same number.
	ExcludedBy []string
	// InContract is false for services the published contract has no field for; they cannot be provisioned yet.
	InContract bool
	// SyncFlag services have syncEnabled in the contract's account object, meaningful or not.
	SyncFlag bool
	// TenantBound services tie numbers to the account's Teams tenant: teamsTenantId is frozen while such numbers exist.
	TenantBound bool
	// CustomHeader services have the operator's custom SIP header on every message of a call that goes to the
	// operator's core, never towards the service (gateway-calls §2.1).
	CustomHeader bool
	// CarriesCalls is false while calls to a number of this service are refused.
	CarriesCalls bool
	// Screening services have their calling numbers checked against the account when the account asks for it.
	Screening bool
	// DefaultFor services may serve a peer group as the default for numbers that are not provisioned.
	DefaultFor bool
	// Labelled services identify a customer by the name <label>.<region>.<base domain>, in the Contact towards the
	// service and in the Request-URI of its calls.
	Labelled bool
	// PublicCertificate services ask for a certificate of a public authority. Those authorities issue none for client
	// authentication any more, so the service accepts one for server authentication on connections from us too.
	PublicCertificate bool
	// PhoneSystem services end in Microsoft Phone System: a call already anchored there (X-MS-FMC) is not sent there
	// again.
	PhoneSystem bool
}

// NewService returns a service with these traits. It panics if the ID does not fit into a ServiceSet or the name is
// empty: both are mistakes in the program.
func NewService(t Traits) Service {
	if t.ID == 0 || t.ID > MaxServiceID || t.Name == "" {
		panic(fmt.Sprintf("service %q has ID %d, want a name and an ID of 1 to %d", t.Name, t.ID, MaxServiceID))
	}
	return Service{&t}
}

// noTraits are those of NoService.
var noTraits Traits

// Traits returns the service's traits, which are read-only. NoService has zero traits.
func (s Service) Traits() *Traits {
	if s.traits == nil {
		return &noTraits
	}
	return s.traits
}

// ID returns the service's ID; 0 for NoService.
func (s Service) ID() uint8 { return s.Traits().ID }

// String returns the contract's property name, or "none".
func (s Service) String() string {
	if s == NoService {
		return "none"
	}
	return s.traits.Name
}

// MarshalText writes the contract's property name.
func (s Service) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// InOrder returns the services that are keys of m, in the order of their IDs.
func InOrder[V any](m map[Service]V) []Service {
	return slices.SortedFunc(maps.Keys(m), func(a, b Service) int { return cmp.Compare(a.ID(), b.ID()) })
}

// Services is a list of services in the order of their IDs, without repetitions. It is read-only and safe for
// concurrent use.
type Services []Service

// ByName finds a service by the contract's property name. The second result is false for unknown names.
func (l Services) ByName(name string) (Service, bool) {
	for _, s := range l {
		if s.Traits().Name == name {
			return s, true
		}
	}
	return NoService, false
}

// InContract returns the services of the list that are in the published contract.
func (l Services) InContract() Services {
	return slices.DeleteFunc(slices.Clone(l), func(s Service) bool { return !s.Traits().InContract })
}

// In returns the services of the list that are in the set.
func (l Services) In(x ServiceSet) []Service {
	return slices.DeleteFunc(slices.Clone(l), func(s Service) bool { return !x.Has(s) })
}

// ServiceSet is a set of services: bit n stands for the service with ID n. This form is also the stored one, in
// databases, feed entries and the files of the number index.
type ServiceSet uint32

// Has reports whether s is in the set.
func (x ServiceSet) Has(s Service) bool { return x&(1<<s.ID()) != 0 }

// With returns the set with s added.
func (x ServiceSet) With(s Service) ServiceSet { return x | 1<<s.ID() }
