#!/bin/bash
# Runs its arguments in the workspace; exec, so that they receive the container's signals.
# A container that starts again within a minute of its last start waits first, each time twice as long, from 1 s to 64 s:
# Docker's own delay ends once a start has lasted 10 s, as one that loads a model can.
set -e
trap 'kill $(jobs -p) 2>/dev/null || true; exit 0' INT TERM # bash would finish the sleep first
state=${CAMSEG_STARTS:-/tmp/camseg-starts} # kept while the same container restarts
now=$(date +%s) last=0 delay=0
[ -r "$state" ] && read -r last delay <"$state" || true
if [ $((now - last)) -lt $((60 + delay)) ]; then
	delay=$((delay < 1 ? 1 : delay < 64 ? delay * 2 : 64))
	echo >&2 "camseg: started $((now - last)) s ago, so waiting $delay s before this start; see the messages above"
else
	delay=0
fi
echo "$now $delay" >"$state" || true
[ "$delay" = 0 ] || { sleep "$delay" & wait $!; }
trap - INT TERM
source "${CAMSEG_PREFIX:-/opt/camseg}/setup.bash"
exec "$@"
