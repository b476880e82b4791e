package provapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOperations exercises all 18 operations as a BSS would, with requests that the documents allow.
func TestOperations(t *testing.T) {
	onEngines(t, func(b *bed) {
		b.seed()
		ok := func(method, target, body string, status int, h ...header) *exchange {
			b.t.Helper()
			all := header{"x-ms-client-request-id": "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"}
			for _, x := range h {
				for k, v := range x {
					all[k] = v
				}
			}
			sep := "?"
			if strings.Contains(target, "?") {
				sep = "&"
			}
			validateRequest(b.t, method, target+sep+version, body, all)
			e := b.do(method, target, body, all).want(status)
			if got := e.header.Get("x-ms-client-request-id"); got != all["x-ms-client-request-id"] {
				b.t.Errorf("%s %s: x-ms-client-request-id %q comes back as %q", method, target,
					all["x-ms-client-request-id"], got)
			}
			return e
		}
		ok("GET", "/accounts", "", 200)
		e := ok("PUT", "/accounts/contoso",
			`{"name":"contoso","correlationId":"crm-4711","serviceDetails":{"teamsTenantId":"`+tenant+`",
			"teamsDirectRouting":{"enabled":true,"syncEnabled":false,
				"configuration":{"callScreening":true,"subdomain":"contoso",
					"subdomainTokens":{"region1Token":"MS=ms10000001","region2Token":"MS=ms10000002"}}},
			"teamsOperatorConnect":{"enabled":true,"syncEnabled":false},
			"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false},
			"azureOperatorCallProtection":{"enabled":true},
			"teamsPhoneMobile":{"enabled":false,"syncEnabled":false}}}`, 201, header{"If-None-Match": "*"})
		first := e.header.Get("ETag")
		if first == "" {
			b.t.Error("201 without an ETag")
		}
		// The answer can be sent back unchanged: read-only members are ignored.
		got := ok("GET", "/accounts/contoso", "", 200)
		e = ok("PUT", "/accounts/contoso",
			strings.Replace(string(dropReadOnly(b.t, got.body)), "crm-4711", "crm-4712", 1), 200,
			header{"If-Match": first})
		b.do("PUT", "/accounts/contoso", string(e.body)).want(200)
		if e.header.Get("ETag") == first {
			b.t.Error("the account changed and its ETag did not")
		}
		// An encoded plus sign and a raw one name the same number.
		ok("PUT", "/accounts/contoso/numbers/%2B14255550142",
			`{"telephoneNumber":"+14255550142","accountName":"contoso",
			"serviceDetails":{"teamsDirectRouting":{"enabled":true}},
			"configuration":{"customSipHeader":"NW-7781"}}`, 201)
		ok("PUT", "/accounts/contoso/numbers/+14255550142",
			`{"telephoneNumber":"+14255550142","accountName":"contoso",
			"serviceDetails":{"teamsDirectRouting":{"enabled":true}},
			"configuration":{"customSipHeader":"NW-7782"}}`, 200)
		raw := ok("GET", "/accounts/contoso/numbers/+14255550142", "", 200)
		if e := ok("GET", "/accounts/contoso/numbers/%2B14255550142", "", 200); string(e.body) != string(raw.body) ||
			!strings.Contains(string(e.body), "NW-7782") {
			b.t.Errorf("%%2B gives %s, + gives %s", e.body, raw.body)
		}
		e = ok("POST", "/accounts/contoso:createOrUpdateNumbers", batchOf(
			`{"telephoneNumber":"+14255550150","accountName":"contoso","serviceDetails":{"teamsOperatorConnect":{
			"enabled":true,"configuration":{"usage":"CallingUserAssignment",
			"choosableCapabilities":["InboundCalling","OutboundCalling"],"allowTenantAddressUpdate":true}}}}`,
			number("contoso", "+14255550151", "zoomPhoneCloudPeering")), 200)
		if ns := e.object()["numbers"].([]any); len(ns) != 2 ||
			ns[0].(map[string]any)["telephoneNumber"] != "+14255550150" {
			b.t.Errorf("the batch answered %s", e.body)
		}
		if got := ok("GET", "/accounts/contoso/numbers?countRecords=true&top=2&skip=1&maxpagesize=1", "",
			200); len(got.keys("telephoneNumber")) != 1 || got.header.Get("x-ms-record-count") != "3" ||
			got.next() == "" {
			b.t.Errorf("the list answered %s with %q records", got.body, got.header.Get("x-ms-record-count"))
		}
		e = ok("GET", "/numbers?filter="+url.QueryEscape("serviceDetails/zoomPhoneCloudPeering/enabled eq true"), "",
			200)
		if k := e.keys("telephoneNumber"); len(k) != 1 || k[0] != "+14255550151" ||
			e.header.Get("x-ms-record-count") != "" {
			b.t.Errorf("the filter answered %v, with %q records though not asked", k, e.header.Get("x-ms-record-count"))
		}
		if e := ok("POST", "/accounts/contoso:getTeamsCapabilityPlans", "", 200); !strings.Contains(string(e.body),
			"capability-plan") {
			b.t.Errorf("capability plans: %s", e.body)
		}
		ok("POST", "/accounts/contoso:getTeamsAvailableCapabilities",
			batchOf(`{"telephoneNumber":"+14255550150"}`), 200)
		if e := ok("GET", "/accounts/contoso/teamsCivicAddresses?countRecords=true", "",
			200); e.header.Get("x-ms-record-count") != "1" {
			b.t.Errorf("civic addresses: %s", e.body)
		}
		e = ok("GET", "/accounts/contoso/teamsCivicAddresses/ebfee340-a791-11ed-9bfa-ed8bb5c41be4", "", 200)
		ok("GET", "/accounts/contoso/teamsCivicAddresses/ebfee340-a791-11ed-9bfa-ed8bb5c41be4", "", 304,
			header{"If-None-Match": e.header.Get("ETag")})
		if e := ok("GET", "/teamsRequestsForInformation?countRecords=true", "",
			200); e.header.Get("x-ms-record-count") != "1" ||
			!strings.Contains(string(e.body), `"accountName":"contoso"`) {
			b.t.Errorf("requests for information: %s", e.body)
		}
		e = ok("GET", "/teamsRequestsForInformation/"+strings.ToUpper(tenant), "", 200)
		ok("PATCH", "/teamsRequestsForInformation/"+tenant,
			`{"customerRelationship":{"status":"AgreementSigned","comment":"Contract 2024-118"}}`, 200,
			header{"Content-Type": "application/merge-patch+json", "If-Match": e.header.Get("ETag")})
		// application/json is read the same way
		e = b.do("PATCH", "/teamsRequestsForInformation/"+tenant, `{"customerRelationship":{"comment":null}}`).want(200)
		if rel := e.object()["customerRelationship"].(map[string]any); rel["status"] != "AgreementSigned" ||
			rel["comment"] != nil {
			b.t.Errorf("the merge patch left %v", rel)
		}
		ok("DELETE", "/accounts/contoso/numbers/+14255550142", "", 204)
		ok("POST", "/accounts/contoso:deleteNumbers", batchOf(`{"telephoneNumber":"+14255550150"}`,
			`{"telephoneNumber":"+19999999999"}`), 204)
		b.do("DELETE", "/accounts/contoso", "").fails(400, "AccountHasNumbers")
		b.do("DELETE", "/accounts/contoso?deleteNumbers=false", "").fails(400, "AccountHasNumbers")
		ok("DELETE", "/accounts/contoso?deleteNumbers=true", "", 204)
		b.do("GET", "/accounts/contoso", "").fails(404, "AccountNotFound")
		if k := ok("GET", "/numbers", "", 200).keys("telephoneNumber"); len(k) != 0 {
			b.t.Errorf("numbers remain after their account was deleted: %v", k)
		}
	})
}

// dropReadOnly removes the members that a validator does not let callers send.
func dropReadOnly(t testing.TB, body []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	var drop func(any)
	drop = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range []string{"serviceProvisioningStatus", "serviceProvisioningErrors", "numberCount",
				"subdomainStatus"} {
				delete(v, k)
			}
			for _, x := range v {
				drop(x)
			}
		case []any:
			for _, x := range v {
				drop(x)
			}
		}
	}
	drop(v)
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPublishedExamples replays every published example: the request is accepted, and the answer has the shape of the
// example and, where the example's state was set up, the same values.
func TestPublishedExamples(t *testing.T) {
	dir := sharedSpecs + "provisioning-examples"
	files, err := filepath.Glob(dir + "/*.json")
	if _, serr := os.Stat(dir); errors.Is(serr, fs.ErrNotExist) {
		t.Skipf("the published examples are not on this machine (%s)", dir)
	}
	if err != nil || len(files) != 18 {
		t.Fatalf("%d examples, %v; want 18", len(files), err)
	}
	onEngines(t, func(b *bed) {
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				b.t.Fatal(err)
			}
			b.example(filepath.Base(file), raw)
		}
	})
}

type example struct {
	OperationID string                     `json:"operationId"`
	Parameters  map[string]json.RawMessage `json:"parameters"`
	Responses   map[string]struct {
		Body    any            `json:"body"`
		Headers map[string]any `json:"headers"`
	} `json:"responses"`
}

// example runs one example on a directory in the state that the examples assume.
func (b *bed) example(name string, raw []byte) {
	b.t.Helper()
	var x example
	if err := json.Unmarshal(raw, &x); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	var op *documentOperation
	for i, o := range documents()[0].ops {
		if strings.EqualFold(o.op.OperationID, x.OperationID) {
			op = &documents()[0].ops[i]
		}
	}
	if op == nil {
		b.t.Fatalf("%s: no operation %s", name, x.OperationID)
	}
	// The state: an account with Operator Connect, two numbers, the helper data and an acknowledged request.
	b.do("DELETE", "/accounts/contoso?deleteNumbers=true", "")
	b.seed()
	fresh := strings.HasPrefix(name, "PutAccount.")
	if !fresh {
		b.do("PUT", "/accounts/contoso",
			`{"name":"contoso","correlationId":"c7aa0070-3956-11eb-8d59-4d9d2e7a4a8d","serviceDetails":{
			"teamsTenantId":"`+tenant+`","teamsOperatorConnect":{"enabled":true,"syncEnabled":true}}}`).want(201)
		if !strings.HasPrefix(name, "PutAccountNumber.") {
			n := `{"telephoneNumber":"+1510585032%d","accountName":"contoso","serviceDetails":{"teamsOperatorConnect":{
				"enabled":true,"assignmentStatus":"assigned",
				"configuration":{"usage":"CallingUserAssignment","choosableCapabilities":["InboundCalling"]}}},
				"configuration":{"customSipHeader":"contoso-commsgw"}}`
			b.do("POST", "/accounts/contoso:createOrUpdateNumbers",
				batchOf(fmt.Sprintf(n, 1), fmt.Sprintf(n, 2))).want(200)
		}
		b.do("PATCH", "/teamsRequestsForInformation/"+tenant,
			`{"customerRelationship":{"status":"ConsentAcknowledged","comment":"Acknowledged"}}`).want(200)
	}
	path, query, body := op.path, url.Values{}, ""
	for k, v := range x.Parameters {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(v)
		}
		switch {
		case k == "resource" || k == "body":
			body = string(v)
		case strings.Contains(path, "{"+k+"}"):
			path = strings.ReplaceAll(path, "{"+k+"}", url.PathEscape(s))
		default:
			query.Set(k, s)
		}
	}
	h := header{}
	if op.method == http.MethodPatch {
		h["Content-Type"] = "application/merge-patch+json"
	}
	validateRequest(b.t, op.method, path+"?"+query.Encode(), body, h)
	run := func(want int) {
		b.t.Helper()
		e := b.raw(op.method, path+"?"+query.Encode(), body, h).want(want)
		ex, ok := x.Responses[fmt.Sprint(want)]
		if !ok {
			b.t.Errorf("%s: the example has no answer %d", name, want)
			return
		}
		for k, v := range ex.Headers {
			if got := e.header.Get(k); got != fmt.Sprint(v) {
				b.t.Errorf("%s: header %s is %q, the example has %v", name, k, got, v)
			}
		}
		if ex.Body == nil {
			if len(e.body) != 0 {
				b.t.Errorf("%s: the answer has a body, the example none", name)
			}
			return
		}
		var got any
		if err := json.Unmarshal(e.body, &got); err != nil {
			b.t.Fatal(err)
		}
		if diff := cmp.Diff(comparable(ex.Body), comparable(got)); diff != "" {
			b.t.Errorf("%s: the answer differs from the example (-example +answer):\n%s", name, diff)
		}
	}
	switch {
	case op.method == http.MethodPut:
		run(201)
		run(200)
	case op.method == http.MethodDelete || strings.HasSuffix(op.path, ":deleteNumbers"):
		run(204)
	default:
		run(200)
	}
}

// comparable masks what an example cannot know: the number of numbers, whether a push is done (we say synced where
// nothing is pushed) and when the relationship was written.
func comparable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			switch k {
			case "numberCount", "serviceProvisioningStatus":
				x = "varies"
			case "customerRelationship":
				if m, ok := x.(map[string]any); ok {
					m["lastModifiedOn"] = "varies"
				}
			case "lastModifiedOn":
				x = "varies"
			}
			out[k] = comparable(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = comparable(v[i])
		}
		return out
	}
	return v
}
