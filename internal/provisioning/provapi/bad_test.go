package provapi_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// bad is a request that is refused, with the code and target that name what is wrong with it.
type bad struct {
	name         string
	method, path string
	body         string
	header       header
	status       int
	code, target string
}

const dr = `"teamsDirectRouting":{"enabled":true,"syncEnabled":false,"configuration":{"callScreening":true,
	"subdomain":"%s","subdomainTokens":{"region1Token":"%s","region2Token":"t2"}}}`

func accountWith(details string) string {
	return `{"name":"acme","serviceDetails":{` + details + `}}`
}

func numberWith(details, rest string) string {
	return `{"telephoneNumber":"+14255550142","accountName":"acme","serviceDetails":{` + details + `}` + rest + `}`
}

// TestBadInput: each mistake has its own code and names its place, and none of them changes anything. The state:
// account acme with every service but Teams Phone Mobile enabled and a number of each kind, account other with one
// number.
func TestBadInput(t *testing.T) {
	acc, num := "/accounts/acme", "/accounts/acme/numbers/+14255550142"
	upsert, del, caps, plans := acc+":createOrUpdateNumbers", acc+":deleteNumbers",
		acc+":getTeamsAvailableCapabilities", acc+":getTeamsCapabilityPlans"
	rfi := "/teamsRequestsForInformation/" + tenant
	zoom := `"zoomPhoneCloudPeering":{"enabled":true}`
	oc := func(conf string) string { return `"teamsOperatorConnect":{"enabled":true,` + conf + `}` }
	many := func(n int) string {
		var l []string
		for i := range n {
			l = append(l, number("acme", fmt.Sprintf("+1425555%04d", i), "zoomPhoneCloudPeering"))
		}
		return batchOf(l...)
	}
	keepAll := `"teamsTenantId":"` + tenant + `","teamsOperatorConnect":{"syncEnabled":false,"enabled":true},
		"zoomPhoneCloudPeering":{"syncEnabled":false,"enabled":true},"azureOperatorCallProtection":{"enabled":true}`
	cases := []bad{
		// The path.
		{"unknown path", "GET", "/nothing", "", nil, 404, "ResourceNotFound", ""},
		{"root", "GET", "/", "", nil, 404, "ResourceNotFound", ""},
		{"slash at the end", "GET", "/accounts/", "", nil, 404, "ResourceNotFound", ""},
		{"empty segment", "GET", "/accounts//numbers", "", nil, 404, "ResourceNotFound", ""},
		{"too deep", "GET", num + "/x", "", nil, 404, "ResourceNotFound", ""},
		{"unknown child", "GET", acc + "/things", "", nil, 404, "ResourceNotFound", ""},
		{"older version's path", "GET", "/account/acme/numbers", "", nil, 404, "ResourceNotFound", ""},
		{"wrong case", "GET", "/Accounts", "", nil, 404, "ResourceNotFound", ""},
		{"unknown action", "POST", acc + ":explode", "", nil, 404, "ResourceNotFound", ""},
		{"action without an account", "POST", "/accounts/:deleteNumbers", "", nil, 404, "ResourceNotFound", ""},
		{"PATCH of an account", "PATCH", acc, "{}", nil, 405, "UnsupportedHttpVerb", ""},
		{"POST of an account", "POST", acc, "{}", nil, 405, "UnsupportedHttpVerb", ""},
		{"GET of an action", "GET", upsert, "", nil, 405, "UnsupportedHttpVerb", ""},
		{"DELETE of all accounts", "DELETE", "/accounts", "", nil, 405, "UnsupportedHttpVerb", ""},
		{"OPTIONS", "OPTIONS", acc, "", nil, 405, "UnsupportedHttpVerb", ""},
		{"account name with a space", "GET", "/accounts/a%20b", "", nil, 400, "InvalidAccountName", "accountName"},
		{"account name with an encoded slash", "GET", "/accounts/a%2Fb", "", nil, 400,
			"InvalidAccountName", "accountName"},
		{"account name too long", "GET", "/accounts/" + strings.Repeat("a", 101), "", nil, 400,
			"InvalidAccountName", "accountName"},
		{"account name not ASCII", "GET", "/accounts/%C3%A9", "", nil, 400, "InvalidAccountName", "accountName"},
		{"action on a bad account name", "POST", "/accounts/a%20b:deleteNumbers", batchOf(), nil, 400,
			"InvalidAccountName", "accountName"},
		{"number without a plus sign", "GET", acc + "/numbers/14255550142", "", nil, 400, "InvalidTelephoneNumber",
			"telephoneNumber"},
		{"number with a space for its plus sign", "GET", acc + "/numbers/%2014255550142", "", nil, 400,
			"InvalidTelephoneNumber", "telephoneNumber"},
		{"number beginning with 0", "GET", acc + "/numbers/+04255550142", "", nil, 400, "InvalidTelephoneNumber",
			"telephoneNumber"},
		{"number too long", "GET", acc + "/numbers/+1234567890123456", "", nil, 400, "InvalidTelephoneNumber",
			"telephoneNumber"},
		{"number with letters", "PUT", acc + "/numbers/+1800FLOWERS", numberWith(zoom, ""), nil, 400,
			"InvalidTelephoneNumber", "telephoneNumber"},
		{"tenant that is no GUID", "GET", "/teamsRequestsForInformation/contoso", "", nil, 400,
			"InvalidTenantId", "tenantId"},
		{"unknown account", "GET", "/accounts/nobody", "", nil, 404, "AccountNotFound", ""},
		{"account in another case", "GET", "/accounts/ACME", "", nil, 404, "AccountNotFound", ""},
		{"DELETE of an unknown account", "DELETE", "/accounts/nobody", "", nil, 404, "AccountNotFound", ""},
		{"numbers of an unknown account", "GET", "/accounts/nobody/numbers", "", nil, 404, "AccountNotFound", ""},
		{"number of an unknown account", "GET", "/accounts/nobody/numbers/+14255550142", "", nil, 404,
			"AccountNotFound", ""},
		{"addresses of an unknown account", "GET", "/accounts/nobody/teamsCivicAddresses", "", nil, 404,
			"AccountNotFound", ""},
		{"plans of an unknown account", "POST", "/accounts/nobody:getTeamsCapabilityPlans", "", nil, 404,
			"AccountNotFound", ""},
		{"batch of an unknown account", "POST", "/accounts/nobody:createOrUpdateNumbers",
			batchOf(number("nobody", "+14255550142", "zoomPhoneCloudPeering")), nil, 404, "AccountNotFound", ""},
		{"unknown number", "GET", acc + "/numbers/+14255559999", "", nil, 404, "NumberNotFound", ""},
		{"number of another account", "GET", acc + "/numbers/+442079460123", "", nil, 404, "NumberNotFound", ""},
		{"DELETE of an unknown number", "DELETE", acc + "/numbers/+14255559999", "", nil, 404, "NumberNotFound", ""},
		{"unknown address", "GET", acc + "/teamsCivicAddresses/nowhere", "", nil, 404, "CivicAddressNotFound", ""},
		{"unknown request", "GET", "/teamsRequestsForInformation/00000000-0000-0000-0000-000000000000", "", nil, 404,
			"RequestForInformationNotFound", ""},
		{"PATCH of an unknown request", "PATCH", "/teamsRequestsForInformation/00000000-0000-0000-0000-000000000000",
			`{"customerRelationship":{"status":"x"}}`, nil, 404, "RequestForInformationNotFound", ""},

		// The query.
		{"unknown parameter", "GET", "/accounts?$filter=x", "", nil, 400, "UnknownQueryParameter", "$filter"},
		{"parameter of another operation", "GET", acc + "?top=1", "", nil, 400, "UnknownQueryParameter", "top"},
		{"parameter in another case", "DELETE", acc + "?deletenumbers=true", "", nil, 400, "UnknownQueryParameter",
			"deletenumbers"},
		{"top is no number", "GET", "/accounts?top=ten", "", nil, 400, "InvalidQueryParameterValue", "top"},
		{"top is negative", "GET", "/accounts?top=-1", "", nil, 400, "InvalidQueryParameterValue", "top"},
		{"top is no int32", "GET", "/accounts?top=2147483648", "", nil, 400, "InvalidQueryParameterValue", "top"},
		{"top twice", "GET", "/accounts?top=1&top=2", "", nil, 400, "InvalidQueryParameterValue", "top"},
		{"skip is negative", "GET", "/numbers?skip=-5", "", nil, 400, "InvalidQueryParameterValue", "skip"},
		{"maxpagesize is 0", "GET", "/accounts?maxpagesize=0", "", nil, 400,
			"InvalidQueryParameterValue", "maxpagesize"},
		{"countRecords is no boolean", "GET", "/accounts?countRecords=yes", "", nil, 400, "InvalidQueryParameterValue",
			"countRecords"},
		{"deleteNumbers is no boolean", "DELETE", acc + "?deleteNumbers=1", "", nil, 400, "InvalidQueryParameterValue",
			"deleteNumbers"},
		{"filter cannot be read", "GET", "/accounts?filter=name%20gt%20%27a%27", "", nil, 400,
			"InvalidFilter", "filter"},
		{"filter is empty", "GET", "/accounts?filter=", "", nil, 400, "InvalidFilter", "filter"},
		{"filter on another resource's field", "GET", "/accounts?filter=" + url.QueryEscape("telephoneNumber eq '+1'"),
			"", nil, 400, "InvalidFilter", "filter"},
		{"filter with a raw plus sign", "GET", "/numbers?filter=startswith(telephoneNumber,'+44')", "", nil, 400,
			"InvalidFilter", "filter"},
		{"filter on addresses", "GET", acc + "/teamsCivicAddresses?filter=x", "", nil, 400, "InvalidFilter", "filter"},
		{"filter on requests", "GET", "/teamsRequestsForInformation?filter=x", "", nil, 400, "InvalidFilter", "filter"},
		{"broken percent-encoding", "GET", "/accounts?filter=%zz", "", nil, 400, "InvalidUri", ""},
		{"malformed continuation", "GET", "/accounts?continuation=abc", "", nil, 400, "InvalidContinuation",
			"continuation"},
		{"URI too long", "GET", "/accounts?filter=" + strings.Repeat("x", 9000), "", nil, 414, "RequestUriTooLong", ""},

		// Headers.
		{"client request id too long", "GET", "/accounts", "",
			header{"x-ms-client-request-id": strings.Repeat("x", 129)}, 400, "InvalidHeaderValue",
			"x-ms-client-request-id"},
		{"client request id with a space", "GET", "/accounts", "", header{"x-ms-client-request-id": "a b"}, 400,
			"InvalidHeaderValue", "x-ms-client-request-id"},
		{"If-Match without quotes", "PUT", acc, account("acme"), header{"If-Match": "7"}, 400,
			"InvalidHeaderValue", "If-Match"},
		{"If-Match with an open quote", "DELETE", acc, "", header{"If-Match": `"7`}, 400,
			"InvalidHeaderValue", "If-Match"},
		{"If-None-Match of commas", "GET", acc, "", header{"If-None-Match": ",,"}, 400, "InvalidHeaderValue",
			"If-None-Match"},
		{"If-None-Match with * among tags", "GET", acc, "", header{"If-None-Match": `"1", *`}, 400,
			"InvalidHeaderValue", "If-None-Match"},
		{"If-Modified-Since is no date", "GET", acc, "", header{"If-Modified-Since": "yesterday"}, 400,
			"InvalidHeaderValue", "If-Modified-Since"},
		{"If-Unmodified-Since is no date", "PUT", num, numberWith(zoom, ""), header{"If-Unmodified-Since": "2024"}, 400,
			"InvalidHeaderValue", "If-Unmodified-Since"},
		{"condition on a batch", "POST", upsert, batchOf(), header{"If-Match": `"1"`}, 400,
			"ConditionalHeadersNotSupported", "If-Match"},
		{"condition on a batch delete", "POST", del, batchOf(), header{"If-Unmodified-Since": "x"}, 400,
			"ConditionalHeadersNotSupported", "If-Unmodified-Since"},
		{"unmodified since year 1, as .NET's DateTime.MinValue", "PUT", acc, account("acme"),
			header{"If-Unmodified-Since": "Mon, 01 Jan 0001 00:00:00 GMT"}, 412, "ConditionNotMet", ""},
		{"unmodified since year 1, RFC 3339", "PUT", num, numberWith(zoom, ""),
			header{"If-Unmodified-Since": "0001-01-01T00:00:00Z"}, 412, "ConditionNotMet", ""},
		{"unmodified since year 1, delete", "DELETE", acc, "", header{"If-Unmodified-Since": "0001-01-01T00:00:00Z"},
			412, "ConditionNotMet", ""},
		{"unmodified since year 1, patch", "PATCH", rfi, `{}`, header{"If-Unmodified-Since": "0001-01-01T00:00:00Z"},
			412, "ConditionNotMet", ""},
		{"unmodified since year 1, read", "GET", acc, "", header{"If-Unmodified-Since": "0001-01-01T00:00:00Z"}, 412,
			"ConditionNotMet", ""},
		{"unmodified since 1970", "PUT", acc, account("acme"),
			header{"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412, "ConditionNotMet", ""},
		{"no date at all", "PUT", acc, account("acme"), header{"If-Unmodified-Since": ""}, 400, "InvalidHeaderValue",
			"If-Unmodified-Since"},
		{"empty list of entity tags", "PUT", acc, account("acme"), header{"If-Match": ""}, 400,
			"InvalidHeaderValue", "If-Match"},
		{"empty entity tag", "PUT", acc, account("acme"), header{"If-Match": `""`}, 412, "ConditionNotMet", ""},
		{"wrong entity tag", "PUT", acc, account("acme"), header{"If-Match": `"1"`}, 412, "ConditionNotMet", ""},

		// The body as such.
		{"no body", "PUT", acc, "", nil, 400, "MissingRequestBody", ""},
		{"no body of a batch", "POST", upsert, "", nil, 400, "MissingRequestBody", ""},
		{"body of a GET", "GET", acc, "{\"a\":1}", nil, 400, "UnexpectedRequestBody", ""},
		{"body of a DELETE", "DELETE", num, `{"x":1}`, nil, 400, "UnexpectedRequestBody", ""},
		{"body of a plans action", "POST", plans, `{"numbers":[]}`, nil, 400, "UnexpectedRequestBody", ""},
		{"not JSON", "PUT", acc, "name=acme", nil, 400, "InvalidJson", ""},
		{"cut short", "PUT", acc, `{"name":"acme"`, nil, 400, "InvalidJson", ""},
		{"trailing garbage", "PUT", acc, account("acme") + "x", nil, 400, "InvalidJson", ""},
		{"two values", "PUT", acc, account("acme") + account("acme"), nil, 400, "InvalidJson", ""},
		{"trailing comma", "PUT", acc, `{"name":"acme",}`, nil, 400, "InvalidJson", ""},
		{"comment", "PUT", acc, `{"name":"acme"/*x*/}`, nil, 400, "InvalidJson", ""},
		{"not UTF-8", "PUT", acc, "{\"name\":\"acme\",\"correlationId\":\"\xff\"}", nil, 400, "InvalidJson", ""},
		{"byte order mark", "PUT", acc, "\ufeff" + account("acme"), nil, 400, "InvalidJson", ""},
		{"nested too deep", "PUT", acc, `{"name":"acme","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
			nil, 400, "InvalidJson", "x[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]"},
		{"an array", "PUT", acc, "[]", nil, 400, "InvalidFieldType", ""},
		{"null", "PUT", acc, "null", nil, 400, "InvalidFieldType", ""},
		{"member twice", "PUT", acc, `{"name":"acme","name":"acme"}`, nil, 400, "DuplicateField", "name"},
		{"nested member twice", "PUT", acc,
			accountWith(`"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":true,"enabled":false}`), nil, 400,
			"DuplicateField", "serviceDetails.zoomPhoneCloudPeering.enabled"},
		{"member twice, once escaped", "PUT", acc, `{"name":"acme","n\u0061me":"acme"}`, nil, 400,
			"DuplicateField", "name"},
		{"NUL in a string", "PUT", acc, `{"name":"acme","correlationId":"a\u0000b"}`, nil, 400, "InvalidFieldValue",
			"correlationId"},
		{"form", "PUT", acc, account("acme"), header{"Content-Type": "application/x-www-form-urlencoded"}, 415,
			"UnsupportedMediaType", "Content-Type"},
		{"no type", "PUT", acc, account("acme"), header{"!Content-Type": ""}, 415, "UnsupportedMediaType",
			"Content-Type"},
		{"other characters", "PUT", acc, account("acme"), header{"Content-Type": "application/json; charset=utf-16"},
			415, "UnsupportedMediaType", "Content-Type"},
		{"merge patch of an account", "PUT", acc, account("acme"),
			header{"Content-Type": "application/merge-patch+json"}, 415, "UnsupportedMediaType", "Content-Type"},
		{"JSON patch", "PATCH", rfi, `[]`, header{"Content-Type": "application/json-patch+json"}, 415,
			"UnsupportedMediaType", "Content-Type"},
		{"compressed", "PUT", acc, account("acme"), header{"Content-Encoding": "gzip"}, 415, "UnsupportedMediaType",
			"Content-Encoding"},
		{"too large", "PUT", acc, account("acme") + strings.Repeat(" ", 1<<20), nil, 413, "RequestBodyTooLarge", ""},

		// Accounts.
		{"no name", "PUT", acc, `{}`, nil, 400, "MissingField", "name"},
		{"name is a number", "PUT", acc, `{"name":7}`, nil, 400, "InvalidFieldType", "name"},
		{"another name", "PUT", acc, account("acme2"), nil, 400, "AccountNameMismatch", "name"},
		{"name in another case", "PUT", acc, account("Acme"), nil, 400, "AccountNameMismatch", "name"},
		{"unknown member", "PUT", acc, `{"name":"acme","colour":"red"}`, nil, 400, "UnknownField", "colour"},
		{"member in another case", "PUT", acc, `{"name":"acme","CorrelationId":"x"}`, nil, 400, "UnknownField",
			"CorrelationId"},
		{"unknown service", "PUT", acc, accountWith(`"azureCommunicationServices":{"enabled":true}`), nil, 400,
			"UnknownField", "serviceDetails.azureCommunicationServices"},
		{"syncEnabled where there is none", "PUT", acc,
			accountWith(`"azureOperatorCallProtection":{"enabled":true,"syncEnabled":true}`), nil, 400, "UnknownField",
			"serviceDetails.azureOperatorCallProtection.syncEnabled"},
		{"configuration where there is none", "PUT", acc,
			accountWith(`"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":true,"configuration":{}}`), nil, 400,
			"UnknownField", "serviceDetails.zoomPhoneCloudPeering.configuration"},
		{"enabled is missing", "PUT", acc, accountWith(`"zoomPhoneCloudPeering":{"syncEnabled":true}`), nil, 400,
			"MissingField", "serviceDetails.zoomPhoneCloudPeering.enabled"},
		{"syncEnabled is missing", "PUT", acc, accountWith(`"zoomPhoneCloudPeering":{"enabled":true}`), nil, 400,
			"MissingField", "serviceDetails.zoomPhoneCloudPeering.syncEnabled"},
		{"enabled is a string", "PUT", acc,
			accountWith(`"zoomPhoneCloudPeering":{"enabled":"true","syncEnabled":true}`), nil, 400, "InvalidFieldType",
			"serviceDetails.zoomPhoneCloudPeering.enabled"},
		{"service is null", "PUT", acc, accountWith(`"zoomPhoneCloudPeering":null`), nil, 400, "InvalidFieldType",
			"serviceDetails.zoomPhoneCloudPeering"},
		{"correlation id too long", "PUT", acc, `{"name":"acme","correlationId":"` + strings.Repeat("x", 1025) + `"}`,
			nil, 400, "InvalidCorrelationId", "correlationId"},
		{"correlation id with a line feed", "PUT", acc, `{"name":"acme","correlationId":"a\nb"}`, nil, 400,
			"InvalidCorrelationId", "correlationId"},
		{"correlation id with a tab", "PUT", acc, `{"name":"acme","correlationId":"a\tb"}`, nil, 400,
			"InvalidCorrelationId", "correlationId"},
		{"correlation id with a C1 line break", "PUT", acc, `{"name":"acme","correlationId":"a\u0085b"}`, nil, 400,
			"InvalidCorrelationId", "correlationId"},
		{"empty tenant id", "PUT", acc, accountWith(`"teamsTenantId":""`), nil, 400, "InvalidTenantId",
			"serviceDetails.teamsTenantId"},
		{"tenant id is no GUID", "PUT", acc, accountWith(`"teamsTenantId":"contoso"`), nil, 400, "InvalidTenantId",
			"serviceDetails.teamsTenantId"},
		{"subdomain too long", "PUT", acc, accountWith(fmt.Sprintf(dr, "elevenchars", "t1")), nil, 400,
			"InvalidSubdomain", "serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"subdomain with an underscore", "PUT", acc, accountWith(fmt.Sprintf(dr, "a_b", "t1")), nil, 400,
			"InvalidSubdomain", "serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"subdomain with a dot", "PUT", acc, accountWith(fmt.Sprintf(dr, "a.b", "t1")), nil, 400, "InvalidSubdomain",
			"serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"subdomain ending in a hyphen", "PUT", acc, accountWith(fmt.Sprintf(dr, "ab-", "t1")), nil, 400,
			"InvalidSubdomain", "serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"empty subdomain", "PUT", acc, accountWith(fmt.Sprintf(dr, "", "t1")), nil, 400, "InvalidSubdomain",
			"serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"token with a space", "PUT", acc, accountWith(fmt.Sprintf(dr, "ok", "a b")), nil, 400, "InvalidSubdomainToken",
			"serviceDetails.teamsDirectRouting.configuration.subdomainTokens.region1Token"},
		{"token too long", "PUT", acc, accountWith(fmt.Sprintf(dr, "ok", strings.Repeat("t", 101))), nil, 400,
			"InvalidSubdomainToken", "serviceDetails.teamsDirectRouting.configuration.subdomainTokens.region1Token"},
		{"token missing", "PUT", acc, accountWith(`"teamsDirectRouting":{"enabled":true,"syncEnabled":false,
			"configuration":{"callScreening":true,"subdomain":"ok","subdomainTokens":{"region1Token":"t"}}}`), nil, 400,
			"MissingField", "serviceDetails.teamsDirectRouting.configuration.subdomainTokens.region2Token"},
		{"subdomain of another account", "PUT", "/accounts/third",
			strings.Replace(accountWith(fmt.Sprintf(dr, "OTHER", "t1")), "acme", "third", 1), nil, 409,
			"SubdomainTaken", "serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"subdomain changed while in use", "PUT", acc, accountWith(keepAll + "," + fmt.Sprintf(dr, "acme2", "t1")), nil,
			409, "SubdomainInUse", "serviceDetails.teamsDirectRouting.configuration.subdomain"},
		{"service disabled while in use", "PUT", acc,
			accountWith(strings.Replace(keepAll, `"zoomPhoneCloudPeering":{"syncEnabled":false,"enabled":true}`,
				`"zoomPhoneCloudPeering":{"syncEnabled":false,"enabled":false}`, 1) + "," +
				fmt.Sprintf(dr, "acme", "t1")), nil, 409, "ServiceInUse",
			"serviceDetails.zoomPhoneCloudPeering.enabled"},
		{"tenant changed while in use", "PUT", acc, accountWith(strings.Replace(keepAll, "a7f4", "b7f4", 1) + "," +
			fmt.Sprintf(dr, "acme", "t1")), nil, 409, "TeamsTenantIdInUse", "serviceDetails.teamsTenantId"},
		{"DELETE with numbers", "DELETE", acc, "", nil, 400, "AccountHasNumbers", ""},

		// Numbers.
		{"no serviceDetails", "PUT", num, `{"telephoneNumber":"+14255550142","accountName":"acme"}`, nil, 400,
			"MissingField", "serviceDetails"},
		{"serviceDetails is a list", "PUT", num,
			`{"telephoneNumber":"+14255550142","accountName":"acme","serviceDetails":[]}`, nil, 400, "InvalidFieldType",
			"serviceDetails"},
		{"another number", "PUT", num, strings.Replace(numberWith(zoom, ""), "0142", "0143", 1), nil, 400,
			"TelephoneNumberMismatch", "telephoneNumber"},
		{"another account", "PUT", num, strings.Replace(numberWith(zoom, ""), "acme", "other", 1), nil, 400,
			"AccountNameMismatch", "accountName"},
		{"number is a number", "PUT", num, strings.Replace(numberWith(zoom, ""), `"+14255550142"`, `14255550142`, 1),
			nil, 400, "InvalidFieldType", "telephoneNumber"},
		{"number on another account", "PUT", acc + "/numbers/+442079460123",
			`{"telephoneNumber":"+442079460123","accountName":"acme","serviceDetails":{` + zoom + `}}`, nil, 409,
			"NumberAssignedToAnotherAccount", "telephoneNumber"},
		{"DELETE of another account's number", "DELETE", acc + "/numbers/+442079460123", "", nil, 404,
			"NumberNotFound", ""},
		{"service not enabled on the account", "PUT", num, numberWith(`"teamsPhoneMobile":{"enabled":true}`, ""), nil,
			400, "ServiceNotEnabledOnAccount", "serviceDetails.teamsPhoneMobile.enabled"},
		{"two services", "PUT", num, numberWith(zoom+`,"teamsDirectRouting":{"enabled":true}`, ""), nil, 400,
			"ServicesExcludeEachOther", ""},
		{"Call Protection with Zoom", "PUT", num,
			numberWith(zoom+`,"azureOperatorCallProtection":{"enabled":true}`, ""), nil, 400,
			"ServicesExcludeEachOther", ""},
		{"header with a space", "PUT", num, numberWith(zoom, `,"configuration":{"customSipHeader":"a b"}`), nil, 400,
			"InvalidCustomSipHeader", "configuration.customSipHeader"},
		{"empty header", "PUT", num, numberWith(zoom, `,"configuration":{"customSipHeader":""}`), nil, 400,
			"InvalidCustomSipHeader", "configuration.customSipHeader"},
		{"header too long", "PUT", num, numberWith(zoom, `,"configuration":{"customSipHeader":"`+
			strings.Repeat("h", 101)+`"}`), nil, 400, "InvalidCustomSipHeader", "configuration.customSipHeader"},
		{"header where none is carried", "PUT", num, numberWith(`"azureOperatorCallProtection":{"enabled":true}`,
			`,"configuration":{"customSipHeader":"x"}`), nil, 400, "CustomSipHeaderNotSupported",
			"configuration.customSipHeader"},
		{"unknown configuration member", "PUT", num, numberWith(zoom, `,"configuration":{"header":"x"}`), nil, 400,
			"UnknownField", "configuration.header"},
		{"assignment status of Zoom", "PUT", num,
			numberWith(`"zoomPhoneCloudPeering":{"enabled":true,"assignmentStatus":"assigned"}`, ""), nil, 400,
			"UnknownField", "serviceDetails.zoomPhoneCloudPeering.assignmentStatus"},
		{"empty assignment status", "PUT", num, numberWith(oc(`"assignmentStatus":""`), ""), nil, 400,
			"InvalidAssignmentStatus", "serviceDetails.teamsOperatorConnect.assignmentStatus"},
		{"unknown assignment status", "PUT", num, numberWith(oc(`"assignmentStatus":"maybe"`), ""), nil, 400,
			"InvalidAssignmentStatus", "serviceDetails.teamsOperatorConnect.assignmentStatus"},
		{"no usage", "PUT", num, numberWith(oc(`"configuration":{"choosableCapabilities":[]}`), ""), nil, 400,
			"MissingField", "serviceDetails.teamsOperatorConnect.configuration.usage"},
		{"empty usage", "PUT", num, numberWith(oc(`"configuration":{"usage":"","choosableCapabilities":[]}`), ""), nil,
			400, "InvalidTeamsConfiguration", "serviceDetails.teamsOperatorConnect.configuration.usage"},
		{"no capabilities", "PUT", num, numberWith(oc(`"configuration":{"usage":"x"}`), ""), nil, 400, "MissingField",
			"serviceDetails.teamsOperatorConnect.configuration.choosableCapabilities"},
		{"capability is a number", "PUT", num,
			numberWith(oc(`"configuration":{"usage":"x","choosableCapabilities":["a",7]}`), ""), nil, 400,
			"InvalidFieldType", "serviceDetails.teamsOperatorConnect.configuration.choosableCapabilities[1]"},
		{"allowTenantAddressUpdate is a string", "PUT", num,
			numberWith(oc(`"configuration":{"usage":"x","choosableCapabilities":[],"allowTenantAddressUpdate":"no"}`),
				""), nil, 400, "InvalidFieldType",
			"serviceDetails.teamsOperatorConnect.configuration.allowTenantAddressUpdate"},

		// Batches.
		{"no numbers", "POST", upsert, `{}`, nil, 400, "MissingField", "numbers"},
		{"numbers is an object", "POST", upsert, `{"numbers":{}}`, nil, 400, "InvalidFieldType", "numbers"},
		{"unknown member of a batch", "POST", del, `{"numbers":[],"force":true}`, nil, 400, "UnknownField", "force"},
		{"101 numbers", "POST", upsert, many(101), nil, 400, "TooManyItems", "numbers"},
		{"101 numbers to delete", "POST", del,
			strings.ReplaceAll(many(101),
				`,"accountName":"acme","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true}}`, ""), nil, 400,
			"TooManyItems", "numbers"},
		{"bad number to ask for", "POST", caps, batchOf(`{"telephoneNumber":"14255559999"}`), nil, 400,
			"BatchRejected", ""},
		{"101 numbers to ask for", "POST", caps,
			strings.ReplaceAll(many(101),
				`,"accountName":"acme","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true}}`, ""), nil, 400,
			"TooManyItems", "numbers"},

		// Requests for information.
		{"status is a number", "PATCH", rfi, `{"customerRelationship":{"status":1}}`, nil, 400, "InvalidFieldType",
			"customerRelationship.status"},
		{"unknown member of a relationship", "PATCH", rfi, `{"customerRelationship":{"state":"x"}}`, nil, 400,
			"UnknownField", "customerRelationship.state"},
		{"unknown member of a request", "PATCH", rfi, `{"relationship":{}}`, nil, 400, "UnknownField", "relationship"},
		{"comment too long", "PATCH", rfi, `{"customerRelationship":{"comment":"` + strings.Repeat("x", 5000) + `"}}`,
			nil, 400, "InvalidCustomerRelationship", "customerRelationship.comment"},
		{"relationship is a string", "PATCH", rfi, `{"customerRelationship":"x"}`, nil, 400, "InvalidFieldType",
			"customerRelationship"},

		// Repeatability.
		{"id without first-sent", "PUT", acc, account("acme"), header{"Repeatability-Request-ID": "x"}, 412,
			"RepeatabilityInvalid", "Repeatability-First-Sent"},
		{"first-sent without id", "PUT", acc, account("acme"),
			header{"Repeatability-First-Sent": "Tue, 05 Mar 2024 10:00:00 GMT"}, 412, "RepeatabilityInvalid",
			"Repeatability-Request-ID"},
		{"first-sent is no date", "DELETE", num, "",
			header{"Repeatability-Request-ID": "x", "Repeatability-First-Sent": "now"}, 412, "RepeatabilityInvalid",
			"Repeatability-First-Sent"},
		{"id with a space", "POST", plans, "", header{"Repeatability-Request-ID": "x y",
			"Repeatability-First-Sent": "Tue, 05 Mar 2024 10:00:00 GMT"}, 412, "RepeatabilityInvalid",
			"Repeatability-Request-ID"},
		{"id too long", "POST", plans, "", header{"Repeatability-Request-ID": strings.Repeat("x", 129),
			"Repeatability-First-Sent": "Tue, 05 Mar 2024 10:00:00 GMT"}, 412, "RepeatabilityInvalid",
			"Repeatability-Request-ID"},
		{"first-sent long ago", "POST", upsert, batchOf(),
			header{"Repeatability-Request-ID": "x", "Repeatability-First-Sent": "Tue, 05 Mar 2024 10:00:00 GMT"}, 412,
			"RepeatabilityFirstSentOutOfRange", "Repeatability-First-Sent"},
		{"first-sent in year 1", "POST", upsert, batchOf(),
			header{"Repeatability-Request-ID": "x", "Repeatability-First-Sent": "Mon, 01 Jan 0001 00:00:00 GMT"}, 412,
			"RepeatabilityFirstSentOutOfRange", "Repeatability-First-Sent"},
		{"first-sent in the future", "PATCH", rfi, `{}`,
			header{"Repeatability-Request-ID": "x", "Repeatability-First-Sent": "2199-01-01T00:00:00Z"}, 412,
			"RepeatabilityFirstSentOutOfRange", "Repeatability-First-Sent"},
	}
	onEngines(t, func(b *bed) {
		b.seed()
		b.do("PUT", acc, accountWith(keepAll+","+fmt.Sprintf(dr, "acme", "t1"))).want(201)
		b.do("PUT", "/accounts/other",
			`{"name":"other","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false},`+
				fmt.Sprintf(dr, "other", "t1")+`}}`).want(201)
		b.do("PUT", "/accounts/other/numbers/+442079460123",
			number("other", "+442079460123", "zoomPhoneCloudPeering")).want(201)
		for i, s := range []string{"teamsDirectRouting", "teamsOperatorConnect", "zoomPhoneCloudPeering",
			"azureOperatorCallProtection"} {
			n := fmt.Sprintf("+1425555010%d", i)
			b.do("PUT", acc+"/numbers/"+n, number("acme", n, s)).want(201)
		}
		state := func() string {
			return string(b.do("GET", "/accounts", "").want(200).body) +
				string(b.do("GET", "/numbers", "").want(200).body) + string(b.do("GET", rfi, "").want(200).body)
		}
		before := state()
		for _, tc := range cases {
			e := b.do(tc.method, tc.path, tc.body, tc.header)
			er := e.error()
			if e.status != tc.status || er.Code != tc.code || tc.target != "" && er.Target != tc.target {
				b.t.Errorf("%s: %s %s answered %d %s at %q, want %d %s at %q: %s", tc.name, tc.method, tc.path,
					e.status, er.Code, er.Target, tc.status, tc.code, tc.target, er.Message)
			}
			if tc.status == 412 && strings.HasPrefix(tc.code, "Repeatability") &&
				e.header.Get("Repeatability-Result") != "rejected" {
				b.t.Errorf("%s: Repeatability-Result is %q, want rejected", tc.name,
					e.header.Get("Repeatability-Result"))
			}
			if tc.status == 405 && e.header.Get("Allow") == "" {
				b.t.Errorf("%s: 405 without Allow", tc.name)
			}
		}
		if after := state(); after != before {
			b.t.Errorf("a refused request changed something:\nbefore %s\nafter  %s", before, after)
		}
	})
}

// TestBatchNamesEachBadItem: one detail per bad item, each with its own code and place, and nothing is stored.
func TestBatchNamesEachBadItem(t *testing.T) {
	onEngines(t, func(b *bed) {
		b.do("PUT", "/accounts/acme", account("acme", "zoomPhoneCloudPeering")).want(201)
		b.do("PUT", "/accounts/other", account("other", "zoomPhoneCloudPeering")).want(201)
		b.do("PUT", "/accounts/other/numbers/+442079460123",
			number("other", "+442079460123", "zoomPhoneCloudPeering")).want(201)
		check := func(body string, want ...string) {
			b.t.Helper()
			e := b.do("POST", "/accounts/acme:createOrUpdateNumbers", body).fails(400, "BatchRejected")
			var got []string
			for _, d := range e.error().Details {
				got = append(got, d.Target+" "+d.Code)
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				b.t.Errorf("details\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if k := b.do("GET", "/accounts/acme/numbers", "").want(200).keys("telephoneNumber"); len(k) != 0 {
				b.t.Errorf("a refused batch stored %v", k)
			}
		}
		good := number("acme", "+14255550101", "zoomPhoneCloudPeering")
		check(batchOf(good, number("acme", "14255550102", "zoomPhoneCloudPeering"),
			number("other", "+14255550103", "zoomPhoneCloudPeering"),
			number("acme", "+14255550104", "teamsDirectRouting"),
			number("acme", "+442079460123", "zoomPhoneCloudPeering"), good),
			"numbers[1].telephoneNumber InvalidTelephoneNumber", "numbers[2].accountName AccountNameMismatch",
			"numbers[3].serviceDetails.teamsDirectRouting.enabled ServiceNotEnabledOnAccount",
			"numbers[4].telephoneNumber NumberAssignedToAnotherAccount",
			"numbers[5].telephoneNumber DuplicateNumber")
		check(batchOf(good, `{"telephoneNumber":"+14255550102","accountName":"acme"}`, `7`,
			`{"telephoneNumber":"+14255550104","accountName":"acme","serviceDetails":{},"x":1,"y":2}`),
			"numbers[1].serviceDetails MissingField", "numbers[2] InvalidFieldType", "numbers[3].x UnknownField")
		// Wrong shapes and broken rules are reported together.
		check(batchOf(`7`, number("acme", "+14255550104", "teamsDirectRouting"),
			`{"telephoneNumber":"+14255550102","accountName":"acme"}`,
			number("acme", "+442079460123", "zoomPhoneCloudPeering")),
			"numbers[0] InvalidFieldType",
			"numbers[1].serviceDetails.teamsDirectRouting.enabled ServiceNotEnabledOnAccount",
			"numbers[2].serviceDetails MissingField", "numbers[3].telephoneNumber NumberAssignedToAnotherAccount")
		both := b.do("POST", "/accounts/acme:deleteNumbers", batchOf(`7`, `{"telephoneNumber":"+442079460123"}`,
			`{"telephoneNumber":"x"}`)).fails(400, "BatchRejected")
		if n := len(both.error().Details); n != 3 {
			b.t.Errorf("%d details for three bad items: %s", n, both.body)
		}
		e := b.do("POST", "/accounts/acme:deleteNumbers", batchOf(`{"telephoneNumber":"+442079460123"}`,
			`{"telephoneNumber":"x"}`))
		e.fails(400, "BatchRejected")
		if strings.Contains(string(e.body), `other`) && !strings.Contains(string(e.body), "another account") {
			b.t.Errorf("the answer names the other account: %s", e.body)
		}
		// A batch may have 100 numbers.
		var l []string
		for i := range 100 {
			l = append(l, number("acme", fmt.Sprintf("+1425555%04d", i), "zoomPhoneCloudPeering"))
		}
		if ns := b.do("POST", "/accounts/acme:createOrUpdateNumbers",
			batchOf(l...)).want(200).object()["numbers"].([]any); len(ns) != 100 {
			b.t.Errorf("a batch of 100 stored %d", len(ns))
		}
		b.do("POST", "/accounts/acme:createOrUpdateNumbers", batchOf()).want(200)
		b.do("POST", "/accounts/acme:deleteNumbers", batchOf()).want(204)
	})
}

// TestManyProblemsAtOnce: all problems of a single object are reported together.
func TestManyProblemsAtOnce(t *testing.T) {
	b := onSQLite(t, options{})
	e := b.do("PUT", "/accounts/acme",
		`{"name":7,"x":1,"serviceDetails":{"zoomPhoneCloudPeering":{"enabled":"yes"}}}`).fails(400,
		"InvalidRequestBody")
	var got []string
	for _, d := range e.error().Details {
		got = append(got, d.Target+" "+d.Code)
	}
	want := "name InvalidFieldType, serviceDetails.zoomPhoneCloudPeering.enabled InvalidFieldType, " +
		"serviceDetails.zoomPhoneCloudPeering.syncEnabled MissingField, x UnknownField"
	if strings.Join(got, ", ") != want {
		t.Errorf("details %s, want %s", strings.Join(got, ", "), want)
	}
}
