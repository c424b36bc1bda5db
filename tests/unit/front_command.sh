#!/bin/sh
# SPDX-License-Identifier: MIT
# front_command.sh COMMAND LIBRARY EXPORTS: the command's statuses and messages, and the library's symbols.
command=$1 library=$2 exports=$3
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
# Of a build with sanitizers: the leaks of sh and its like are theirs.
export ASAN_OPTIONS="${ASAN_OPTIONS-}:detect_leaks=0"

# expect STATUS PATTERN ARGS: status, and one line of stderr that matches (none for an empty pattern).
expect() {
	want=$1 pattern=$2
	shift 2
	"$command" "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	lines=$(wc -l <"$dir/err")
	if [ "$got" != "$want" ] || ! grep -q -- "$pattern" "$dir/err" && [ -n "$pattern" ] ||
		{ [ -n "$pattern" ] && [ "$lines" != 1 ]; } || { [ -z "$pattern" ] && [ "$lines" != 0 ]; }; then
		echo "FAILED: $* (status $got, expected $want /$pattern/)"
		cat "$dir/err"
		failed=1
	fi
}

expect 0 "" --help
expect 0 "" --version
expect 0 "" run --help
expect 0 "" cpus
expect 125 "takes no arguments" cpus x
expect 0 "" help
expect 125 "help knows" help frob
expect 0 "" help run
expect 125 "one word" help run cpus
expect 0 "" cpus --help
expect 0 "" doctor --help
expect 125 "one program" doctor a b
expect 125 "unknown option .--frob" doctor --frob
expect 125 "unknown option .-x" cpus -x
expect 125 "wants two models" cpus --diff host
expect 125 "no such model" cpus --diff host zx81
expect 0 "" cpus --diff milan milan
expect 1 "" cpus --diff milan ice-lake-sp
# Zen 3 has six counters, and no CPUID leaf that says so.
"$command" cpus --diff milan genoa | grep -q "AMD core counters" && { echo "FAILED: milan's counters"; failed=1; }
"$command" cpus --diff milan ice-lake-sp | grep -q "AMD core counters  *6  *0$" || { echo "FAILED: milan's counters"; failed=1; }
expect 125 "unknown option .--frob" --frob
expect 125 "unknown verb 'fly'" fly
expect 125 "no program" run
expect 125 "no program" run --
expect 125 "unknown option" run --frob -- true
expect 125 "wants a value" run --cpu
expect 125 "no model 'zx81'" run --cpu zx81 -- true
expect 125 "unknown parameter 'kvm.frob'" run --param kvm.frob=1 true
expect 0 "" run --param kvm.ignore_msrs=N --param=kvm.enable_pmu=N true
expect 125 "MODULE.NAME=VALUE" run --param kvm.frob true
expect 127 "not found" run -- no-such-program-here
expect 127 "No such file" run -- /no/such/program
expect 126 "Permission denied" run -- /etc/passwd
expect 126 "Permission denied" run -- /
expect 0 "" run true
expect 0 "" run --cpu fake -- true
expect 0 "" run --cpu=fake true
expect 1 "" run false
expect 42 "" run -- sh -c 'exit 42'

# Death by a signal is the program's.
"$command" run -- sh -c 'kill -TERM $$' 2>/dev/null
[ $? = 143 ] || { echo "FAILED: killed program"; failed=1; }

# The library goes before others, and once only.
got=$(LD_PRELOAD="" "$command" run "$command" run -- sh -c 'echo $LD_PRELOAD')
got=${got#*libasan.so.*:} # of a sanitizer build
[ "$got" = "$library" ] || { echo "FAILED: LD_PRELOAD is '$got'"; failed=1; }
got=$("$command" run --cpu fake -- sh -c 'echo $ANYKVM_CPU')
[ "$got" = fake ] || { echo "FAILED: ANYKVM_CPU is '$got'"; failed=1; }
# Children inherit.
"$command" run -- sh -c 'sh -c "test -w /dev/kvm && : <>/dev/kvm"' ||
	{ echo "FAILED: a child's /dev/kvm"; failed=1; }

# Static programs and scripts of static interpreters.
echo 'int main(void) { return 0; }' >"$dir/a.c"
if cc -static -o "$dir/static" "$dir/a.c" 2>/dev/null; then
	expect 126 "statically linked" run "$dir/static"
	printf '#!%s\n' "$dir/static" >"$dir/script"
	chmod +x "$dir/script"
	expect 126 "statically linked" run "$dir/script"
fi
printf '#!/bin/sh\nexit 5\n' >"$dir/script2"
chmod +x "$dir/script2"
expect 5 "" run "$dir/script2"
if [ "$(id -u)" = 0 ] && cc -o "$dir/setuid" "$dir/a.c" 2>/dev/null; then
	chown 1 "$dir/setuid" && chmod u+s "$dir/setuid"
	expect 126 "privileges" run "$dir/setuid"
fi

# A leaked symbol of a preloaded library is a bug.
nm -D --defined-only "$library" | awk '{ print $3 }' | sort >"$dir/have"
sed -n 's/^[ \t]*\([A-Za-z0-9_]*\);$/\1/p' "$exports" | sort >"$dir/want"
if ! diff "$dir/want" "$dir/have"; then
	echo "FAILED: exported symbols"
	failed=1
fi
exit $failed
