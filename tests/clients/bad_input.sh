#!/bin/sh
# SPDX-License-Identifier: MIT
# bad_input.sh COMMAND: what is wrong with a command line is said in one line, status 125 to 127; the rest is the program's.
command=$1
failed=0
expect() {
	want=$1 pattern=$2
	shift 2
	text=$("$command" "$@" 2>&1 >/dev/null </dev/null)
	got=$?
	if [ $got != "$want" ] || [ "$(printf '%s\n' "$text" | wc -l)" != 1 ] || ! printf '%s' "$text" | grep -q -- "$pattern"; then
		echo "FAILED: $* gave status $got, expected $want /$pattern/: $text"
		failed=1
	fi
}
expect 125 "no program" run
expect 125 "zx81" run --cpu zx81 -- true
expect 125 "kvm.no_such_parameter" run --param kvm.no_such_parameter=1 -- true
expect 125 "MODULE.NAME=VALUE" run --param ept -- true
expect 125 "out of range" run --param anykvm.code_cache=0 -- true
expect 125 "out of range" run --param anykvm.code_cache=129 -- true
expect 125 "frobnicate" frobnicate
expect 125 "--frobnicate" run --frobnicate -- true
expect 126 "Permission denied" run -- /etc/passwd
expect 127 "not found" run -- no-such-program-anywhere
expect 127 "No such file" run -- /no/such/program
expect 125 "cannot write /no/such/file: No such file" run --counters /no/such/file -- true
expect 125 "cannot write /: Is a directory" run --counters / -- true
for status in 0 1 42 125; do
	"$command" run -- sh -c "exit $status"
	[ $? = $status ] || { echo "FAILED: status $status is the program's"; failed=1; }
done
ANYKVM_CPU=zx81 "$command" run -- true 2>/dev/null
[ $? = 125 ] || { echo "FAILED: ANYKVM_CPU=zx81"; failed=1; }
# QEMU's own complaints and status come through.
if command -v qemu-system-x86_64 >/dev/null; then
	text=$("$command" run -- qemu-system-x86_64 -accel kvm -machine no-such-machine -display none 2>&1 </dev/null)
	{ [ $? = 1 ] && printf '%s' "$text" | grep -q "no-such-machine\|unsupported machine"; } ||
		{ echo "FAILED: QEMU's refusal: $text"; failed=1; }
fi
exit $failed
