package provapi

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// Operations implements the management API's operations on what the Provisioning API has no field for
// (api/manage/v1.yaml): the labels of accounts and numbers.
type Operations struct {
	Directory *directory.Directory
	Sealer    web.Sealer // of cursors
}

// GetLabels implements the operation getLabels.
func (o Operations) GetLabels(ctx context.Context, r api.GetLabelsRequestObject) (api.GetLabelsResponseObject, error) {
	a, err := o.Directory.Account(ctx, r.Account)
	return api.GetLabels200JSONResponse{LabelsJSONResponse: labels(&a)}, err
}

// PutPendingLabel implements the operation putPendingLabel.
func (o Operations) PutPendingLabel(ctx context.Context,
	r api.PutPendingLabelRequestObject) (api.PutPendingLabelResponseObject, error) {
	l := domain.Label{Subdomain: r.Label, Region1Token: r.Body.Region1Token, Region2Token: r.Body.Region2Token}
	changed, err := change(r.Params.IfMatch, func(w directory.Write) (*directory.Result, error) {
		return o.Directory.PutPendingLabel(ctx, r.Account, l, w)
	})
	return api.PutPendingLabel200JSONResponse{LabelsJSONResponse: changed}, err
}

// RemovePendingLabel implements the operation removePendingLabel.
func (o Operations) RemovePendingLabel(ctx context.Context,
	r api.RemovePendingLabelRequestObject) (api.RemovePendingLabelResponseObject, error) {
	changed, err := change(r.Params.IfMatch, func(w directory.Write) (*directory.Result, error) {
		return o.Directory.RemovePendingLabel(ctx, r.Account, r.Label, w)
	})
	return api.RemovePendingLabel200JSONResponse{LabelsJSONResponse: changed}, err
}

// ActivateLabel implements the operation activateLabel.
func (o Operations) ActivateLabel(ctx context.Context,
	r api.ActivateLabelRequestObject) (api.ActivateLabelResponseObject, error) {
	changed, err := change(r.Params.IfMatch, func(w directory.Write) (*directory.Result, error) {
		return o.Directory.ActivateLabel(ctx, r.Account, r.Label, w)
	})
	return api.ActivateLabel200JSONResponse{LabelsJSONResponse: changed}, err
}

// ListLabelNumbers implements the operation listLabelNumbers.
func (o Operations) ListLabelNumbers(ctx context.Context,
	r api.ListLabelNumbersRequestObject) (api.ListLabelNumbersResponseObject, error) {
	ns, next, err := web.Page(o.Sealer, "page numbers of a label", r.Params.Limit, r.Params.Cursor,
		func(after domain.E164, limit int) ([]domain.E164, error) {
			return o.Directory.LabelNumbers(ctx, r.Account, r.Label, after, limit)
		},
		func(n domain.E164) domain.E164 { return n })
	if err != nil {
		return nil, err
	}
	page := api.ListLabelNumbers200JSONResponse{Next: next, Numbers: make([]string, len(ns))}
	for i, n := range ns {
		page.Numbers[i] = string(n)
	}
	return page, nil
}

// RecordLabel implements the operation recordLabel.
func (o Operations) RecordLabel(ctx context.Context,
	r api.RecordLabelRequestObject) (api.RecordLabelResponseObject, error) {
	ns := make([]domain.E164, len(r.Body.Numbers))
	for i, n := range r.Body.Numbers {
		ns[i] = domain.E164(n)
	}
	return api.RecordLabel204Response{}, o.Directory.RecordLabel(ctx, r.Account, r.Body.Label, ns)
}

// change makes a change of an account's labels, if the account still has one of the entity tags.
func change(ifMatch *string,
	do func(directory.Write) (*directory.Result, error)) (l api.LabelsJSONResponse, err error) {
	var w directory.Write
	if ifMatch != nil {
		if w.Condition.IfMatch.Any, w.Condition.IfMatch.List, err = web.ParseTags(*ifMatch, "If-Match"); err != nil {
			return l, err
		}
	}
	r, err := do(w)
	if err != nil {
		return l, err
	}
	return labels(r.Account), nil
}

func labels(a *domain.Account) api.LabelsJSONResponse {
	l := api.LabelsJSONResponse{Body: api.Labels{Account: a.Name}}
	l.Headers.ETag = directory.ETag(a.Version)
	if x := a.Active(); x.Subdomain != "" {
		l.Body.Active = &api.Label{Label: x.Subdomain, Region1Token: x.Region1Token, Region2Token: x.Region2Token}
	}
	if x := a.Pending; x != nil {
		l.Body.Pending = &api.Label{Label: x.Subdomain, Region1Token: x.Region1Token, Region2Token: x.Region2Token}
	}
	return l
}
