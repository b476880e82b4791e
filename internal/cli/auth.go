package cli

import (
	"encoding/json"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

func newAuth(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "Issuers of bearer tokens: Microsoft Entra"}
	cmd.AddCommand(authEntra(t))
	return cmd
}

// manifest is an application of Microsoft Entra, as its API Microsoft Graph takes it.
type manifest struct {
	DisplayName    string `json:"displayName"`
	SignInAudience string `json:"signInAudience"`
	API            struct {
		RequestedAccessTokenVersion int `json:"requestedAccessTokenVersion"`
	} `json:"api"`
	AppRoles []appRole `json:"appRoles"`
}

type appRole struct {
	AllowedMemberTypes []string `json:"allowedMemberTypes"`
	ID                 string   `json:"id"`
	Value              string   `json:"value"`
	DisplayName        string   `json:"displayName"`
	Description        string   `json:"description"`
	IsEnabled          bool     `json:"isEnabled"`
}

func authEntra(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "entra",
		Short: "Print how to register the API and a BSS client in Entra",
		Long: `Print how to register the Provisioning API and a BSS client in Microsoft Entra:
the steps, and the manifest of the API with its application roles for programs
and user roles for people. --output json prints only the manifest.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return show(t, entraManifest(), printEntra) },
	}
}

// entraManifest returns the manifest of the Provisioning API. The ids are always the same, so that applying it again
// changes nothing.
func entraManifest() manifest {
	m := manifest{DisplayName: "Tandem Provisioning API", SignInAudience: "AzureADMyOrg"}
	m.API.RequestedAccessTokenVersion = 2
	for _, kind := range [][2]string{{"Application", ""}, {"User", "User"}} {
		for _, role := range [][2]string{{"Admin", "Every operation"}, {"Read", "Every read"}, {"Write", "Every write"},
			{"Delete", "Every delete"}} {
			value := "ProvisioningAPI." + role[0] + kind[1]
			m.AppRoles = append(m.AppRoles, appRole{AllowedMemberTypes: []string{kind[0]}, Value: value,
				ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("tandem:"+value)).String(), DisplayName: value,
				Description: role[1] + " of the Provisioning API", IsEnabled: true})
		}
	}
	return m
}

const entraSteps = `How to let a BSS call the Provisioning API with tokens of Microsoft Entra. The
Entra admin center is at https://entra.microsoft.com; TENANT, API and CLIENT
stand for the ids that it shows.

1. Register the API, as an Application Administrator:
     tandem auth entra --output json >manifest.json
     az rest --method post --body @manifest.json \
       --url https://graph.microsoft.com/v1.0/applications
   Or in the admin center: App registrations, New registration, this
   organisation only; then Manifest, and replace "api" and "appRoles" by those
   below. API is its Application (client) ID.
2. Give it an Application ID URI (Expose an API) and a service principal:
     az ad app update --id API --identifier-uris api://API
     az ad sp create --id API
3. Add owners, at least two: App registrations, the API, Owners.
4. Register the BSS as another application, with a client secret or a
   certificate (Certificates & secrets). CLIENT is its Application (client) ID.
5. Give it roles: in its registration, API permissions, Add a permission, APIs
   my organization uses, the API, Application permissions. ProvisioningAPI.Read
   reads, .Write creates and changes, .Delete deletes, .Admin does everything.
6. Consent, as an administrator: API permissions, Grant admin consent. Without
   it tokens carry no roles, and every request is answered 403.
7. People get the roles that end in User: Enterprise applications, the API,
   Users and groups.
8. Let Tandem accept the tokens, in its configuration, and restart it:
     auth:
       issuers:
         - entraTenantId: TENANT
           audiences: [API]
9. The BSS requests tokens with the client-credentials grant and the scope
   api://API/.default from
     https://login.microsoftonline.com/TENANT/oauth2/v2.0/token

The manifest:
`

func printEntra(p *page, m manifest) {
	p.WriteString(entraSteps)
	e := json.NewEncoder(p)
	e.SetIndent("", "  ")
	_ = e.Encode(m) // a page takes everything
}
