package microsoft

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// The registrations of a tenant's own applications. Their members are those of Graph's type application, which the
// contract lacks: displayName, signInAudience, web.redirectUris, publicClient.redirectUris, keyCredentials,
// requiredResourceAccess, groupMembershipClaims [K].

func (k *call) appView(a *App) Object {
	access := map[string][]Object{}
	for i, names := range [][]string{a.Application, a.Delegated} {
		for _, name := range names {
			resource := GraphID
			if name == "user_impersonation" {
				resource = TeamsID
			}
			access[resource] = append(access[resource], Object{"id": permissions[name][i],
				"type": []string{"Role", "Scope"}[i]})
		}
	}
	required, keys := []Object{}, []Object{}
	for _, resource := range []string{GraphID, TeamsID} {
		if len(access[resource]) > 0 {
			required = append(required, Object{"resourceAppId": resource, "resourceAccess": access[resource]})
		}
	}
	for _, c := range a.Certificates {
		keys = append(keys, Object{"keyId": derived("key", c.SerialNumber.String()), "type": "AsymmetricX509Cert",
			"usage": "Verify", "displayName": c.Subject.String(), "endDateTime": stamp(c.NotAfter),
			"startDateTime": stamp(c.NotBefore), "key": nil})
	}
	audience := "AzureADMyOrg"
	if a.MultiTenant {
		audience = "AzureADMultipleOrgs"
	}

	return Object{"id": a.ObjectID, "appId": a.ID, "displayName": a.Name, "signInAudience": audience,
		"web": Object{"redirectUris": append([]string{}, a.RedirectURIs...)}, "keyCredentials": keys,
		"requiredResourceAccess": required, "publisherDomain": k.t.Initial,
		"groupMembershipClaims": orNull(a.GroupClaims)}
}

// applicationBody returns the registration as it is after the body's changes.
func (k *call) applicationBody(a App) (App, error) {
	for name, v := range k.body {
		switch name {
		case "displayName":
			a.Name, _ = v.(string)
		case "groupMembershipClaims":
			a.GroupClaims, _ = v.(string)
		case "signInAudience":
			a.MultiTenant = v == "AzureADMultipleOrgs"
			if !slices.Contains([]any{"AzureADMyOrg", "AzureADMultipleOrgs"}, v) {
				return a, refuse("graph-type", name)
			}
		case "web", "publicClient":
			web, _ := v.(Object)
			uris, _ := web["redirectUris"].([]any)
			a.Public, a.RedirectURIs = name == "publicClient", nil
			for _, u := range uris {
				uri, _ := u.(string)
				local := strings.HasPrefix(uri, "http://localhost") || strings.HasPrefix(uri, "http://127.0.0.1")
				if !strings.HasPrefix(uri, "https://") && !local {
					return a, refuse("application-redirect", uri)
				}
				a.RedirectURIs = append(a.RedirectURIs, uri)
			}
		case "keyCredentials":
			a.Certificates = nil
			keys, _ := v.([]any)
			for _, v := range keys {
				key, _ := v.(Object)
				text, _ := key["key"].(string)
				der, err := base64.StdEncoding.DecodeString(text)
				cert, err2 := x509.ParseCertificate(der)
				if err != nil || err2 != nil || key["type"] != "AsymmetricX509Cert" || key["usage"] != "Verify" {
					return a, refuse("application-key")
				}
				a.Certificates = append(a.Certificates, cert)
			}
		case "requiredResourceAccess":
			a.Application, a.Delegated = nil, nil
			list, _ := v.([]any)
			for _, v := range list {
				if err := a.require(v); err != nil {
					return a, err
				}
			}
		default:
			return a, refuse("graph-member", name, "application")
		}
	}
	if a.Name == "" {
		return a, refuse("graph-required", "displayName", "application")
	}

	return a, nil
}

// require adds the permissions of one member of requiredResourceAccess.
func (a *App) require(v any) error {
	o, _ := v.(Object)
	list, _ := o["resourceAccess"].([]any)
	for _, v := range list {
		access, _ := v.(Object)
		i := slices.Index([]any{"Role", "Scope"}, access["type"])
		name := ""
		for n, ids := range permissions {
			if i >= 0 && ids[i] == access["id"] && (n == "user_impersonation") == (o["resourceAppId"] == TeamsID) {
				name = n
			}
		}
		switch {
		case name == "" || o["resourceAppId"] != GraphID && o["resourceAppId"] != TeamsID:
			return refuse("application-access", access["id"])
		case i == 0:
			a.Application = append(a.Application, name)
		default:
			a.Delegated = append(a.Delegated, name)
		}
	}

	return nil
}

// own returns the registrations of the tenant.
func (k *call) own() []*App {
	return slices.Collect(func(yield func(*App) bool) {
		for _, a := range k.cloud.apps {
			if a.Home == k.t.ID && !yield(a) {
				return
			}
		}
	})
}

func (k *call) findApplication() (*App, error) {
	for _, a := range k.own() {
		if a.ObjectID == k.vars["id"] {
			return a, nil
		}
	}
	return nil, refuse("graph-not-found", k.vars["id"])
}

func listApplications(k *call) error {
	var out []Object
	for _, a := range k.own() {
		out = append(out, k.appView(a))
	}
	return k.filtered("application", "applications", out)
}

func createApplication(k *call) error {
	a, err := k.applicationBody(App{ID: uuid.NewString(), ObjectID: uuid.NewString(), Home: k.t.ID})
	if err != nil {
		return err
	}
	a.ID = cmp.Or(a.ID, k.s.id())
	k.cloud.apps = append(k.cloud.apps, &a)
	return k.answer(201, k.appView(&a))
}

func getApplication(k *call, a *App) error {
	return k.answer(200, k.appView(a))
}

func updateApplication(k *call, a *App) error {
	next, err := k.applicationBody(*a)
	if err != nil {
		return err
	}
	*a = next
	return k.answer(204, nil)
}

func deleteApplication(k *call, a *App) error {
	k.cloud.apps = slices.DeleteFunc(k.cloud.apps, func(o *App) bool { return o == a })
	k.s.Principals = slices.DeleteFunc(k.s.Principals, func(p *Principal) bool { return p.App == a.ID })
	return k.answer(204, nil)
}
