package readiness

import (
	"context"
	"slices"
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

// provider says what the operator has to do about checks that fail for a reason on its side. A customer sees nothing
// else of them.
var provider = map[string]string{"settings": "decide the settings of your organisation", "label": "",
	"name": "choose a shorter name for your organisation", "dns": "publish the names of your organisation in its DNS",
	"certificate": "obtain a certificate for them", "reachable": "make its servers reachable at them",
	"teams": "prepare the configuration of Teams", "dialPlan": "correct the dial plan", "cloud": ""}

// remedies are those of the checks whose own ones are for the operator.
var remedies = map[string]string{
	"collision": "rename or remove it, or ask your provider for other names",
	"emergency": "ask your provider for an emergency policy with these numbers",
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
				_, theirs := provider[f.ID]
				if f.Stage == stage.Stage && f.Level == level && !theirs {
					if do := remedies[f.ID]; do != "" && f.Remedy != "" {
						f.Remedy = do
					}
					findings = append(findings, invite.Finding{Group: stage.title, Result: invite.Result(level),
						Title: strings.TrimSpace(titles[f.ID] + " " + f.Subject), Reason: f.Reason, Remedy: f.Remedy})
				}
			}
		}
	}
	return append(findings, r.provider()...), nil
}

// provider returns what the customer sees of failures at the operator: that they do not concern it.
func (r *Report) provider() []invite.Finding {
	var what []string
	for _, f := range r.Findings {
		if do := provider[f.ID]; f.Level == Fail && do != "" && !slices.Contains(what, do) {
			what = append(what, do)
		}
	}
	if len(what) == 0 {
		return nil
	}
	return []invite.Finding{{Group: "At your provider", Title: "Your provider has to finish its preparation",
		Result: invite.Warn, Reason: "It has to " + strings.Join(what, ", and ") + ". You need to do nothing."}}
}
