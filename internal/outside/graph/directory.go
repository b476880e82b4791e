package graph

import (
	"net/http"
	"time"

	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Domain is a domain name of the tenant.
type Domain struct {
	ID                string   `json:"id"` // the name
	IsVerified        bool     `json:"isVerified"`
	IsInitial         bool     `json:"isInitial"`
	SupportedServices []string `json:"supportedServices"`
}

// DNSRecord is a record that proves who owns a domain. Those of type Txt have a Text.
type DNSRecord struct {
	RecordType string `json:"recordType"`
	Text       string `json:"text"`
}

// Object is any directory object; Type is such as "#microsoft.graph.user".
type Object struct {
	ID                string     `json:"id"`
	Type              string     `json:"@odata.type"`
	DisplayName       string     `json:"displayName"`
	UserPrincipalName string     `json:"userPrincipalName"`
	DeletedDateTime   *time.Time `json:"deletedDateTime"`
}

// Domains lists the tenant's domains.
func Domains() List[Domain] { return newList[Domain]("/domains", Query{}) }

// GetDomain reads a domain; fault.NotFound if the tenant does not have it.
func GetDomain(name string) *Call[Domain] {
	return newCall[Domain](http.MethodGet, path("/domains/%s", name), nil)
}

// AddDomain adds a domain that is yet to be verified.
func AddDomain(name string) *Call[Domain] {
	return newCall[Domain](http.MethodPost, "/domains", map[string]string{"id": name})
}

// VerificationRecords lists the records of which one must be published.
func VerificationRecords(domain string) List[DNSRecord] {
	return newList[DNSRecord](path("/domains/%s/verificationDnsRecords", domain), Query{})
}

// VerifyDomain asks Microsoft to look for the record; 400 while it is not visible.
func VerifyDomain(name string) *Call[Domain] {
	return newCall[Domain](http.MethodPost, path("/domains/%s/verify", name), nil)
}

// DomainReferences lists the objects that keep a domain from being deleted.
func DomainReferences(domain string) List[Object] {
	return newList[Object](path("/domains/%s/domainNameReferences", domain), Query{})
}

// DeleteDomain deletes a domain that no object uses.
func DeleteDomain(name string) *Call[None] {
	return newCall[None](http.MethodDelete, path("/domains/%s", name), nil)
}

// Plan is a service plan that a user has.
type Plan struct {
	ServicePlanID    string     `json:"servicePlanId"`
	CapabilityStatus string     `json:"capabilityStatus"` // Enabled, Warning, Suspended, Deleted, LockedOut
	AssignedDateTime *time.Time `json:"assignedDateTime"`
}

// Licence is a licence that a user has, or is to have.
type Licence struct {
	SkuID         string   `json:"skuId"`
	DisabledPlans []string `json:"disabledPlans"`
}

// LicenceState says whether a licence took effect: Active, ActiveWithError, Disabled, Error.
type LicenceState struct {
	SkuID string `json:"skuId"`
	State string `json:"state"`
}

// User is a user with the properties that were selected.
type User struct {
	ID                      string         `json:"id"`
	UserPrincipalName       string         `json:"userPrincipalName"`
	DisplayName             string         `json:"displayName"`
	Department              string         `json:"department"`
	UsageLocation           string         `json:"usageLocation"`
	AccountEnabled          bool           `json:"accountEnabled"`
	OnPremisesSyncEnabled   bool           `json:"onPremisesSyncEnabled"` // null is false
	AssignedLicenses        []Licence      `json:"assignedLicenses"`
	AssignedPlans           []Plan         `json:"assignedPlans"`
	LicenseAssignmentStates []LicenceState `json:"licenseAssignmentStates"`

	// Removed is set in a feed of changes: the user is in the bin ("changed") or gone for good ("deleted").
	Removed *struct {
		Reason string `json:"reason"`
	} `json:"@removed"`
}

// UserFields are the properties of User that a synchronisation reads.
var UserFields = []string{"id", "userPrincipalName", "displayName", "department", "usageLocation", "accountEnabled",
	"assignedPlans", "onPremisesSyncEnabled"}

// NewUser is a user to be created, enabled, whose password is not to be changed.
type NewUser struct {
	DisplayName, MailNickname, UserPrincipalName string
	UsageLocation                                string // ISO 3166 alpha-2; a licence needs it
	Password                                     secret.Text
}

// Users lists users. Pages hold at most 999.
func Users(q Query) List[User] { return newList[User]("/users", q) }

// UserChanges lists all users, and with the Delta link of the last page what changed since. Links live about seven
// days [K].
func UserChanges(fields ...string) List[User] {
	return newList[User]("/users/delta", Query{Select: fields})
}

// LatestUserChanges is UserChanges without the users: an empty page, with the link to what changes from now on.
func LatestUserChanges(fields ...string) List[User] {
	return newList[User]("/users/delta"+Query{Select: fields}.encode()+"&$deltatoken=latest", Query{})
}

// GetUser reads these properties of a user, named by id or user principal name.
func GetUser(user string, fields ...string) *Call[User] {
	return newCall[User](http.MethodGet, path("/users/%s", user)+Query{Select: fields}.encode(), nil)
}

// CreateUser creates a user.
func CreateUser(u NewUser) *Call[User] {
	return newCall[User](http.MethodPost, "/users", map[string]any{"accountEnabled": true,
		"displayName": u.DisplayName, "mailNickname": u.MailNickname, "userPrincipalName": u.UserPrincipalName,
		"usageLocation": u.UsageLocation, "passwordProfile": map[string]any{"password": u.Password.Reveal(),
			"forceChangePasswordNextSignIn": false}})
}

// UpdateUser changes properties, by their names in JSON.
func UpdateUser(user string, properties map[string]any) *Call[None] {
	return newCall[None](http.MethodPatch, path("/users/%s", user), properties)
}

// DeleteUser moves a user to the bin.
func DeleteUser(user string) *Call[None] {
	return newCall[None](http.MethodDelete, path("/users/%s", user), nil)
}

// DeletedUsers lists the users in the bin with these properties.
func DeletedUsers(fields ...string) List[User] {
	return newList[User]("/directory/deletedItems/microsoft.graph.user", Query{Select: fields, Top: 999})
}

// GetDeleted reads an object in the bin.
func GetDeleted(id string) *Call[Object] {
	return newCall[Object](http.MethodGet, path("/directory/deletedItems/%s", id), nil)
}

// Purge deletes an object in the bin for good. For users it needs a delegated token (page "Permanently delete item").
func Purge(id string) *Call[None] {
	return newCall[None](http.MethodDelete, path("/directory/deletedItems/%s", id), nil)
}

// AssignLicences adds licences to a user and removes others, by their SKU ids.
func AssignLicences(user string, add []Licence, remove []string) *Call[User] {
	for i := range add {
		add[i].DisabledPlans = append([]string{}, add[i].DisabledPlans...) // never null
	}
	return newCall[User](http.MethodPost, path("/users/%s/assignLicense", user),
		map[string]any{"addLicenses": append([]Licence{}, add...), "removeLicenses": append([]string{}, remove...)})
}

// SKU is a subscription of the tenant.
type SKU struct {
	SkuID         string `json:"skuId"`
	SkuPartNumber string `json:"skuPartNumber"`
	AppliesTo     string `json:"appliesTo"` // User, Company
	ConsumedUnits int    `json:"consumedUnits"`
	PrepaidUnits  struct {
		Enabled   int `json:"enabled"`
		Warning   int `json:"warning"`
		Suspended int `json:"suspended"`
		LockedOut int `json:"lockedOut"`
	} `json:"prepaidUnits"`
	ServicePlans []ServicePlan `json:"servicePlans"`
}

// ServicePlan is a part of a SKU.
type ServicePlan struct {
	ServicePlanID   string `json:"servicePlanId"`
	ServicePlanName string `json:"servicePlanName"`
	AppliesTo       string `json:"appliesTo"` // User, Company
}

// SubscribedSKUs lists the tenant's subscriptions.
func SubscribedSKUs() List[SKU] { return newList[SKU]("/subscribedSkus", Query{}) }

// Tenant is the organisation. TenantType tells work tenants from those for consumers.
type Tenant struct {
	ID                    string `json:"id"`
	DisplayName           string `json:"displayName"`
	TenantType            string `json:"tenantType"`
	CountryLetterCode     string `json:"countryLetterCode"`
	OnPremisesSyncEnabled bool   `json:"onPremisesSyncEnabled"` // null is false
}

// Organization lists the tenant itself.
func Organization() List[Tenant] { return newList[Tenant]("/organization", Query{}) }

// Role is a directory role.
type Role struct {
	RoleTemplateID string `json:"roleTemplateId"`
}

// MyRoles lists the directory roles of the signed-in user, also those by group.
func MyRoles() List[Role] {
	return newList[Role]("/me/transitiveMemberOf/microsoft.graph.directoryRole", Query{})
}

// RoleAssignment gives a principal a role.
type RoleAssignment struct {
	RoleDefinitionID string `json:"roleDefinitionId"` // the template id, for built-in roles
	DirectoryScopeID string `json:"directoryScopeId"` // "/" is the whole tenant
}

// RoleAssignments lists the roles of a user or service principal.
func RoleAssignments(principal string) List[RoleAssignment] {
	return newList[RoleAssignment]("/roleManagement/directory/roleAssignments",
		Query{Filter: "principalId eq " + Quote(principal)})
}

// ServicePrincipal is an app in the tenant.
type ServicePrincipal struct {
	ID             string `json:"id"`
	AccountEnabled bool   `json:"accountEnabled"`
}

// ServicePrincipals lists the apps with an application id: one or none.
func ServicePrincipals(appID string) List[ServicePrincipal] {
	return newList[ServicePrincipal]("/servicePrincipals", Query{Filter: "appId eq " + Quote(appID)})
}

// DeleteServicePrincipal removes an app, and with it all consent, from the tenant.
func DeleteServicePrincipal(id string) *Call[None] {
	return newCall[None](http.MethodDelete, path("/servicePrincipals/%s", id), nil)
}

// AppRoleAssignment is an application permission that a service principal has on another (ResourceID).
type AppRoleAssignment struct {
	AppRoleID  string `json:"appRoleId"`
	ResourceID string `json:"resourceId"`
}

// AppRoleAssignments lists the application permissions of a service principal.
func AppRoleAssignments(servicePrincipal string) List[AppRoleAssignment] {
	return newList[AppRoleAssignment](path("/servicePrincipals/%s/appRoleAssignments", servicePrincipal), Query{})
}

// PermissionGrant holds delegated permissions of a service principal on another (ResourceID).
type PermissionGrant struct {
	ConsentType string `json:"consentType"` // AllPrincipals, Principal
	ResourceID  string `json:"resourceId"`
	Scope       string `json:"scope"` // names, separated by spaces
}

// PermissionGrants lists the delegated permissions of a service principal.
func PermissionGrants(servicePrincipal string) List[PermissionGrant] {
	return newList[PermissionGrant]("/oauth2PermissionGrants", Query{Filter: "clientId eq " + Quote(servicePrincipal)})
}
