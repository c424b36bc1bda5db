#!/bin/sh
# SPDX-License-Identifier: MIT
# packages.sh BUILD [NAME...]: Debian's packages, unmodified, as an ordinary user under `anykvm run`: libvirt (validate, capabilities, install),
# libguestfs (guestfs), debvm, autopkgtest. They are installed by mmdebstrap into BUILD/guest/packages, a root of their own without a
# /dev/kvm, and run there in namespaces of their own; that takes root (else skipped, status 77). Debian's archives are those that apt here knows.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
shift
[ "$(id -u)" = 0 ] || { echo "packages: not root"; exit 77; }
sh "$here/../../tools/guest-image" "$build"
root=$build/guest/packages
list=$build/guest/packages.list
names=libvirt-daemon,libvirt-daemon-system,libvirt-daemon-driver-qemu,libvirt-clients,virtinst,libguestfs-tools,debvm,autopkgtest
names=$names,qemu-system-x86,qemu-utils,linux-image-amd64,libzydis4.0,mmdebstrap,uidmap,genext2fs,ovmf,seabios,ipxe-qemu,dbus,procps,iproute2,ssh,python3
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u >"$list"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
if [ ! -e "$root/complete" ]; then
	rm -rf "$root"
	mmdebstrap --quiet --variant=apt --aptopt='APT::Install-Recommends "false"' --include="$names" \
		--customize-hook='chroot "$1" useradd -m -s /bin/bash user' --customize-hook='chmod 644 "$1"/boot/vmlinuz-*' "$suite" "$root" - "$list"
	: >"$root/complete"
fi
mkdir -p "$root/anykvm" "$root/guest" "$root/tests" "$root/old"
cp "$list" "$root/tests.list"
export root build here suite
exec unshare -mpf sh -euc '
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/dev"
for n in null zero full random urandom tty; do
	: >"$root/dev/$n"
	mount --bind "/dev/$n" "$root/dev/$n"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind "$build" "$root/anykvm"
mount --bind "$build/guest" "$root/guest"
mount --bind "$here" "$root/tests"
cd "$root"
pivot_root . old
cd /
umount -l old
[ ! -e /dev/kvm ]
mkdir /run/user
chown user /run/user
# This shell stays, to bury whom daemons leave.
setsid -w su user -c "suite=$suite sh /tests/packages_inside.sh $*" || exit 1' sh "$@"
