#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""machines.py --build DIR [--fast] [NAME...] - boot the rows of machines.tsv in QEMU on anykvm, each to its sign of life.

Prints one table and leaves DIR/machines.tsv (name, result, seconds, why). A row passes if the sign came on the serial
port and anykvm's own counters say that the guest's instructions were its work. systems.py knows what a row boots.
"""
import argparse, os, re, select, subprocess, sys, tempfile, time

from systems import WHAT

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
LIMIT = 800
LEAST = 1_000_000  # instructions that any sign of life takes


def rows():
    with open(os.path.join(HERE, "machines.tsv"), encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]


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
