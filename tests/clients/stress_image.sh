#!/bin/sh
# SPDX-License-Identifier: MIT
# stress_image.sh BUILD: make BUILD/guest/initramfs-stress.cpio: what initramfs.cpio holds, and Debian's stress-ng with its
# libraries, of which those that this machine lacks come from their packages.
set -eu
cd "$1/guest"
exec 9>.lock-stress
flock 9
fail() {
	echo "anykvm: $*" >&2
	exit 1
}
[ -s initramfs-stress.cpio ] && [ initramfs-stress.cpio -nt initramfs.cpio ] && exit 0
rm -rf stress && mkdir -p stress/debs stress/all stress/root/bin stress/root/lib64 stress/root/tmp
for pkg in stress-ng libipsec-mb1 libjudydebian1 libsctp1 libegl1 libgles2 libgbm1 libjpeg62-turbo libkmod2 libxxhash0 libbsd0 libapparmor1 \
	libglvnd0 libdrm2 libmd0 libexpat1 libwayland-server0 libxcb-randr0 libxcb1 libxau6 libxdmcp6 libzstd1 liblzma5; do
	(cd stress/debs && apt-get -qq -o APT::Sandbox::User=root download "$pkg") || fail "cannot download $pkg; as root: apt-get update"
done
for deb in stress/debs/*.deb; do
	dpkg-deb -x "$deb" stress/all
done
lib=stress/all/usr/lib/x86_64-linux-gnu:stress/all/lib/x86_64-linux-gnu
cp stress/all/usr/bin/stress-ng stress/root/bin/
LD_LIBRARY_PATH=$lib ldd stress/root/bin/stress-ng >stress/libs
! grep 'not found' stress/libs || fail "stress-ng lacks libraries"
mkdir -p stress/root/lib/x86_64-linux-gnu
awk '$2 == "=>" { print $3 }' stress/libs | while read -r file; do
	cp -L "$file" stress/root/lib/x86_64-linux-gnu/
done
cp -L /lib64/ld-linux-x86-64.so.2 stress/root/lib64/
(cd stress/root && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) >stress.tmp
cat initramfs.cpio stress.tmp >initramfs-stress.tmp
rm -rf stress stress.tmp
mv initramfs-stress.tmp initramfs-stress.cpio
