# SPDX-License-Identifier: MIT
# Runs as a user in the root that packages.sh makes. Each check leaves its output in ~/NAME.log.
cd
export XDG_RUNTIME_DIR=/run/user
any="/anykvm/anykvm run --"
session=qemu:///session
failed=0

# The counters of the QEMU that a check ran: it was anykvm that worked.
moved() {
	awk '$1 == "instructions" { n += $2 } END { exit n < 100000000 }' "$ANYKVM_STATS_FILE" || { echo "anykvm's counters did not move"; return 1; }
}

validate() {
	$any virt-host-validate qemu >found || :
	cat found
	for line in "hardware virtualization" "device /dev/kvm exists" "device /dev/kvm is accessible"; do
		grep -q "$line.*: PASS" found || return 1
	done
}

capabilities() {
	$any virsh -c $session capabilities >found && grep -q "<domain type='kvm'" found && $any virsh -c $session domcapabilities --virttype kvm >found &&
		grep -q "<domain>kvm</domain>" found
}

# $@: options of anykvm run. Boots to BOOT-OK, says what processor it saw, and is destroyed.
domain() {
	any_domain="/anykvm/anykvm run $* --"
	rm -f serial
	$any_domain virt-install --connect $session --name guest --memory 512 --vcpus 2 --virt-type kvm --import --disk none \
		--osinfo detect=off,require=off --graphics none --noautoconsole --serial file,path="$HOME/serial" --boot \
		kernel=/guest/vmlinuz,initrd=/guest/initramfs.cpio,kernel_args="console=ttyS0 panic=-1 reboot=t quiet run=grep,vendor_id,/proc/cpuinfo" \
		--network user --transient --check all=off || return 1
	i=0
	until grep -q ALL-DONE serial || [ $i = 200 ]; do sleep 1; i=$((i + 1)); done
	$any_domain virsh -c $session dumpxml guest | grep "<domain type='kvm'" || return 1
	grep -- "-accel kvm" .cache/libvirt/qemu/log/guest.log || return 1
	$any_domain virsh -c $session destroy guest
	cat serial
	grep -q "^BOOT-OK" serial
}

# The daemon that virsh starts lives on for others; a setting needs one of its own.
no_daemon() {
	for pid in $(pgrep -x libvirtd); do kill "$pid"; done
	while pgrep -x libvirtd >/dev/null; do sleep 0.2; done
	rm -rf .cache/libvirt
}

install() {
	no_daemon
	domain && moved
}

install_amd() {
	no_daemon
	domain --cpu milan && grep -q AuthenticAMD serial && moved
	status=$?
	no_daemon
	return $status
}

guestfs() {
	LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_kvm $any libguestfs-test-tool >found 2>&1 || { tail -n 30 found; return 1; }
	grep "^===== TEST FINISHED OK" found && grep -- "-machine accel=kvm," found && moved
}

# A Debian system as a disk, also fit for autopkgtest: its own set-up script runs in it.
image() {
	[ -s image.ext4 ] && return
	grep " $suite " /tests.list >main.list # That script makes the guest's apt know this one only.
	mirror=$(awk -v suite="$suite" '$3 == suite { print $2; exit }' /tests.list)
	RELEASE=$suite MIRROR=$mirror debvm-create -r "$suite" -s 2G -o image.tmp -- --include=linux-image-amd64 \
		--customize-hook='mkdir "$1"/etc/systemd/system/dev-ttyS0.device.d' \
		--customize-hook='printf "[Unit]\nJobRunningTimeoutSec=900\n" >"$1"/etc/systemd/system/dev-ttyS0.device.d/patience.conf' \
		--customize-hook='/usr/share/autopkgtest/setup-commands/setup-testbed "$1"' ./main.list >found 2>&1 || { tail -n 30 found; return 1; }
	mv image.tmp image.ext4
}

debvm() {
	image || return 1
	mkfifo -m 600 keys 2>/dev/null
	sleep 900 >keys &
	keys=$!
	$any debvm-run -i image.ext4 -- -append "root=LABEL=debvm rw console=ttyS0 systemd.default_timeout_start_sec=900 TERM=dumb" <keys >found 2>&1 &
	vm=$!
	i=0
	until grep -q "root@.*# " found || [ $i = 600 ]; do sleep 1; i=$((i + 1)); done
	echo 'echo kernel-$((40 + 2)) $(systemd-detect-virt); poweroff' >keys
	wait $vm
	status=$?
	kill $keys
	tail -n 40 found
	[ $status = 0 ] && grep -q "kernel-42 kvm" found && moved
}

# A package with one test, which says on what it ran.
package() {
	rm -rf sample-1 && mkdir -p sample-1/debian/tests sample-1/debian/source
	cd sample-1 || return 1
	printf 'sample (1) unstable; urgency=low\n\n  * Sample.\n\n -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 00:00:00 +0000\n' >debian/changelog
	printf 'Source: sample\nMaintainer: Nobody <nobody@example.org>\n\nPackage: sample\nArchitecture: all\nDescription: sample\n' >debian/control
	printf 'Tests: where\nDepends:\n' >debian/tests/control
	printf '#!/bin/sh\ntest "$(systemd-detect-virt)" = kvm && echo on kvm\n' >debian/tests/where
	printf '3.0 (native)\n' >debian/source/format
	chmod 755 debian/tests/where
	cd ..
}

autopkgtest() {
	image && package || return 1
	/usr/sbin/debugfs -R "ls -p /boot" image.ext4 2>/dev/null | tr / '\n' | grep -E "^(vmlinuz|initrd.img)-" >files
	for file in $(cat files); do /usr/sbin/debugfs -R "dump /boot/$file ${file%%-*}" image.ext4 2>/dev/null; done
	cat >boot.cfg <<-END
		[machine]
		kernel = "$HOME/vmlinuz"
		initrd = "$HOME/initrd.img"
		append = "root=LABEL=debvm rw console=ttyS0 systemd.default_timeout_start_sec=900"
	END
	$any autopkgtest --no-built-binaries --timeout-factor 10 sample-1/ -- qemu --timeout-reboot 900 \
		--show-boot --qemu-options "-readconfig $HOME/boot.cfg" image.ext4 >found 2>&1
	status=$?
	tail -n 40 found
	[ $status = 0 ] && grep "^where *PASS" found && moved
}

[ $# = 0 ] && set -- validate capabilities install install_amd guestfs debvm autopkgtest
for name; do
	began=$(date +%s)
	export ANYKVM_STATS_FILE="$HOME/stats.$name"
	rm -f "$ANYKVM_STATS_FILE"
	if $name >"$name.log" 2>&1 </dev/null; then
		echo "packages: $name ok, $(($(date +%s) - began)) s"
	else
		echo "packages: $name FAILED, $(($(date +%s) - began)) s:"
		tail -n 40 "$name.log"
		failed=1
	fi
done
exit $failed
