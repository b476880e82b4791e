package leg

import (
	"cmp"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config holds the operator's settings for header lines. Every field has a usable zero value.
type Config struct {
	// CustomSIPHeader is the name of the operator's custom SIP header, at most 32 characters of [A-Za-z0-9-]. Its value
	// is provisioned per number and sent to the core only. An incoming line of that name is removed, whichever side
	// sent it. Default: X-MS-Operator-Content.
	CustomSIPHeader string `yaml:"customSipHeader"`
	// Product is the value of X-MS-SBC towards Microsoft: vendor/product/version. Default: Tandem/Tandem/<version>.
	Product string `yaml:"product"`
	// Region is the region of this node: 1 or 2. It selects the names written into Contact. Default: 1.
	Region int `yaml:"region"`
}

// DefaultCustomSIPHeader is the custom header's name in a deployment that sets none.
const DefaultCustomSIPHeader = "X-MS-Operator-Content"

// Rules is the header policy, compiled from a Config. It is read-only and safe for concurrent use.
type Rules struct {
	custom  string
	product string
	region  int
}

// Default returns the settings of a deployment that sets none.
func Default() Config { return Config{CustomSIPHeader: DefaultCustomSIPHeader, Region: 1} }

// Validate returns every mistake in the settings, each a *fault.Error whose Target is the field.
func (c *Config) Validate() []error {
	var problems fault.Problems
	bad := problems.Add
	if h := c.CustomSIPHeader; h != "" {
		switch {
		case len(h) > 32:
			bad("customSipHeader", "%q has %d characters; at most 32 are allowed", h, len(h))
		case strings.Trim(h, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") != "":
			bad("customSipHeader", "%q contains characters other than letters, digits and \"-\"; remove them", h)
		case sip.KindOf(h) != sip.KindOther || reserved(h):
			bad("customSipHeader", "%q already has a meaning in SIP; choose another name, such as %s", h,
				DefaultCustomSIPHeader)
		}
	}
	if len(c.Product) > 128 || strings.IndexFunc(c.Product, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		bad("product", "must be one line of at most 128 printable ASCII characters")
	}
	if c.Region < 0 || c.Region > 2 {
		bad("region", "%d is not a region; use 1 or 2", c.Region)
	}
	return problems
}

// reserved reports whether this gateway or a service gives a meaning to the header name.
func reserved(name string) bool {
	return fold(name, HeaderSBC) || fold(name, HeaderTenantID) || fold(name, HeaderFMC)
}

// Rules compiles the header policy of valid settings. version is the version of this program, for the default product
// text.
func (c *Config) Rules(version string) *Rules {
	return &Rules{custom: cmp.Or(c.CustomSIPHeader, DefaultCustomSIPHeader),
		product: cmp.Or(c.Product, "Tandem/Tandem/"+version), region: max(c.Region, 1)}
}

// Region returns the region of this node, 1 or 2.
func (r *Rules) Region() int { return r.region }
