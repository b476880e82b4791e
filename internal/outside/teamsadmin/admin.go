package teamsadmin

import (
	"context"
	"strings"
)

// Type is a type of configuration objects: the noun of its cmdlets without "Cs".
type Type string

// The types that onboarding uses. PSTN usages have methods of their own.
const (
	DialPlan           Type = "TenantDialPlan"
	Gateway            Type = "OnlinePSTNGateway"
	VoiceRoute         Type = "OnlineVoiceRoute"
	VoiceRoutingPolicy Type = "OnlineVoiceRoutingPolicy"
	CallerID           Type = "CallingLineIdentity"
	EmergencyPolicy    Type = "TeamsEmergencyCallRoutingPolicy"
)

// Settings are parameters of a cmdlet by their names, for example "OnlinePstnUsages", as values of JSON: numbers are
// float64 and lists []any when they were read. A list that is given replaces the object's.
type Settings map[string]any

// Object is a configuration object.
type Object struct {
	Type     Type
	Identity string // without the prefix "Tag:"; its case may differ from what was created
	Settings Settings
}

// User is a user or resource account with the policies that apply, except the tenant's Global ones.
type User struct {
	ID                string            `json:"objectId"`
	UserPrincipalName string            `json:"userPrincipalName"`
	Policies          []EffectivePolicy `json:"effectivePolicyAssignments"`
}

// EffectivePolicy is a policy that applies to a user, directly or by a group.
type EffectivePolicy struct {
	Type       Type `json:"policyType"`
	Assignment struct {
		Policy  string `json:"displayName"`
		GroupID string `json:"groupId"` // empty if direct
	} `json:"policyAssignment"`
}

// GroupGrant is a policy that the members of a group get.
type GroupGrant struct {
	GroupID string
	Type    Type   `json:"PolicyType"`
	Policy  string `json:"PolicyName"`
}

// Number is a telephone number of the tenant, with Microsoft Graph's names of values.
type Number struct {
	Number, Type, Source, Status string // directRouting, …; online, onPremises; userAssigned, …
	Target                       string // id of the account that has it; empty if none has
}

// NumberFilter is by what numbers are found: the parameter of Get-CsPhoneNumberAssignment.
type NumberFilter string

// The filters.
const (
	ByNumber NumberFilter = "TelephoneNumber"
	ByHolder NumberFilter = "AssignedPstnTargetId" // object id or name
)

// Admin configures Teams in one tenant. It is safe for concurrent use. Identities are compared without case and without
// the prefix "Tag:". A missing object is an error of kind fault.NotFound.
type Admin interface {
	// List returns all objects of a type, among them Global.
	List(context.Context, Type) ([]Object, error)
	Read(ctx context.Context, t Type, identity string) (Object, error)
	// Create makes an object. CodeExists: there is one already, perhaps by a Create whose answer was lost.
	Create(context.Context, Object) error
	// Change sets the given settings and leaves the others. Global objects are neither changed nor deleted.
	Change(context.Context, Object) error
	// Delete removes an object. CodeInUse: something refers to it, or did until a moment ago.
	Delete(ctx context.Context, t Type, identity string) error

	Usages(context.Context) ([]string, error)
	// AddUsages adds the PSTN usages that are missing, and RemoveUsages removes those that are there. Both return when
	// that is visible. Others are left as they are; CodeUsagesLost says that some are gone.
	AddUsages(ctx context.Context, usages ...string) error
	RemoveUsages(ctx context.Context, usages ...string) error

	// Grant gives a user, by object id or name, a policy directly; an empty policy removes the direct one, so that the
	// group's or the tenant's applies again.
	Grant(ctx context.Context, user string, t Type, policy string) error
	GroupGrants(context.Context) ([]GroupGrant, error)

	// AssignNumber gives a user or resource account, by object id or name, a direct routing number as the primary one,
	// and UnassignNumber takes it. A number has no "tel:"; an extension is ";ext=…". These and Numbers are for tenants
	// where Graph's API of numbers is not usable. CodeNoNumbers: this implementation has no way to numbers.
	AssignNumber(ctx context.Context, user, number string) error
	UnassignNumber(ctx context.Context, user, number string) error
	Numbers(ctx context.Context, by NumberFilter, value string) ([]Number, error)

	// SIPDomains returns the domains that Teams accepts for gateways.
	SIPDomains(context.Context) ([]string, error)
	// Users returns all users. It is for clouds where Graph has no userConfigurations.
	Users(context.Context) ([]User, error)
	// CreateResourceAccount makes an account of an application. It has no licence, and cannot be signed in to.
	CreateResourceAccount(ctx context.Context, userPrincipalName, displayName, applicationID string) error
}

var _ Admin = (*Client)(nil)

// Plain returns an identity without its prefix.
func Plain(identity string) string {
	if len(identity) > 4 && strings.EqualFold(identity[:4], "Tag:") {
		return identity[4:]
	}
	return identity
}
