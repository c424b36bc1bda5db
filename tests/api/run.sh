#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one test under anykvm and prove that it was anykvm that answered: its counters moved.
#   run.sh ANYKVM TEST
stats=$(mktemp) || exit 1
trap 'rm -f "$stats"' EXIT
ANYKVM_STATS_FILE=$stats "$1" run -- "$2" || exit
grep -q '^ioctls [1-9]' "$stats" || {
	echo "$2: anykvm counted no ioctl" >&2
	exit 1
}
