#!/bin/sh
# SPDX-License-Identifier: MIT
# host.sh BUILD: ask the real /dev/kvm and anykvm the same (answers.c) and print where they differ: ioctl, fd, state,
# argument, anykvm's answer, the real one's. Makes some hundred VMs; by hand only.
set -eu
build=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
[ -w /dev/kvm ] || { echo "host.sh: no /dev/kvm that may be opened here" >&2; exit 77; }
"$build/tests/api/api_answers" >"$dir/real"
"$build/anykvm" run -- "$build/tests/api/api_answers" >"$dir/ours"
paste "$dir/ours" "$dir/real" | awk -F'\t' '$5 != $10 { print $1 "\t" $2 "\t" $3 "\t" $4 "\t" $5 "\t" $10; n++ }
	END { printf "%d answers, %d differ\n", NR, n }'
