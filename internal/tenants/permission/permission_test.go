package permission_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/tenants/permission"
)

func steps(list []permission.Step) string {
	var texts []string
	for _, s := range list {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ", ")
}

// TestDocumentation: docs/onboarding.md has one row for each permission and each role, with the texts of the table.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/onboarding.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range permission.All() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", p.Name, p.Kind, p.Why, steps(p.Steps)))
	}
	for _, r := range permission.Roles() {
		want = append(want, fmt.Sprintf("| %s | %s | %s | %s |", r.Names(), r.Who, r.Why, steps(r.Steps)))
	}
	var got []string
	inTable := false
	for line := range strings.Lines(string(b)) {
		heading := strings.HasPrefix(line, "| Permission ") || strings.HasPrefix(line, "| Role ")
		inTable = heading || inTable && strings.HasPrefix(line, "|")
		if inTable && strings.HasPrefix(line, "| ") && !heading {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/onboarding.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTable: ids are GUIDs and unique; each permission has a reason and a step; roles are found by their template ids.
func TestTable(t *testing.T) {
	t.Parallel()
	guid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for _, p := range permission.All() {
		if !guid.MatchString(p.ID) || seen[p.ID] || !strings.HasSuffix(p.Why, ".") || len(p.Steps) == 0 {
			t.Errorf("%+v", p)
		}
		seen[p.ID] = true
	}
	const reader, teams = "f2ef992c-3afb-46b9-b7cf-a126ee74c451", "69091246-20E8-4a56-aa4d-066075b2a7a8"
	for _, r := range permission.Roles() {
		if r.HeldBy([]string{reader}) || r.HeldBy(nil) {
			t.Errorf("a reader has %s", r.Names())
		}
		if got, want := r.HeldBy([]string{reader, teams}), r.ID == "teams"; got != want {
			t.Errorf("a Teams Administrator has %s: %t", r.Names(), got)
		}
	}
}
