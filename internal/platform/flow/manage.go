package flow

import (
	"cmp"
	"context"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// Operations implements the management API's operations on work (api/manage/v1.yaml).
type Operations struct {
	Queue  *Queue
	Sealer web.Sealer // of cursors
}

// ListWork implements the operation listWork.
func (o Operations) ListWork(ctx context.Context, r api.ListWorkRequestObject) (api.ListWorkResponseObject, error) {
	kind, state := *cmp.Or(r.Params.Kind, new("")), *cmp.Or(r.Params.State, new(api.WorkState("")))
	l, next, err := web.Page(o.Sealer, "page work", r.Params.Limit, r.Params.Cursor,
		func(after Key, limit int) ([]Item, error) {
			return o.Queue.List(ctx, kind, string(state), after, limit)
		},
		func(i Item) Key { return i.Key })
	if err != nil {
		return nil, err
	}
	page := api.ListWork200JSONResponse{Next: next, Work: make([]api.Work, len(l))}
	for i, x := range l {
		page.Work[i] = api.Work{Kind: x.Kind, ID: x.ID, State: api.WorkState(x.State), Attempts: x.Attempts, Due: x.Due,
			Since: x.Since, Reason: x.Reason}
	}
	return page, nil
}

// RunWork implements the operation runWork.
func (o Operations) RunWork(ctx context.Context, r api.RunWorkRequestObject) (api.RunWorkResponseObject, error) {
	return api.RunWork204Response{}, o.Queue.ByHand(ctx, string(r.Action), Key{r.Kind, r.ID})
}
