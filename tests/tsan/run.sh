#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one program that has the library in it under ThreadSanitizer, and prove that it was anykvm that answered.
stats=$(mktemp) || exit 1
trap 'rm -f "$stats" "$stats.out"' EXIT
# The runtime wants its own places in the address space, which hosts that spread mappings wide take from it. Fault signals are the library's. Symbols
# are looked up afterwards: the runtime would read files by the door's functions.
TSAN_OPTIONS=symbolize=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:use_sigaltstack=0:allow_user_segv_handler=1:die_after_fork=0:halt_on_error=0:exitcode=66:$TSAN_OPTIONS \
	ANYKVM_STATS_FILE=$stats setarch -R "$@" >"$stats.out" 2>&1
status=$?
cat "$stats.out"
if [ $status != 0 ]; then
	grep -o "$(basename "$1")+0x[0-9a-f]*" "$stats.out" | sort -u | while IFS=+ read -r _ at; do
		echo "$at: $(addr2line -fspe "$1" "$at")"
	done
	exit $status
fi
grep -q '^ioctls [1-9]' "$stats" || {
	echo "$1: anykvm counted no ioctl" >&2
	exit 1
}
