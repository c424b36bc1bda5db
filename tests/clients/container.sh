#!/bin/sh
# SPDX-License-Identifier: MIT
# container.sh: the Containerfile is built, on a base that debootstrap makes and not from a registry; a container of the image, with no
# rights and no devices of the host's, boots QEMU on anykvm. Images are stored in a folder that is removed.
# Needs root, buildah, podman, debootstrap and a Debian mirror (ANYKVM_MIRROR); else skipped.
. "$(dirname "$0")/fresh.sh"
fresh_needs buildah podman
# crun refuses systemd's mix of cgroups of both kinds; here is a view without the second.
if [ -z "${IN_VIEW:-}" ]; then
	IN_VIEW=1 exec unshare -m sh -c '[ ! -e /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified; exec sh "$0"' "$0"
fi
fresh_folder
in_store() {
	tool=$1
	shift
	"$tool" --root "$dir/images" --runroot "$dir/run" --storage-driver vfs "$@"
}
trap 'in_store podman rm -af >/dev/null 2>&1; rm -rf --one-file-system "$dir"' EXIT
base=docker.io/library/debian:bookworm
fresh_debian
rm -rf "$dir/root/var/cache/apt/archives"
tar -C "$dir/root" -c . | in_store podman import -q - "$base" >/dev/null 2>"$dir/log" || skip "podman cannot store an image here: $(tail -1 "$dir/log")"
rm -rf "$dir/root"
container=$(in_store buildah from --pull-never "$base") && in_store buildah run --network host "$container" true >"$dir/log" 2>&1 ||
	skip "no containers here: $(tail -1 "$dir/log")"
in_store buildah rm "$container" >/dev/null

fresh_source "$dir/source"
in_store buildah bud --pull-never --network host --layers=false -t anykvm "$dir/source" >"$dir/log" 2>&1 ||
	{ tail -30 "$dir/log"; echo "FAILED: the Containerfile"; exit 1; }

# As the Containerfile's first lines say, and less: no network, no capabilities, another user.
image=${ANYKVM_GUEST:-$top/build/guest}
in_container() {
	in_store podman run --rm --pull never --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --cap-drop all \
		--security-opt no-new-privileges --user 1000:1000 --workdir /tmp \
		--volume "$image:/guest:ro" "$@" 2>&1
}
in_container --entrypoint anykvm anykvm doctor qemu-system-x86_64 | tee "$dir/out"
grep -q "^ok .*/dev/kvm" "$dir/out" && grep -q "ran: 41 + 1 = 42" "$dir/out" || { echo "FAILED: doctor in a container"; exit 1; }
in_container anykvm qemu-system-x86_64 -accel kvm -cpu host -m 256M -nodefaults -no-user-config -display none -no-reboot -serial stdio \
	-kernel /guest/vmlinuz -initrd /guest/initramfs.cpio -append "console=ttyS0 panic=-1 reboot=t quiet" | tee "$dir/out"
grep -q "^BOOT-OK" "$dir/out" && grep -q "^ALL-DONE" "$dir/out" || { echo "FAILED: a boot in a container"; exit 1; }
# The image has no KVM of its own: QEMU without anykvm must not find one.
in_container --entrypoint qemu-system-x86_64 anykvm -accel kvm -machine none -nodefaults -display none -monitor none >"$dir/out" &&
	{ echo "FAILED: a KVM in the container"; exit 1; }
echo "booted in a container"
