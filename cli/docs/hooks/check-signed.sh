#!/bin/sh
# A hook for signer.review: fetches the signed instance and lets BIND's
# dnssec-verify and Knot DNS's kzonecheck judge it. Exit code 0 approves.
#
#   [signer.review]
#   mode = "script"
#   hooks = [{ command = "/usr/local/lib/sluice/check-signed.sh", timeout = "30m" }]
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

dig +noall +answer +onesoa @"$SLUICE_SERVER_IP" -p "$SLUICE_SERVER_PORT" "$SLUICE_ZONE" AXFR >"$dir/zone"

# What was fetched must be what is under review.
serial=$(awk '$4 == "SOA" { print $7; exit }' "$dir/zone")
if [ "$serial" != "$SLUICE_SERIAL" ]; then
	echo "fetched serial '$serial', under review is $SLUICE_SERIAL"
	exit 1
fi

dnssec-verify -q -o "$SLUICE_ZONE" "$dir/zone"
kzonecheck -o "$SLUICE_ZONE" "$dir/zone"
