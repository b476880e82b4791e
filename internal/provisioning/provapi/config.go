package provapi

import (
	"net/url"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the Provisioning API's part of the configuration.
type Config struct {
	// PublicURL is the URL under which callers reach the API, e.g. https://provapi.example.com. Default empty: taken
	// from each request. It is the prefix of nextLink in listings and of the URLs in the embedded issuer's discovery
	// document; set it behind a proxy that is not in trustedProxies.
	PublicURL string `yaml:"publicUrl"`
	// RequestsPerMinute is the rate limit of all clients together, shared by all nodes; a batch counts as one request.
	// Number, 1 to 1000000; default 100. Requests above it are answered 429 with Retry-After.
	RequestsPerMinute int `yaml:"requestsPerMinute"`
	// MaxBodyBytes is the maximum size of a request body. Bytes, 64 KiB to 64 MiB; default 1048576. Larger bodies are
	// answered 413. A batch of 100 numbers with every field set needs about 200 KiB.
	MaxBodyBytes int64 `yaml:"maxBodyBytes"`
	// RequestTimeout is the maximum duration of a request. Duration, 1s to 5m; default 10s. A request that takes longer
	// is answered 503; a write may then have been made or not: repeating it with its repeatability headers shows which.
	// Deleting an account together with its numbers may always take 5m.
	RequestTimeout time.Duration `yaml:"requestTimeout"`
}

// Default returns the configuration used where nothing is configured.
func Default() Config {
	return Config{RequestsPerMinute: 100, MaxBodyBytes: 1 << 20, RequestTimeout: 10 * time.Second}
}

// Validate returns every problem found.
func (c *Config) Validate() []error {
	var problems fault.Problems
	bad := problems.Add
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" ||
			u.RawQuery != "" || u.Fragment != "" {
			bad("publicUrl", "%q is not an absolute URL; write e.g. https://provapi.example.com", c.PublicURL)
		}
	}
	if c.RequestsPerMinute < 1 || c.RequestsPerMinute > 1_000_000 {
		bad("requestsPerMinute", "%d is out of range; give 1 to 1000000", c.RequestsPerMinute)
	}
	if c.MaxBodyBytes < 64<<10 || c.MaxBodyBytes > 64<<20 {
		bad("maxBodyBytes", "%d is out of range; give %d to %d", c.MaxBodyBytes, 64<<10, 64<<20)
	}
	if c.RequestTimeout < time.Second || c.RequestTimeout > 5*time.Minute {
		bad("requestTimeout", "%v is out of range; give 1s to 5m", c.RequestTimeout)
	}
	return problems
}
