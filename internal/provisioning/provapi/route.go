package provapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// Version is the api-version served here.
const Version = "2024-02-29-preview"

// The roles of the contract (Provisioning API documentation, app roles).
const (
	roleAdmin  = "ProvisioningAPI.Admin"
	roleRead   = "ProvisioningAPI.Read"
	roleWrite  = "ProvisioningAPI.Write"
	roleDelete = "ProvisioningAPI.Delete"
)

// The bodies that operations take. Generated clients send a merge patch (RFC 7396) as application/json.
var (
	jsonBody  = []string{"application/json"}
	patchBody = []string{"application/merge-patch+json", "application/json"}
)

// operation is one of the contract's operations.
type operation struct {
	id     string
	method string
	path   string   // as in the contract
	role   string   // required, unless the caller is Admin
	body   []string // media types of the body it takes
	// conditional operations take If-Match and the like. All that write are repeatable.
	conditional bool
	query       []string // parameters besides api-version
	do          func(*API, *call) (*response, error)
}

var listQuery = []string{"top", "skip", "maxpagesize", "filter", "countRecords", continuation}

// operations is the table of all operations: method, path, role, what a request may carry, and the method that handles
// it. The contract names roles for GET, PUT, PATCH and DELETE; those of the POST actions are our choice
// (docs/provisioning-api.md).
var operations = []operation{
	{id: "Accounts_list", method: http.MethodGet, path: "/accounts", role: roleRead, query: listQuery,
		do: (*API).listAccounts},
	{id: "Accounts_get", method: http.MethodGet, path: "/accounts/{accountName}", role: roleRead, conditional: true,
		do: (*API).getAccount},
	{id: "Accounts_createOrReplace", method: http.MethodPut, path: "/accounts/{accountName}", role: roleWrite,
		body: jsonBody, conditional: true, do: (*API).putAccount},
	{id: "Accounts_delete", method: http.MethodDelete, path: "/accounts/{accountName}", role: roleDelete,
		conditional: true, query: []string{"deleteNumbers"}, do: (*API).deleteAccount},
	{id: "Accounts_createOrUpdateNumbers", method: http.MethodPost,
		path: "/accounts/{accountName}:createOrUpdateNumbers", role: roleWrite, body: jsonBody, do: (*API).putNumbers},
	{id: "Accounts_deleteNumbers", method: http.MethodPost, path: "/accounts/{accountName}:deleteNumbers",
		role: roleDelete, body: jsonBody, do: (*API).deleteNumbers},
	{id: "Accounts_getTeamsCapabilityPlans", method: http.MethodPost,
		path: "/accounts/{accountName}:getTeamsCapabilityPlans", role: roleRead, do: (*API).capabilityPlans},
	{id: "Accounts_getTeamsAvailableCapabilities", method: http.MethodPost,
		path: "/accounts/{accountName}:getTeamsAvailableCapabilities", role: roleRead, body: jsonBody,
		do: (*API).availableCapabilities},
	{id: "Accounts_listNumbers", method: http.MethodGet, path: "/accounts/{accountName}/numbers", role: roleRead,
		query: listQuery, do: (*API).listNumbers},
	{id: "Accounts_getNumber", method: http.MethodGet, path: "/accounts/{accountName}/numbers/{telephoneNumber}",
		role: roleRead, conditional: true, do: (*API).getNumber},
	{id: "Accounts_createOrReplaceNumber", method: http.MethodPut,
		path: "/accounts/{accountName}/numbers/{telephoneNumber}", role: roleWrite, body: jsonBody, conditional: true,
		do: (*API).putNumber},
	{id: "Accounts_deleteNumber", method: http.MethodDelete, path: "/accounts/{accountName}/numbers/{telephoneNumber}",
		role: roleDelete, conditional: true, do: (*API).deleteNumber},
	{id: "Accounts_listTeamsCivicAddresses", method: http.MethodGet,
		path: "/accounts/{accountName}/teamsCivicAddresses", role: roleRead, query: listQuery,
		do: (*API).listCivicAddresses},
	{id: "Accounts_getTeamsCivicAddress", method: http.MethodGet,
		path: "/accounts/{accountName}/teamsCivicAddresses/{civicAddressId}", role: roleRead, conditional: true,
		do: (*API).getCivicAddress},
	{id: "listNumbers", method: http.MethodGet, path: "/numbers", role: roleRead, query: listQuery,
		do: (*API).listNumbers},
	{id: "TeamsRequestsForInformation_list", method: http.MethodGet, path: "/teamsRequestsForInformation",
		role: roleRead, query: listQuery, do: (*API).listRequests},
	{id: "TeamsRequestsForInformation_getRequestForInformation", method: http.MethodGet,
		path: "/teamsRequestsForInformation/{tenantId}", role: roleRead, conditional: true, do: (*API).getRequest},
	{id: "TeamsRequestsForInformation_createOrUpdateRequestForInformation", method: http.MethodPatch,
		path: "/teamsRequestsForInformation/{tenantId}", role: roleWrite, body: patchBody, conditional: true,
		do: (*API).patchRequest},
}

// pathVars are the names in a path, decoded and checked by checkNames. A name that the path has is never empty.
type pathVars struct {
	account, address, tenant string
	number                   domain.E164
}

// split returns the segments of a path, nil if it has none or too many. escaped is the path as sent, still
// percent-encoded: segments are split first and decoded afterwards, so that an encoded slash stays inside its segment
// and "+" stands for itself, raw or as %2B.
func split(escaped string) ([]string, error) {
	segs := strings.Split(escaped, "/")
	if segs[0] != "" || len(segs) > 5 {
		return nil, nil
	}
	segs = segs[1:]
	for i, s := range segs {
		if s == "" {
			return nil, nil
		}
		var err error
		if segs[i], err = url.PathUnescape(s); err != nil {
			return nil, invalid(web.CodeInvalidURI, "", "the path has an invalid percent-encoding")
		}
	}
	return segs, nil
}

// match reports whether a path is the operation's, and returns its variables.
func (o *operation) match(segs []string) (v pathVars, ok bool) {
	pattern := strings.Split(o.path, "/")[1:]
	if len(segs) != len(pattern) {
		return v, false
	}
	for i, seg := range segs {
		action, isAccount := strings.CutPrefix(pattern[i], "{accountName}")
		switch {
		case isAccount:
			// An account name has no colon: what follows the last one is an action.
			v.account, ok = strings.CutSuffix(seg, action)
			if !ok || v.account == "" || action == "" && i == len(segs)-1 && strings.Contains(seg, ":") {
				return v, false
			}
		case pattern[i] == "{telephoneNumber}":
			v.number = domain.E164(seg)
		case pattern[i] == "{civicAddressId}":
			v.address = seg
		case pattern[i] == "{tenantId}":
			v.tenant = seg
		case pattern[i] != seg:
			return v, false
		}
	}
	return v, true
}

// find returns the operation for a method and path. allow lists the path's methods if it exists. HEAD is served
// wherever GET is (RFC 9110 §9.1): net/http leaves the body out.
func find(method, escaped string) (op *operation, v pathVars, allow []string, err error) {
	segs, err := split(escaped)
	if err != nil {
		return nil, v, nil, err
	}
	for i := range operations {
		o := &operations[i]
		vars, ok := o.match(segs)
		if !ok {
			continue
		}
		v, allow = vars, append(allow, o.method)
		if o.method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
		if o.method == method || o.method == http.MethodGet && method == http.MethodHead {
			op = o
		}
	}
	switch {
	case allow == nil:
		return nil, v, nil, fault.New(fault.NotFound, web.CodeResourceNotFound,
			"there is no resource at this path; see docs/provisioning-api.md")
	case op == nil:
		return nil, v, allow, fault.New(fault.Invalid, web.CodeMethodNotAllowed,
			"%s is not allowed on this path; use %s", method, strings.Join(allow, " or "))
	}
	return op, v, allow, nil
}

// checkNames checks the names in the path except the id of a civic address, which the tenant chooses. A malformed name
// can never exist, and 400 says so better than 404.
func (c *call) checkNames() error {
	v := &c.vars
	if len(v.account) > 100 || strings.ContainsFunc(v.account, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	}) {
		return invalid(directory.CodeInvalidAccountName, "accountName",
			"the account name in the path is not 1 to 100 letters, digits, \"_\" and \"-\"")
	}
	if _, err := domain.ParseE164(string(v.number)); err != nil && v.number != "" {
		return invalid(directory.CodeInvalidTelephoneNumber, "telephoneNumber",
			"the telephone number in the path: %v", err)
	}
	if v.tenant != "" && !domain.IsGUID(v.tenant) {
		return invalid(directory.CodeInvalidTenantID, "tenantId",
			"the tenant id in the path is not a GUID such as 6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d")
	}
	v.tenant = strings.ToLower(v.tenant)
	return nil
}
