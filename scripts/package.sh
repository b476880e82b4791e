#!/bin/bash
# Builds the Debian package dist/tandem_VERSION_ARCH.deb of this commit. The same commit gives the same bytes, wherever
# and whenever it is built with the same Go. Prints the name of the file.
#
# The version comes from git: v1.2.3 is 1.2.3; v1.2.3-rc.1 is 1.2.3~rc.1, which sorts before it; the fifth commit after
# v1.2.3 is 1.2.3+5.g0123456; without a tag it is 0~ and the time of the commit. PACKAGE_VERSION overrides it, and
# SOURCE_DATE_EPOCH the time of the files. With the argument "version" it only prints the version.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
if [ -n "${PACKAGE_VERSION:-}" ]; then
	VERSION=$PACKAGE_VERSION
elif tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
	VERSION=${tag#v}
	VERSION=${VERSION//-/\~}
	commits=$(git rev-list --count "$tag..HEAD")
	[ "$commits" = 0 ] || VERSION+=+$commits.g$(git rev-parse --short=9 HEAD)
else
	VERSION=0~$(TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S).g$(git rev-parse --short=9 HEAD)
fi
[ -n "${PACKAGE_VERSION:-}" ] || [ -z "$(git status --porcelain --untracked-files=no)" ] || VERSION+=+dirty
[ "${1:-}" != version ] || { echo "$VERSION"; exit; }
ARCH=$(go env GOARCH)
export SOURCE_DATE_EPOCH ARCH VERSION

stage=dist/stage share=dist/stage/share
rm -rf "$stage"
mkdir -p "$stage" "$share"/doc/tandem "$share"/bash-completion/completions "$share"/zsh/vendor-completions \
	"$share"/fish/vendor_completions.d "$share"/man/man1
# Without cgo: a static program, which runs on every distribution and in an empty container.
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" \
	-o "$stage/tandem" ./cmd/tandem
"$stage/tandem" completion bash >"$share/bash-completion/completions/tandem"
"$stage/tandem" completion zsh >"$share/zsh/vendor-completions/_tandem"
"$stage/tandem" completion fish >"$share/fish/vendor_completions.d/tandem.fish"
"$stage/tandem" man "$share/man/man1"
gzip -9n "$share"/man/man1/*
install -m 0644 deploy/debian/copyright "$share/doc/tandem/copyright"
gzip -9nc CHANGELOG.md >"$share/doc/tandem/CHANGELOG.md.gz"
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

.cache/bin/nfpm package --config deploy/debian/nfpm.yaml --packager deb --target dist/ >/dev/null
echo "dist/tandem_${VERSION}_${ARCH}.deb"
