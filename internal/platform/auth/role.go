package auth

import (
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Role is an app role as it appears in a token's roles claim.
type Role = string

// The Provisioning API's roles are the contract's; the management API's are ours.
const (
	RoleAdmin  Role = "ProvisioningAPI.Admin"  // every operation
	RoleRead   Role = "ProvisioningAPI.Read"   // every read
	RoleWrite  Role = "ProvisioningAPI.Write"  // every write
	RoleDelete Role = "ProvisioningAPI.Delete" // every delete

	RoleManagementAdmin Role = "Management.Admin" // every operation of the management API
	RoleManagementRead  Role = "Management.Read"  // every read of the management API
)

// Roles returns every role in a fixed order, the contract's first.
func Roles() []Role {
	return []Role{RoleAdmin, RoleRead, RoleWrite, RoleDelete, RoleManagementAdmin, RoleManagementRead}
}

// ParseRole reads a role by its full name, or one of the contract's by its last part ("Read", "read").
func ParseRole(s string) (Role, error) {
	for _, r := range Roles() {
		short, ours := strings.CutPrefix(r, "ProvisioningAPI.")
		if s == r || ours && strings.EqualFold(s, short) {
			return r, nil
		}
	}
	return "", fault.New(fault.Invalid, CodeInvalidRole, "unknown role %q; the roles are "+
		"ProvisioningAPI.Admin, .Read, .Write and .Delete, and Management.Admin and .Read", s).At("roles")
}

// Principal is the identity that a checked token proves. It is read-only.
type Principal struct {
	Issuer   string
	ClientID string // the client application: appid (Entra v1), azp (v2), client_id (RFC 9068), else the subject
	Roles    []Role // every entry of the roles claim, including unknown ones
	Expires  time.Time
}

// ID identifies the principal uniquely across issuers and is the same for all its tokens. It is used in audit rows and
// to distinguish the repeatable requests of different clients.
func (p *Principal) ID() string { return p.ClientID + "@" + p.Issuer }
