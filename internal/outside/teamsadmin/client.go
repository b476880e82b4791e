package teamsadmin

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Public is the base URL of the service in the global cloud. National clouds have their own.
const Public = "https://api.interfaces.records.teams.microsoft.com"

const (
	maxAnswer   = 64 << 20 // bytes; all users come in one answer
	routingKept = time.Hour
)

// Tokens gives the access tokens of one tenant.
type Tokens = wire.Tokens

// Config says which tenant is used, and where.
type Config struct {
	// Enabled must be set: the service is not supported by Microsoft, so that the operator decides to use it.
	Enabled   bool
	BaseURL   string            // default Public
	Tokens    Tokens            // for the resource of the Teams admin service
	UserAgent string            // "Tandem/1.2.3"
	Transport http.RoundTripper // carries the trust roots; nil: http.DefaultTransport
}

// Client implements Admin by the HTTPS service, which is not supported by Microsoft.
type Client struct {
	api *wire.API

	mu      sync.Mutex        // guards what follows
	routing map[string]string // headers that service discovery asks for
	since   time.Time
}

// New checks cfg.
func New(cfg Config) (*Client, error) {
	if !cfg.Enabled {
		return nil, fault.New(fault.Invalid, "TeamsServiceOff", "the HTTPS service behind the MicrosoftTeams module "+
			"is not supported by Microsoft and is off; switch it on, or use the PowerShell worker")
	}
	base, err := wire.Base(cmp.Or(cfg.BaseURL, Public))
	if err != nil {
		return nil, err
	}
	api := wire.NewAPI(cfg.Transport, maxAnswer)
	api.Name, api.Prefix, api.Meaning = "the Teams service", "Teams", Meaning
	api.Hint = "; the service is not supported by Microsoft and may have changed: use the PowerShell worker"
	api.SentID, api.GotID = "X-MS-Correlation-Id", "X-MS-Correlation-Id"
	api.Base, api.Tokens, api.UserAgent = base, cfg.Tokens, cfg.UserAgent
	return &Client{api: api}, nil
}

// call sends a request on the way that service discovery names, and reads its answer into v, unless that is nil. The
// token goes to the configured host only.
func (c *Client) call(ctx context.Context, method, path string, body, v any) error {
	c.mu.Lock()
	routing, since := c.routing, c.since
	c.mu.Unlock()
	if time.Since(since) < routingKept {
		return c.send(ctx, routing, method, path, body, v)
	}

	const discovery = "/Teams.Tenant/serviceDiscovery"
	var found struct {
		Endpoints struct{ AdminServiceEndpoint string }
		Headers   struct {
			Forest string `json:"X-MS-Forest"`
		}
	}
	if err := c.send(ctx, nil, http.MethodGet, discovery, nil, &found); err != nil {
		return err
	}
	target, err := wire.Base("https://" + strings.TrimPrefix(found.Endpoints.AdminServiceEndpoint, "https://"))
	if err != nil || url.PathEscape(found.Headers.Forest) != found.Headers.Forest {
		return c.api.Unreadable(discovery, "no host", err)
	}
	routing = map[string]string{"X-MS-Target-Uri": target.String() + "/", "X-MS-Forest": found.Headers.Forest}
	c.mu.Lock()
	c.routing, c.since = routing, time.Now()
	c.mu.Unlock()
	return c.send(ctx, routing, method, path, body, v)
}

func (c *Client) send(ctx context.Context, routing map[string]string, method, path string, body, v any) error {
	r := wire.Request{Method: method, Path: path, Header: routing, Body: body,
		Read: func(_ http.Header, answer []byte) error {
			if v == nil {
				return nil
			}
			return json.Unmarshal(answer, v)
		}}
	c.api.Run(ctx, []*wire.Request{&r}, c.api.Alone)
	return r.Err
}
