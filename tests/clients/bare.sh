#!/bin/sh
# SPDX-License-Identifier: MIT
# bare.sh: the README's first command on a bare Debian 12, in a debootstrapped tree with the host's /dev/kvm masked.
# As root, and in a tree of its own as a user whose sudo asks nothing, `./setup run` installs, builds and boots; as a user without
# sudo `make run` does with the packages there.
# Needs root, debootstrap and a Debian mirror (ANYKVM_MIRROR); else skipped.
. "$(dirname "$0")/fresh.sh"
fresh_needs
fresh_folder
fresh_debian
fresh_source "$dir/root/srv/anykvm"
cp -a "$dir/root" "$dir/sudo"
tree=$dir/root

inside() {
	fresh_run "$tree" "$1"
}
failed=0
check() {
	echo "== $1 (status $2, expected $3 /$4/)"
	tail -15 "$dir/out"
	{ [ "$2" = "$3" ] && grep -q "$4" "$dir/out"; } || { echo "FAILED: $1"; failed=1; }
}

inside 'useradd -m guest; cp -a /srv/anykvm /home/guest/anykvm; chown -R guest: /home/guest/anykvm'
inside 'su guest -c "cd ~/anykvm && ./setup run"' >"$dir/out" 2>&1
check "a user without sudo is told what to install" $? 1 "as root: apt-get install make gcc"
inside 'cd /srv/anykvm && ./setup run' >"$dir/out" 2>&1
check "./setup run as root" $? 0 "^BOOT-OK"
grep -q "setup: installing with apt-get: make gcc" "$dir/out" || { echo "FAILED: says what it installs"; failed=1; }
inside 'su guest -c "cd ~/anykvm && make run"' >"$dir/out" 2>&1
check "make run as a user" $? 0 "^BOOT-OK"
inside 'apt-get -qq -y purge busybox-static >/dev/null 2>&1; su guest -c "cd ~/anykvm && make run"' >"$dir/out" 2>&1
check "make names what is missing" $? 2 "missing Debian packages: busybox-static"

tree=$dir/sudo
inside 'useradd -m guest; apt-get -qq update && apt-get -qq -y install sudo >/dev/null 2>&1; echo "guest ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/guest
	cp -a /srv/anykvm /home/guest/anykvm; chown -R guest: /home/guest/anykvm'
inside 'su guest -c "cd ~/anykvm && ./setup run"' >"$dir/out" 2>&1
check "./setup run as a user whose sudo asks nothing" $? 0 "^BOOT-OK"
grep -q "setup: installing with sudo apt-get: make gcc" "$dir/out" || { echo "FAILED: says what it installs, by sudo"; failed=1; }
[ -z "$(find "$tree/home/guest/anykvm" -user root)" ] || { echo "FAILED: files of root's in the user's tree"; failed=1; }
exit $failed
