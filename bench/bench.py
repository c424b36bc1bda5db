#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench.py --build DIR [--only NAME,...] [--scale S] [--runs N] - anykvm beside QEMU's TCG and native, in one run.

Programs: bench/kit/bench.c, on the host and in a guest on each engine. A guest's time is host CPU seconds of the
VMM between the program's START and BENCH lines; boots are wall seconds to BOOT-OK; exits are the guest's own
nanoseconds an iteration, in seconds. Engines take turns in each round, and medians are shown, so that a busy machine
touches all alike. Writes DIR/bench/results.tsv (name, native_s, tcg_s, anykvm_s, times_as_fast_as_tcg, times_native).
A checksum that differs from the host's is an error, exit status 1.
"""
import argparse, os, re, select, statistics, subprocess, sys, time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
MACHINES = {"boot_pc": "pc", "boot_q35": "q35", "boot_microvm": "microvm,acpi=off,rtc=on,pit=on,pic=on"}
RAM_KIB = 512 * 1024
EXITS = ["cpuid", "outb_80", "inb_uart", "lapic_read", "hpet_read", "rdtsc"]
WORK = ("int chase_l1 chase_ram stream stream_16m repmovs nbody x87 sha256 dot_sse2 dot_avx2 chacha aesni fib interp icall "
        "atomic smc smc_alias jit getppid fork exec fault pipe segv threads").split()


def timed_lines(command, limit):
    """Run command; yield (wall seconds, CPU seconds, line) for each line of its output."""
    start = time.monotonic()
    proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    clock, cpu, buf = (~proc.pid << 3) | 2, 0.0, b""
    os.set_blocking(proc.stdout.fileno(), False)
    while True:
        ended = proc.poll() is not None
        data = proc.stdout.read()
        try:
            cpu = time.clock_gettime(clock)
        except OSError:
            pass
        if data:
            *lines, buf = (buf + data).split(b"\n")
            for line in lines:
                yield time.monotonic() - start, cpu, line.decode("latin-1").rstrip("\r")
        elif ended:
            return
        elif time.monotonic() - start > limit:
            proc.kill()
            print("bench: time limit of %d s reached: %s" % (limit, " ".join(command)), file=sys.stderr)
            return
        else:
            select.select([proc.stdout], [], [], 0.05)


def qemu(build, engine, machine, runs):
    guest = os.path.join(build, "guest")
    accel = "kvm" if engine == "anykvm" else "tcg,thread=multi"
    prefix = [os.path.join(build, "anykvm"), "run", "--"] if engine == "anykvm" else []
    append = " ".join(["console=ttyS0 panic=-1 reboot=t quiet iomem=relaxed"] + ["run=" + r.replace(" ", ",") for r in runs])
    return prefix + ["qemu-system-x86_64", "-accel", accel, "-machine", machine, "-cpu", "max", "-nodefaults",
                     "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-m", "%dM" % (RAM_KIB // 1024), "-kernel",
                     os.path.join(guest, "vmlinuz"), "-initrd", os.path.join(guest, "initramfs.cpio"), "-append", append]


class Table:
    def __init__(self):
        self.seconds, self.sums, self.wrong = {}, {}, []

    def add(self, name, engine, seconds):
        self.seconds.setdefault(name, {}).setdefault(engine, []).append(seconds)

    def check_sum(self, name, engine, count, total):
        first = self.sums.setdefault((name, count), (engine, total))
        if first[1] != total:
            self.wrong.append("%s: checksum %s on %s, %s on %s" % (name, total, engine, first[1], first[0]))

    def median(self, name, engine):
        values = self.seconds.get(name, {}).get(engine)
        return statistics.median(values) if values else None


def read_run(table, engine, command, limit, boot_name=None):
    begin = 0.0
    for wall, cpu, line in timed_lines(command, limit):
        if boot_name and line.startswith("BOOT-OK"):
            table.add(boot_name, engine, wall)
        elif line.startswith("START "):
            begin = cpu
        match = re.match(r"BENCH (\S+) +n=(\d+) .*cpu=(\S+) .*sum=(\S+)", line)
        if match:
            name, count, own, total = match.groups()
            table.add(name, engine, float(own) if engine == "native" else cpu - begin)
            table.check_sum(name, engine, count, total)
        match = re.match(r"EXIT (\S+) .*ns/it=(\S+)", line)
        if match and match.group(1) in EXITS:
            table.add("exit_" + match.group(1), engine, float(match.group(2)) * 1e-9)


def row(table, name):
    native, tcg, any_ = (table.median(name, e) for e in ("native", "tcg", "anykvm"))
    show = lambda v: "-" if v is None else "%.4g" % v
    return [name, show(native), show(tcg), show(any_), show(tcg / any_ if tcg and any_ else None),
            show(any_ / native if native and any_ else None)]


def write_table(table, path, names):
    head = ["name", "native_s", "tcg_s", "anykvm_s", "times_as_fast_as_tcg", "times_native"]
    rows = [head] + [row(table, n) for n in names if n in table.seconds]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.writelines("\t".join(r) + "\n" for r in rows)
    for r in rows:
        print("%-14s %12s %12s %12s %20s %12s" % tuple(r))


def resident(pid):
    """KiB resident in the mapping that is the guest's RAM, and in all others."""
    ram = other = size = 0
    with open("/proc/%d/smaps" % pid, encoding="latin-1") as smaps:
        for line in smaps:
            if line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Rss:") and size == RAM_KIB:
                ram += int(line.split()[1])
            elif line.startswith("Rss:"):
                other += int(line.split()[1])
    return ram, other


def memory(build):
    """What QEMU on each engine keeps resident beside guest RAM once the guest is up; nothing is freed before."""
    for engine in ("tcg", "anykvm"):
        proc = subprocess.Popen(qemu(build, engine, MACHINES["boot_microvm"], []), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in proc.stdout:
            if line.startswith(b"ALL-DONE"):
                print("bench: memory on %s: %d MiB resident above guest RAM (of which %d MiB resident)" % (
                    (engine,) + tuple(kib // 1024 for kib in resident(proc.pid)[::-1])))
        proc.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", default="0.05")
    parser.add_argument("--runs", type=int, default=1)
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    known = list(MACHINES) + ["exits", "memory"] + WORK
    only = args.only.split(",") if args.only else known
    unknown = [n for n in only if n not in known]
    if unknown:
        sys.exit("bench: unknown name %s; one of: %s" % (unknown[0], " ".join(known)))
    table, work = Table(), [n for n in WORK if n in only]
    runs = ["bench -s %s %s" % (args.scale, " ".join(work))] if work else []
    runs += ["ioexit 20000"] if "exits" in only else []
    for number in range(args.runs):
        print("bench: round %d of %d" % (number + 1, args.runs), file=sys.stderr)
        if work:
            read_run(table, "native", [os.path.join(build, "guest", "bench"), "-s", args.scale] + work, 600)
        for engine in ("tcg", "anykvm"):
            for name, machine in MACHINES.items():
                if name in only:
                    print("bench: %s on %s" % (name, engine), file=sys.stderr)
                    read_run(table, engine, qemu(build, engine, machine, []), 900, name)
            if runs:
                print("bench: programs on %s" % engine, file=sys.stderr)
                read_run(table, engine, qemu(build, engine, MACHINES["boot_q35"], runs), 3000)
    if table.seconds:
        write_table(table, os.path.join(build, "bench", "results.tsv"), list(MACHINES) + ["exit_" + e for e in EXITS] + WORK)
    if "memory" in only:
        memory(build)
    for line in table.wrong:
        print("bench: WRONG: " + line)
    return 1 if table.wrong else 0


sys.exit(main())
