package rig

import (
	"os"
	"os/exec"
	"testing"
)

// NodeProject copies the files of dir, with package.json and its lock, to a temporary directory, installs what the lock
// names, and returns that directory.
func NodeProject(tb testing.TB, dir string) string {
	tb.Helper()
	to := tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		tb.Fatal(err)
	}
	npm := exec.CommandContext(tb.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = to
	if out, err := npm.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v: %s", err, out)
	}
	return to
}
