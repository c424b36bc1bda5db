#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gdb.py --build DIR [--machine M] [--cpu C] - Debian's gdb on QEMU's gdbstub, through all modes of gdb_guest.S.

gdb_inside.py is the debugging. anykvm's counters must have moved.
"""
import argparse, os, re, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def make(scratch):
    """The firmware and the program that gdb reads its symbols from."""
    part, elf, bios = (os.path.join(scratch, name) for name in ("part.o", "guest.elf", "bios"))
    subprocess.run(["gcc", "-c", "-o", part, os.path.join(HERE, "gdb_guest.S")], check=True)
    subprocess.run(["ld", "-Ttext", "0x8000", "-o", elf, part], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", elf, bios], check=True)
    with open(bios, "rb+") as file:
        code = file.read()
        file.seek(0)
        file.write(bytes(0x10000 - len(code)) + code)
    return elf, bios


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--machine", default="pc")
    parser.add_argument("--cpu", default="max")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        elf, bios = make(scratch)
        stats = os.path.join(scratch, "stats")
        qemu = [os.path.join(os.path.abspath(args.build), "anykvm"), "run", "--", "qemu-system-x86_64", "-accel", "kvm", "-machine",
                args.machine, "-cpu", args.cpu, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16M", "-bios", bios,
                "-gdb", "stdio", "-S"]
        commands = ["set pagination off", "set confirm off", "file " + elf, "target remote | ANYKVM_STATS_FILE=%s %s" % (stats, " ".join(qemu)),
                    "source " + os.path.join(HERE, "gdb_inside.py")]
        status = subprocess.run(["gdb", "-q", "-nx", "-batch"] + [a for c in commands for a in ("-ex", c)], stdin=subprocess.DEVNULL,
                                timeout=200).returncode
        text = open(stats, encoding="utf-8").read() if os.path.exists(stats) else ""
        moved = re.search(r"^instructions ([1-9]\d*)$", text, re.M)
        if not moved:
            print("gdb.py: anykvm's counters did not move: " + text)
    return 1 if status or not moved else 0


sys.exit(main())
