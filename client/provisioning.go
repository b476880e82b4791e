package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// MaxBatch is the maximum size of a CreateOrUpdateNumbers or DeleteNumbers, in numbers.
const MaxBatch = 100

// List selects a part of a list. The zero value is all of it.
type List struct {
	Filter      string // the contract's filter, e.g. "startswith(telephoneNumber,'+4420')"
	Top         int    // maximum number of items; 0 is no limit
	Skip        int    // number of items to skip first
	MaxPageSize int    // maximum number of items in a page; 0 is the server's choice
}

func (l List) query() url.Values {
	q := version()
	if l.Filter != "" {
		q.Set("filter", l.Filter)
	}
	for name, n := range map[string]int{"top": l.Top, "skip": l.Skip, "maxpagesize": l.MaxPageSize} {
		if n > 0 {
			q.Set(name, strconv.Itoa(n))
		}
	}
	return q
}

// Condition makes a request depend on the present state. Nil members add no condition. Every value that is set counts,
// also an empty ETag, which the server refuses, and year 1.
type Condition struct {
	IfMatch           *string // an ETag: only if it is unchanged; "*": only if it exists
	IfNoneMatch       *string // "*": only if it does not exist
	IfModifiedSince   *time.Time
	IfUnmodifiedSince *time.Time
}

func (d Condition) set(h http.Header) {
	for name, tag := range map[string]*string{"If-Match": d.IfMatch, "If-None-Match": d.IfNoneMatch} {
		if tag != nil {
			h.Set(name, *tag)
		}
	}
	for name, t := range map[string]*time.Time{"If-Modified-Since": d.IfModifiedSince,
		"If-Unmodified-Since": d.IfUnmodifiedSince} {
		if t != nil {
			h.Set(name, t.UTC().Format(http.TimeFormat))
		}
	}
}

// version returns the query that every operation needs.
func version() url.Values { return url.Values{"api-version": {APIVersion}} }

// get reads one resource.
func get[T any](ctx context.Context, c *Client, path string, tag func(*T) *string) (*T, error) {
	return resource(ctx, c, request{method: http.MethodGet, path: path}, tag)
}

// resource sends a request that is answered with one resource. tag returns where to store its ETag.
func resource[T any](ctx context.Context, c *Client, r request, tag func(*T) *string) (*T, error) {
	r.query = version()
	var out T
	res, err := c.do(ctx, r, &out)
	if err != nil {
		return nil, err
	}
	*tag(&out) = res.header.Get("ETag")
	return &out, nil
}

// repeatable returns headers with which the server executes a write once, however often it is sent (OASIS Repeatable
// Requests 1.0).
func repeatable(d Condition) http.Header {
	h := http.Header{}
	h.Set("Repeatability-Request-ID", uuid.NewString())
	h.Set("Repeatability-First-Sent", time.Now().UTC().Format(http.TimeFormat))
	d.set(h)
	return h
}

func accountTag(a *Account) *string               { return &a.ETag }
func numberTag(n *Number) *string                 { return &n.ETag }
func requestTag(r *RequestForInformation) *string { return &r.ETag }

func accountPath(name string) string { return "/accounts/" + url.PathEscape(name) }

func numberPath(account, number string) string {
	return accountPath(account) + "/numbers/" + url.PathEscape(number)
}

// Accounts iterates over the accounts in the order of their names. It ends after the first error.
func (c *Client) Accounts(ctx context.Context, l List) iter.Seq2[*Account, error] {
	return pages[Account](ctx, c, "/accounts", l)
}

// Account returns one account.
func (c *Client) Account(ctx context.Context, name string) (*Account, error) {
	return get(ctx, c, accountPath(name), accountTag)
}

// PutAccount creates the account or replaces it entirely, and returns it as stored.
func (c *Client) PutAccount(ctx context.Context, a *Account, d Condition) (*Account, error) {
	return resource(ctx, c, request{method: http.MethodPut, path: accountPath(a.Name), header: repeatable(d),
		body: a}, accountTag)
}

// DeleteAccount deletes an account. With deleteNumbers its numbers are deleted too; without, an account that has
// numbers is refused.
func (c *Client) DeleteAccount(ctx context.Context, name string, deleteNumbers bool, d Condition) error {
	q := version()
	if deleteNumbers {
		q.Set("deleteNumbers", "true")
	}
	_, err := c.do(ctx, request{method: http.MethodDelete, path: accountPath(name), query: q, header: repeatable(d)},
		nil)
	return err
}

// Numbers iterates over an account's numbers, or over those of all accounts when account is empty, in the order of the
// numbers. It ends after the first error.
func (c *Client) Numbers(ctx context.Context, account string, l List) iter.Seq2[*Number, error] {
	if account == "" {
		return pages[Number](ctx, c, "/numbers", l)
	}
	return pages[Number](ctx, c, accountPath(account)+"/numbers", l)
}

// Number returns one number of an account.
func (c *Client) Number(ctx context.Context, account, number string) (*Number, error) {
	return get(ctx, c, numberPath(account, number), numberTag)
}

// PutNumber creates the number on its account or replaces it entirely, and returns it as stored.
func (c *Client) PutNumber(ctx context.Context, n *Number, d Condition) (*Number, error) {
	return resource(ctx, c, request{method: http.MethodPut, path: numberPath(n.AccountName, n.TelephoneNumber),
		header: repeatable(d), body: n}, numberTag)
}

// DeleteNumber deletes a number of an account.
func (c *Client) DeleteNumber(ctx context.Context, account, number string, d Condition) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: numberPath(account, number), query: version(),
		header: repeatable(d)}, nil)
	return err
}

// act carries out an action of an account.
func (c *Client) act(ctx context.Context, account, action string, body, out any) error {
	_, err := c.do(ctx, request{method: http.MethodPost, path: accountPath(account) + ":" + action, query: version(),
		header: repeatable(Condition{}), body: body}, out)
	return err
}

// CreateOrUpdateNumbers creates or replaces up to MaxBatch numbers of an account: all of them or, on an error, none.
// The error's Details name what is wrong with each number.
func (c *Client) CreateOrUpdateNumbers(ctx context.Context, account string, numbers []Number) error {
	return c.act(ctx, account, "createOrUpdateNumbers", map[string]any{"numbers": numbers}, nil)
}

// identify returns the body that names numbers.
func identify(numbers []string) any {
	list := make([]map[string]string, len(numbers))
	for i, n := range numbers {
		list[i] = map[string]string{"telephoneNumber": n}
	}
	return map[string]any{"numbers": list}
}

// DeleteNumbers deletes up to MaxBatch numbers of an account; numbers that do not exist are ignored.
func (c *Client) DeleteNumbers(ctx context.Context, account string, numbers []string) error {
	return c.act(ctx, account, "deleteNumbers", identify(numbers), nil)
}

// CapabilityPlans returns the account's Operator Connect capability plans.
func (c *Client) CapabilityPlans(ctx context.Context, account string) ([]CapabilityPlan, error) {
	var out struct {
		CapabilityPlans []CapabilityPlan `json:"capabilityPlans"`
	}
	err := c.act(ctx, account, "getTeamsCapabilityPlans", nil, &out)
	return out.CapabilityPlans, err
}

// AvailableCapabilities returns the capabilities that are available to all of the numbers.
func (c *Client) AvailableCapabilities(ctx context.Context, account string, numbers []string) ([]string, error) {
	var out struct {
		AvailableCapabilities []string `json:"availableCapabilities"`
	}
	err := c.act(ctx, account, "getTeamsAvailableCapabilities", identify(numbers), &out)
	return out.AvailableCapabilities, err
}

// CivicAddresses iterates over the emergency addresses of an account's Teams tenant.
func (c *Client) CivicAddresses(ctx context.Context, account string, l List) iter.Seq2[*CivicAddress, error] {
	return pages[CivicAddress](ctx, c, accountPath(account)+"/teamsCivicAddresses", l)
}

// CivicAddress returns one emergency address.
func (c *Client) CivicAddress(ctx context.Context, account, id string) (*CivicAddress, error) {
	return get(ctx, c, accountPath(account)+"/teamsCivicAddresses/"+url.PathEscape(id),
		func(*CivicAddress) *string { return new(string) })
}

// Requests iterates over the requests for information.
func (c *Client) Requests(ctx context.Context, l List) iter.Seq2[*RequestForInformation, error] {
	return pages[RequestForInformation](ctx, c, "/teamsRequestsForInformation", l)
}

// Request returns the request for information of a Teams tenant.
func (c *Client) Request(ctx context.Context, tenantID string) (*RequestForInformation, error) {
	return get(ctx, c, "/teamsRequestsForInformation/"+url.PathEscape(tenantID), requestTag)
}

// UpdateRequest changes the operator's side of a request for information and returns the request.
func (c *Client) UpdateRequest(ctx context.Context, tenantID string, rel CustomerRelationship,
	d Condition) (*RequestForInformation, error) {
	rel.LastModifiedOn = nil
	body := map[string]any{"customerRelationship": rel}
	return resource(ctx, c, request{method: http.MethodPatch,
		path: "/teamsRequestsForInformation/" + url.PathEscape(tenantID), header: repeatable(d), body: body,
		contentType: "application/merge-patch+json"}, requestTag)
}

// pages iterates over a list and fetches the next page when the current one is exhausted.
func pages[T any](ctx context.Context, c *Client, path string, l List) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		q := l.query()
		for {
			var page struct {
				Value    []json.RawMessage `json:"value"`
				NextLink string            `json:"nextLink"`
			}
			if _, err := c.do(ctx, request{method: http.MethodGet, path: path, query: q}, &page); err != nil {
				yield(nil, err)
				return
			}
			for _, raw := range page.Value {
				v := new(T)
				if err := json.Unmarshal(raw, v); err != nil {
					yield(nil, fmt.Errorf("%s: an item does not match the contract: %w", path, err))
					return
				}
				if !yield(v, nil) {
					return
				}
			}
			if page.NextLink == "" {
				return
			}
			next, err := url.Parse(page.NextLink)
			if err != nil {
				yield(nil, fmt.Errorf("%s: nextLink: %w", path, err))
				return
			}
			// Only the query is used: our token goes to our server, whatever host a link names.
			if next.RawQuery == "" || next.Query().Encode() == q.Encode() {
				yield(nil, fmt.Errorf("%s: nextLink leads back to the same page", path))
				return
			}
			q = next.Query()
		}
	}
}
