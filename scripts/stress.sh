#!/bin/bash
# Runs the tests as on a loaded machine: tests that rely on its speed fail here. Under 60 minutes on two cores. Runs
# every part, even after a failure, and exits non-zero if one failed.
#
#   scripts/stress.sh             both parts
#   scripts/stress.sh full        two full runs with the race detector beside four busy processes
#   scripts/stress.sh servers     twenty runs of the packages that start servers, eight packages at a time
#
# RUNS, BUSY, REPEAT and PKG override 2, 4, 20 and ./... . Each test program has one processor (GOMAXPROCS=1) and five
# times the timeout of `make test`; the compiler uses all processors. To fit into the hour, the twenty runs are without
# the race detector and each test program runs four tests at a time, because most tests wait more than they compute.
set -uom pipefail # m: go test gets its own process group, so that it can be killed with its children
cd "$(dirname "$0")/.."
runs=${RUNS:-2} busy=${BUSY:-4} repeat=${REPEAT:-20} pkg=${PKG:-./...} part=${1:-all}
limit=$((5 * 9))m RACE=${RACE:--race}
export TANDEM_REQUIRE_PG=1 TANDEM_REQUIRE_SIPP=1 TANDEM_REQUIRE_KAMAILIO=1 TANDEM_REQUIRE_DNS=1

pids=() tests=
idle() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
	pids=()
}
out=$(mktemp)
trap 'idle; [ -z "$tests" ] || kill -- "-$tests" 2>/dev/null; rm -f "$out"' EXIT
trap 'exit 130' INT TERM HUP

# A busy process ends when this script ends for whatever reason, and after two hours at the latest.
load() {
	local parent=$$
	for ((i = 0; i < busy; i++)); do
		(
			trap - EXIT INT TERM HUP
			while kill -0 $parent 2>/dev/null && [ $SECONDS -lt 7200 ]; do
				for ((n = 0; n < 100000; n++)); do :; done
			done
		) &
		pids+=($!)
		disown
	done
}

failed=()
run() { # name, arguments of go test
	local name=$1 begun=$SECONDS
	shift
	echo "== $name ($(date +%H:%M:%S))"
	go test -vet=off -timeout "$limit" -exec 'env GOMAXPROCS=1' "$@" >"$out" 2>&1 &
	tests=$!
	if wait "$tests"; then
		grep -v 'no test files' "$out" | awk '{print $NF, $2}' | sort -rn | head -5 | sed 's/^/  /'
	else
		grep -vE '^ok |no test files' "$out"
		failed+=("$name")
	fi
	tests=
	echo "-- $name: $((SECONDS - begun)) s"
}

# Packages whose tests, or the helpers they use, listen on sockets or start programs.
servers() {
	grep -rlE --include='*_test.go' 'net\.Listen|httptest\.|testkit\.|rig\.|exec\.Command|internal/sim/|127\.0\.0\.' . |
		grep -vE '^\./(bench|tools|\.cache)/' | xargs -n1 dirname | sort -u
}

if [ "$part" != servers ]; then
	# Compile before the load begins.
	go test $RACE -vet=off -run '^$' "$pkg" >/dev/null || exit 1
	load
	for ((r = 1; r <= runs; r++)); do run "full run $r of $runs" $RACE -count=1 "$pkg"; done
	idle
fi
if [ "$part" != full ]; then
	mapfile -t list < <(servers)
	run "$repeat runs of the ${#list[@]} packages that start servers" -count="$repeat" -p 8 -parallel 4 "${list[@]}"
fi
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "stress: everything passed in $((SECONDS / 60)) min"
