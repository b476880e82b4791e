package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
)

// TestChecksExitWith5: checks print what they found, and their exit code says whether something failed.
func TestChecksExitWith5(t *testing.T) {
	t.Parallel()
	failing := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		either := func(bad, good any) any {
			if failing {
				return bad
			}
			return good
		}
		good := api.Readiness{Account: "acme", Stage: "consent", Passed: 1, Note: "half",
			Findings: []api.ReadinessFinding{{ID: "cloud", Level: "pass", Stage: "consent", Reason: "fine"}}}
		bad := good
		bad.Failed, bad.Findings = 1, append(good.Findings, api.ReadinessFinding{ID: "licence", Level: "fail",
			Stage: "consent", Reason: "no licence is free", Remedy: "buy one"})
		_ = json.NewEncoder(w).Encode(map[string]any{
			"/manage/v1/tenants/acme/readiness": either(bad, good),
			"/manage/v1/carrier/check": either(api.CarrierReport{Missing: []string{"x"}},
				api.CarrierReport{Passed: true}),
			"/manage/v1/carrier/app/check": either(api.CarrierAppReport{
				Differences: []api.AppDifference{{Field: "web"}}}, api.CarrierAppReport{ClientID: "c"}),
			"/manage/v1/carrier/app": api.CarrierApp{Name: "Tandem", Manifest: map[string]any{"displayName": "Tandem"}},
		}[r.URL.Path])
	}))
	defer server.Close()
	run := func(command string) (int, string) {
		var out strings.Builder
		code := Run(t.Context(), Program{Args: append(strings.Fields(command), "--url", server.URL), Stdout: &out,
			Stderr: io.Discard})
		return code, out.String()
	}

	for _, c := range []struct{ command, bad, good string }{
		{"tenant check acme", "fail  licence: no licence is free\n      -> buy one\nchecks: 1 failed, 0 with " +
			"remarks, 1 passed\nnot checked yet: half\n",
			"checks: 0 failed, 0 with remarks, 1 passed\nnot checked yet: half\n"},
		{"tenant check acme --all", "fail  licence: no licence is free\n      -> buy one\npass  cloud: fine\n" +
			"checks: 1 failed, 0 with remarks, 1 passed\nnot checked yet: half\n",
			"pass  cloud: fine\nchecks: 0 failed, 0 with remarks, 1 passed\nnot checked yet: half\n"},
		{"carrier check", "missing  x\n", "customers can be onboarded\n"},
		{"carrier app check", "web", "c is as it must be\n"},
	} {
		failing = true
		if code, out := run(c.command); code != exitConflict || !strings.Contains(out, c.bad) {
			t.Errorf("%s: exit code %d\n%s", c.command, code, out)
		}
		failing = false
		if code, out := run(c.command); code != exitOK || !strings.Contains(out, c.good) {
			t.Errorf("%s: exit code %d\n%s", c.command, code, out)
		}
	}
	if code, out := run("carrier app --manifest"); code != exitOK || out != "{\n  \"displayName\": \"Tandem\"\n}\n" {
		t.Errorf("the manifest: exit code %d\n%s", code, out)
	}
}
