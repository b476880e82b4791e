#!/bin/bash
# Runs every fuzz target of the module for FUZZTIME each (default 2m), or only those whose name matches $1.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-2m}
only=${1:-.}
grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . |
	sed -E 's/^\.\/(.*)\/[^/]*:[0-9]+:func (Fuzz.*)$/\1 \2/' | sort -u |
	while read -r dir target; do
		[[ $target =~ $only ]] || continue
		echo "== $dir $target for $time"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x </dev/null
	done
