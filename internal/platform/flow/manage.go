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

const workCursor = "page work"

// ListWork implements the operation listWork.
func (o Operations) ListWork(ctx context.Context, r api.ListWorkRequestObject) (api.ListWorkResponseObject, error) {
	limit, after := *cmp.Or(r.Params.Limit, new(200)), Key{}
	if err := web.OpenPage(o.Sealer, workCursor, r.Params.Cursor, &after); err != nil {
		return nil, err
	}
	l, err := o.Queue.List(ctx, *cmp.Or(r.Params.Kind, new("")),
		string(*cmp.Or(r.Params.State, new(api.WorkState("")))), after, limit+1)
	if err != nil {
		return nil, err
	}
	var page api.ListWork200JSONResponse
	if len(l) > limit {
		l = l[:limit]
		if page.Next, err = web.SealCursor(o.Sealer, workCursor, l[limit-1].Key); err != nil {
			return nil, err
		}
	}
	page.Work = make([]api.Work, len(l))
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
