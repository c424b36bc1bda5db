# SPDX-License-Identifier: MIT
# In the guest whose root is /dev/vda, as all that runs there: install this very system on /dev/vdb, to boot by SeaBIOS and by EFI.
set -eu
export PATH=/usr/sbin:/usr/bin
[ -d /proc/1 ] || mount -t proc proc /proc
[ -d /sys/class ] || mount -t sysfs sys /sys
sfdisk -q /dev/vdb <<-END
	label: gpt
	size=1MiB, type=21686148-6449-6E6F-744E-656564454649
	size=64MiB, type=uefi
	type=linux
END
mkfs.vfat -F 32 /dev/vdb2 >/dev/null
mkfs.ext4 -q -L guest-disk /dev/vdb3
mkdir /target
mount /dev/vdb3 /target
cp -ax /. /target
mkdir -p /target/boot/efi
mount /dev/vdb2 /target/boot/efi
for dir in dev proc sys; do mount --bind /$dir /target/$dir; done
echo LABEL=guest-disk / ext4 defaults 0 1 >/target/etc/fstab
cat >/target/etc/default/grub <<-END
	GRUB_TIMEOUT=1
	GRUB_TERMINAL="console serial"
	GRUB_CMDLINE_LINUX="root=LABEL=guest-disk console=tty0 console=ttyS0 systemd.default_timeout_start_sec=900"
	GRUB_DISABLE_OS_PROBER=true
END
# Busy machines take their time.
mkdir /target/etc/systemd/system/dev-ttyS0.device.d
printf '[Unit]\nJobRunningTimeoutSec=900\n' >/target/etc/systemd/system/dev-ttyS0.device.d/patience.conf
chroot /target grub-install --target=i386-pc /dev/vdb
chroot /target grub-install --target=x86_64-efi --removable --no-nvram --efi-directory=/boot/efi
chroot /target update-grub
umount /target/dev /target/proc /target/sys /target/boot/efi /target
sync
