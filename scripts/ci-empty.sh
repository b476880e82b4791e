#!/bin/bash
# Runs .ci/run on a machine that has none of the packages: a Debian 12 root made by debootstrap, with git, make and Go,
# as the README states. It gets the host's network, settings of apt and of Go's module proxy, toolchains and a
# clone of HEAD, but no cache. Must run as root; needs about 8 GB in TMPDIR. Everything is removed at the end, also
# after a failure: mounts and processes live in their own namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/root.sh

inside() { # root directory; runs inside the namespaces
	local root=$1
	mount_root "$root"
	mount --bind "$(go env GOROOT)" "$root/usr/local/go"
	mount -o remount,bind,ro "$root/usr/local/go"

	# Of the host's environment, pass only what is needed to reach module proxies.
	local pass=() v
	for v in GOPROXY GOSUMDB GONOSUMDB GOPRIVATE GONOPROXY GOFLAGS; do
		pass+=("$v=$(go env $v)")
	done
	for v in http_proxy https_proxy no_proxy; do
		[ -z "${!v:-}" ] || pass+=("$v=${!v}")
	done
	chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 GOTOOLCHAIN=local "${pass[@]}" \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		bash -c 'cd /src && exec .ci/run'
}

if [ "${1:-}" = inside ]; then
	inside "$2"
	exit
fi
[ "$(id -u)" = 0 ] || { echo "ci-empty.sh: must run as root: it makes a root file system" >&2; exit 2; }
scripts/need.sh empty

root=$(mktemp -d -t tandem-empty-XXXXXX)
child=
cleanup() {
	[ -z "$child" ] || { kill "$child" 2>/dev/null && wait "$child"; } || true
	rm -rf --one-file-system "$root"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$root"

echo "== debootstrap ($(date +%H:%M:%S))"
make_root "$root" git,make,ca-certificates
mkdir -p "$root/usr/local/go"

git clone -q --no-hardlinks . "$root/src"
echo "== .ci/run of $(git rev-parse --short HEAD) ($(date +%H:%M:%S))"
begun=$SECONDS
unshare --mount --propagation private --pid --fork --kill-child bash "$PWD/scripts/ci-empty.sh" inside "$root" &
child=$!
status=0
wait "$child" || status=$?
child=
echo "== .ci/run ended with $status after $(((SECONDS - begun) / 60)) min $(((SECONDS - begun) % 60)) s"
exit $status
