package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Credentials is a TokenSource that gets tokens from an OAuth 2.0 token endpoint with the client-credentials grant (RFC
// 6749 §4.4): Tandem's embedded issuer, Microsoft Entra or another. It keeps a token until shortly before it expires.
// It is safe for concurrent use.
type Credentials struct {
	TokenURL     string // e.g. "https://api.example.com/oauth2/v2.0/token"
	ClientID     string
	ClientSecret string
	Scope        string       // the API's audience with "/.default" appended
	HTTPClient   *http.Client // nil uses a client with a timeout of 30 s
	Insecure     bool         // allow plain HTTP to another machine: the secret can be read on the network

	mu      sync.Mutex
	token   string    // guarded by mu
	expires time.Time // guarded by mu
}

// Token returns a token that is valid for at least a minute, or half of its lifetime if that is shorter.
func (c *Credentials) Token(ctx context.Context, refused string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.token != refused && time.Now().Before(c.expires) {
		return c.token, nil
	}
	if u, err := url.Parse(c.TokenURL); err == nil && !c.Insecure && readable(u) {
		return "", fmt.Errorf("token endpoint %q: the client's secret would be sent unencrypted; use https://, or "+
			"allow it with Credentials.Insecure", u.Redacted())
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ClientID},
		"client_secret": {c.ClientSecret}}
	if c.Scope != "" {
		form.Set("scope", c.Scope)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h := cmp.Or(c.HTTPClient, &http.Client{Timeout: 30 * time.Second})
	resp, err := h.Do(req)
	if err != nil {
		h.CloseIdleConnections() // so that the name is looked up again
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // already read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	err = json.Unmarshal(text, &answer)
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests { // the Client repeats it
		h.CloseIdleConnections()
		return "", fmt.Errorf("the token endpoint answered %d %w", resp.StatusCode, &Error{Status: resp.StatusCode,
			Code: cmp.Or(answer.Error, http.StatusText(resp.StatusCode)), Message: answer.Description,
			RetryAfter: retryAfter(resp.Header.Get("Retry-After"))})
	}
	if err != nil {
		return "", fmt.Errorf("the token endpoint answered %d with a body that is not JSON", resp.StatusCode)
	}
	if answer.Error != "" {
		return "", fmt.Errorf("the token endpoint answered %d %s: %s", resp.StatusCode, answer.Error,
			answer.Description)
	}
	if resp.StatusCode != http.StatusOK || answer.AccessToken == "" {
		return "", errors.New("the token endpoint returned no token")
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	c.token, c.expires = answer.AccessToken, time.Now().Add(life-min(time.Minute, life/2))
	return c.token, nil
}
