#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one program that has the library in it under ThreadSanitizer, and prove that it was anykvm that answered.
stats=$(mktemp) || exit 1
trap 'rm -f "$stats"' EXIT
# The runtime wants its own places in the address space, which hosts that spread mappings wide take from it; fault signals are the library's.
TSAN_OPTIONS=handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:use_sigaltstack=0:allow_user_segv_handler=1:die_after_fork=0:halt_on_error=0:exitcode=66:$TSAN_OPTIONS \
	ANYKVM_STATS_FILE=$stats setarch -R "$@" || exit
grep -q '^ioctls [1-9]' "$stats" || {
	echo "$1: anykvm counted no ioctl" >&2
	exit 1
}
