// Package readiness says whether a tenant can be onboarded: what is good, what a person should know, and what has to be
// changed first, each with its reason and remedy. It writes nothing, in the tenant or here.
//
// [Check] is pure: [Facts] in, findings out. About half of the facts can be read when an administrator has consented;
// the rest, about Teams, needs the second sign-in, or the role of the application in its place. A [Checker] gathers the
// facts from a [Source], which package tenant of the service implements, and from the deployment.
package readiness

import (
	"time"

	"github.com/tandemgw/tandem/internal/tenants/licence"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Level is how a check ended.
type Level string

// The levels.
const (
	Pass Level = "pass"
	Warn Level = "warn" // onboarding works, with a limit that a person should know
	Fail Level = "fail" // onboarding, or calls afterwards, would fail
)

// Stage is from when on a check is possible.
type Stage string

// The stages.
const (
	Consented Stage = "consent" // an administrator has consented
	SignedIn  Stage = "signIn"  // the second sign-in, or the role of the application, is there
)

// Finding is the result of one check.
type Finding struct {
	ID      string // of the check, such as "licence"
	Subject string // what was checked, if a check has several: a permission, a name, a number
	Level   Level
	Stage   Stage
	Reason  string
	Remedy  string // empty if there is nothing to do
}

// Facts is what is known of a tenant and of the deployment. Fields that could not be read are empty and have an entry
// in Unread.
type Facts struct {
	// Denied is why Microsoft gives the application no token for the tenant. Nothing else of the tenant is known then.
	Denied string
	// Unread has what could not be read, by the subject of a finding: "grants", "users", …; with the reason.
	Unread map[string]string

	// After the consent.

	Granted    []permission.Permission // as the tenant shows it
	InToken    []permission.Permission // as tokens say that were obtained for this check
	Tenant     Tenant
	SKUs       []licence.SKU
	Phone      int         // users with a Phone System licence
	Policies   []PolicyUse // emergency call routing policies that users have, the Global one excepted
	MoreUsers  bool        // there are more users than were read for Phone and Policies
	Holders    []Holder    // numbers of the account that someone in the tenant has
	MoreNumber bool        // there are more of them

	// Of the deployment.

	Settings  *plan.Settings // that onboarding would use; nil if unknown
	Undecided string         // why there are none: what a person has to decide
	Emergency []string       // the deployment's emergency dial strings
	Names     []Name
	Teams     Implementation

	// After the second sign-in.

	Mode   Mode
	Person Person
	State  plan.State // nil if Teams was not read
	Ledger plan.Ledger
}

// Mode is who configures Teams.
type Mode string

// The modes. The zero value: nobody yet.
const (
	AsPerson      Mode = "delegated"
	AsApplication Mode = "application"
)

// Tenant is the organisation.
type Tenant struct {
	ID, Name string
	Type     string // "AAD" for organisations; others are for customers of an organisation
	Country  string // ISO 3166 alpha-2
	Synced   bool   // users come from an Active Directory on premises
	Initial  string // domain
	Domains  []Domain
}

// Domain is a domain of the tenant.
type Domain struct {
	Name             string
	Verified, Active bool // Active: Teams accepts it
}

// PolicyUse is how many users have a policy.
type PolicyUse struct {
	Name  string
	Users int
}

// Holder is who has a number of the account's inventory.
type Holder struct {
	Number   string
	Type     string // numberType: directRouting, callingPlan, operatorConnect
	Source   string // numberSource: online, onPremises
	ID, Name string // of the account
	Gone     bool   // no account has the ID
	// Deleted is when the account was deleted; zero if it was not.
	Deleted time.Time
}

// Name is a name at which the tenant's calls arrive.
type Name struct {
	FQDN string
	// Checks has what is wrong, by check: "dns", "certificate", "reachable"; nil if nothing is.
	Checks map[string]error
}

// Implementation says how Teams is configured by this deployment.
type Implementation struct {
	Name    string // empty: in no way
	Missing string // then: what to switch on or to install
	Remark  string // such as that Microsoft does not support it
}

// Person is who configures Teams: the person who signed in, or the application.
type Person struct {
	Name    string
	Partner bool     // the account is another organisation's, by delegation
	Roles   []string // template ids of directory roles
}
