#!/bin/sh
# SPDX-License-Identifier: MIT
# debian_image.sh BUILD: make BUILD/guest/debian.ext4, a Debian system as one file system, and vmlinuz and initrd.img beside
# it, by mmdebstrap (in a user namespace where the caller is not root) from the archives that apt here is configured for;
# and BUILD/guest/repository.ext4, an apt repository on a disk, of one package. What is there already stays.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/guest"
cd "$1/guest"
exec 9>.debian.lock
flock 9
# The archives of Debian's own that apt knows, as lines of a sources.list.
sources() {
	apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u
}
packages=systemd-sysv,udev,dbus,kmod,linux-image-amd64,iproute2,iputils-ping,login,passwd,fdisk,dosfstools,e2fsprogs
packages=$packages,grub2-common,grub-pc-bin,grub-efi-amd64-bin,gcc,gcc-multilib,libc6-dev,gdb,cpuid,pciutils,procps
# What it was made by; debian.ext4 is made anew when that changes.
if [ ! -s debian.ext4 ] || ! cmp -s "$here/debian_image.sh" debian.made; then
	[ -n "$(sources)" ] || { echo "anykvm: apt knows no archive of Debian's; as root: apt-get update" >&2; exit 1; }
	sources >debian.list
	work=$(pwd)/debian.tmp
	rm -rf "$work" && mkdir -m 777 "$work"
	# Root of the namespace is nobody here: it writes into files that are there.
	for file in root.ext4 vmlinuz initrd.img; do
		: >"$work/$file" && chmod 666 "$work/$file"
	done
	truncate -s 2G "$work/root.ext4"
	cat >"$work/setup" <<-END
		set -eu
		echo guest >"\$1/etc/hostname"
		echo 127.0.0.1 localhost guest >"\$1/etc/hosts"
		echo LABEL=guest-root / ext4 defaults 0 1 >"\$1/etc/fstab"
		printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\nLinkLocalAddressing=no\n' >"\$1/etc/systemd/network/80-dhcp.network"
		chroot "\$1" passwd -d root >/dev/null
		chroot "\$1" systemctl -q enable systemd-networkd serial-getty@ttyS0
		chroot "\$1" systemctl -q disable systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
		chroot "\$1" systemctl -q mask systemd-networkd-wait-online.service
		rm -f "\$1"/etc/apt/sources.list "\$1"/etc/apt/sources.list.d/*
		rm -rf "\$1"/usr/share/doc/* "\$1"/usr/share/locale/* "\$1"/var/lib/apt/lists/*
		cat "\$1"/boot/vmlinuz-* >"$work/vmlinuz"
		cat "\$1"/boot/initrd.img-* >"$work/initrd.img"
		mkdir "$work/view"
		# Without what is mounted there.
		unshare -m sh -c 'mount --bind "\$0" "\$1" && /sbin/mke2fs -q -F -t ext4 -L guest-root -d "\$1" "\$2"' "\$1" "$work/view" "$work/root.ext4"
	END
	mmdebstrap --quiet --variant=minbase --include="$packages" --format=null --customize-hook='sh '"$work/setup"' "$1"' \
		"$(. /etc/os-release && echo "$VERSION_CODENAME")" - debian.list
	mv "$work/vmlinuz" debian.vmlinuz
	mv "$work/initrd.img" debian.initrd
	mv "$work/root.ext4" debian.ext4
	cp "$here/debian_image.sh" debian.made
	rm -rf "$work" debian.disk
fi
if [ ! -s repository.ext4 ]; then
	rm -rf repository && mkdir repository
	(cd repository && apt-get -qq -o APT::Sandbox::User=root download hello)
	(
		cd repository
		for deb in *.deb; do
			dpkg-deb -f "$deb"
			printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
		done >Packages
	)
	truncate -s 8M repository.tmp
	/sbin/mke2fs -q -F -t ext4 -L repository -d repository repository.tmp
	mv repository.tmp repository.ext4
	rm -rf repository
fi
