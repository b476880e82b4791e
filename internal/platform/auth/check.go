package auth

import (
	"cmp"
	"context"
	"slices"
	"strings"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// checks are the checks of a token in their order, each with its remedy.
var checks = []struct {
	name   api.TokenCheckName
	remedy string
}{
	{"format", "send the access token as it was issued: not an ID token, not a client secret, nothing before or " +
		"after it"},
	{"issuer", "add the issuer to auth.issuers. Entra has two: with requestedAccessTokenVersion 2 in the API's " +
		"manifest it is https://login.microsoftonline.com/TENANT/v2.0, else https://sts.windows.net/TENANT/; " +
		"entraTenantId accepts both"},
	{"algorithm", "let the issuer sign with one of these, or add its algorithm to auth.issuers[].algorithms"},
	{"time", "get a new token; if it is new, compare this node's clock with the issuer's (auth.clockSkew is " +
		"allowed)"},
	{"audience", "request the scope that tandem status shows, or add the audience to auth.issuers[].audiences"},
	{"tenant", "request the token from the tenant that auth.issuers names"},
	{"client", "request the token with the client-credentials grant"},
	{"signature", "check that this node reaches the issuer (the log says why not), and that the token is " +
		"complete; then request a new one"},
	{"revocation", "create another client: tandem client create"},
	{"roles", "give the client a role of the API. Entra: application permission and admin consent (tandem auth " +
		"entra); embedded issuer: tandem client create --role"},
}

// CheckToken implements the management API's operation checkToken. It does not count the token.
func (o *Operations) CheckToken(ctx context.Context,
	r api.CheckTokenRequestObject) (api.CheckTokenResponseObject, error) {
	results := o.Verifier.try(ctx, r.Body.Token)
	ok := results[len(results)-1].Result == api.TokenCheckResultOK
	return api.CheckToken200JSONResponse{OK: ok, Checks: results}, nil
}

// try verifies a token as Verify does, and its roles, and returns the result of each check, in order.
func (v *Verifier) try(ctx context.Context, token string) []api.TokenCheck {
	var results []api.TokenCheck
	passed := func(check api.TokenCheckName, found string) {
		results = append(results, api.TokenCheck{Name: check, Result: api.TokenCheckResultOK, Detail: found})
	}
	failed := ""
	switch p, err := v.verify(ctx, token, passed); {
	case err != nil:
		failed = fault.As(err).Message
	case slices.ContainsFunc(p.Roles, func(r Role) bool { return slices.Contains(Roles(), r) }):
		passed("roles", clip(strings.Join(p.Roles, " ")))
	default:
		failed = "the token carries no role of Tandem's APIs, but: " + clip(cmp.Or(strings.Join(p.Roles, " "), "none"))
	}
	for _, c := range checks[len(results):] {
		result := api.TokenCheck{Name: c.name, Result: api.TokenCheckResultNotReached}
		if failed != "" {
			result.Result, result.Detail, result.Remedy = api.TokenCheckResultFailed, failed, c.remedy
			failed = ""
		}
		results = append(results, result)
	}
	return results
}
