#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""boot.py --build DIR [--machine M] [--cpu C] [--smp N] [--run COMMAND] - boot Debian's kernel in QEMU on anykvm.

Passes if the guest says BOOT-OK, has all its processors, its commands succeed, its kernel complains of nothing, QEMU ends with status 0, and anykvm's own counters say
that the guest's instructions were its work.
"""
import argparse, os, re, subprocess, sys, tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MACHINES = {"microvm": "microvm,acpi=off,rtc=on,pit=on,pic=on"}


def boot(build, machine, cpu, runs, limit, memory="256M", extra=(), extra_append="",
         image="initramfs.cpio"):
    """Returns (status, serial output, counters)."""
    guest = os.path.join(build, "guest")
    stats = tempfile.NamedTemporaryFile(prefix="anykvm-stats-")
    append = " ".join(["console=ttyS0 panic=-1 reboot=t quiet"] + ["run=" + r.replace(" ", ",") for r in runs] + [extra_append])
    command = [os.path.join(build, "anykvm"), "run", "--", "qemu-system-x86_64", "-accel", "kvm", "-machine",
               MACHINES.get(machine, machine), "-cpu", cpu, "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-serial", "stdio", "-m", memory, "-kernel", os.path.join(guest, "vmlinuz"), "-initrd",
               os.path.join(guest, image), "-append", append] + list(extra)
    env = dict(os.environ, ANYKVM_STATS_FILE=stats.name)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=limit, env=env)
        status, out = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, out = 124, late.stdout or b""
    text = open(stats.name, encoding="utf-8").read()
    counters = dict((k, int(v)) for k, v in re.findall(r"^(\S+) (\d+)$", text, re.M))
    return status, out.decode("utf-8", "replace"), counters


def prove(status, out, counters):
    """What speaks against: the guest came up, did all, ended well, and on anykvm. Empty if nothing does."""
    wrong = []
    if not re.search(r"^BOOT-OK", out, re.M):
        wrong.append("no BOOT-OK")
    if not re.search(r"^ALL-DONE", out, re.M):
        wrong.append("no ALL-DONE")
    wrong += ["a guest command failed: " + s for s in re.findall(r"^EXIT-STATUS ([^0\s].*)", out, re.M)]
    if status:
        wrong.append("exit status %d" % status)
    if counters.get("instructions", 0) < 100_000_000:
        wrong.append("anykvm's counters did not move: %s" % counters)
    return wrong


def complaints(out):
    """What the guest's kernel has to say against its processors."""
    return ["the kernel complains: " + line.strip() for line in out.splitlines()
            if re.search(r"WARNING:|BUG:|Oops|Call Trace|lockup|detected stall|unstable|backwards|unexpected IRQ|not responding", line)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--machine", default="pc")
    parser.add_argument("--cpu", default="host")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--run", action="append", default=[])
    parser.add_argument("--limit", type=int, default=500)
    args = parser.parse_args()
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), args.build], check=True)
    status, out, counters = boot(os.path.abspath(args.build), args.machine, args.cpu,
                                 args.run + (["nproc"] if args.smp > 1 else []), args.limit,
                                 extra=["-smp", str(args.smp)] if args.smp > 1 else [])
    print(out)
    wrong = prove(status, out, counters) + complaints(out)
    if args.smp > 1 and not re.search(r"^%d\s*$" % args.smp, out, re.M):
        wrong.append("not all processors are there")
    print("boot: %s %s: %s" % (args.machine, args.cpu, "; ".join(wrong) or "ok, %(instructions)d instructions" % counters))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
