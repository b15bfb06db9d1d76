#!/bin/sh
# Sees to it that the DNS software which the end-to-end tests run against is
# there: on Debian, as root, the missing packages are installed, their services
# kept from starting. Elsewhere it says what is missing; the tests that need it
# are then skipped. With SLUICE_REQUIRE_PEERS=1 a missing peer is an error.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# One command or file of each package says whether the package is there.
peers='
bind9             named
bind9-utils       dnssec-signzone
bind9-dnsutils    dig
debootstrap       debootstrap
chromium          chromium
faketime          faketime
fish              fish
knot              knotd
knot-dnsutils     kdig
knot-dnssecutils  kzonecheck
ldnsutils         ldns-verify-zone
nsd               nsd
opendnssec-common       ods-kasp2html
opendnssec-enforcer-sqlite3 ods-enforcerd
opendnssec-signer       ods-signerd
pdns-backend-sqlite3 /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql
pdns-server       pdns_server
prometheus        promtool
python3-minimal   python3
python3-pykmip    pykmip-server
softhsm2          softhsm2-util
strace            strace
systemd           systemd-analyze
unbound           unbound
zsh               zsh
'

missing() {
	echo "$peers" | while read -r package command; do
		if [ -n "$package" ] && ! command -v "$command" >/dev/null 2>&1 && ! [ -e "$command" ]; then
			echo "$package"
		fi
	done
}

# The file belongs to us only if we made it: an administrator's own stays.
policy=/usr/sbin/policy-rc.d
forbid_services() {
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		trap 'exit 1' HUP INT TERM
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
}

install_packages() {
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

want=$(missing | tr '\n' ' ')
if [ -z "$want" ]; then
	exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "deps: installing $want"
	forbid_services
	# shellcheck disable=SC2086 # one word a package
	install_packages $want || { apt-get update -q && install_packages $want; } ||
		echo "deps: the packages could not be installed" >&2
	want=$(missing | tr '\n' ' ')
fi

if [ -n "$want" ]; then
	echo "deps: missing: $want" >&2
	if [ "${SLUICE_REQUIRE_PEERS:-}" = 1 ]; then
		echo "deps: SLUICE_REQUIRE_PEERS=1 does not allow that" >&2
		exit 1
	fi
	echo "deps: tests that need them will be skipped; on Debian: apt-get install $want" >&2
fi
