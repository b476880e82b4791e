package auth

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config says whose tokens are accepted.
type Config struct {
	// Issuers lists the OpenID issuers whose tokens are accepted. Default none: only the embedded issuer's tokens are
	// accepted. Each has audiences (the accepted values of the aud claim, with or without "api://"; required) and
	// either entraTenantId (the GUID of one Microsoft Entra tenant, whose v1 and v2 tokens are accepted; in a national
	// cloud also loginUrl and stsUrl) or issuer (the exact value of the iss claim). It may have tenantId (the only
	// accepted value of tid), algorithms (default RS256, PS256, ES256), discoveryUrl and keysUrl (default: found from
	// issuer). Example: [{issuer: "https://id.example.com", audiences: [provisioning]}].
	Issuers []IssuerConfig `yaml:"issuers"`
	// Embedded is the issuer that is part of Tandem, for operators without one of their own.
	Embedded EmbeddedConfig `yaml:"embedded"`
	// ClockSkew is how far an issuer's clock may differ from ours. Duration, at most 5m; default 1m. Tokens are
	// accepted that long before they become valid and after they expire.
	ClockSkew time.Duration `yaml:"clockSkew"`
	// KeyRefresh is how often an issuer's keys are fetched. Duration, at least 1m; default 1h. A key that an issuer
	// withdrew is refused after at most this time.
	KeyRefresh time.Duration `yaml:"keyRefresh"`
	// MaxKeyAge is how long keys are used while their issuer cannot be reached. Duration; default 168h. A longer time
	// survives longer outages; a shorter one limits the use of a withdrawn key by an attacker who can also cut us off
	// from the issuer.
	MaxKeyAge time.Duration `yaml:"maxKeyAge"`
	// TrustRootsFile is a PEM file of certificate authorities trusted for issuers, in addition to the system's. Path;
	// default none.
	TrustRootsFile string `yaml:"trustRootsFile"`
}

// IssuerConfig is one OpenID issuer. Give either entraTenantId or issuer.
type IssuerConfig struct {
	// EntraTenantID accepts the tokens of one Microsoft Entra tenant, in both forms that Entra issues (v1 and v2).
	// GUID; default none. It determines the issuers, their key sets and the required tenant.
	EntraTenantID string `yaml:"entraTenantId"`
	// Issuer is the exact value of the tokens' iss claim. URL; default none. Unless discoveryUrl or keysUrl is given,
	// the discovery document is read from below it.
	Issuer string `yaml:"issuer"`
	// TenantID is the only accepted value of the tid claim. Default none: not checked. entraTenantId implies it.
	TenantID string `yaml:"tenantId"`
	// Audiences lists the accepted values of the aud claim. Each is accepted with and without the prefix "api://". No
	// default: at least one is required, because otherwise tokens made for other applications would be accepted.
	Audiences []string `yaml:"audiences"`
	// Algorithms lists the accepted signature algorithms, of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512.
	// Default RS256, PS256 and ES256.
	Algorithms []string `yaml:"algorithms"`
	// DiscoveryURL is the address of the discovery document, if it is not below the issuer. URL; default derived from
	// issuer.
	DiscoveryURL string `yaml:"discoveryUrl"`
	// KeysURL is the address of the key set. URL; default: taken from the discovery document.
	KeysURL string `yaml:"keysUrl"`
	// LoginURL is the base URL of the Entra cloud, for entraTenantId only. URL; default that of the public cloud.
	// National clouds have others.
	LoginURL string `yaml:"loginUrl"`
	// StsURL is the base URL of the issuer of Entra's v1 tokens. URL; default that of the public cloud.
	StsURL string `yaml:"stsUrl"`
}

// EmbeddedConfig is the embedded issuer.
type EmbeddedConfig struct {
	// Enabled turns the embedded issuer on. Boolean; default true. When off, its token endpoint answers 404 and its
	// tokens are refused.
	Enabled bool `yaml:"enabled"`
	// Issuer is the iss claim of its tokens. URL; default "https://issuer.tandem.invalid", which any deployment may
	// use. Set it to the API's public URL if others must find the discovery document from a token.
	Issuer string `yaml:"issuer"`
	// Audience is the aud claim of its tokens and, with "/.default" appended, the scope that clients request. Default
	// "api://tandem-provisioning".
	Audience string `yaml:"audience"`
	// TokenLifetime is how long its tokens are valid. Duration, 1m to 24h; default 1h. Revoking a client stops its
	// tokens within seconds while the database is available.
	TokenLifetime time.Duration `yaml:"tokenLifetime"`
	// Algorithm is the signature algorithm of new keys: ES256 or RS256. Default ES256.
	Algorithm string `yaml:"algorithm"`
	// KeyLifetime is the age at which a signing key is replaced. Duration, at least 24h; default 2160h (90 days). The
	// old key continues to verify tokens until every token it signed has expired.
	KeyLifetime time.Duration `yaml:"keyLifetime"`
}

// The public cloud of Microsoft Entra, as defaults only.
const (
	defaultLoginURL = "https://login.microsoftonline.com"
	defaultStsURL   = "https://sts.windows.net"
)

// Default returns the configuration used where nothing is configured.
func Default() Config {
	return Config{
		Embedded: EmbeddedConfig{
			Enabled:       true,
			Issuer:        "https://issuer.tandem.invalid",
			Audience:      "api://tandem-provisioning",
			TokenLifetime: time.Hour,
			Algorithm:     "ES256",
			KeyLifetime:   90 * 24 * time.Hour,
		},
		ClockSkew:  time.Minute,
		KeyRefresh: time.Hour,
		MaxKeyAge:  7 * 24 * time.Hour,
	}
}

var (
	allAlgorithms     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}
	defaultAlgorithms = []string{"RS256", "PS256", "ES256"}
)

// Validate returns every problem found.
func (c *Config) Validate() []error {
	var problems fault.Problems
	bad := problems.Add
	between := func(target string, d, least, most time.Duration) {
		if d < least || d > most {
			bad(target, "%v is out of range; give %v to %v", d, least, most)
		}
	}
	between("clockSkew", c.ClockSkew, 0, 5*time.Minute)
	between("keyRefresh", c.KeyRefresh, time.Minute, 24*time.Hour)
	between("maxKeyAge", c.MaxKeyAge, c.KeyRefresh, 10*365*24*time.Hour)
	if e := c.Embedded; e.Enabled {
		between("embedded.tokenLifetime", e.TokenLifetime, time.Minute, 24*time.Hour)
		between("embedded.keyLifetime", e.KeyLifetime, 24*time.Hour, 10*365*24*time.Hour)
		if e.Audience == "" || strings.ContainsAny(e.Audience, " \t\r\n") {
			bad("embedded.audience", "%q is not an audience; give a URI without spaces, e.g. api://tandem-provisioning",
				e.Audience)
		}
		if e.Algorithm != "ES256" && e.Algorithm != "RS256" {
			bad("embedded.algorithm", "%q is not supported; give ES256 or RS256", e.Algorithm)
		}
		if u, err := url.Parse(e.Issuer); err != nil || u.Scheme == "" || u.Host == "" {
			bad("embedded.issuer", "%q is not an absolute URL; give the API's public URL, "+
				"e.g. https://provapi.example.com", e.Issuer)
		}
	} else if len(c.Issuers) == 0 {
		bad("issuers", "no client could sign in: no issuer is configured and the embedded one is off; "+
			"add an issuer or set embedded.enabled to true")
	}
	seen := map[string]int{}
	if c.Embedded.Enabled {
		seen[c.Embedded.Issuer] = -1
	}
	for i := range c.Issuers {
		s := &c.Issuers[i]
		at := func(field string) string { return fmt.Sprintf("issuers[%d].%s", i, field) }
		switch {
		case s.EntraTenantID == "" && s.Issuer == "":
			bad(at("issuer"), "neither issuer nor entraTenantId is given; give one of them")
		case s.EntraTenantID != "" && (s.Issuer != "" || s.TenantID != "" || s.DiscoveryURL != "" || s.KeysURL != ""):
			bad(at("entraTenantId"), "entraTenantId cannot be combined with issuer, tenantId, discoveryUrl or "+
				"keysUrl, which follow from it; remove one or the other")
		case s.EntraTenantID != "" && !domain.IsGUID(s.EntraTenantID):
			bad(at("entraTenantId"), "%q is not a tenant GUID; \"common\" and \"organizations\" would accept every "+
				"tenant", s.EntraTenantID)
		}
		if len(s.Audiences) == 0 {
			bad(at("audiences"), "no audience; list the application ID or ID URI that tokens for this API carry")
		}
		for j, a := range s.Algorithms {
			if !slices.Contains(allAlgorithms, a) {
				bad(fmt.Sprintf("issuers[%d].algorithms[%d]", i, j), "%q is not supported; give one of %s", a,
					strings.Join(allAlgorithms, ", "))
			}
		}
		for _, u := range []struct{ field, value string }{
			{"discoveryUrl", s.DiscoveryURL}, {"keysUrl", s.KeysURL}, {"loginUrl", s.LoginURL},
		} {
			if err := checkFetchURL(u.value); err != nil && u.value != "" {
				bad(at(u.field), "%v", err)
			}
		}
		if err := checkFetchURL(s.Issuer); err != nil && s.Issuer != "" && s.DiscoveryURL == "" && s.KeysURL == "" {
			bad(at("issuer"), "%v; or give discoveryUrl or keysUrl", err)
		}
		for _, e := range s.expand() {
			if j, ok := seen[e.issuer]; ok && j < 0 {
				bad(at("issuer"), "%s is also the embedded issuer; give that another name in embedded.issuer", e.issuer)
			} else if ok {
				bad(at("issuer"), "%s is also issuers[%d]; list its audiences there", e.issuer, j)
			}
			seen[e.issuer] = i
		}
	}
	return problems
}

// checkFetchURL rejects URLs from which a key set must not be fetched: whoever can change the response can sign in as
// any client.
func checkFetchURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is not an absolute https URL", s)
	}
	if u.Scheme == "http" {
		if a, err := netip.ParseAddr(u.Hostname()); (err != nil || !a.IsLoopback()) && u.Hostname() != "localhost" {
			return fmt.Errorf("%q is plain HTTP to another machine; use https", s)
		}
	}
	return nil
}

// Describe returns what clients need to get tokens that are accepted. base is the URL of the API, or empty.
func (c *Config) Describe(base string) []api.Issuer {
	issuers := []api.Issuer{}
	for _, s := range c.Issuers {
		x := api.Issuer{Name: cmp.Or(s.Issuer, s.EntraTenantID), Scope: s.Audiences[0] + "/.default"}
		if s.EntraTenantID != "" {
			x.TokenURL = strings.TrimSuffix(cmp.Or(s.LoginURL, defaultLoginURL), "/") + "/" + s.EntraTenantID +
				"/oauth2/v2.0/token"
			if domain.IsGUID(s.Audiences[0]) {
				x.Scope = "api://" + x.Scope
			}
		}
		issuers = append(issuers, x)
	}
	if e := c.Embedded; e.Enabled {
		x := api.Issuer{Name: e.Issuer, Scope: e.Audience + "/.default"}
		if base != "" {
			x.TokenURL = base + "/oauth2/v2.0/token"
		}
		issuers = append(issuers, x)
	}
	return issuers
}

// issuerRule is one accepted value of the iss claim.
type issuerRule struct {
	issuer     string
	tenant     string // lower case; empty if not pinned
	audiences  []string
	algorithms []string
	discovery  string // empty if keys is given
	keys       string
}

// expand returns the issuers that s describes.
//
// Entra's v1 tokens have the issuer https://sts.windows.net/{tenant}/, its v2 tokens
// https://login.microsoftonline.com/{tenant}/v2.0 (Microsoft identity platform, access tokens: "iss"). Each has its own
// discovery document below the login host.
func (s *IssuerConfig) expand() []issuerRule {
	base := issuerRule{tenant: strings.ToLower(s.TenantID), algorithms: s.Algorithms}
	if len(base.algorithms) == 0 {
		base.algorithms = defaultAlgorithms
	}
	for _, a := range s.Audiences {
		bare := strings.TrimPrefix(a, "api://")
		base.audiences = append(base.audiences, bare, "api://"+bare)
	}
	if s.EntraTenantID == "" {
		base.issuer, base.keys, base.discovery = s.Issuer, s.KeysURL, s.DiscoveryURL
		if base.discovery == "" && base.keys == "" {
			base.discovery = strings.TrimSuffix(s.Issuer, "/") + "/.well-known/openid-configuration"
		}
		return []issuerRule{base}
	}
	login := strings.TrimSuffix(cmp.Or(s.LoginURL, defaultLoginURL), "/")
	sts := strings.TrimSuffix(cmp.Or(s.StsURL, defaultStsURL), "/")
	tenant := strings.ToLower(s.EntraTenantID)
	base.tenant = tenant
	v1, v2 := base, base
	v1.issuer, v1.discovery = sts+"/"+tenant+"/", login+"/"+tenant+"/.well-known/openid-configuration"
	v2.issuer, v2.discovery = login+"/"+tenant+"/v2.0", login+"/"+tenant+"/v2.0/.well-known/openid-configuration"
	return []issuerRule{v1, v2}
}
