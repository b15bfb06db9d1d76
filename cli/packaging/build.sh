#!/bin/sh
# Builds what packages hold into the folder OUT: the static program, manual
# pages, completions, config. Usage: build.sh OUT [VERSION]. GOARCH says for
# which machine. The same source and VERSION give the same bytes.
set -eu
out=$1
version=${2:-}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
build() {
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X sluice/cli.version=$version" -o "$1" ./cli/sluice
}
build "$out/sluice"
sluice=$out/sluice
if [ "$(go env GOARCH)" != "$(go env GOHOSTARCH)" ]; then
	# What follows is made by a program that runs here.
	sluice=$out/host-sluice
	GOARCH='' build "$sluice"
fi

# setting KEY VALUE FILE replaces a key of the config that stands there once.
setting() {
	if [ "$(grep -c "^$1 = " "$3")" != 1 ]; then
		echo "build: $1 does not stand once in $3" >&2
		exit 1
	fi
	sed -i "s|^$1 = .*|$1 = $2|" "$3"
}

"$sluice" template config >"$out/sluice.toml"
setting data-dir '"/var/lib/sluice"' "$out/sluice.toml"
setting socket '"/run/sluice/sluice.sock"' "$out/sluice.toml"
setting policy-dir '"/etc/sluice/policies"' "$out/sluice.toml"
# In a container every address is its own.
sed '/^\[server\]/,/^servers = /s|^servers = .*|servers = [":8053"]|' "$out/sluice.toml" >"$out/container.toml"
"$sluice" template policy >"$out/policy.toml"
"$sluice" template man >"$out/sluice.8"
"$sluice" template man-config >"$out/sluice.toml.5"
"$sluice" template man-policy >"$out/sluice-policy.5"
for shell in bash zsh fish; do
	"$sluice" completion "$shell" >"$out/completion.$shell"
done
