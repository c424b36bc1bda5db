#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""machines.py --build DIR [--fast] [NAME...] - boot the rows of machines.tsv in QEMU on anykvm, each to its sign of life.

Prints one table and leaves DIR/machines.tsv (name, result, seconds, why). A row passes if the sign came on the serial
port and anykvm's own counters say that the guest's instructions were its work. What a row boots comes out of Debian's
packages; where one is not installed, its archive is downloaded into DIR/guest and unpacked there.
"""
import argparse, os, re, select, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
LIMIT = 400
LEAST = 1_000_000  # instructions that any sign of life takes


def rows():
    with open(os.path.join(HERE, "machines.tsv"), encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]


def package_file(build, package, path):
    """A file of a Debian package: the installed one, or out of the package's archive."""
    if os.path.exists(path):
        return path
    root = os.path.join(build, "guest", package)
    if not os.path.exists(root + path):
        os.makedirs(root, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=root, check=True)
        deb = next(n for n in os.listdir(root) if n.endswith(".deb"))
        subprocess.run(["dpkg-deb", "-x", deb, "."], cwd=root, check=True)
        os.unlink(os.path.join(root, deb))
    return root + path


def linux(build, scratch):
    guest = os.path.join(build, "guest")
    return ["-kernel", os.path.join(guest, "vmlinuz"), "-initrd", os.path.join(guest, "initramfs.cpio"),
            "-append", "console=ttyS0 panic=-1 reboot=t quiet"]


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


def ipxe(build, scratch):
    return ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0", "-boot", "n", "-machine", "graphics=off"]


def memtest(build, scratch):
    return ["-kernel", package_file(build, "memtest86+", "/boot/memtest86+x64.bin"), "-append", "console=ttyS0,115200"]


WHAT = {"linux": linux, "linux-smp": linux_smp, "linux-devices": linux_devices, "ovmf": ovmf, "ovmf-smm": ovmf_smm, "grub": grub,
        "ipxe": ipxe, "memtest": memtest}


def until(proc, sign, limit):
    """The output up to the sign, or all there is."""
    out, end = b"", time.monotonic() + limit
    while sign not in out and time.monotonic() < end:
        if select.select([proc.stdout], [], [], 0.5)[0]:
            data = os.read(proc.stdout.fileno(), 65536)
            if not data:
                break
            out += data
    return out


def boot(build, row, scratch):
    """Returns what speaks against it, or nothing."""
    name, _, model, machine, cpu, what, sign = row
    stats = os.path.join(scratch, "stats")
    command = [os.path.join(build, "anykvm"), "run", "--cpu", model, "--", "qemu-system-x86_64", "-accel", "kvm", "-machine", machine,
               "-cpu", cpu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-m", "512M"]
    proc = subprocess.Popen(command + WHAT[what](build, scratch), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env=dict(os.environ, ANYKVM_STATS_FILE=stats))
    out = until(proc, sign.encode(), LIMIT)
    proc.terminate()
    try:
        proc.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        proc.kill()
        return "QEMU does not end"
    if sign.encode() not in out:
        lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\x7e]", b"", out).decode().strip().splitlines()
        return "no %s; last line: %s" % (sign, lines[-1][:160] if lines else "none")
    counters = dict(re.findall(r"^(\S+) (\d+)$", open(stats, encoding="utf-8").read(), re.M))
    if int(counters.get("instructions", 0)) < LEAST:
        return "anykvm's counters did not move: %s" % counters
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    table = [r for r in rows() if (r[1] == "fast" or not args.fast) and (not args.names or r[0] in args.names)]
    failed = 0
    with open(os.path.join(build, "machines.tsv"), "w", encoding="utf-8") as out:
        for row in table:
            begin = time.monotonic()
            with tempfile.TemporaryDirectory() as scratch:
                wrong = boot(build, row, scratch)
            failed += bool(wrong)
            line = [row[0], "fail" if wrong else "pass", "%.1f" % (time.monotonic() - begin), wrong]
            out.write("\t".join(line) + "\n")
            print("%-18s %-5s %7s  %s" % tuple(line), flush=True)
    print("machines: %d of %d rows came up" % (len(table) - failed, len(table)))
    return 1 if failed or not table else 0


sys.exit(main())
