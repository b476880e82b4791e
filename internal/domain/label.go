package domain

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	maxLabel = 10 // the contract's subdomain
	// maxFQDN is the longest Direct Routing name that Entra ID lets a tenant claim, e.g. <label>.1r1.<base domain>.
	maxFQDN     = 48
	regionLabel = ".1r1."
)

var (
	hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)
	ownRegion = regexp.MustCompile(`^r[0-9]+$`)
)

// LabelBound returns the maximum number of characters of a Direct Routing label below a base domain, which may be
// empty. It is less than 1 if the base domain is too long for any label.
func LabelBound(base string) int {
	if base == "" {
		return maxLabel
	}
	return min(maxLabel, maxFQDN-len(regionLabel)-len(base))
}

// CheckLabel checks a Direct Routing label of an account for names below a base domain, which may be empty. The error
// says how to fix it.
func CheckLabel(label, base string) error {
	switch {
	case strings.Contains(label, "_"):
		return errors.New("a subdomain cannot contain \"_\": it becomes part of a DNS host name, which has only " +
			"letters, digits and \"-\"")
	case len(label) > maxLabel || !hostLabel.MatchString(label):
		return fmt.Errorf("a subdomain has 1 to %d characters: letters, digits and, not at its ends, \"-\"", maxLabel)
	}
	if over := len(label) - LabelBound(base); over > 0 {
		return fmt.Errorf("the full name %s%s%s has %d characters, %d more than Microsoft 365 allows; use a shorter "+
			"subdomain", label, regionLabel, base, maxFQDN+over, over)
	}
	return nil
}

// OwnRegion reports whether a label directly below the base domain is that of a region of the operator's network.
func OwnRegion(label string) bool { return ownRegion.MatchString(label) }

// OwnHost reports whether a label directly below the base domain has, or will have, a purpose of Tandem's own besides
// regions.
func OwnHost(label string) bool { return label == "provapi" || label == "onboard" || label == "hooks" }
