package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Operations implements the management API's operations with the tag carrier.
type Operations struct {
	App *App
	// Settings is what the operator's tenant should have, and Read returns what it has of these objects.
	Settings *plan.CarrierSettings
	Read     func(ctx context.Context, named []plan.Ref) ([]plan.Object, error)
	// Teams says how this deployment configures Teams, or else what to switch on or to install.
	Teams func() (name, missing string)
}

// CheckCarrier implements the operation checkCarrier.
func (o Operations) CheckCarrier(ctx context.Context, _ api.CheckCarrierRequestObject) (api.CheckCarrierResponseObject,
	error) {
	var named []plan.Ref
	for _, x := range o.Settings.Objects("", nil) {
		named = append(named, x.Ref)
	}
	objects, err := o.Read(ctx, named)
	if err != nil {
		return nil, err
	}
	answer := api.CheckCarrier200JSONResponse{Missing: append([]string{}, Missing(objects, o.Settings)...),
		Remarks: append([]string{}, Remarks(objects, o.Settings)...)}
	answer.Teams, answer.TeamsMissing = o.Teams()
	answer.Passed = len(answer.Missing) == 0 && answer.Teams != ""
	if c := o.App.Want.Certificate; c != nil {
		expires := c.NotAfter.UTC()
		answer.CredentialExpires = &expires
	}
	return answer, nil
}

// GetCarrierApp implements the operation getCarrierApp.
func (o Operations) GetCarrierApp(context.Context, api.GetCarrierAppRequestObject) (api.GetCarrierAppResponseObject,
	error) {
	a, err := o.app(o.App.ClientID)
	return api.GetCarrierApp200JSONResponse(a), err
}

// CreateCarrierApp implements the operation createCarrierApp.
func (o Operations) CreateCarrierApp(ctx context.Context, _ api.CreateCarrierAppRequestObject) (
	api.CreateCarrierAppResponseObject, error) {
	id, err := o.App.Create(ctx)
	if err != nil {
		return nil, err
	}
	a, err := o.app(id)
	return api.CreateCarrierApp201JSONResponse(a), err
}

// app returns the registration as it must be.
func (o Operations) app(clientID string) (a api.CarrierApp, err error) {
	w := &o.App.Want
	manifest, err := o.App.Manifest(w)
	if err != nil {
		return a, err
	}
	a = api.CarrierApp{ClientID: clientID, Name: w.Name, SignInAudience: w.Audience,
		RedirectUris: append([]string{}, w.Redirects...), GroupMembershipClaims: w.Claims,
		PublisherDomain: w.PublisherDomain}
	for _, p := range w.Permissions {
		x := api.AppPermission{Name: p.Name, Kind: api.AppPermissionKind(p.Kind), ID: p.ID, Resource: p.Resource,
			Why: p.Why}
		for _, s := range p.Steps {
			x.Steps = append(x.Steps, string(s))
		}
		a.Permissions = append(a.Permissions, x)
	}
	if c := w.Certificate; c != nil {
		digest, expires := sha256.Sum256(c.Raw), c.NotAfter.UTC()
		a.Certificate, a.CertificateExpires = hex.EncodeToString(digest[:]), &expires
	}
	return a, json.Unmarshal(manifest, &a.Manifest)
}

// CheckCarrierApp implements the operation checkCarrierApp.
func (o Operations) CheckCarrierApp(ctx context.Context, _ api.CheckCarrierAppRequestObject) (
	api.CheckCarrierAppResponseObject, error) {
	id, differences, err := o.App.Check(ctx)
	if err != nil {
		return nil, err
	}
	answer := api.CheckCarrierApp200JSONResponse{ClientID: id, Differences: make([]api.AppDifference, len(differences))}
	for i, d := range differences {
		answer.Differences[i] = api.AppDifference{Field: d.Field, Expected: d.Expected, Found: d.Found}
	}
	return answer, nil
}
