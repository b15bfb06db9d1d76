#!/bin/sh
# Builds the Debian package dist/sluice_VERSION_ARCH.deb at the top of the source
# tree. Usage: package.sh [VERSION]; without one it follows from git. GOARCH says
# for which machine, MAINTAINER who builds it (Name <address>). The same source and VERSION give the same bytes.
set -eu
cd "$(dirname "$0")/../.."
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
version=${1:-}
if [ -z "$version" ]; then
	# The last tag, or what sorts before every version.
	version=$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/') || true
	version=${version:-0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d).$(git rev-parse --short=9 HEAD)}
fi
arch=$(go env GOARCH)
case $arch in
386) arch=i386 ;;
arm) arch=armhf ;;
esac

maintainer=${MAINTAINER:-The Sluice authors <sluice@localhost>}

# DIST is the folder for the package.
mkdir -p "${DIST:=dist}"
stage=$DIST/stage
rm -rf "$stage"
cli/packaging/build.sh "$stage" "$version"
gzip -9n "$stage/sluice.8" "$stage/sluice.toml.5" "$stage/sluice-policy.5"
gzip -9nc cli/docs/CHANGELOG.md >"$stage/changelog.gz"
gzip -9n >"$stage/changelog.Debian.gz" <<END
sluice ($version-1) unstable; urgency=medium

  * What changed stands in changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
{
	cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sluice

Files: *
Copyright: $(sed -n 's/^Copyright //p' LICENSE)
License: BSD-3-Clause

License: BSD-3-Clause
END
	sed '1,/^Copyright/d' LICENSE | sed -n '/./,$p' | sed 's/^$/./; s/^/ /'
} >"$stage/copyright"

sed "s|@STAGE@|$stage|; s|@VERSION@|$version|; s|@ARCH@|$arch|; s|@MAINTAINER@|$maintainer|" cli/packaging/nfpm.yaml >"$stage/nfpm.yaml"
go tool -modfile=e2e/tools/package/go.mod nfpm package \
	--config "$stage/nfpm.yaml" --packager deb --target "$DIST/sluice_$version-1_$arch.deb"
rm -rf "$stage"
