package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Call is one request whose answer is a T. Make it with the function of its operation; it is for one goroutine.
type Call[T any] struct {
	sent  wire.Request
	Value T // the answer; the zero value if there is an error
}

// None is the answer of calls that have none.
type None struct{}

func newCall[T any](method, path string, body any) *Call[T] {
	c := &Call[T]{sent: newRequest(method, path, body)}
	c.sent.Read = func(_ http.Header, answer []byte) error {
		if _, none := any(c.Value).(None); none {
			return nil
		}
		return json.Unmarshal(answer, &c.Value)
	}
	return c
}

func (c *Call[T]) request() *wire.Request { return &c.sent }

// Err returns why a call of a batch has no Value.
func (c *Call[T]) Err() error { return c.sent.Err }

// Do sends the call alone.
func (c *Call[T]) Do(ctx context.Context, client *Client) (T, error) {
	client.api.Run(ctx, []*wire.Request{&c.sent}, client.api.Alone)
	return c.Value, c.sent.Err
}

// List is a collection that is read in pages.
type List[T any] struct{ first wire.Request }

// Page is a part of a List.
type Page[T any] struct {
	Items []T
	Next  string // link to the next page; empty on the last one
	Delta string // on the last page of changes: link to later changes
}

func newList[T any](path string, q Query) List[T] {
	return List[T]{newRequest(http.MethodGet, path+q.encode(), nil)}
}

// Pages reads the pages, from the link of an earlier Page or, if from is empty, from the first. Links are followed
// verbatim, but to Graph's host only. It ends after the first error: CodePageExpired and CodeDeltaReset say that the
// caller must begin with the first page.
func (l List[T]) Pages(ctx context.Context, client *Client, from string) iter.Seq2[Page[T], error] {
	return func(yield func(Page[T], error) bool) {
		for link := from; ; {
			page, err := l.page(ctx, client, link)
			if !yield(page, err) || err != nil || page.Next == "" {
				return
			}
			if page.Next == link {
				yield(Page[T]{}, fault.New(fault.Unavailable, CodeUnreadable, "a page of %s links to itself",
					l.first.Path))
				return
			}
			link = page.Next
		}
	}
}

func (l List[T]) page(ctx context.Context, client *Client, link string) (Page[T], error) {
	r := l.first
	r.Header = maps.Clone(r.Header)
	if link != "" {
		base := client.api.Base
		u, err := url.Parse(link)
		if err != nil || u.Scheme != base.Scheme || u.Host != base.Host {
			return Page[T]{}, fault.New(fault.Unavailable, CodeForeignLink, "Microsoft Graph links to another host "+
				"than %s; the link is not followed", base.Host)
		}
		r.Path = link
	}
	var answer struct {
		Value []T    `json:"value"`
		Next  string `json:"@odata.nextLink"`
		Delta string `json:"@odata.deltaLink"`
	}
	r.Read = func(_ http.Header, body []byte) error { return json.Unmarshal(body, &answer) }

	client.api.Run(ctx, []*wire.Request{&r}, client.api.Alone)
	if r.Err != nil {
		return Page[T]{}, broken(r.Err)
	}
	return Page[T]{answer.Value, answer.Next, answer.Delta}, nil
}

// maxItems bounds All.
const maxItems = 10_000

// All reads a collection that is small by nature: at most 10,000 items.
func (l List[T]) All(ctx context.Context, client *Client) ([]T, error) {
	var all []T
	for page, err := range l.Pages(ctx, client, "") {
		if err != nil {
			return nil, err
		}
		if all = append(all, page.Items...); len(all) > maxItems {
			return nil, fault.New(fault.TooLarge, "ListTooLong", "%s has more than %d items", l.first.Path, maxItems)
		}
	}
	return all, nil
}

// Query says which objects of a collection are wanted, and which of their properties (OData).
type Query struct {
	Select []string
	Filter string // see Quote
	Top    int    // page size; 0: Graph's choice
}

func (q Query) encode() string {
	v := url.Values{}
	if len(q.Select) > 0 {
		v.Set("$select", strings.Join(q.Select, ","))
	}
	if q.Filter != "" {
		v.Set("$filter", q.Filter)
	}
	if q.Top > 0 {
		v.Set("$top", strconv.Itoa(q.Top))
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + strings.NewReplacer("+", "%20", "%24", "$", "%2C", ",").Replace(v.Encode())
}

// path builds a path whose arguments are escaped.
func path(format string, args ...string) string {
	escaped := make([]any, len(args))
	for i, a := range args {
		escaped[i] = url.PathEscape(a)
	}
	return fmt.Sprintf(format, escaped...)
}

// Quote returns s as a string literal of OData.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
