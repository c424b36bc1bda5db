# SPDX-License-Identifier: MIT
# fresh.sh: to be sourced by tests that make a fresh Debian 12 and use it; $0 is theirs. $top is the source.
# That takes root, debootstrap and a Debian mirror (ANYKVM_MIRROR); else the test is skipped.
top=$(cd "$(dirname "$0")/../.." && pwd)
skip() {
	echo "SKIP: $*"
	exit 77
}
# fresh_needs PROGRAM...
fresh_needs() {
	[ "$(id -u)" = 0 ] || skip "not root"
	for program in debootstrap unshare "$@"; do
		command -v "$program" >/dev/null || skip "no $program"
	done
	unshare -m true 2>/dev/null || skip "no mount namespaces"
}
# Make $dir, a folder that is removed at the end.
fresh_folder() {
	dir=$(mktemp -d) || exit 1
	trap 'rm -rf --one-file-system "$dir"' EXIT
}
# A tree of it in $dir/root.
fresh_debian() {
	debootstrap --variant=minbase bookworm "$dir/root" ${ANYKVM_MIRROR:+"$ANYKVM_MIRROR"} >"$dir/log" 2>&1 ||
		skip "debootstrap failed: $(tail -1 "$dir/log")"
}
# fresh_source FOLDER: what is committed.
fresh_source() {
	git -c safe.directory='*' clone -q "$top" "$1" || exit 1
}
# fresh_run TREE COMMAND: a line for the shell in it, with the host's /dev/kvm masked; the mounts go with the namespace.
fresh_run() {
	unshare -m sh -c 'cd "$1" && mount -t proc proc proc && mount --rbind /dev dev &&
		{ [ ! -e dev/kvm ] || mount --bind /dev/null dev/kvm; } && exec chroot . sh -c "$2"' sh "$1" "$2" </dev/null
}
