#!/bin/bash
# Makes sure that the Debian packages of the named groups (scripts/packages.txt) are installed: as root it installs what
# is missing, otherwise it names the packages in one line and fails. Never starts a service.
#
#   scripts/need.sh build test
set -euo pipefail
cd "$(dirname "$0")"

present() {
	case $1 in
	/*) compgen -G "${1/\/15\//\/*\/}" >/dev/null ;; # any major version of PostgreSQL
	*) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
	esac
}

missing=()
for group in "$@"; do
	known=
	while read -r name probe packages; do
		[ "$name" = "$group" ] || continue
		known=1
		# shellcheck disable=SC2206 # the list is split on purpose
		present "$probe" || missing+=($packages)
	done < <(grep -v '^#' packages.txt)
	[ -n "$known" ] || { echo "need.sh: no group \"$group\" in scripts/packages.txt" >&2; exit 2; }
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing packages: ${missing[*]}" \
		"(install them with: sudo apt-get install --no-install-recommends ${missing[*]})" >&2
	exit 1
fi

# Debian starts a server as soon as it is installed, unless this policy forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
echo "installing ${missing[*]}" >&2
install() { apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
if ! install; then
	apt-get update -q >>"$log" 2>&1 || true
	if ! install; then
		cat "$log" >&2
		echo "missing packages: ${missing[*]} (apt-get could not install them; its output is above)" >&2
		exit 1
	fi
fi
rm -f "$log"
