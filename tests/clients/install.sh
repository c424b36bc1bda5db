#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh SOURCE BUILD: what `make install DESTDIR=` puts there is whole, and works where it is put, for it finds its parts by the
# command's own place; nothing lands elsewhere.
source=$1
build=$(cd "$2" && pwd)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
DESTDIR=$dir/root meson install -C "$build" --no-rebuild >"$dir/log" 2>&1 || { tail "$dir/log"; exit 1; }
command=$(find "$dir/root" -path '*/bin/anykvm')
prefix=${command%/bin/anykvm}
for file in bin/anykvm libexec/anykvm/anykvm-matrix share/bash-completion/completions/anykvm share/zsh/site-functions/_anykvm; do
	[ -s "$prefix/$file" ] || { echo "FAILED: no $file"; failed=1; }
done
if command -v scdoc >/dev/null; then
	for page in "$source"/docs/man/*.scd; do
		name=$(basename "$page" .scd)
		[ -s "$prefix/share/man/man${name##*.}/$name" ] || { echo "FAILED: no page $name"; failed=1; }
	done
fi
mkdir "$dir/elsewhere" && cp -a "$prefix" "$dir/elsewhere/moved"
for at in "$prefix" "$dir/elsewhere/moved"; do
	(cd "$dir" && "$at/bin/anykvm" doctor >"$dir/out"; [ $? -lt 2 ] && grep -q "ran: 41 + 1 = 42" "$dir/out" &&
		grep -q "library.*$at/" "$dir/out") || { echo "FAILED: doctor in $at"; cat "$dir/out"; failed=1; }
	(cd "$dir" && "$at/bin/anykvm" matrix -o "$dir/m" -- true >"$dir/out" 2>&1) || { echo "FAILED: matrix in $at"; cat "$dir/out"; failed=1; }
	rm -rf "$dir/m"
done
exit $failed
