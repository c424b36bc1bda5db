# SPDX-License-Identifier: MIT
"""What machines.py boots: each function makes the QEMU options of one system, out of Debian's packages.

Where a package is not installed, its archive is downloaded into DIR/guest and unpacked there.
"""
import gzip, os, shutil, struct, subprocess

APPEND = "console=ttyS0 panic=-1 reboot=t quiet"


def apt(arguments, place, foreign=None):
    """apt-get as it is configured here; for another architecture with lists of its own."""
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
    if foreign:
        lists = os.path.join(place, "lists")
        os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
        command += ["-o", "APT::Architecture=" + foreign, "-o", "APT::Architectures::=" + foreign, "-o", "Dir::State::lists=" + lists,
                    "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Dir::State::status=/dev/null"]
        if not any(name.endswith("_Packages") for name in os.listdir(lists)):
            subprocess.run(command + ["update"], check=False)  # An archive less may do.
    subprocess.run(command + arguments, cwd=place, check=True)


def unpack(build, package, foreign=None):
    """The folder with the package's files in it."""
    place = os.path.join(build, "guest", package + (":" + foreign if foreign else ""))
    if not os.path.exists(os.path.join(place, "complete")):
        os.makedirs(place, exist_ok=True)
        apt(["download", package], place, foreign)
        for deb in [n for n in os.listdir(place) if n.endswith(".deb")]:
            subprocess.run(["dpkg-deb", "-x", deb, "."], cwd=place, check=True)
            os.unlink(os.path.join(place, deb))
        open(os.path.join(place, "complete"), "wb").close()
    return place


def package_file(build, package, path):
    """A file of a Debian package: the installed one, or out of the package's archive."""
    return path if os.path.exists(path) else unpack(build, package) + path


def depends(package, pattern):
    """What a package of no content of its own stands for."""
    text = subprocess.run(["apt-cache", "depends", package], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(w for w in text.split() if w.startswith(pattern))


def kernel_of(folder):
    return next(os.path.join(folder, "boot", n) for n in sorted(os.listdir(folder + "/boot")) if n.startswith("vmlinuz"))


def initramfs(build):
    return os.path.join(build, "guest", "initramfs.cpio")


def linux(build, scratch):
    return ["-kernel", os.path.join(build, "guest", "vmlinuz"), "-initrd", initramfs(build), "-append", APPEND]


def linux_smp(build, scratch):
    return linux(build, scratch) + ["-smp", "2"]


def linux_devices(build, scratch):
    disk = os.path.join(scratch, "disk")
    with open(disk, "wb") as out:
        out.truncate(16 << 20)
    drives = [a for i, dev in enumerate(("virtio-blk-pci,drive=d0", "nvme,serial=1,drive=d1", "ide-hd,drive=d2")) for a in
              ("-drive", "if=none,id=d%d,format=raw,snapshot=on,file=%s" % (i, disk), "-device", dev)]
    others = "virtio-rng-pci virtio-balloon-pci virtio-serial-pci qemu-xhci usb-tablet VGA".split()
    return linux(build, scratch) + drives + ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0", "-netdev", "user,id=n1",
                                             "-device", "e1000e,netdev=n1"] + [a for d in others for a in ("-device", d)]


def linux_new(build, scratch):
    """Debian's 6.12 kernel."""
    package = depends("linux-image-6.12-cloud-amd64", "linux-image-6.12.")
    return ["-kernel", kernel_of(unpack(build, package)), "-initrd", initramfs(build), "-append", APPEND]


def linux_pvh(build, scratch):
    """The kernel itself, out of its bzImage: QEMU enters it by its PVH note, without firmware's work or the boot protocol."""
    with open(os.path.join(build, "guest", "vmlinuz"), "rb") as file:
        image = file.read()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1f1] + 1) * 512 + offset
    tool = {b"\x02\x21\x4c\x18": ["lz4", "-dc"], b"\x28\xb5\x2f\xfd": ["zstd", "-dc"], b"\xfd7zX": ["xz", "-dc"]}[image[start:start + 4]]
    tool[0] = package_file(build, {"xz": "xz-utils"}.get(tool[0], tool[0]), "/usr/bin/" + tool[0])
    kernel = os.path.join(scratch, "vmlinux")
    with open(kernel, "wb") as out:  # The payload's last word is its size unpacked.
        subprocess.run(tool, input=image[start:start + length - 4], stdout=out, check=True)
    return ["-kernel", kernel, "-initrd", initramfs(build), "-append", APPEND]


def linux_32(build, scratch):
    """Debian's kernel for i386, with PAE, and its busybox."""
    folder = os.path.join(build, "guest", "i386")
    os.makedirs(folder, exist_ok=True)
    image = os.path.join(build, "guest", "i386.cpio")
    if not os.path.exists(os.path.join(folder, "complete")):
        apt(["-d", "-o", "Dir::Cache::archives=" + folder, "install", "--no-install-recommends", "linux-image-686-pae", "busybox-static"],
            folder, "i386")
        debs = [n for n in os.listdir(folder) if n.startswith(("linux-image-6", "busybox-static"))]
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", deb, "."], cwd=folder, check=True)
        shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "kit", "init"), folder + "/init")
        os.chmod(folder + "/init", 0o755)
        with open(image, "wb") as out:
            subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=b"init\nbin\nbin/busybox\n", stdout=out, cwd=folder, check=True)
        open(os.path.join(folder, "complete"), "wb").close()
    return ["-kernel", kernel_of(folder), "-initrd", image, "-append", APPEND]


def installer(build, scratch):
    folder = unpack(build, "debian-installer-12-netboot-amd64") + "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/"
    return ["-kernel", folder + "linux", "-initrd", folder + "initrd.gz", "-append", "console=ttyS0 quiet", "-m", "1200M"]


def xen_image(build, scratch):
    """Xen itself, as a multiboot image."""
    package = depends("xen-system-amd64", "xen-hypervisor-")
    folder = unpack(build, package) + "/boot/"
    packed = folder + next(n for n in os.listdir(folder) if n.endswith(".gz"))
    image = os.path.join(scratch, "xen")
    with gzip.open(packed) as file, open(image, "wb") as out:
        shutil.copyfileobj(file, out)
    return image


def xen(build, scratch):
    """It takes the kernel and its initramfs as modules. Its dom0 is run to the reboot at its end."""
    modules = "%s console=hvc0 panic=-1 quiet,%s" % (os.path.join(build, "guest", "vmlinuz"), initramfs(build))
    return ["-kernel", xen_image(build, scratch), "-initrd", modules, "-append", "console=com1 com1=115200,8n1 dom0_mem=300M noreboot"]


def pflash(build, scratch, code, variables):
    own = os.path.join(scratch, "vars")
    shutil.copy(package_file(build, "ovmf", "/usr/share/OVMF/" + variables), own)
    return ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + package_file(build, "ovmf", "/usr/share/OVMF/" + code),
            "-drive", "if=pflash,format=raw,unit=1,file=" + own]


def ovmf(build, scratch):
    return pflash(build, scratch, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd") + linux(build, scratch)


def ovmf_smm(build, scratch):
    """With Microsoft's keys enrolled: Debian's signed kernel comes up by EFI's own check of it."""
    return pflash(build, scratch, "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd") + [
        "-global", "driver=cfi.pflash01,property=secure,value=on"] + linux(build, scratch)


def grub(build, scratch):
    """GRUB's shell from a disk: its boot sector, and its image from the second sector on, where it looks for it."""
    image, config, disk = (os.path.join(scratch, n) for n in ("grub", "grub.cfg", "disk"))
    with open(config, "w", encoding="ascii") as out:
        out.write("serial --unit=0\nterminal_input serial\nterminal_output serial\n")
    modules = package_file(build, "grub-pc-bin", "/usr/lib/grub/i386-pc")
    mkimage = package_file(build, "grub-common", "/usr/bin/grub-mkimage")
    subprocess.run([mkimage, "-d", modules, "-O", "i386-pc", "-p", "/", "-o", image, "-c", config, "biosdisk", "serial", "terminal",
                    "normal", "ls"], check=True)
    with open(disk, "wb") as out:
        for name in (os.path.join(modules, "boot.img"), image):
            with open(name, "rb") as part:
                out.write(part.read())
        out.truncate(1 << 20)
    return ["-drive", "format=raw,file=" + disk]


def fat(build, scratch):
    """The boot sector that mkfs.fat writes: real-mode code in the manner of DOS. SeaBIOS shows the screen on the serial line."""
    disk = os.path.join(scratch, "floppy")
    subprocess.run([package_file(build, "dosfstools", "/sbin/mkfs.fat"), "-C", disk, "1440"], stdout=subprocess.DEVNULL, check=True)
    return ["-drive", "if=floppy,format=raw,file=" + disk, "-boot", "a", "-machine", "graphics=off"]


def pxelinux(build, scratch):
    """A real-mode loader, over the network by iPXE, that switches modes for each BIOS call of its 32-bit part."""
    folder = os.path.join(scratch, "tftp")
    os.makedirs(folder + "/pxelinux.cfg")
    shutil.copy(package_file(build, "pxelinux", "/usr/lib/PXELINUX/pxelinux.0"), folder)
    shutil.copy(package_file(build, "syslinux-common", "/usr/lib/syslinux/modules/bios/ldlinux.c32"), folder)
    with open(os.path.join(folder, "pxelinux.cfg", "default"), "w", encoding="ascii") as out:
        out.write("serial 0 115200\nprompt 1\n")
    return ["-netdev", "user,id=n0,tftp=%s,bootfile=/pxelinux.0" % folder, "-device", "virtio-net-pci,netdev=n0", "-boot", "n"]


def ipxe(build, scratch):
    return ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0", "-boot", "n", "-machine", "graphics=off"]


def memtest(build, scratch):
    return ["-kernel", package_file(build, "memtest86+", "/boot/memtest86+x64.bin"), "-append", "console=ttyS0,115200"]


WHAT = {"linux": linux, "linux-smp": linux_smp, "linux-devices": linux_devices, "linux-6.12": linux_new, "linux-pvh": linux_pvh,
        "linux-32": linux_32, "installer": installer, "xen": xen, "ovmf": ovmf, "ovmf-smm": ovmf_smm, "grub": grub, "fat": fat,
        "pxelinux": pxelinux, "ipxe": ipxe, "memtest": memtest}
