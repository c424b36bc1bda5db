#!/bin/sh
# SPDX-License-Identifier: MIT
# package.sh: the Debian package is built, lintian finds nothing, it is installed in a fresh Debian 12 (debootstrap) with the host's
# /dev/kvm masked, QEMU boots there as an ordinary user (debian/tests/boot-qemu), and after purging it nothing of it is left.
# Needs root, debootstrap, debhelper and a Debian mirror (ANYKVM_MIRROR); else skipped. ANYKVM_DEB=FILE: take that package.
. "$(dirname "$0")/fresh.sh"
fresh_needs dh
fresh_folder
deb=${ANYKVM_DEB:-}
if [ -z "$deb" ]; then
	fresh_source "$dir/anykvm-0.1.0"
	rm -rf "$dir/anykvm-0.1.0/.git"
	(cd "$dir/anykvm-0.1.0" && dpkg-buildpackage -us -uc) >"$dir/log" 2>&1 || { tail -30 "$dir/log"; exit 1; }
	deb=$(echo "$dir"/anykvm_*_amd64.deb)
	if command -v lintian >/dev/null; then
		lintian --allow-root --display-info --fail-on error,warning,info "$dir"/anykvm_*.changes || exit 1
	fi
fi
fresh_debian
cp "$deb" "$dir/root/srv/anykvm.deb"
cp "$top/debian/tests/boot-qemu" "$dir/root/srv/"
cat >"$dir/root/srv/steps" <<'STEPS'
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o Dpkg::Use-Pty=0 -y --no-install-recommends install qemu-system-x86 busybox-static cpio python3 libzydis4.0 >/dev/null
useradd -m guest
cd /tmp
image=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
apt-get -qq -o APT::Sandbox::User=root download "$image"
dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x -C / ./boot
list() { find / -xdev \( -path /proc -o -path /dev -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
	-o -path /tmp -o -path /root -o -name __pycache__ \) -prune -o -print | sort; }
list >/tmp/before
dpkg -i /srv/anykvm.deb >/dev/null
su guest -c 'cd && sh /srv/boot-qemu'
man1=$(dpkg -L anykvm | grep -c /man1/anykvm)
echo "man pages: $man1"
su guest -c 'cd && anykvm matrix --cpu milan,genoa -- anykvm doctor' || true
rm -rf /home/guest/anykvm-matrix
dpkg --purge anykvm >/dev/null
list >/tmp/after
diff /tmp/before /tmp/after && echo "REMOVED WITHOUT A TRACE"
STEPS
fresh_run "$dir/root" "sh /srv/steps" >"$dir/out" 2>&1
status=$?
tail -40 "$dir/out"
[ "$status" = 0 ] && grep -q "^booted on anykvm" "$dir/out" && grep -q "^2 cells: 2 ok" "$dir/out" && grep -q "REMOVED WITHOUT A TRACE" "$dir/out"
