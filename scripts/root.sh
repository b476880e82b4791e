# Functions for a root file system of Debian 12, sourced by ci-empty.sh and by test/packages. They must run as root.
# shellcheck shell=bash

# make_root DIR PACKAGES makes one by debootstrap, with a minimal system and the packages (a list with commas). It gets
# the mirror, the proxy, the other network settings and the authorities of the host.
make_root() {
	local root=$1 packages=$2 suite=bookworm targets mirror proxy
	targets=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | sort -u)
	mirror=$(awk -v s=$suite '$2 == s && $3 == "main" {print $1; exit}' <<<"$targets")
	[ -n "$mirror" ] || { echo "apt on this machine has no source for $suite main" >&2; return 1; }
	proxy=$(apt-config shell p Acquire::http::Proxy)
	[ -z "$proxy" ] || { eval "$proxy"; export http_proxy=$p; }
	debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
		{ tail -20 "$root.log" >&2; rm -f "$root.log"; return 1; }
	rm -f "$root.log"
	awk -v s=$suite '$2 ~ "^" s {print "deb", $1, $2, $3}' <<<"$targets" | grep -v ' non-free' \
		>"$root/etc/apt/sources.list"
	apt-config dump | grep -E '^Acquire::(https?::|Check-|ForceIPv|Retries)' >"$root/etc/apt/apt.conf.d/00host" || true
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
	mkdir -p "$root/etc/ssl/certs"
	cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
	chroot "$root" apt-get update -q >/dev/null
}

# mount_root DIR mounts what programs in it need. Call it in a mount namespace of its own, which ends with its
# processes: unshare --mount --propagation private --pid --fork --kill-child.
mount_root() {
	local root=$1 d
	mount -t proc proc "$root/proc"
	mount --rbind --make-rslave /sys "$root/sys"
	mount -t tmpfs tmpfs "$root/dev"
	mkdir "$root/dev/shm" "$root/dev/pts"
	mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
	mount -t devpts -o ptmxmode=0666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	for d in null zero full random urandom tty; do
		touch "$root/dev/$d"
		mount --bind "/dev/$d" "$root/dev/$d"
	done
}
