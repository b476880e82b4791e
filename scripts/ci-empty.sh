#!/bin/bash
# Runs .ci/run on a machine that has none of the packages: a Debian 12 root made by debootstrap, with git, make and Go,
# as the README states. It gets the host's network, settings of apt and of Go's module proxy, toolchains and a
# clone of HEAD, but no cache. Must run as root; needs about 8 GB in TMPDIR. Everything is removed at the end, also
# after a failure: mounts and processes live in their own namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm

inside() { # root directory; runs inside the namespaces
	local root=$1
	mount -t proc proc "$root/proc"
	mount --rbind --make-rslave /sys "$root/sys"
	mount -t tmpfs tmpfs "$root/dev"
	mkdir "$root/dev/shm" "$root/dev/pts"
	mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
	mount -t devpts -o ptmxmode=0666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	local d
	for d in null zero full random urandom tty; do
		touch "$root/dev/$d"
		mount --bind "/dev/$d" "$root/dev/$d"
	done
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
# The mirror and the proxy of the host's apt.
targets=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | sort -u)
mirror=$(awk -v s=$suite '$2 == s && $3 == "main" {print $1; exit}' <<<"$targets")
[ -n "$mirror" ] || { echo "ci-empty.sh: apt on this machine has no source for $suite main" >&2; exit 1; }
proxy=$(apt-config shell p Acquire::http::Proxy)
[ -z "$proxy" ] || { eval "$proxy"; export http_proxy=$p; }
debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
	{ tail -20 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"
awk -v s=$suite '$2 ~ "^" s {print "deb", $1, $2, $3}' <<<"$targets" | grep -v ' non-free' >"$root/etc/apt/sources.list"
apt-config dump | grep -E '^Acquire::(https?::|Check-|ForceIPv|Retries)' >"$root/etc/apt/apt.conf.d/00host" || true
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir -p "$root/usr/local/go"
chroot "$root" apt-get update -q >/dev/null

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
