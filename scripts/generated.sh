#!/bin/bash
# Fails when generated files are out of date. It compares the working tree before and after generating, so it works with
# uncommitted changes and without git.
set -euo pipefail
cd "$(dirname "$0")/.."

list() {
	{
		grep -rlE --include='*.go' '^// Code generated .* DO NOT EDIT\.$' . || true
		ls docs/configuration.md docs/cli.md 2>/dev/null || true
	} |
		grep -v '^./\.cache/' | sort -u | xargs -r sha256sum
}
before=$(list)
make --no-print-directory generate >/dev/null
after=$(list)
if [ "$before" != "$after" ]; then
	echo "generated files were out of date; these have been regenerated, commit them:" >&2
	diff <(echo "$before") <(echo "$after") | awk '/^[<>]/{print "  " $3}' | sort -u >&2
	exit 1
fi
