#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kit.py --build DIR [--machine M] [--cpu C] [--scale S] [--real] [NAME...] - the bench kit gives the host's checksums in a guest.

Runs bench/kit/bench.c on the host and in a guest on anykvm at the same scale and compares count and checksum of each
program; ioexit, too, must run through. A program that the guest skips though the host does not is an error, unless
the guest's CPU model lacks what it needs (qemu64). --real: the NAMEs are Debian's programs instead (bench/kit/work).
"""
import argparse, os, re, subprocess, sys

from boot import TOP, boot, prove

PROGRAM = re.compile(r"^BENCH (\S+) +n=(\d+) .*sum=(\S+)\s*$", re.M)
OPTIONAL = {"qemu64": {"dot_avx2", "aesni"}}
EXITS = ["rdtsc", "cpuid", "outb_80", "inb_uart", "lapic_read", "ioapic_read"]


def sums(text):
    return {name: (count, total) for name, count, total in PROGRAM.findall(text)}


def compare(host, guest, optional):
    wrong = []
    for name, want in host.items():
        if name not in guest:
            if name not in optional:
                wrong.append("%s did not run in the guest" % name)
        elif guest[name] != want:
            wrong.append("%s: n=%s sum=%s in the guest, n=%s sum=%s on the host" % ((name,) + guest[name] + want))
    return wrong


def kit(args, build):
    """What runs natively gives, and what to boot for the same in a guest."""
    work = ["-s", args.scale] + args.names
    native = subprocess.run([os.path.join(build, "guest", "bench")] + work, stdout=subprocess.PIPE, text=True, check=True)
    return native.stdout, [" ".join(["bench"] + work), "ioexit 100"], {}


def real(args, build):
    subprocess.run(["sh", os.path.join(TOP, "bench", "real-image"), build], check=True)
    root = os.path.join(build, "guest", "real")
    env = dict(os.environ, WORK=os.path.join(root, "work"), PATH=os.path.join(root, "bin") + ":" + os.environ["PATH"])
    out = "".join(subprocess.run(["work", name], stdout=subprocess.PIPE, text=True, env=env, check=True).stdout for name in args.names)
    return out, ["work " + name for name in args.names], {"memory": "1G", "image": "initramfs-real.cpio"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--machine", default="microvm")
    parser.add_argument("--cpu", default="host")
    parser.add_argument("--scale", default="0.0005")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), args.build], check=True)
    native, runs, where = (real if args.real else kit)(args, build)
    host = sums(native)
    status, out, counters = boot(build, args.machine, args.cpu, runs, args.limit, extra_append="iomem=relaxed", **where)
    print(out)
    wrong = prove(status, out, counters)
    wrong += compare(host, sums(out), OPTIONAL.get(args.cpu, set()))
    if not args.real:
        wrong += ["ioexit: no %s" % e for e in EXITS if not re.search(r"^EXIT %s " % e, out, re.M)]
    if not host:
        wrong.append("no such program: %s" % " ".join(args.names))
    for line in wrong:
        print("kit: WRONG: " + line)
    print("kit: %s %s: %d programs, %d wrong" % (args.machine, args.cpu, len(host), len(wrong)))
    return 1 if wrong else 0


sys.exit(main())
