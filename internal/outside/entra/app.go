package entra

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Login is the authority of the global cloud. National clouds have their own; there it is the host of the issuer.
const Login = "https://login.microsoftonline.com"

// TeamsAdmin is the resource of the Teams admin service ("Skype and Teams Tenant Admin API"), the same in every cloud.
const TeamsAdmin = "48ac35b8-9aa8-4d74-927d-1f4a14a0b239"

// Organizations stands for a tenant that is not known yet: any work or school account.
const Organizations = "organizations"

const (
	timeout   = 30 * time.Second // for one request
	maxAnswer = 1 << 20          // bytes
)

// Config says which app registration is used, and where.
type Config struct {
	Authority string // default Login
	ClientID  string // a GUID: the application id

	// Certificate and Key are the preferred credential. Secret is used if there is no Key.
	Certificate *x509.Certificate
	Key         *rsa.PrivateKey
	Secret      secret.Text

	Transport http.RoundTripper // carries the trust roots; nil: http.DefaultTransport
}

// App is the app registration. It is safe for concurrent use.
type App struct {
	cfg       Config
	authority *url.URL
	client    *http.Client
}

// New checks cfg.
func New(cfg Config) (*App, error) {
	authority, err := wire.Base(cmp.Or(cfg.Authority, Login))
	if err != nil {
		return nil, err
	}
	if !domain.IsGUID(cfg.ClientID) {
		return nil, fault.New(fault.Invalid, "InvalidClientID", "%q is not an application id (a GUID)", cfg.ClientID)
	}
	if (cfg.Key == nil) != (cfg.Certificate == nil) || cfg.Key == nil && cfg.Secret == (secret.Text{}) {
		return nil, fault.New(fault.Invalid, "NoCredential",
			"the app %s needs a certificate with its RSA key, or a client secret", cfg.ClientID)
	}
	return &App{cfg, authority, wire.Client(cfg.Transport, timeout, maxAnswer)}, nil
}

// endpoint returns a URL below the tenant: a GUID, a domain or Organizations.
func (a *App) endpoint(tenant, path string) string {
	return a.authority.JoinPath(tenant, path).String()
}

// reply is a successful answer of the token endpoint.
type reply struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Scope        string `json:"scope"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshIn    int64  `json:"refresh_in"` // seconds; 0 if not stated
}

// token asks the token endpoint once. It adds the app's id and credential to form.
func (a *App) token(ctx context.Context, tenant string, form url.Values) (*reply, error) {
	endpoint := a.endpoint(tenant, "oauth2/v2.0/token")
	if a.cfg.Key == nil {
		form.Set("client_secret", a.cfg.Secret.Reveal())
	} else {
		signed, err := a.assertion(endpoint)
		if err != nil {
			return nil, fault.Wrap(err, "sign the assertion of the app")
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", signed)
	}

	var r reply
	if err := a.post(ctx, endpoint, form, &r); err != nil {
		return nil, err
	}
	if r.AccessToken == "" {
		return nil, unavailable(nil, io.ErrUnexpectedEOF)
	}
	return &r, nil
}

// post sends form with the app's id and reads the answer into v.
func (a *App) post(ctx context.Context, endpoint string, form url.Values, v any) error {
	form.Set("client_id", a.cfg.ClientID)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return fault.Wrap(err, "ask the identity platform")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")

	resp, err := a.client.Do(req)
	if err != nil {
		return unavailable(nil, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or abandoned
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return unavailable(resp, err)
	}

	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, v); err != nil {
			return unavailable(resp, err)
		}
		return nil
	}
	refused, err := readAnswer(body)
	if err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return unavailable(resp, cmp.Or(err, error(refused.fault(false))))
	}
	return refused.fault(strings.HasSuffix(form.Get("grant_type"), "device_code"))
}

// assertion signs the proof that we hold the certificate's key (RFC 7523 §2.2). Its certificate is named by the
// SHA-256 thumbprint; the page "Certificate credentials" asks for PS256 with x5t#S256.
func (a *App) assertion(endpoint string) (string, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"aud": endpoint,
		"iss": a.cfg.ClientID,
		"sub": a.cfg.ClientID,
		"jti": uuid.NewString(),
		"nbf": now.Unix(),
		"exp": now.Add(10 * time.Minute).Unix(),
	})
	thumbprint := sha256.Sum256(a.cfg.Certificate.Raw)
	t.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(thumbprint[:])
	return t.SignedString(a.cfg.Key)
}
