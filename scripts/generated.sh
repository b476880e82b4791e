#!/bin/bash
# Fails when generated files differ from what their sources generate. It compares the working tree with itself, so it
# works in a tree with uncommitted changes and in one without git.
set -euo pipefail
cd "$(dirname "$0")/.."

list() {
	{ grep -rlE --include='*.go' '^// Code generated .* DO NOT EDIT\.$' . || true; ls docs/configuration.md docs/cli.md 2>/dev/null || true; } |
		grep -v '^./\.cache/' | sort -u | xargs -r sha256sum
}
before=$(list)
make --no-print-directory generate >/dev/null
after=$(list)
if [ "$before" != "$after" ]; then
	echo "generated files are out of date; these changed when they were generated anew (they are now right, commit them):" >&2
	diff <(echo "$before") <(echo "$after") | awk '/^[<>]/{print "  " $3}' | sort -u >&2
	exit 1
fi
