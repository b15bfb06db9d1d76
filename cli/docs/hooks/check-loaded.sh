#!/bin/sh
# A hook for loader.review: fetches what was loaded, lets Knot DNS's kzonecheck
# judge it, and refuses a version that loses too many records against what is
# published. Exit code 0 approves.
#
#   [loader.review]
#   mode = "script"
#   hooks = [{ command = "MAX_REMOVED=500 /usr/local/lib/sluice/check-loaded.sh" }]
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

dig +noall +answer +onesoa @"$SLUICE_SERVER_IP" -p "$SLUICE_SERVER_PORT" "$SLUICE_ZONE" AXFR >"$dir/zone"
if [ ! -s "$dir/zone" ]; then
	echo "nothing could be fetched from $SLUICE_SERVER"
	exit 1
fi
kzonecheck -d off -o "$SLUICE_ZONE" "$dir/zone"

removed=$(grep -c '^-' "$SLUICE_DIFF" || true)
if [ "$removed" -gt "${MAX_REMOVED:-1000}" ]; then
	echo "$removed records would go, more than ${MAX_REMOVED:-1000}"
	exit 1
fi
