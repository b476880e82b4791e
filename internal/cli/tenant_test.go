package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
)

// TestTenantSetReplacesLists: a list that is given replaces the one before as a whole, in tenants and templates. An
// emergency number keeps no mask, and a range of extensions no base, of the element that was there. All else stays.
func TestTenantSetReplacesLists(t *testing.T) {
	t.Parallel()
	emergency := []api.EmergencyNumber{{DialString: "112", Mask: "999"}, {DialString: "911"}}
	extensions := []api.Extensions{{Range: "2xxx", Base: "+1425555"}}
	var sent map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			sent = nil
			if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
				t.Error(err)
			}
		}
		w.Header().Set("ETag", `"1"`)
		var answer any = api.Tenant{Account: "acme", Settings: api.TenantSettings{TenantID: "T",
			Label: "acme", OwnLabel: true, Emergency: emergency, Extensions: extensions}}
		if strings.Contains(r.URL.Path, "emplate") {
			answer = api.Template{Name: "branch", Settings: api.TemplateSettings{Country: "GB", Emergency: emergency,
				Extensions: extensions}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()

	file := filepath.Join(t.TempDir(), "rules.json")
	if err := os.WriteFile(file, []byte(`[{"name": "short", "pattern": "^(\\d{3})$", "translation": "$1"}]`),
		0o600); err != nil {
		t.Fatal(err)
	}

	was := []any{map[string]any{"dialString": "112", "mask": "999"}, map[string]any{"dialString": "911"}}
	for _, c := range []struct {
		command string
		want    map[string]any
	}{
		{"tenant set acme --emergency 999 --extensions 3xx", map[string]any{"tenantId": "T", "label": "acme",
			"ownLabel": true, "emergency": []any{map[string]any{"dialString": "999"}},
			"extensions": []any{map[string]any{"range": "3xx"}}}},
		{"tenant set acme --extensions 3xx --emergency 999 --rules " + file, map[string]any{"tenantId": "T",
			"label": "acme", "ownLabel": true, "emergency": []any{map[string]any{"dialString": "999"}},
			"extensions": []any{map[string]any{"range": "3xx"}},
			"rules":      []any{map[string]any{"name": "short", "pattern": `^(\d{3})$`, "translation": "$1"}}}},
		{"tenant set acme --own-label=false --extensions 3xx", map[string]any{"tenantId": "T", "label": "acme",
			"emergency": was, "extensions": []any{map[string]any{"range": "3xx"}}}},
		{"tenant set acme --tenant= --own-label=false --extensions 3xx", map[string]any{"label": "acme",
			"emergency": was, "extensions": []any{map[string]any{"range": "3xx"}}}},
		{"tenant template put branch --emergency 999 --extensions 3xx", map[string]any{"country": "GB",
			"emergency":  []any{map[string]any{"dialString": "999"}},
			"extensions": []any{map[string]any{"range": "3xx"}}}},
	} {
		var out strings.Builder
		code := Run(t.Context(), Program{Args: append(strings.Fields(c.command), "--url", server.URL),
			Stdout: io.Discard, Stderr: &out})
		if code != exitOK || !reflect.DeepEqual(sent, c.want) {
			t.Errorf("%s: exit code %d, sent %v, want %v\n%s", c.command, code, sent, c.want, out.String())
		}
	}
}

// TestWrongSettingsAreShown: what is wrong with a setting is shown with where it is, for tenants and templates.
func TestWrongSettingsAreShown(t *testing.T) {
	t.Parallel()
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		code, status := "TenantNotFound", http.StatusNotFound
		if strings.Contains(r.URL.Path, "emplate") {
			code = "TemplateNotFound"
		}
		target := ""
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			sent = string(body)
			code, target, status = "Wrong", "here[0]", http.StatusBadRequest
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": http.StatusText(status),
			"status": status, "code": code, "target": target, "detail": "do something else"})
	}))
	defer server.Close()

	for flags, want := range map[string]string{
		"--emergency +112":             `{"emergency":[{"dialString":"+112"}]}`,
		"--emergency 112=999;":         `{"emergency":[{"dialString":"112","mask":"999;"}]}`,
		"--licence E5":                 `{"licence":"E5"}`,
		"--area-code 20":               `{"areaCode":"20"}`,
		"--country GB --area-code 020": `{"areaCode":"020","country":"GB"}`,
		"--trunk gateways":             `{"trunk":"gateways"}`,
		"--extensions 2y":              `{"extensions":[{"range":"2y"}]}`,
	} {
		for _, command := range []string{"tenant set acme ", "tenant template put branch "} {
			var out strings.Builder
			code := Run(t.Context(), Program{Args: append(strings.Fields(command+flags), "--url", server.URL),
				Stdout: io.Discard, Stderr: &out})
			if code == exitOK || !sameJSON(t, sent, want) || !strings.Contains(out.String(), "here[0]") ||
				!strings.Contains(out.String(), "do something else") {
				t.Errorf("%s: exit code %d, sent %s, want %s\n%s", command+flags, code, sent, want, out.String())
			}
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Error(err)
	}
	return reflect.DeepEqual(x, y)
}

// TestPlansShowWhatIsApproved: times are in whole units, emergency numbers and the end of the consent are shown, and
// the command that carries a plan out is the one of its tenant.
func TestPlansShowWhatIsApproved(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := strings.Split(r.URL.Path, "/")[4]
		_ = json.NewEncoder(w).Encode(api.TenantPlan{Account: account, ID: "P", Purpose: "onboard",
			RemovesConsent: account == "acme",
			Steps: []api.PlanStep{{Action: "create", Type: "domain", Name: "a.example", Usual: 300, Longest: 86400},
				{Action: "create", Type: "emergencyPolicy", Name: "e", Differences: []api.PlanDifference{{
					Field: "numbers", New: []any{map[string]any{"dialString": "112", "mask": "999"}}}}},
				{Action: "create", Type: "route", Name: "r", Usual: 60, Longest: 90}}})
	}))
	defer server.Close()

	const consent = "- consent of Tandem's application"
	for command, last := range map[string]string{"tenant plan acme": "tandem tenant apply acme P",
		"carrier plan": "tandem carrier apply P"} {
		var out strings.Builder
		code := Run(t.Context(), Program{Args: append(strings.Fields(command), "--url", server.URL), Stdout: &out,
			Stderr: &out})
		for _, want := range []string{"a.example  (usually 5 minutes, at most 24 hours)\n",
			`numbers  [{"dialString":"112","mask":"999"}]`,
			"r  (usually 1 minute, at most 90 seconds)\n", "To carry it out: " + last + "\n"} {
			if code != exitOK || !strings.Contains(out.String(), want) {
				t.Errorf("%s: exit code %d; want %q in\n%s", command, code, want, out.String())
			}
		}
		if strings.Contains(out.String(), consent) != strings.HasPrefix(command, "tenant") {
			t.Errorf("%s:\n%s", command, out.String())
		}
	}
}

// TestWrongFlags: flags that exclude each other, and a link for no day, are mistakes of the caller.
func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"tenant plan acme --leave --repair": "see tandem tenant plan --help",
		"tenant invite acme --days 0":       "--days is from 1 to 90",
	} {
		var out strings.Builder
		code := Run(t.Context(), Program{Args: append(strings.Fields(command), "--url", "http://127.0.0.1:1"),
			Stdout: io.Discard, Stderr: &out})
		if code != exitUsage || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d: %s", command, code, out.String())
		}
	}
}

// What was decided for a tenant can be read again.
func TestTenantShowsSettings(t *testing.T) {
	t.Parallel()
	p := &page{width: screenWidth}
	printTenant(p, &api.Tenant{Account: "acme", State: "new", Settings: api.TenantSettings{Label: "acmex",
		Country: "GB", AreaCode: "20", Licence: "MCOEV", OwnUsageOnly: true, Prefix: "Branch",
		RoutePattern: `^\+?\d+$`, Users: api.UserSelection{Department: "Sales", UsageLocation: "GB"},
		ExceptUsers: []string{"u-1"},
		Extensions:  []api.Extensions{{Range: "2xxx"}},
		Emergency:   []api.EmergencyNumber{{DialString: "112", Mask: "999"}}}})
	for _, want := range []string{"label acmex", "country   GB", "area code 20", "licence   MCOEV", "Tandem's only",
		"extension 2xxx", "emergency 112 999", "prefix    Branch", `pattern   ^\+?\d+$`, "users of  Sales GB",
		"except    1 user"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("%q is missing in\n%s", want, p)
		}
	}
}

// A plan shows users by name, and first those steps that are carried out first: users leave before the objects that
// they name, and are restored after them.
func TestPlansShowUsersInOrder(t *testing.T) {
	t.Parallel()
	for purpose, users := range map[string]bool{"leave": true, "restore": false, "repair": false} {
		p := &page{width: screenWidth}
		printPlan(p, &api.TenantPlan{Account: "acme", ID: "P", Purpose: purpose,
			Steps: []api.PlanStep{{Action: "delete", Type: "routingPolicy", Name: "Tandem-E164"}},
			Users: []api.PlanStep{{Action: "change", Type: "user", Name: "11111111-0000-4000-8000-000000000001",
				User: "anna@contoso.example", DisplayName: "Anna Meier"}},
			Kept: []api.PlanNote{{Type: "user", Name: "11111111-0000-4000-8000-000000000002",
				User: "ben@contoso.example", Text: "changed since by someone else"}}})
		text := p.String()
		first := strings.Index(text, "~ user anna@contoso.example (Anna Meier)")
		second := strings.Index(text, "- routingPolicy Tandem-E164")
		if first < 0 || second < 0 || (first < second) != users || strings.Contains(text, "11111111") ||
			!strings.Contains(text, "user ben@contoso.example: changed") {
			t.Errorf("%s:\n%s", purpose, text)
		}
	}
	p := &page{width: 200}
	printReport(p, &api.LeaveReport{Outcomes: []api.LeaveOutcome{{Type: "user", Name: "1", User: "anna@contoso.example",
		Fate: "putBack"}, {Type: "consent", Name: "app", Fate: "gone"}}})
	printDrift(p, &api.Drift{Checked: time.Unix(1, 0), Differences: []api.DriftDifference{{ID: 1, Type: "user",
		Name: "1", User: "ben@contoso.example", DisplayName: "Ben", Cause: "changed", Field: "number"}}})
	for _, want := range []string{"anna@contoso.example  as before Tandem", "user ben@contoso.example (Ben)"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("no %q in\n%s", want, p)
		}
	}
}
