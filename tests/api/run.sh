#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one test under anykvm and prove that it was anykvm that answered: its counters moved.
#   [ANYKVM_TEST_OPTIONS=...] run.sh ANYKVM TEST [ARGUMENT]...
stats=$(mktemp) || exit 1
trap 'rm -f "$stats"' EXIT
anykvm=$1
shift
ANYKVM_STATS_FILE=$stats "$anykvm" run ${ANYKVM_TEST_OPTIONS:-} -- "$@" || exit
grep -q '^ioctls [1-9]' "$stats" || {
	echo "$1: anykvm counted no ioctl" >&2
	exit 1
}
