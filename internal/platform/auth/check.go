package auth

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Check is one of the checks of a token.
type Check struct {
	Name   string // e.g. "audience"
	Result string // ok, failed or notReached: a check before it failed
	Detail string // what the token has, or why it fails; never the token itself
	Remedy string // what to do if it fails
}

// The results of a check.
const (
	CheckOK         = "ok"
	CheckFailed     = "failed"
	CheckNotReached = "notReached"
)

// The names of the checks.
const (
	checkFormat     = "format"
	checkIssuer     = "issuer"
	checkAlgorithm  = "algorithm"
	checkTime       = "time"
	checkAudience   = "audience"
	checkTenant     = "tenant"
	checkClient     = "client"
	checkSignature  = "signature"
	checkRevocation = "revocation"
	checkRoles      = "roles"
)

// checks are the checks of a token in their order, each with its remedy.
var checks = []struct{ name, remedy string }{
	{checkFormat, "send the access token as it was issued: not an ID token, not a client secret, nothing before or " +
		"after it"},
	{checkIssuer, "add the issuer to auth.issuers. Entra has two: with requestedAccessTokenVersion 2 in the API's " +
		"manifest it is https://login.microsoftonline.com/TENANT/v2.0, else https://sts.windows.net/TENANT/; " +
		"entraTenantId accepts both"},
	{checkAlgorithm, "let the issuer sign with one of these, or add its algorithm to auth.issuers[].algorithms"},
	{checkTime, "get a new token; if it is new, compare this node's clock with the issuer's (auth.clockSkew is " +
		"allowed)"},
	{checkAudience, "request the scope that tandem status shows, or add the audience to auth.issuers[].audiences"},
	{checkTenant, "request the token from the tenant that auth.issuers names"},
	{checkClient, "request the token with the client-credentials grant"},
	{checkSignature, "check that this node reaches the issuer (the log says why not), and that the token is " +
		"complete; then request a new one"},
	{checkRevocation, "create another client: tandem client create"},
	{checkRoles, "give the client a role of the API. Entra: application permission and admin consent (tandem auth " +
		"entra); embedded issuer: tandem client create --role"},
}

// Try verifies a token as Verify does and returns the result of each check, in order. It does not count the token.
func (v *Verifier) Try(ctx context.Context, token string) []Check {
	var results []Check
	p, err := v.verify(ctx, token, func(check, found string) {
		results = append(results, Check{Name: check, Result: CheckOK, Detail: found})
	})
	failed := ""
	if err != nil {
		failed = fault.As(err).Message
	} else {
		var roles []string
		for _, r := range p.Roles {
			roles = append(roles, clip(string(r)))
		}
		detail := strings.Join(roles, " ")
		if slices.ContainsFunc(p.Roles, func(r Role) bool { return slices.Contains(Roles(), r) }) {
			results = append(results, Check{Name: checkRoles, Result: CheckOK, Detail: clip(detail)})
		} else {
			failed = "the token carries no role of Tandem's APIs, but: " + clip(cmp.Or(detail, "none"))
		}
	}
	for _, c := range checks[len(results):] {
		if failed != "" {
			results = append(results, Check{Name: c.name, Result: CheckFailed, Detail: failed, Remedy: c.remedy})
			failed = ""
		} else {
			results = append(results, Check{Name: c.name, Result: CheckNotReached})
		}
	}
	return results
}
