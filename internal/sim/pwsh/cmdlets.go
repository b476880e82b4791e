package pwsh

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
)

// cmdletError is an error record: the message of its exception, and its FullyQualifiedErrorId.
type cmdletError struct{ text, code string }

func (e *cmdletError) Error() string { return e.text }

const generated = ",Microsoft.Teams.ConfigAPI.Cmdlets.Generated.Cmdlets"

// plainTypes are the nouns whose cmdlets do the same with different objects.
var plainTypes = []string{"TenantDialPlan", "OnlinePSTNGateway", "OnlineVoiceRoute", "OnlineVoiceRoutingPolicy",
	"CallingLineIdentity", "TeamsEmergencyCallRoutingPolicy"}

// inMemory are the parameters of cmdlets that only return an object.
var inMemory = map[string][]string{
	"New-CsVoiceNormalizationRule": {"Parent", "Name", "Description", "Pattern", "Translation", "IsInternalExtension",
		"Priority", "InMemory"},
	"New-CsTeamsEmergencyNumber": {"EmergencyDialString", "EmergencyDialMask", "OnlinePSTNUsage"},
}

// do runs a cmdlet.
func (c *child) do(cmdlet string, parameters object) ([]any, error) {
	given := maps.Clone(parameters)
	for name, v := range given {
		value, err := c.resolve(v)
		if err != nil {
			return nil, err
		}
		given[name] = value
	}
	if names, ok := inMemory[cmdlet]; ok {
		if err := only(cmdlet, given, names...); err != nil {
			return nil, err
		}
		delete(given, "Parent")
		delete(given, "InMemory")
		return []any{given}, nil
	}

	verb, noun, _ := strings.Cut(cmdlet, "-Cs")
	switch {
	case cmdlet == "Connect-MicrosoftTeams":
		return nil, c.connect(given)
	case slices.Contains(plainTypes, noun):
		return c.configuration(verb, noun, given)
	case noun == "OnlinePstnUsage" && (verb == "Get" || verb == "Set"):
		return c.configuration(verb, "OnlinePstnUsages", given)
	case noun == "PhoneNumberAssignment" && slices.Contains([]string{"Get", "Set", "Remove"}, verb):
		return c.phoneNumber(verb, given)
	case cmdlet == "New-CsOnlineApplicationInstance":
		return nil, c.call(http.MethodPost, "/Teams.PlatformService/v2/ApplicationInstances", given, nil)
	case verb != "Get" || len(given) > 0:
		return nil, &cmdletError{"The term '" + cmdlet + "' is not recognized.", "CommandNotFoundException"}
	}
	return c.get(noun)
}

func only(cmdlet string, parameters object, names ...string) error {
	for name := range parameters {
		if !slices.Contains(names, name) {
			return &cmdletError{"A parameter cannot be found that matches parameter name '" + name + "'.",
				"NamedParameterNotFound," + cmdlet}
		}
	}
	return nil
}

// resolve does what worker.ps1 does with values.
func (c *child) resolve(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = c.resolve(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case object:
		if cmdlet, ok := v["$cmdlet"].(string); ok {
			parameters := maps.Clone(v)
			delete(parameters, "$cmdlet")
			items, err := c.do(cmdlet, parameters)
			if err != nil || len(items) != 1 {
				return nil, err
			}
			return items[0], nil
		}
	}
	return v, nil
}

// connect signs in. Tokens must not be where other users of the machine see them.
func (c *child) connect(given object) error {
	if err := only("Connect-MicrosoftTeams", given, "TenantId", "AccessTokens"); err != nil {
		return err
	}
	tokens, _ := given["AccessTokens"].([]any)
	if len(tokens) != 2 || given["TenantId"] != nil {
		return &cmdletError{"A window of the broker would open here.", "InteractiveSignIn"}
	}
	c.token, _ = tokens[1].(string)
	for _, s := range append(os.Args, os.Environ()...) {
		for _, token := range tokens {
			if text, _ := token.(string); text != "" && strings.Contains(s, text) {
				return &cmdletError{"A token is in the arguments or the environment.", "Exposed"}
			}
		}
	}
	return nil
}

// configuration does a cmdlet of a type of configuration objects.
func (c *child) configuration(verb, kind string, given object) ([]any, error) {
	identity, _ := given["Identity"].(string)
	path := "/Skype.Policy/configurations/" + kind
	delete(given, "Identity")
	switch verb {
	case "Get":
		var all []any
		return all, c.call(http.MethodGet, path, nil, &all)
	case "Grant":
		if err := only("Grant-Cs"+kind, given, "PolicyName"); err != nil {
			return nil, err
		}
		return nil, c.call(http.MethodPatch, "/Skype.Policy/users/"+url.PathEscape(identity)+"/policies/"+kind, given,
			nil)
	case "New":
		given["Identity"] = identity
		return nil, c.call(http.MethodPost, path, given, nil)
	}

	var all []object
	if err := c.call(http.MethodGet, path, nil, &all); err != nil {
		return nil, err
	}
	for _, o := range all {
		is, _ := o["Identity"].(string)
		if !strings.EqualFold(strings.TrimPrefix(is, "Tag:"), strings.TrimPrefix(identity, "Tag:")) {
			continue
		}
		one := path + "/configuration/" + url.PathEscape(is)
		if verb == "Remove" {
			return nil, c.call(http.MethodDelete, one, nil, nil)
		}
		given["Key"] = o["Key"]
		return nil, c.call(http.MethodPut, one, given, nil)
	}
	return nil, &cmdletError{"Management object not found for identity \"" + identity + "\".",
		"ClientError" + generated}
}

// phoneNumber does the cmdlets of telephone numbers, as their pages say: numbers are found by some filters, and values
// are written like DirectRouting. Writes go to a route that exists in the simulator only.
func (c *child) phoneNumber(verb string, given object) (found []any, err error) {
	cmdlet := verb + "-CsPhoneNumberAssignment"
	if verb != "Get" {
		if err := only(cmdlet, given, "Identity", "PhoneNumber", "PhoneNumberType"); err != nil {
			return nil, err
		}
		return nil, c.call(http.MethodPost, "/Simulator/"+cmdlet, given, nil)
	}
	if err := only(cmdlet, given, "TelephoneNumber", "AssignedPstnTargetId"); err != nil {
		return nil, err
	}
	var answer struct{ PhoneNumberAssignments []object }
	err = c.call(http.MethodGet, "/Skype.TelephoneNumberMgmt/cmdlet/assignments", nil, &answer)
	for _, n := range answer.PhoneNumberAssignments {
		number, holder := given["TelephoneNumber"], given["AssignedPstnTargetId"]
		if number != nil && n["telephoneNumber"] != number || holder != nil && n["assignedPstnTargetId"] != holder {
			continue
		}
		for _, name := range []string{"numberType", "numberSource", "pstnAssignmentStatus"} {
			v, _ := n[name].(string)
			n[name] = strings.ToUpper(v[:1]) + v[1:]
		}
		found = append(found, n)
	}
	return found, err
}

// get does the other cmdlets that read.
func (c *child) get(noun string) (all []any, err error) {
	switch noun {
	case "Tenant":
		var tenant object
		err := c.call(http.MethodGet, "/Teams.Tenant/tenants", nil, &tenant)
		return []any{object{"TenantId": tenant["tenantId"], "DisplayName": tenant["displayName"]}}, err
	case "OnlineSipDomain":
		err = c.call(http.MethodGet, "/Teams.Tenant/VerifiedSipDomains", nil, &all)
	case "GroupPolicyAssignment":
		err = c.call(http.MethodGet, "/Skype.Policy/groupPolicyAssignments", nil, &all)
	case "OnlineUser":
		var answer struct{ Users []object }
		err = c.call(http.MethodGet, "/Teams.User/users", nil, &answer)
		for _, u := range answer.Users {
			u["Identity"] = u["objectId"]
			all = append(all, u)
		}
	default:
		err = &cmdletError{"The term 'Get-Cs" + noun + "' is not recognized.", "CommandNotFoundException"}
	}
	return all, err
}

// call sends a request to the service; what it refuses is the error of the cmdlet.
func (c *child) call(method, path string, body, v any) error {
	if c.target == "" && path != "/Teams.Tenant/serviceDiscovery" {
		var found struct {
			Endpoints struct{ AdminServiceEndpoint string }
		}
		if err := c.call(http.MethodGet, "/Teams.Tenant/serviceDiscovery", nil, &found); err != nil {
			return err
		}
		c.target = "https://" + found.Endpoints.AdminServiceEndpoint + "/"
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return &cmdletError{err.Error(), "InvalidOperation"}
	}
	req, err := http.NewRequest(method, c.cfg.URL+path, bytes.NewReader(raw))
	if err != nil {
		return &cmdletError{err.Error(), "InvalidOperation"}
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("X-MS-Target-Uri", c.target)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else {
		req.Body = http.NoBody
	}

	resp, err := c.client.Do(req)
	if err != nil {
		return &cmdletError{"An error occurred while sending the request.", "HttpRequestException" + generated}
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return &cmdletError{"An error occurred while sending the request.", "HttpRequestException" + generated}
	}
	if resp.StatusCode >= 300 {
		var refusal struct{ Error struct{ Message string } }
		_ = json.Unmarshal(answer, &refusal)
		code := strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
		return &cmdletError{refusal.Error.Message, code + generated}
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return &cmdletError{err.Error(), "InvalidOperation"}
	}
	return nil
}
