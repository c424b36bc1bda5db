#!/bin/sh
# SPDX-License-Identifier: MIT
# qemu_sandbox.sh COMMAND: QEMU with its whole sandbox on runs its BIOS to the end on anykvm, and SIGTERM ends it.
command -v qemu-system-x86_64 >/dev/null || exit 77
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
ANYKVM_STATS_FILE=$dir/stats "$1" run -- qemu-system-x86_64 -accel kvm -machine pc -cpu host -nodefaults \
	-no-user-config -display none -m 64M -debugcon "file:$dir/bios" -global isa-debugcon.iobase=0x402 \
	-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
	</dev/null >"$dir/out" 2>&1 &
qemu=$!
tries=0
until grep -q 'No bootable device' "$dir/bios" 2>/dev/null; do
	tries=$((tries + 1))
	if [ $tries = 600 ] || ! kill -0 $qemu 2>/dev/null; then
		echo "FAILED: the BIOS did not come to its end"
		tail -n 5 "$dir/bios" "$dir/out"
		kill -9 $qemu 2>/dev/null
		exit 1
	fi
	sleep 0.1
done
kill $qemu
wait $qemu
status=$?
# QEMU takes SIGTERM as a wish to end.
[ $status = 0 ] || { echo "FAILED: status $status"; cat "$dir/out"; exit 1; }
awk '$1 == "exits" { n += $2 } END { exit !n }' "$dir/stats"
