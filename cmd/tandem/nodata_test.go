package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACommandCreatesNoDataDirectory: a directory without a database is most likely the wrong one.
func TestACommandCreatesNoDataDirectory(t *testing.T) {
	t.Parallel()
	empty, absent := t.TempDir(), filepath.Join(t.TempDir(), "absent")
	for _, args := range [][]string{{"token", "--role", "Admin"}, {"client", "list"},
		{"client", "create", "bss", "--role", "Read"}, {"account", "list"}, {"audit", "verify"}} {
		for _, data := range []string{empty, absent} {
			out, errs, code := command(t, data, args...)
			if code != 3 || out != "" || !strings.Contains(errs, data) || !strings.Contains(errs, "--data") ||
				strings.Count(errs, "\n") != 1 {
				t.Errorf("tandem %s without a database: exit code %d, %q %q", strings.Join(args, " "), code, out, errs)
			}
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("refused commands left %v (%v)", left, err)
	}
	if _, err := os.Stat(absent); !os.IsNotExist(err) {
		t.Errorf("refused commands created the directory: %v", err)
	}
	must(t, empty, "config", "check")
	must(t, empty, "config", "show")
}
