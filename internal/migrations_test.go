package internal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/store"
)

// TestMigrations checks that each package that stores something numbers its migrations from 1, has the same ones for
// both databases, creates no table of another package, and is in the list of schemas.
func TestMigrations(t *testing.T) {
	listed := map[string]string{"platform": "platform/db"}
	for _, s := range store.Schemas() {
		listed[s.Package] = "" // filled in below
	}
	dirs, err := filepath.Glob("*/*/migrations")
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != len(listed) {
		t.Errorf("%d packages have migrations, and %d are in store.Schemas and platform/db: %q", len(dirs),
			len(listed), dirs)
	}
	creates := regexp.MustCompile(`(?m)^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)`)
	states := regexp.MustCompile(`INSERT INTO schemas \(package, version, oldest\) VALUES \('(\w+)', `)
	owner := map[string]string{}
	for _, dir := range dirs {
		names := map[string]int{}
		for _, driver := range []string{"sqlite", "postgres"} {
			files, err := filepath.Glob(filepath.Join(dir, driver, "*.sql"))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s has no migrations for %s (%v)", dir, driver, err)
			}
			for i, f := range files {
				names[filepath.Base(f)]++
				if want := fmt.Sprintf("%05d_", i+1); !strings.HasPrefix(filepath.Base(f), want) {
					t.Errorf("%s: its name must begin with %s", f, want)
				}
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range creates.FindAllStringSubmatch(string(text), -1) {
					if o := owner[m[1]]; o != "" && o != dir {
						t.Errorf("%s creates the table %s, which belongs to %s", f, m[1], o)
					}
					owner[m[1]] = dir
				}
				for _, m := range states.FindAllStringSubmatch(string(text), -1) {
					if o, ok := listed[m[1]]; !ok || o != "" && o != filepath.Dir(dir) {
						t.Errorf("%s is the schema %s, which is not in store.Schemas, or that of %s", f, m[1], o)
					}
					listed[m[1]] = filepath.Dir(dir)
				}
			}
		}
		for name, n := range names {
			if n != 2 {
				t.Errorf("%s: %s exists for one database only", dir, name)
			}
		}
	}
	for name, dir := range listed {
		if dir == "" {
			t.Errorf("store.Schemas lists %s, but no migration creates a row for it in schemas", name)
		}
	}
}
