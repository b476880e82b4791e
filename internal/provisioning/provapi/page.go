package provapi

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// continuation is the query parameter of a nextLink. It carries a sealed cursor: callers follow the link unchanged.
const continuation = "continuation"

// Page sizes. The newest contract document gives no numbers; these are from the version before it.
const (
	defaultPage = 200
	maxPage     = directory.MaxPage
)

// cursor is the position of a listing and all its parameters. It is sealed for the listing's path, so that a cursor
// that was changed or belongs to another listing does not open.
type cursor struct {
	After  string `json:"a"`           // key of the last item returned
	Size   int    `json:"s"`           // items per page
	Left   int    `json:"l,omitempty"` // items left of top; 0 means no top was given
	Filter string `json:"f,omitempty"`
	Count  bool   `json:"c,omitempty"`
}

func cursorPurpose(c *call) string {
	return "page " + c.op.path + " " + strconv.Quote(c.vars.account)
}

// listing returns the query and the cursor, from the list parameters or from a continuation.
func (a *API) listing(c *call, table *filter.Table) (directory.Query, cursor, error) {
	cur, err := a.readCursor(c)
	if err != nil {
		return directory.Query{}, cur, err
	}
	q := directory.Query{After: cur.After, Count: cur.Count}
	if _, more := c.query[continuation]; !more {
		var top, size int
		var errs [4]error
		top, errs[0] = c.integer("top", 0, -1)
		q.Skip, errs[1] = c.integer("skip", 0, 0)
		size, errs[2] = c.integer("maxpagesize", 1, defaultPage)
		q.Count, errs[3] = c.boolean("countRecords")
		if err := cmp.Or(errs[:]...); err != nil {
			return q, cur, err
		}
		cur = cursor{Size: min(size, maxPage), Filter: c.query["filter"], Count: q.Count}
		switch {
		case top > 0:
			cur.Left = top
		case top == 0:
			cur.Size = 0
		}
	}
	if _, given := c.query["filter"]; given || cur.Filter != "" { // Parse refuses an empty one
		if q.Filter, err = filter.Parse(table, cur.Filter); err != nil {
			return q, cur, err
		}
	}
	q.Limit = cur.Size
	if cur.Left > 0 {
		q.Limit = min(q.Limit, cur.Left)
	}
	return q, cur, nil
}

func (a *API) readCursor(c *call) (cur cursor, err error) {
	text, given := c.query[continuation]
	if !given {
		return cur, nil
	}
	bad := invalid(web.CodeInvalidContinuation, continuation,
		"the link does not continue this listing; follow nextLink exactly as given, or start again")
	if len(c.query) > 1 {
		return cur, invalid(web.CodeInvalidContinuation, continuation,
			"nextLink already holds all parameters of the listing; follow it without adding any")
	}
	if err := web.OpenCursor(a.deps.Sealer, cursorPurpose(c), text, &cur); err != nil || cur.Size < 1 ||
		cur.Size > maxPage || cur.Left < 0 || cur.After == "" {
		return cur, bad.Because(err)
	}
	return cur, nil
}

// list answers a listing.
func list[T any](a *API, c *call, table *filter.Table,
	fetch func(context.Context, directory.Query) (directory.Page[T], error), render func(*T) any) (*response, error) {
	q, cur, err := a.listing(c, table)
	if err != nil {
		return nil, err
	}
	none := q.Limit == 0 // top=0: no items, only the count if asked for
	if none {
		q.Limit = 1
	}
	page, err := fetch(c.r.Context(), q)
	if err != nil {
		return nil, err
	}
	if none {
		page.Items, page.Next = nil, ""
	}
	out := struct {
		Value    []any  `json:"value"`
		NextLink string `json:"nextLink,omitempty"`
	}{Value: make([]any, 0, len(page.Items))}
	for i := range page.Items {
		out.Value = append(out.Value, render(&page.Items[i]))
	}
	topReached := cur.Left > 0 && cur.Left <= len(page.Items)
	if page.Next != "" && !topReached {
		cur.After = page.Next
		if cur.Left > 0 {
			cur.Left -= len(page.Items)
		}
		if out.NextLink, err = a.nextLink(c, cur); err != nil {
			return nil, err
		}
	}
	r := jsonResponse(http.StatusOK, out)
	if q.Count {
		r.header.Set("x-ms-record-count", strconv.FormatInt(page.Total, 10))
	}
	return r, nil
}

func (a *API) nextLink(c *call, cur cursor) (string, error) {
	sealed, err := web.SealCursor(a.deps.Sealer, cursorPurpose(c), cur)
	return a.base(c.r) + c.r.URL.EscapedPath() + "?api-version=" + url.QueryEscape(Version) + "&" + continuation + "=" +
		sealed, err
}
