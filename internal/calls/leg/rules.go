package leg

import (
	"fmt"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Config holds the operator's settings for header lines. Every field has a usable zero value.
type Config struct {
	// CustomSIPHeader is the name of the operator's custom SIP header, at most 32 characters of [A-Za-z0-9-]. Its value is
	// provisioned per number and goes to the core only; a line of that name that comes in is removed whatever side it
	// comes from. Default: X-MS-Operator-Content.
	CustomSIPHeader string `yaml:"customSipHeader"`
	// Product is the value of X-MS-SBC towards Microsoft: vendor/product/version. Default: Tandem/Tandem/<version>.
	Product string `yaml:"product"`
	// Region is the region this node stands in: 1 or 2. It chooses the names put into Contact. Default: 1.
	Region int `yaml:"region"`
}

// DefaultCustomSIPHeader is the custom header's name in a deployment that sets none.
const DefaultCustomSIPHeader = "X-MS-Operator-Content"

// Rules is a Config made quick to use: the header policy. It is read-only and safe for concurrent use.
type Rules struct {
	custom  string
	product string
	region  int
}

// Validate returns every mistake in the settings.
func (c *Config) Validate() []error {
	var problems []error
	if h := c.CustomSIPHeader; h != "" {
		switch {
		case len(h) > 32:
			problems = append(problems, fmt.Errorf("customSipHeader: %q has %d characters; at most 32 are allowed", h, len(h)))
		case strings.Trim(h, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") != "":
			problems = append(problems, fmt.Errorf("customSipHeader: %q holds characters other than letters, digits and \"-\"", h))
		case sip.KindOf(h) != sip.KindOther:
			problems = append(problems, fmt.Errorf("customSipHeader: %q is a header SIP itself uses; choose another name, such as %s", h, DefaultCustomSIPHeader))
		}
	}
	if strings.ContainsAny(c.Product, "\r\n") || len(c.Product) > 128 {
		problems = append(problems, fmt.Errorf("product: write one line of at most 128 characters"))
	}
	if c.Region < 0 || c.Region > 2 {
		problems = append(problems, fmt.Errorf("region: %d is not a region; use 1 or 2", c.Region))
	}
	return problems
}

// Rules makes the header policy. Version is this program's, for the default product text.
func (c *Config) Rules(version string) (*Rules, []error) {
	if p := c.Validate(); len(p) > 0 {
		return nil, p
	}
	r := &Rules{custom: c.CustomSIPHeader, product: c.Product, region: max(c.Region, 1)}
	if r.custom == "" {
		r.custom = DefaultCustomSIPHeader
	}
	if r.product == "" {
		r.product = "Tandem/Tandem/" + version
	}
	return r, nil
}

// CustomHeader returns the name of the operator's custom SIP header.
func (r *Rules) CustomHeader() string { return r.custom }

// Product returns the value of X-MS-SBC.
func (r *Rules) Product() string { return r.product }

// Region returns the region this node stands in, 1 or 2.
func (r *Rules) Region() int { return r.region }
