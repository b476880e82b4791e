package domain

import "strings"

// Change is one entry of the provisioning change feed as its readers see it: the complete new routing state of one
// account or number. A reader therefore never has to query the database, and applying an entry twice is harmless.
// Exactly one of Account and Number is set.
type Change struct {
	Account *AccountRouting `json:"account,omitempty"`
	Number  *NumberRouting  `json:"number,omitempty"`
	// Observed is set if only the account's SubdomainStatus is new. A reader that needs what people write skips it.
	Observed bool `json:"observed,omitempty"`
}

// AccountRouting is what routing needs to know about an account. An index holds one for each account; the order of the
// fields keeps it small.
type AccountRouting struct {
	Name     string `json:"name"`
	TenantID string `json:"tenantId,omitempty"`
	// Subdomain is the Direct Routing label, in lower case; empty for none. It takes calls as long as the account has
	// it, whatever its state in DNS.
	Subdomain string `json:"subdomain,omitempty"`
	// Pending is the label that is not the active one, in lower case; empty for none. SecondActive is set when the
	// active label is in slot 2, so that Pending is in slot 1.
	Pending string     `json:"pending,omitempty"`
	Enabled ServiceSet `json:"enabled,omitempty"`

	SecondActive bool `json:"secondActive,omitempty"`
	// SubdomainStatus is the label's state in DNS, for explanations only; zero for SubdomainProvisioned.
	SubdomainStatus SubdomainStatus `json:"subdomainStatus,omitempty"`
	// SubdomainLive is set whenever Subdomain is. Nothing reads it here, but nodes of the release of November 2026
	// reject the calls of an account without it. Remove it when no upgrade from that release is supported.
	SubdomainLive bool `json:"subdomainLive,omitempty"`
	CallScreening bool `json:"callScreening,omitempty"`
	// Gateway is set if Teams has gateway objects for the names of Subdomain, PendingGateway for those of Pending.
	Gateway        bool `json:"gateway,omitempty"`
	PendingGateway bool `json:"pendingGateway,omitempty"`
	Deleted        bool `json:"deleted,omitempty"`
}

// NumberRouting is what routing needs to know about a number.
type NumberRouting struct {
	Key          uint64     `json:"key"` // E164.Key
	Deleted      bool       `json:"deleted,omitempty"`
	Account      string     `json:"account,omitempty"`
	Services     ServiceSet `json:"services,omitempty"`     // services enabled on the number
	CustomHeader string     `json:"customHeader,omitempty"` // value of the operator's custom SIP header
	Slot         Slot       `json:"slot,omitempty"`         // of the label that calls to the number use
}

// LabelIn returns the label in a slot, and the active one for NoSlot and for a slot without a label; empty for none.
func (r *AccountRouting) LabelIn(s Slot) string {
	if s == NoSlot || r.Pending == "" || (s == 2) == r.SecondActive {
		return r.Subdomain
	}
	return r.Pending
}

// Routing returns the part of the account that routing needs.
func (a *Account) Routing() *AccountRouting {
	r := &AccountRouting{Name: a.Name, Enabled: a.Enabled(), TenantID: a.TeamsTenantID, SecondActive: a.SecondActive}
	if a.Pending != nil {
		r.Pending, r.PendingGateway = strings.ToLower(a.Pending.Subdomain), a.Pending.Gateway
	}
	if d := a.Services[a.Labelled()]; d.DirectRouting != nil {
		r.Subdomain, r.Gateway = strings.ToLower(d.DirectRouting.Subdomain), d.DirectRouting.Gateway
		r.SubdomainLive = r.Subdomain != ""
		if d.SubdomainStatus != SubdomainProvisioned {
			r.SubdomainStatus = d.SubdomainStatus
		}
		r.CallScreening = d.DirectRouting.CallScreening
	}
	return r
}

// Routing returns the part of the number that routing needs.
func (n *Number) Routing() *NumberRouting {
	return &NumberRouting{Key: n.TelephoneNumber.Key(), Account: n.AccountName, Services: n.Enabled(),
		CustomHeader: n.CustomSIPHeader, Slot: n.Slot}
}
