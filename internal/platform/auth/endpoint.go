package auth

import (
	"cmp"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
)

const (
	maxFormBytes = 16 << 10
	maxFailures  = 10 // failed sign-ins of one address in a minute
)

// issuerPath matches the issuer's own paths, optionally below a tenant as clients written for Entra send them.
var issuerPath = regexp.MustCompile(`^(?:/[A-Za-z0-9._-]{1,64})?` +
	`(/oauth2/v2\.0/token` +
	`|/v2\.0/\.well-known/openid-configuration` +
	`|/\.well-known/openid-configuration` +
	`|/discovery/v2\.0/keys)$`)

// Serves reports whether path is one of the embedded issuer's.
func (i *Issuer) Serves(path string) bool { return issuerPath.MatchString(path) }

// ServeFor answers the issuer's paths: /oauth2/v2.0/token, /.well-known/openid-configuration (also below /v2.0) and
// /discovery/v2.0/keys, each also below one more path segment. source is the real source address of the request, for
// throttling; base is the absolute URL of the issuer's paths as seen by clients, for the discovery document.
func (i *Issuer) ServeFor(w http.ResponseWriter, r *http.Request, source netip.Addr, base string) {
	m := issuerPath.FindStringSubmatch(r.URL.Path)
	if m == nil {
		http.NotFound(w, r)
		return
	}
	if m[1] == "/oauth2/v2.0/token" {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			i.refuse(w, tokenError{http.StatusMethodNotAllowed, "invalid_request", "use POST to request a token"})
			return
		}
		if bad := i.token(w, r, source); bad != nil {
			i.refuse(w, *bad)
		}
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET to read this document", http.StatusMethodNotAllowed)
		return
	}
	if m[1] == "/discovery/v2.0/keys" {
		stored, err := i.store.SigningKeys(r.Context())
		var doc []byte
		if err == nil {
			doc, err = keySetDocument(stored)
		}
		if err != nil {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "the keys are not available now; try again later", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "public, max-age=60") // less than keyPublish, so that new keys are not missed
		_, _ = w.Write(doc)                                   // fails if the caller disconnected
		return
	}
	i.discovery(w, base)
}

// discovery answers with the provider metadata (OpenID Connect Discovery 1.0 §3) that applies to the one grant.
func (i *Issuer) discovery(w http.ResponseWriter, base string) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                i.cfg.Issuer,
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"grant_types_supported":                 []string{"client_credentials"},
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"public"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"id_token_signing_alg_values_supported": []string{i.cfg.Algorithm},
		"scopes_supported":                      []string{i.scope()},
	})
}

func (i *Issuer) scope() string { return i.cfg.Audience + "/.default" }

// tokenError is an error response (RFC 6749 §5.2).
type tokenError struct {
	status            int
	code, description string
}

func (i *Issuer) refuse(w http.ResponseWriter, e tokenError) {
	i.issued.WithLabelValues(e.code).Inc()
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="tandem", charset="UTF-8"`)
	}
	writeJSON(w, e.status, map[string]string{"error": e.code, "error_description": e.description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store") // RFC 6749 §5.1
	w.Header().Set("Pragma", "no-cache")
	web.WriteJSON(w, status, "", v)
}

// token answers the client-credentials grant (RFC 6749 §4.4), or returns why it refuses.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request, source netip.Addr) *tokenError {
	if wait := i.guard.blocked(source); wait > 0 {
		web.RetryAfter(w.Header(), wait)
		return &tokenError{http.StatusTooManyRequests, "temporarily_unavailable",
			"too many failed sign-ins from this address; wait for the time in Retry-After"}
	}
	form, id, secretText, bad := readForm(w, r)
	if bad != nil {
		return bad
	}
	switch form.Get("grant_type") {
	case "client_credentials":
	case "":
		return &tokenError{http.StatusBadRequest, "invalid_request",
			"grant_type is missing; use client_credentials"}
	default:
		return &tokenError{http.StatusBadRequest, "unsupported_grant_type",
			"the only supported grant is client_credentials"}
	}
	client, err := i.clients.authenticate(r.Context(), id, secretText)
	if err != nil {
		return i.unavailable(w, r, err)
	}
	if client == nil {
		i.guard.failed(source)
		from := "unknown" // a Unix socket, or an unreadable X-Forwarded-For
		if source.IsValid() {
			from = source.String()
		}
		i.log.InfoContext(r.Context(), "client sign-in refused", "client", quote(id), "source", from)
		return &tokenError{http.StatusUnauthorized, "invalid_client",
			"the client does not exist, is revoked, or its secret is wrong"}
	}
	if !i.scopeFits(form) {
		return &tokenError{http.StatusBadRequest, "invalid_scope",
			"the only supported scope is " + i.scope() + "; it includes all roles of the client"}
	}
	token, expires, err := i.issue(r.Context(), client.ID, client.Roles)
	if err != nil {
		return i.unavailable(w, r, err)
	}
	i.issued.WithLabelValues("issued").Inc()
	writeJSON(w, http.StatusOK, map[string]any{
		"token_type":   "Bearer",
		"expires_in":   int(time.Until(expires).Seconds()),
		"access_token": token.Reveal(),
	})
	return nil
}

func (i *Issuer) unavailable(w http.ResponseWriter, r *http.Request, err error) *tokenError {
	f := fault.As(err)
	i.log.WarnContext(r.Context(), "cannot issue a token", "error", err)
	if f.Kind != fault.Unavailable {
		return &tokenError{http.StatusInternalServerError, "server_error",
			"the token cannot be issued because of an internal error"}
	}
	web.RetryAfter(w.Header(), cmp.Or(f.RetryAfter, 5*time.Second))
	return &tokenError{http.StatusServiceUnavailable, "temporarily_unavailable",
		"the token cannot be issued now; try again later"}
}

// readForm reads the request's parameters and the client's credentials (RFC 6749 §2.3.1, §3.2: no parameter twice, one
// authentication method only).
func readForm(w http.ResponseWriter, r *http.Request) (form url.Values, id, secretText string, bad *tokenError) {
	fail := func(format string, args ...any) *tokenError {
		return &tokenError{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		t != "application/x-www-form-urlencoded" {
		return nil, "", "", fail("send the parameters as application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if err := r.ParseForm(); err != nil {
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			return nil, "", "", &tokenError{http.StatusRequestEntityTooLarge, "invalid_request",
				fmt.Sprintf("the request is larger than %d bytes", maxFormBytes)}
		}
		return nil, "", "", fail("the body is not a form")
	}
	form = r.PostForm
	for name, values := range form {
		if len(values) > 1 {
			return nil, "", "", fail("the parameter %s appears more than once", quote(name))
		}
	}
	id, secretText = form.Get("client_id"), form.Get("client_secret")
	basicID, basicSecret, basic := r.BasicAuth()
	switch {
	case basic && form.Has("client_secret"):
		return nil, "", "", fail("the client's secret is in the Authorization header and in the body; send it once")
	case basic:
		var err1, err2 error
		if basicID, err1 = url.QueryUnescape(basicID); err1 == nil {
			basicSecret, err2 = url.QueryUnescape(basicSecret)
		}
		if err1 != nil || err2 != nil {
			return nil, "", "", fail("the client's id and secret in the Authorization header are not form-encoded")
		}
		if id != "" && id != basicID {
			return nil, "", "", fail("client_id in the body differs from the one in the Authorization header")
		}
		id, secretText = basicID, basicSecret
	case r.Header.Get("Authorization") != "":
		return nil, "", "", &tokenError{http.StatusUnauthorized, "invalid_client",
			"use Basic authentication, or client_id and client_secret in the body"}
	case form.Has("client_assertion"):
		return nil, "", "", &tokenError{http.StatusUnauthorized, "invalid_client",
			"client assertions are not supported; use the client's secret"}
	}
	if id == "" || secretText == "" {
		return nil, "", "", &tokenError{http.StatusUnauthorized, "invalid_client",
			"client_id or client_secret is missing"}
	}
	return form, id, secretText, nil
}

// scopeFits reports whether the request is for the issuer's scope: no scope, "<audience>/.default" with or without
// "api://", or resource=<audience> as for Entra's v1 endpoint.
func (i *Issuer) scopeFits(form url.Values) bool {
	bare := func(s string) string { return strings.TrimPrefix(s, "api://") }
	for s := range strings.FieldsSeq(form.Get("scope")) {
		if bare(s) != bare(i.scope()) {
			return false
		}
	}
	return form.Get("resource") == "" || bare(form.Get("resource")) == bare(i.cfg.Audience)
}
