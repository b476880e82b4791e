package readiness

import (
	"context"
	"strings"

	"github.com/tandemgw/tandem/internal/tenants/invite"
)

var _ invite.Readiness = (*Checker)(nil)

// titles name the checks on the pages of the customer's administrator.
var titles = map[string]string{
	"consent": "Authorisation", "permission": "Permission", "unread": "Could not be read:", "tenant": "Tenant",
	"cloud": "Cloud", "synchronised": "Active Directory", "domains": "Domains", "licence": "Licence", "users": "Users",
	"settings": "Settings", "label": "Name at the operator:", "name": "Length of the name", "dns": "DNS of",
	"certificate": "Certificate of", "reachable": "Connection to", "teams": "Configuration of Teams",
	"dialPlan": "Dial plan", "number": "Number", "role": "Directory role", "partner": "Partner account",
	"collision": "Names of objects", "shadow": "Voice routes", "emergency": "Emergency calls",
}

// Findings implements invite.Readiness. Findings that did not pass come first.
func (c *Checker) Findings(ctx context.Context, account string) ([]invite.Finding, error) {
	r, err := c.Check(ctx, account)
	if err != nil {
		return nil, err
	}
	var findings []invite.Finding
	for _, stage := range []struct {
		Stage
		title string
	}{{Consented, "After the authorisation"}, {SignedIn, "After the second sign-in"}} {
		for _, level := range []Level{Fail, Warn, Pass} {
			for _, f := range r.Findings {
				if f.Stage == stage.Stage && f.Level == level {
					findings = append(findings, invite.Finding{Group: stage.title, Result: invite.Result(level),
						Title: strings.TrimSpace(titles[f.ID] + " " + f.Subject), Reason: f.Reason, Remedy: f.Remedy})
				}
			}
		}
	}
	return findings, nil
}
