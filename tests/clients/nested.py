#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nested.py --build DIR [--model MODEL] [--vcpus N] [--kvm OPTION,...] - a hypervisor in a guest on anykvm.

The guest (L1) is Debian's kernel with its own kvm_intel or kvm_amd, and Debian's QEMU, which boots the same kernel
as its guest (L2). Passes if L2 says BOOT-OK, both QEMUs end well, L1's kernel warns of nothing, and anykvm's
counters say that it was its work. --kvm: options of L1's module, such as ept=0.
"""
import argparse, glob, os, re, shutil, subprocess, sys, tempfile

from boot import TOP

FIRMWARE = ["/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios-microvm.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/pvh.bin", "/usr/share/qemu/qboot.rom"]
L2 = "microvm,acpi=off,rtc=on,pit=on,pic=on"
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do case $word in l1.*) eval "${word#l1.}" ;; esac; done
insmod /modules/irqbypass.ko; insmod /modules/kvm.ko
module=kvm-amd; grep -q vmx /proc/cpuinfo && module=kvm-intel
insmod /modules/$module.ko $(echo "$kvm" | tr , ' ') || echo NO-MODULE
echo "L1 $module nested in $(uname -r)"
qemu-system-x86_64 -accel kvm -machine MACHINE -cpu host -smp $vcpus -L /usr/share/qemu -L /usr/share/seabios -nodefaults \\
  -no-user-config -display none -no-reboot -serial stdio -m 128M -kernel /guest/vmlinuz -initrd /guest/initramfs.cpio \\
  -append "console=ttyS0 panic=-1 reboot=t quiet" </dev/null
echo "L2-STATUS $?"
dmesg | grep -E "WARNING: CPU|BUG:|Oops" && echo L1-WARNS
sleep 0.2
reboot -f
""".replace("MACHINE", L2)


def copy(path, root, to=None):
    to = root + (to or path)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copy(path, to)


def image(build, out, init=INIT, programs=()):
    """An initramfs with QEMU, its libraries and firmware, L1's modules and L2's kernel; programs of build's guest, too."""
    guest = os.path.join(build, "guest")
    qemu = shutil.which("qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="anykvm-l1-") as root:
        for folder in ("bin", "tmp", "proc", "sys", "dev"):
            os.makedirs(os.path.join(root, folder))
        copy("/bin/busybox", root)
        copy(qemu, root, "/usr/bin/qemu-system-x86_64")
        libraries = subprocess.run(["ldd", qemu], stdout=subprocess.PIPE, text=True, check=True).stdout
        for path in set(re.findall(r"/[^ )\n]+", libraries)) | {f for f in FIRMWARE if os.path.exists(f)}:
            copy(path, root)
        for path in glob.glob(os.path.join(guest, "modules", "*.ko")):
            copy(path, root, "/modules/" + os.path.basename(path))
        for name in ("vmlinuz", "initramfs.cpio"):
            copy(os.path.join(guest, name), root, "/guest/" + name)
        for name in programs:
            copy(os.path.join(guest, name), root, "/bin/" + name)
        with open(os.path.join(root, "init"), "w", encoding="utf-8") as out_init:
            out_init.write(init)
        os.chmod(os.path.join(root, "init"), 0o755)
        subprocess.run("find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet >%s" % out, shell=True, cwd=root, check=True)


def run(args, build, initramfs):
    stats = tempfile.NamedTemporaryFile(prefix="anykvm-stats-")
    append = "console=ttyS0 panic=-1 reboot=t quiet l1.vcpus=%d l1.kvm=%s" % (args.vcpus, args.kvm)
    command = [os.path.join(build, "anykvm"), "run", "--cpu", args.model, "--", "qemu-system-x86_64", "-accel", "kvm",
               "-machine", "q35", "-cpu", "host", "-smp", str(args.vcpus), "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-serial", "stdio", "-m", "1G", "-kernel", os.path.join(build, "guest", "vmlinuz"), "-initrd",
               initramfs, "-append", append]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=args.limit, env=dict(os.environ, ANYKVM_STATS_FILE=stats.name))
        status, out = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, out = 124, late.stdout or b""
    moved = re.search(r"^instructions [1-9]\d{8}", open(stats.name, encoding="utf-8").read(), re.M)
    return status, out.decode("utf-8", "replace"), moved


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", default="ice-lake-sp")
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--kvm", default="")
    parser.add_argument("--limit", type=int, default=1500)
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), args.build], check=True)
    with tempfile.NamedTemporaryFile(prefix="anykvm-l1-", suffix=".cpio") as initramfs:
        image(build, initramfs.name)
        status, out, moved = run(args, build, initramfs.name)
    print(out)
    wrong = [] if status == 0 else ["exit status %d" % status]
    wrong += ["no '%s'" % want for want in ("BOOT-OK", "ALL-DONE", "L2-STATUS 0") if not re.search("^" + want, out, re.M)]
    wrong += [bad for bad in ("NO-MODULE", "L1-WARNS") if bad in out]
    wrong += [] if moved else ["anykvm's counters did not move"]
    print("nested: %s, %d vCPUs, %s: %s" % (args.model, args.vcpus, args.kvm or "defaults", "; ".join(wrong) or "ok"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
