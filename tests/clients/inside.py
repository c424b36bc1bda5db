# SPDX-License-Identifier: MIT
"""Images of guests that are hypervisors themselves: Debian's kernel with its modules, QEMU with its libraries and firmware, what
its own guests boot, and a busybox that puts it all to work (INIT). nested.py says what is to be seen.
"""
import glob, lzma, os, re, shutil, subprocess, tempfile

from systems import depends, kernel_of, unpack

FIRMWARE = ["/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios-microvm.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/pvh.bin", "/usr/share/qemu/qboot.rom"]
# Of the kernel's command line each l1.NAME=VALUE is a variable here.
START = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mem=128M next= cpu=host machine=microvm,acpi=off,rtc=on,pit=on,pic=on
for word in $(cat /proc/cmdline); do case $word in l1.*) eval "${word#l1.}" ;; esac; done
"""
END = """dmesg | grep -E "WARNING: CPU|BUG:|Oops|segfault|general protection|trap " && echo L1-WARNS
sleep 0.2
reboot -f
"""
KVM = """module=kvm-amd; grep -q vmx /proc/cpuinfo && module=kvm-intel
for m in $(cat /modules/$module.order); do
  options=; [ $m = $module ] && options=$(echo "$kvm" | tr , ' ')
  insmod /modules/$m.ko $options || echo NO-MODULE
done
echo "L1 $module nested in $(uname -r)$(dmesg | grep -o 'AVIC enabled' | sed 's/^/, /')"
"""
LINUX = KVM + """qemu-system-x86_64 -accel kvm -machine $machine -cpu $cpu -smp $vcpus -L /usr/share/qemu -L /usr/share/seabios -nodefaults \\
  -no-user-config -display none -no-reboot -serial stdio -m $mem -kernel /guest/vmlinuz -initrd /guest/initramfs.cpio \\
  -append "console=ttyS0 panic=-1 reboot=t quiet $(echo "$next" | tr , ' ')" </dev/null
echo "L2-STATUS $?"
"""
# Like the kernel's own make run_tests: 0 passes, 4 skips.
SELFTESTS = KVM + """mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm; cd /selftests
for test in $(cat list); do
  read began rest </proc/uptime
  timeout -s KILL $limit ./$test >/tmp/log 2>&1 </dev/null; code=$?
  read ended rest </proc/uptime
  case $code in 0) word=PASS ;; 4) word=SKIP ;; *) word=FAIL; tail -n 12 /tmp/log ;; esac
  echo "SELFTEST $word $test status=$code from=$began to=$ended"
done
"""

XEN_FIRMWARE = ["/usr/share/qemu/linuxboot.bin", "/usr/share/qemu/keymaps/en-us"]
# Of Xen's own programs; what they link to is found by itself.
XEN_PACKAGES = """xen-utils-4.17 xen-utils-common qemu-system-xen libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1
    libxengnttab1 libxenmisc4.17 libxenstore4 libxentoolcore1 libxentoollog1 libxenhypfs1 libyajl2 libspice-server1 libusb-1.0-0 libfdt1
    libjpeg62-turbo libpixman-1-0 libcap-ng0""".split()
XEN_BIN = "/usr/lib/xen-4.17/bin/"
XEN_FILES = [XEN_BIN + name for name in ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper")] + [
    "/usr/libexec/xen-qemu-system-i386", "/usr/lib/xen-4.17/boot/hvmloader"]
XEN_MODULES = ("xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc")
XEN_GUEST = """type = "hvm"
name = "l2"
memory = 160
vcpus = 1
kernel = "/guest/vmlinuz"
ramdisk = "/guest/initramfs.cpio"
cmdline = "console=ttyS0 panic=-1 reboot=t quiet"
serial = "file:/l2.log"
vga = "none"
vnc = 0
sdl = 0
usb = 0
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
"""
XEN = """mkdir -p /run /var/run/xen /run/xen /var/lib/xen /var/lib/xenstored /var/log/xen /etc/xen
for m in $(cat /modules/xen.order); do insmod /modules/$m.ko; done
mount -t xenfs xenfs /proc/xen; mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
echo autoballoon=0 >/etc/xen/xl.conf
BINxenstored --pid-file=/run/xenstored.pid; BINxen-init-dom0; BINxenconsoled
echo "L1 xen nested: $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)"
echo "DOM0 $(cat /sys/hypervisor/guest_type) $(cat /proc/xen/capabilities)"
BINxl create /guest.cfg; echo "XL-STATUS $?"
echo "XL-LISTS $(BINxl list | grep "^l2 ")"
n=0
while [ $n -lt $limit ] && BINxl list l2 >/dev/null 2>&1; do sleep 1; n=$((n + 1)); done
cat /l2.log
BINxl list
BINxl dmesg | grep -E "HVM|VMX|SVM|fail|crash|rror"
tail -n 20 /var/log/xen/*
""".replace("BIN", XEN_BIN)


def copy(path, root, to=None):
    to = root + (to or path)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copy(path, to)


def libraries(program, folders=()):
    env = dict(os.environ, LD_LIBRARY_PATH=":".join(folders))
    out = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
    return set(re.findall(r"/[^ )\n]+", out))


def pack(root, out):
    subprocess.run("find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet >%s" % out, shell=True, cwd=root, check=True)


class Kernel:
    """vmlinuz and modules of one of Debian's kernels: the cloud kernel of 6.1, as tools/guest-image has it, or what a package stands for,
    by how its name starts."""

    def __init__(self, build, package=None, starts=None):
        self.vmlinuz, self.modules = os.path.join(build, "guest", "vmlinuz"), {}
        where = os.path.join(build, "guest", "modules")
        if package:
            where = unpack(build, depends(package, starts))
            self.vmlinuz = kernel_of(where)
        for path in glob.glob(os.path.join(where, "**", "*.ko*"), recursive=True):
            self.modules[os.path.basename(path).split(".ko")[0].replace("_", "-")] = path

    def read(self, name):
        with (lzma.open if self.modules[name].endswith(".xz") else open)(self.modules[name], "rb") as file:
            return file.read()

    def add(self, name, folder, order=None):
        """The module, and before it those that it wants; returns their names in the order of loading."""
        order = [] if order is None else order
        name = name.replace("_", "-")
        if name not in order and name in self.modules:
            content = self.read(name)
            wanted = re.search(rb"\0depends=([^\0]*)\0", content)
            for other in wanted.group(1).decode().split(",") if wanted and wanted.group(1) else []:
                self.add(other, folder, order)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, name + ".ko"), "wb") as out:
                out.write(content)
            order.append(name)
        return order

    def add_list(self, file, names, folder):
        order = []
        for name in names:
            self.add(name, folder, order)
        with open(os.path.join(folder, file + ".order"), "w", encoding="ascii") as out:
            out.write("\n".join(order) + "\n")


def skeleton(root, init):
    for folder in ("bin", "tmp", "proc", "sys", "dev"):
        os.makedirs(os.path.join(root, folder))
    copy("/bin/busybox", root)
    with open(os.path.join(root, "init"), "w", encoding="utf-8") as out:
        out.write(START + init + END)
    os.chmod(os.path.join(root, "init"), 0o755)


def kvm_modules(kernel, root):
    os.makedirs(root + "/modules")
    for name in ("kvm-intel", "kvm-amd"):
        kernel.add_list(name, [name], root + "/modules")


def linux(kernel, guest, out, init=LINUX, programs=()):
    """A hypervisor whose guest is the same kernel, with the initramfs guest; programs come to /bin."""
    qemu = shutil.which("qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="anykvm-l1-") as root:
        skeleton(root, init)
        copy(qemu, root, "/usr/bin/qemu-system-x86_64")
        for path in libraries(qemu) | {f for f in FIRMWARE if os.path.exists(f)}:
            copy(path, root)
        for path in programs:
            copy(path, root, "/bin/" + os.path.basename(path))
        kvm_modules(kernel, root)
        copy(kernel.vmlinuz, root, "/guest/vmlinuz")
        copy(guest, root, "/guest/initramfs.cpio")
        pack(root, out)


def selftests(kernel, programs, out):
    """One that runs these programs, paths by name."""
    with tempfile.TemporaryDirectory(prefix="anykvm-l1-") as root:
        skeleton(root, SELFTESTS)
        kvm_modules(kernel, root)
        for name, path in programs.items():
            copy(path, root, "/selftests/" + name)
            for library in libraries(path) | set(glob.glob("/lib/*/libgcc_s.so.1")):  # pthread_cancel() wants it.
                copy(library, root)
        with open(root + "/selftests/list", "w", encoding="ascii") as names:
            names.write("\n".join(sorted(programs)) + "\n")
        pack(root, out)


def xen_file(build, path):
    """Out of whichever package has it."""
    for package in XEN_PACKAGES:
        found = unpack(build, package) + path
        if os.path.exists(found):
            return found
    raise FileNotFoundError(path)


def xen(kernel, guest, build, out):
    """Xen's dom0: its tools start an HVM guest, with Debian's qemu-system-xen for its devices."""
    folders = [unpack(build, package) + folder for package in XEN_PACKAGES for folder in ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu")]
    with tempfile.TemporaryDirectory(prefix="anykvm-l1-") as root:
        skeleton(root, XEN)
        for path in XEN_FILES:
            copy(xen_file(build, path), root, path)
            for library in libraries(xen_file(build, path), folders) if not path.endswith("hvmloader") else ():
                copy(library, root, None if "/ld-" in library else "/usr/lib/x86_64-linux-gnu/" + os.path.basename(library))
        for path in [f for f in FIRMWARE + XEN_FIRMWARE if os.path.exists(f)]:
            copy(path, root)
        os.makedirs(root + "/modules")
        kernel.add_list("xen", XEN_MODULES, root + "/modules")
        with open(root + "/guest.cfg", "w", encoding="ascii") as config:
            config.write(XEN_GUEST)
        copy(os.path.join(build, "guest", "vmlinuz"), root, "/guest/vmlinuz")
        copy(guest, root, "/guest/initramfs.cpio")
        pack(root, out)
