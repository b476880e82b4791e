package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Global is the base URL of the global cloud. National clouds have their own.
const Global = "https://graph.microsoft.com/v1.0"

const (
	maxAnswer = 32 << 20 // bytes; a page of 999 users with their plans has about 10 MiB
	maxBatch  = 20       // parts; Graph's limit
)

// Tokens gives the access tokens of one tenant.
type Tokens = wire.Tokens

// Config says which tenant is used, and where.
type Config struct {
	BaseURL   string // default Global
	Tenant    string // a GUID
	Tokens    Tokens
	Budget    *Budget
	UserAgent string            // "Tandem/1.2.3"
	Transport http.RoundTripper // carries the trust roots; nil: http.DefaultTransport
}

// Client uses Graph on behalf of one tenant. It is safe for concurrent use.
type Client struct {
	api    *wire.API
	budget *Budget
	tenant string
}

// SetUsers says how many users the tenant has, on which its limits depend.
func (c *Client) SetUsers(users int) { c.budget.SetUsers(c.tenant, users) }

// Users returns how many users the tenant has, 0 if that is not known.
func (c *Client) Users() int { return c.budget.users(c.tenant) }

// New checks cfg.
func New(cfg Config) (*Client, error) {
	base, err := wire.Base(cmp.Or(cfg.BaseURL, Global))
	if err != nil {
		return nil, err
	}
	if !domain.IsGUID(cfg.Tenant) {
		return nil, fault.New(fault.Invalid, "InvalidTenant", "%q is not a tenant id (a GUID)", cfg.Tenant)
	}
	api := wire.NewAPI(cfg.Transport, maxAnswer)
	api.Name, api.Prefix, api.SentID, api.GotID = "Microsoft Graph", "Graph", "client-request-id", "request-id"
	api.Base, api.Tokens, api.UserAgent = base, cfg.Tokens, cfg.UserAgent
	api.Ready = func(ctx context.Context, requests []*wire.Request) error {
		return cfg.Budget.wait(ctx, cfg.Tenant, requests)
	}
	api.Learn = func(r *wire.Request, wait time.Duration) { cfg.Budget.learn(cfg.Tenant, r, wait) }
	return &Client{api, cfg.Budget, cfg.Tenant}, nil
}

func newRequest(method, path string, body any) wire.Request {
	r := wire.Request{Method: method, Path: path, Body: body, Units: cost(method, path), Header: map[string]string{}}
	if strings.HasPrefix(path, "/admin/teams/") {
		r.Lane, r.Header["Prefer"] = teamsLane, "include-unknown-enum-members"
	}
	return r
}

// Part is a [Call] as an argument of Batch.
type Part interface{ request() *wire.Request }

// Batch sends up to 20 calls in one request ($batch), which Graph runs in any order. Each call then has its own Value
// and Err; the error returned is for misuse.
func (c *Client) Batch(ctx context.Context, calls ...Part) error {
	if len(calls) > maxBatch {
		return fault.New(fault.TooLarge, "BatchTooLarge", "a batch has at most %d requests, not %d", maxBatch,
			len(calls))
	}
	var parts []*wire.Request
	for _, call := range calls {
		parts = append(parts, call.request())
	}
	c.api.Run(ctx, parts, c.together)
	return nil
}

// together sends parts as one batch. Answers come in any order; ids are digits, so that their case cannot differ.
func (c *Client) together(ctx context.Context, token secret.Text, parts []*wire.Request) {
	type request struct {
		ID      string            `json:"id"`
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers,omitempty"`
		Body    any               `json:"body,omitempty"`
	}
	var batch struct {
		Requests []request `json:"requests"`
	}
	for i, p := range parts {
		r := request{strconv.Itoa(i + 1), p.Method, p.Path, maps.Clone(p.Header), p.Body}
		r.Headers["client-request-id"] = p.ID
		if p.Body != nil {
			r.Headers["Content-Type"] = "application/json"
		}
		batch.Requests = append(batch.Requests, r)
	}

	envelope := newRequest(http.MethodPost, "/$batch", batch)
	envelope.ID = uuid.NewString()
	status, got, answer, err := c.api.Exchange(ctx, token, &envelope)
	var answers struct {
		Responses []struct {
			ID      string            `json:"id"`
			Status  int               `json:"status"`
			Headers map[string]string `json:"headers"`
			Body    json.RawMessage   `json:"body"`
		} `json:"responses"`
	}
	if err == nil && status/100 == 2 {
		if err = json.Unmarshal(answer, &answers); err == nil {
			status, err = 0, errors.New("the batch has no answer to this request")
		}
	}
	for _, p := range parts {
		p.Status, p.Got, p.Answer, p.Err = status, got, answer, err
	}
	for _, r := range answers.Responses {
		at, err := strconv.Atoi(r.ID)
		if err != nil || at < 1 || at > len(parts) || r.Status == 0 {
			continue
		}
		p := parts[at-1]
		p.Status, p.Got, p.Answer, p.Err = r.Status, http.Header{}, r.Body, nil
		for name, value := range r.Headers {
			p.Got.Set(name, value)
		}
	}
}
