package edge

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const behaviourPage = "../../../docs/sip-behaviour.md"

var rowPattern = regexp.MustCompile(`(?m)^\| ([A-Z]\d+) \|`)

// covers states which rows of docs/sip-behaviour.md a test verifies.
func covers(t *testing.T, rows ...string) {
	t.Helper()
	known := pageRows(t)
	for _, r := range rows {
		if !slices.Contains(known, r) {
			t.Errorf("docs/sip-behaviour.md has no row %s", r)
		}
	}
}

func pageRows(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(behaviourPage)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, m := range rowPattern.FindAllStringSubmatch(string(page), -1) {
		rows = append(rows, m[1])
	}
	return rows
}

func TestEveryRowOfTheBehaviourPageHasATest(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`covers\(t, ([^)]*)\)`)
	var covered []string
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(src), -1) {
			for _, r := range strings.Split(m[1], ",") {
				covered = append(covered, strings.Trim(r, ` "`))
			}
		}
	}
	rows := pageRows(t)
	if len(rows) < 80 {
		t.Fatalf("%d rows found in %s: its form has changed", len(rows), behaviourPage)
	}
	for i, r := range rows {
		if slices.Contains(rows[:i], r) {
			t.Errorf("row %s is in %s twice", r, behaviourPage)
		}
		if !slices.Contains(covered, r) {
			t.Errorf("row %s of %s has no test with covers(t, %q)", r, behaviourPage, r)
		}
	}
}
