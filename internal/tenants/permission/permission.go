// Package permission is the one table of what Tandem asks of a tenant: the permissions of its app registration and the
// directory roles of people, each with the reason. The consent page, the app registration, readiness and the
// documentation show this table; nothing else names a permission.
//
// An application permission is used by Tandem alone. A delegated permission is used as the person who signed in, whose
// directory roles then count too: neither stands in for the other.
package permission

import (
	"slices"
	"strings"
)

// Application ids of the two resources that permissions are for.
const (
	Graph = "00000003-0000-0000-c000-000000000000" // Microsoft Graph
	Teams = "48ac35b8-9aa8-4d74-927d-1f4a14a0b239" // Skype and Teams Tenant Admin API
)

// Kind is who uses a permission.
type Kind string

// The kinds.
const (
	Application Kind = "application"
	Delegated   Kind = "delegated"
)

// Step is a step of onboarding, or its end.
type Step string

// The steps. The first, which gives the permissions, needs a role only.
const (
	Authorise Step = "authorise"
	Readiness Step = "readiness"
	Integrate Step = "integrate"
	Users     Step = "users"
	Leave     Step = "leave"
)

// Permission is one that Tandem asks for.
type Permission struct {
	Name     string
	Kind     Kind
	ID       string // of the app role or the scope
	Resource string // Graph or Teams
	Why      string // a sentence for the customer's administrator
	Steps    []Step // that need it
}

// All returns the permissions, in the order in which they are shown. Ids are those of teams-tenant §1, except those of
// Application.Read.All, Directory.Read.All and TeamsPolicyUserAssign.ReadWrite.All, which were read in public
// third-party code [C].
func All() []Permission {
	app := func(name, id, why string, steps ...Step) Permission {
		return Permission{name, Application, id, Graph, why, steps}
	}
	return []Permission{
		app("Application.Read.All", "9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30",
			"Reads which application permissions you have granted to this app.", Readiness),
		app("Directory.Read.All", "7ab1d382-f21e-4acd-a863-ba3e13f7da61",
			"Reads which delegated permissions you have granted to this app, and the accounts that hold numbers.",
			Readiness),
		app("Organization.Read.All", "498476ce-e0fe-48b0-b801-37ba7e2685c6",
			"Reads the kind and country of the tenant and its licences; Teams asks it of every app that configures it.",
			Readiness, Integrate),
		app("RoleManagement.Read.Directory", "483bed4a-2ad3-4361-a73b-c83ccdbdc53c",
			"Reads whether this app and the account that signed in have the directory roles that they need.",
			Readiness),
		app("Domain.ReadWrite.All", "7e05723c-0bb0-42da-be95-ae9f08a6e53c",
			"Adds your names below the operator's domain, proves them, and removes them when you leave.",
			Readiness, Integrate, Leave),
		app("User.ReadWrite.All", "741f803b-c850-494e-b5df-cde7c675a1ca",
			"Creates and removes the user that activates each name, and reads the users who can get a number.",
			Readiness, Integrate, Users, Leave),
		app("LicenseAssignment.ReadWrite.All", "5facf0c1-8979-4e95-abcf-ff3d079771c0",
			"Gives those users a licence, with only the service plan that is needed.", Integrate),
		app("TeamsTelephoneNumber.ReadWrite.All", "0a42382f-155c-4eb1-9bdc-21548ccaa387",
			"Assigns the operator's numbers to users, and takes them back.", Readiness, Users, Leave),
		app("TeamsUserConfiguration.Read.All", "a91eadaf-2c3c-4362-908b-fb172d208fc6",
			"Reads the numbers and voice policies that users have.", Readiness, Users, Leave),
		app("TeamsPolicyUserAssign.ReadWrite.All", "1801e8f4-cf09-4c4e-a1b5-036dfcca6c90",
			"Gives users the voice routing policy and the dial plan, and restores what they had.", Users, Leave),
		app("Application.ReadWrite.OwnedBy", "18a4783c-866b-4cc7-a460-3d5e5662c884",
			"Removes this app, with all of its permissions, when you leave.", Leave),
		{"user_impersonation", Delegated, "e60370c1-e451-437e-aa6e-d76df38e5f15", Teams,
			"Configures Teams calling as the account that signs in: there is no other interface for it.",
			[]Step{Integrate, Users, Leave}},
		{"RoleManagement.Read.Directory", Delegated, "741c54c3-0c1e-44a1-818b-3f97ab4e8c83", Graph,
			"Reads the directory roles of the account that signs in, also those that it has by a group.",
			[]Step{Readiness}},
		{"User.ReadWrite.All", Delegated, "204e0828-b5ca-4ad8-b9f3-f32a958e7cc4", Graph,
			"Removes the deleted activation users permanently, which Microsoft does not let an app do alone.",
			[]Step{Leave}},
	}
}

// Who has a role.
type Who string

// Those who need roles.
const (
	Consenter Who = "the administrator who authorises"
	Person    Who = "the account that signs in"
	App       Who = "the app itself, if nobody signs in"
)

// Role is a need for one of some directory roles.
type Role struct {
	ID    string // of the need, in findings
	Who   Who
	AnyOf []string // names of directory roles, the least powerful first
	Why   string
	Steps []Step
	// Optional is set if something can be done without.
	Optional bool
}

// Roles returns the needs for directory roles. Template ids of roles are in teams-tenant §1 [K].
func Roles() []Role {
	return []Role{
		{ID: "consent", Who: Consenter, AnyOf: []string{"Privileged Role Administrator", "Global Administrator"},
			Why: "Consents to the application permissions.", Steps: []Step{Authorise}},
		{ID: "teams", Who: Person, AnyOf: []string{"Teams Telephony Administrator", "Teams Administrator",
			"Global Administrator"}, Why: "Configures Teams calling and numbers.",
			Steps: []Step{Integrate, Users, Leave}},
		{ID: "purge", Who: Person, AnyOf: []string{"User Administrator", "Global Administrator"}, Optional: true,
			Why:   "Removes the activation users permanently; without it Microsoft does so after 30 days.",
			Steps: []Step{Leave}},
		{ID: "teams", Who: App, AnyOf: []string{"Teams Administrator"},
			Why: "Configures Teams calling and numbers.", Steps: []Step{Integrate, Users, Leave}},
	}
}

// templates are the template ids of the directory roles in Roles, and of others that people often have [K].
var templates = map[string]string{
	"Global Administrator":          "62e90394-69f5-4237-9190-012177145e10",
	"Privileged Role Administrator": "e8611ab8-c189-46e8-94e1-60213ab1f814",
	"User Administrator":            "fe930be7-5e62-47db-91af-98c3a49a38b1",
	"Teams Administrator":           "69091246-20e8-4a56-aa4d-066075b2a7a8",
	"Teams Telephony Administrator": "aa38014f-0993-46e9-9b45-30501a20909d",
	"Domain Name Administrator":     "8329153b-31d0-4727-b945-745eb3bc5f31",
	"License Administrator":         "4d6ac14f-3453-41d0-bef9-a3e0c569773a",
	"Global Reader":                 "f2ef992c-3afb-46b9-b7cf-a126ee74c451",
}

// RoleNames returns the names of directory roles, in order, by their template ids. One that is not known is its id.
func RoleNames(ids []string) []string {
	names := slices.Clone(ids)
	for name, template := range templates {
		for i, id := range ids {
			if strings.EqualFold(id, template) {
				names[i] = name
			}
		}
	}
	slices.Sort(names)
	return names
}

// HeldBy reports whether one of the roles is among template ids of directory roles.
func (r Role) HeldBy(ids []string) bool {
	return slices.ContainsFunc(r.AnyOf, func(name string) bool {
		return slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, templates[name]) })
	})
}

// Names returns the roles as text: "A or B".
func (r Role) Names() string { return strings.Join(r.AnyOf, " or ") }
