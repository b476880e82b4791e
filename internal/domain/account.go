package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// SyncStatus is serviceProvisioningStatus in the contract.
type SyncStatus string

// The contract's values.
const (
	SyncPending SyncStatus = "pending" // not yet pushed to the back-end service
	SyncSynced  SyncStatus = "synced"  // stored, in the change feed and, with flow-through, held by the back end
	SyncFailed  SyncStatus = "failed"  // the back end refused it; the errors say why
)

// SubdomainStatus is the state of an account's Direct Routing names in DNS. Calls do not depend on it.
// It takes one byte, because an index holds it for each account; as text, and in JSON, it has the contract's values.
// The zero value stands for none.
type SubdomainStatus uint8

// The contract's values.
const (
	SubdomainProvisioned    SubdomainStatus = iota + 1 // every name server answers the names as expected
	SubdomainNotProvisioned                            // none does
	SubdomainInconsistent                              // some do not
)

var subdomainStatuses = []string{"", "provisioned", "notProvisioned", "inconsistent"}

// String returns the contract's value, empty for none.
func (s SubdomainStatus) String() string { return subdomainStatuses[s] }

// MarshalText implements encoding.TextMarshaler.
func (s SubdomainStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SubdomainStatus) UnmarshalText(text []byte) error {
	i := slices.Index(subdomainStatuses, string(text))
	if i < 0 {
		return fmt.Errorf("unknown subdomainStatus %q", text)
	}
	*s = SubdomainStatus(i)
	return nil
}

// ServiceError is one entry of serviceProvisioningErrors, in the contract's error shape.
type ServiceError struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Target  string         `json:"target,omitempty"`
	Details []ServiceError `json:"details,omitempty"`
}

// ProvisioningState is the read-only pair that accounts, numbers and requests for information carry.
type ProvisioningState struct {
	Status SyncStatus     `json:"serviceProvisioningStatus,omitempty"`
	Errors []ServiceError `json:"serviceProvisioningErrors,omitempty"`
}

// Account is one customer of the operator.
type Account struct {
	Name          string // 1–100 of [A-Za-z0-9_-], case-sensitive; the key
	CorrelationID string // id in an external system, as the caller wrote it
	// HasServiceDetails distinguishes an empty serviceDetails object from an absent one, so that a GET returns what was
	// PUT.
	HasServiceDetails bool
	TeamsTenantID     string
	// Services holds an entry for each service object present in serviceDetails, enabled or not.
	Services map[Service]AccountService
	// Pending is the account's label that is not the active one; nil for none. Calls from the service are accepted
	// under both. The Provisioning API neither shows nor changes it.
	Pending *Label `json:",omitempty"`
	// SecondActive is set when the active label is in slot 2.
	SecondActive bool `json:",omitempty"`
	State        ProvisioningState
	Version      int64     // grows by at least one with every change; the ETag
	Modified     time.Time // UTC, microseconds
}

// AccountService is one service object of an account.
type AccountService struct {
	Enabled     bool
	SyncEnabled bool
	NumberCount int64 // numbers on the account with this service enabled; read-only, filled on reads
	// DirectRouting is set for Direct Routing only, and only if the caller gave a configuration.
	DirectRouting   *DirectRoutingConfig
	SubdomainStatus SubdomainStatus // Direct Routing only; read-only
}

// DirectRoutingConfig is the configuration object of Direct Routing on an account.
type DirectRoutingConfig struct {
	CallScreening bool `json:"callScreening"`
	Label              // the active one
}

// Label is a Direct Routing label with the TXT values that verify its names.
type Label struct {
	// Subdomain is one DNS host label of 1–10 characters, unique per deployment regardless of case.
	Subdomain    string `json:"subdomain"`
	Region1Token string `json:"region1Token"`
	Region2Token string `json:"region2Token"`
	// Onboarded is set while the onboarding of the customer's tenant owns the label: it sets the tokens, and no caller
	// of the Provisioning API changes them.
	Onboarded bool `json:"onboarded,omitempty"`
	// Gateway is set while the customer's tenant has a gateway object for each of the label's names: Teams monitors
	// these apart from the operator's trunk.
	Gateway bool `json:"gateway,omitempty"`
}

// NoToken is the token of a region for which Microsoft has named none yet. The contract allows no empty one.
const NoToken = "pending"

// Tokens returns the TXT values, by region; empty where there is none yet.
func (l Label) Tokens() []string {
	tokens := []string{l.Region1Token, l.Region2Token}
	for i, t := range tokens {
		if t == NoToken {
			tokens[i] = ""
		}
	}
	return tokens
}

// Slot is one of the two places, 1 and 2, that an account has for Direct Routing labels. A label stays in its slot:
// when the other one becomes the active label, the account changes and its numbers do not.
type Slot uint8

// NoSlot on a number stands for the slot of the active label.
const NoSlot Slot = 0

// ActiveSlot returns the slot of the active label.
func (a *Account) ActiveSlot() Slot {
	if a.SecondActive {
		return 2
	}
	return 1
}

// Labelled returns the service whose names the account's labels are; NoService if the account has none.
func (a *Account) Labelled() Service {
	for s, d := range a.Services {
		if d.DirectRouting != nil {
			return s // only one service has it
		}
	}
	return NoService
}

// Onboarded returns the account's label that the onboarding of its tenant owns; nil if there is none.
func (a *Account) Onboarded() *Label {
	if l := a.Active(); l.Onboarded {
		return &l
	}
	if a.Pending != nil && a.Pending.Onboarded {
		return a.Pending
	}
	return nil
}

// Active returns the active label; empty if the account has none.
func (a *Account) Active() Label {
	if d := a.Services[a.Labelled()]; d.DirectRouting != nil {
		return d.DirectRouting.Label
	}
	return Label{}
}

// SlotOf returns the slot of a label, whatever its case; NoSlot if the account does not have it.
func (a *Account) SlotOf(label string) Slot {
	switch active := a.Active().Subdomain; {
	case label == "":
	case strings.EqualFold(active, label):
		return a.ActiveSlot()
	case a.Pending != nil && strings.EqualFold(a.Pending.Subdomain, label):
		return 3 - a.ActiveSlot()
	}
	return NoSlot
}

// Enabled returns the services enabled on the account.
func (a *Account) Enabled() ServiceSet {
	var x ServiceSet
	for s, d := range a.Services {
		if d.Enabled {
			x = x.With(s)
		}
	}
	return x
}

// Number is one E.164 number of exactly one account.
type Number struct {
	TelephoneNumber E164
	AccountName     string
	// Services holds an entry for each service object present in serviceDetails, enabled or not.
	Services map[Service]NumberService
	// HasConfiguration distinguishes an empty configuration object from an absent one.
	HasConfiguration bool
	CustomSIPHeader  string // value only, 1–100 of [A-Za-z0-9_-]; empty for none
	// Slot is the slot of the label that calls to the number use; NoSlot for the active one.
	Slot     Slot `json:",omitempty"`
	State    ProvisioningState
	Version  int64
	Modified time.Time
}

// NumberService is one service object of a number. Teams is set only for Operator Connect and Teams Phone Mobile, and
// only if the caller gave a configuration.
type NumberService struct {
	Enabled          bool
	AssignmentStatus string // "assigned" or "unassigned", Operator Connect and Teams Phone Mobile only; may be empty
	Teams            *TeamsNumberConfig
}

// TeamsNumberConfig is the configuration object of Operator Connect and Teams Phone Mobile on a number.
type TeamsNumberConfig struct {
	Usage                    string   `json:"usage"`
	ChoosableCapabilities    []string `json:"choosableCapabilities"`
	AcquiredCapabilities     []string `json:"acquiredCapabilities,omitempty"`  // read-only
	AvailableCapabilities    []string `json:"availableCapabilities,omitempty"` // read-only
	AdditionalUsages         []string `json:"additionalUsages,omitempty"`
	CivicAddressID           string   `json:"civicAddressId,omitempty"`
	LocationID               string   `json:"locationId,omitempty"`
	AllowTenantAddressUpdate bool     `json:"allowTenantAddressUpdate"`
	DisplayedCountryCode     string   `json:"displayedCountryCode,omitempty"`
}

// Enabled returns the services enabled on the number.
func (n *Number) Enabled() ServiceSet {
	var x ServiceSet
	for s, d := range n.Services {
		if d.Enabled {
			x = x.With(s)
		}
	}
	return x
}
