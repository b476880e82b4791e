package graph

import (
	"net/http"
	"time"
)

// Application is an app registration of the tenant. The contract that is validated against lacks the type; its members
// are those of Graph's documentation [K].
type Application struct {
	ID                     string             `json:"id,omitempty"`
	AppID                  string             `json:"appId,omitempty"` // the client id
	DisplayName            string             `json:"displayName"`
	SignInAudience         string             `json:"signInAudience"` // AzureADMultipleOrgs: of any organisation
	GroupMembershipClaims  string             `json:"groupMembershipClaims"`
	PublisherDomain        string             `json:"publisherDomain,omitempty"` // set by Microsoft, and in its portals
	Web                    WebApplication     `json:"web"`
	KeyCredentials         []KeyCredential    `json:"keyCredentials"`
	RequiredResourceAccess []RequiredResource `json:"requiredResourceAccess"`
}

// WebApplication is the part of an Application about sign-ins that a server redeems.
type WebApplication struct {
	RedirectURIs []string `json:"redirectUris"`
}

// KeyCredential is a certificate. Graph does not give the Key back.
type KeyCredential struct {
	Type        string    `json:"type"`  // AsymmetricX509Cert
	Usage       string    `json:"usage"` // Verify
	DisplayName string    `json:"displayName"`
	EndDateTime time.Time `json:"endDateTime,omitzero"`
	Key         []byte    `json:"key"` // DER
}

// RequiredResource is the permissions that an Application asks for on another, named by its application id.
type RequiredResource struct {
	ResourceAppID  string           `json:"resourceAppId"`
	ResourceAccess []ResourceAccess `json:"resourceAccess"`
}

// ResourceAccess is one permission; Type is Role for an application's, Scope for a delegated one.
type ResourceAccess struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// Applications lists the app registrations of the tenant with a client id or, if that is empty, a display name.
func Applications(appID, name string) List[Application] {
	filter := "appId eq " + Quote(appID)
	if appID == "" {
		filter = "displayName eq " + Quote(name)
	}
	return newList[Application]("/applications", Query{Filter: filter})
}

// CreateApplication makes an app registration.
func CreateApplication(a Application) *Call[Application] {
	return newCall[Application](http.MethodPost, "/applications", a)
}
