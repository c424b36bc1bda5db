#!/bin/sh
# SPDX-License-Identifier: MIT
# action.sh SOURCE: the steps of action.yml as a runner runs them, with its variables; the second one by what the first left on the PATH.
source=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
step() {
	awk -v n="$1" '/^    - name:/ { i++ } i == n && sub(/^ *run: /, "") { print; exit }' "$source/action.yml"
}
: >"$dir/path"
ANYKVM_SOURCE=$source RUNNER_TEMP=$dir GITHUB_PATH=$dir/path bash -e -c "$(step 1)" >"$dir/log" 2>&1 || { tail -20 "$dir/log"; exit 1; }
tail -4 "$dir/log"
PATH=$(cat "$dir/path"):$PATH
ANYKVM_CPU=milan ANYKVM_STEP='grep -m1 vendor_id /proc/cpuinfo; anykvm doctor | grep guest; false | true' bash -e -c "$(step 2)" >"$dir/out"
[ $? = 1 ] || { echo "FAILED: the status of a step is its own, pipes' too"; exit 1; }
cat "$dir/out"
grep -q AuthenticAMD "$dir/out" && grep -q "ran: 41 + 1 = 42" "$dir/out"
