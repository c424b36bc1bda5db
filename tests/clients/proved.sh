#!/bin/sh
# SPDX-License-Identifier: MIT
# proved.sh COMMAND PROGRAM ARGS: run it on anykvm, and fail unless anykvm's own counters moved.
command=$1
shift
stats=$(mktemp) || exit 1
ANYKVM_STATS_FILE=$stats "$command" run -- "$@"
status=$?
awk '$1 == "exits" || $1 == "system_ioctls" { n += $2 } END { exit !n }' "$stats" || {
	echo "proved.sh: anykvm's counters did not move"
	status=1
}
rm -f "$stats"
exit $status
