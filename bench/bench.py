#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench.py --build DIR [--only NAME,...] [--scale S] [--runs N] - anykvm beside QEMU's TCG and native, in one run.

Programs: bench/kit/bench.c, and Debian's gcc, sqlite3 and openssl, on the host and in a guest on each engine. Times are
CPU seconds: the program's own on the host, the whole VMM's between the program's START and BENCH lines for a guest (names
that end in _2 are of guests with two vCPUs; pipe_2, threads_2 and boots are wall seconds, for they wait). Exits are
nanoseconds by the guest's own clock, in seconds. dirty_log: CPU seconds of a vCPU that rewrites 100 MB/s while they are logged, against
the same without (bench/kit/logged.c; the limit is of that). memory_ rows: MiB that the VMM has resident beside guest RAM, its own included, after
a boot and after gcc. off_, stat_ and trace_ rows: of a guest under
`anykvm run`, `run --stat` and `trace`, against one without the command, and one without either (CPU seconds of QEMU for a boot; for exits as above,
of guests side by side that take turns every few milliseconds, for a busy machine's speed changes sooner than a guest boots). scale_ rows: twice the work on two vCPUs, in times the speed of one.
The kit's rows are for --scale times the kit's own counts; native and anykvm do LONGER times that, and a LONGERth of their time is shown:
the clock of another process goes in ticks of 4 ms, and some rows take TCG a thousand times as long.
Native runs of one vCPU's rows are bound to one CPU. Engines take turns in each round, and medians are shown, so that a
busy machine touches all alike. Limits: bench/targets.tsv.

l2_ rows are of a guest's guest, on VMX and on SVM, under Debian's own KVM in the guest: l2_int computes (CPU seconds);
exit_l2_ is CPUID to that KVM and back, all that it does included, in CPU seconds; boot_l2_ boots the kernel once more in it, and has the same
boot as a plain guest of anykvm in native's place.

Writes DIR/bench/results.tsv and results.svg. A checksum that differs from the host's is an error, exit status 1.
"""
import argparse, os, re, subprocess, sys

import guests, results

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
EXITS = ["cpuid", "outb_80", "inb_uart", "lapic_read", "hpet_read", "rdtsc"]
WORK = ("int chase_l1 chase_ram stream stream_16m repmovs nbody x87 sha256 dot_sse2 dot_avx2 chacha aesni fib interp icall "
        "atomic smc smc_alias jit getppid fork exec fault pipe segv").split()
REAL = ["gcc", "sqlite", "openssl"]
SMP = ["pipe", "threads"]
SCALE = ["int", "fork", "fault"]
LONGER = 5
NESTED = ["%s_%s" % (what, vendor) for vendor in guests.MODELS for what in ("l2_int", "exit_l2", "boot_l2")]
BOOTS = {"boot_%s%s" % (m, "_2" if cpus > 1 else ""): (m, cpus) for cpus in (1, 2) for m in guests.MACHINES}
KNOWN = list(BOOTS) + ["exits", "dirty_log", "watch"] + list(guests.MEMORY) + WORK + [n + "_2" for n in SMP] + REAL + ["scale_" + n for n in SCALE] + NESTED


class Reader:
    """Reads one run's output into the table."""

    def __init__(self, table, engine, suffix="", longer=1):
        self.table, self.engine, self.suffix, self.longer = table, engine, suffix, longer
        self.begin = self.begin_wall = 0.0

    def bench(self, wall, cpu, match):
        name, count, seconds, own, total = match.groups()
        if self.suffix:  # two CPUs, that wait for each other
            took = float(seconds)
        else:
            took = float(own) if self.engine == "native" else cpu - self.begin
        self.table.add(name + self.suffix, self.engine, took / self.longer)
        self.table.check_sum(name, self.engine, count, total)

    def line(self, wall, cpu, line):
        if line.startswith("START "):
            self.begin = cpu
        match = re.match(r"BENCH (\S+) +n=(\d+) sec=(\S+) .*cpu=(\S+) .*sum=(\S+)", line)
        if match:
            self.bench(wall, cpu, match)
        match = re.match(r"EXIT (\S+) .*ns/it=(\S+)", line)
        if match and match.group(1) in EXITS:
            self.table.add("exit_" + match.group(1), self.engine, float(match.group(2)) * 1e-9)
        match = re.match(r"\+F:\d+:([^:]+):([0-9.]+)$", line)
        if match:
            self.table.add("openssl_" + match.group(1), self.engine, 1e6 / float(match.group(2)))
        match = re.match(r"\+F2:\d+:(\d+):([0-9.]+):([0-9.]+)$", line)
        if match:
            self.table.add("openssl_rsa%s_sign" % match.group(1), self.engine, 1 / float(match.group(2)))
            self.table.add("openssl_rsa%s_verify" % match.group(1), self.engine, 1 / float(match.group(3)))
        match = re.match(r"PAIR (\S+) (\S+) (\S+) (\S+)", line)
        if match:
            one, *two = (float(v) for v in match.groups()[1:])
            self.table.add_scale("scale_" + match.group(1), self.engine, 2 * one / max(two))
        if line.startswith("FAILED "):
            self.table.wrong.append("%s on %s" % (line, self.engine))

    def read(self, command, limit, env=None):
        for wall, cpu, line in guests.timed_lines(command, limit, env):
            self.line(wall, cpu, line)


class L2Reader(Reader):
    """Of a guest's guest: one CPU, and its own name for each vendor."""

    def bench(self, wall, cpu, match):
        name, count, _, own, total = match.groups()
        self.table.add(name + self.suffix, self.engine, float(own) if self.engine == "native" else cpu - self.begin)
        self.table.check_sum(name, self.engine, count, total)

    def line(self, wall, cpu, line):
        match = re.match(r"EXIT l2_cpuid n=(\d+)", line)
        if match:
            self.table.add("exit_l2" + self.suffix, self.engine, (cpu - self.begin) / int(match.group(1)))
        super().line(wall, cpu, line)


def boot(table, engine, name, build):
    machine, cpus = BOOTS[name]
    for wall, _, line in guests.timed_lines(guests.qemu(build, engine, machine, [], cpus), 900):
        if line.startswith("BOOT-OK"):
            table.add(name, engine, wall)


L2_ROUNDS, L2_EXITS = 30_000_000, 100_000


def nest(table, vendor, only, build):
    """The l2_ rows of one vendor's virtualization."""
    ours = [n for n in only if n in NESTED and n.endswith(vendor)]
    boots = "boot_l2_" + vendor in ours
    runs = ["l2 exits %d" % L2_EXITS] if "exit_l2_" + vendor in ours else []
    runs += ["l2 int %d" % L2_ROUNDS] if "l2_int_" + vendor in ours else []
    if not ours:
        return
    print("bench: %s on anykvm" % " ".join(ours), file=sys.stderr)
    reader, begin = L2Reader(table, "anykvm", "_" + vendor), 0.0
    for wall, cpu, line in guests.nested_guest(build, vendor, runs, boots):
        reader.line(wall, cpu, line)
        if line.startswith("L2-BEGINS"):
            begin = wall
        if boots and line.startswith("BOOT-OK"):
            table.add("boot_l2_" + vendor, "anykvm", wall - begin)
    if "l2_int_" + vendor in ours:
        L2Reader(table, "native", "_" + vendor).read(
            ["taskset", "-c", "0", os.path.join(build, "guest", "l2"), "-n", "int", str(L2_ROUNDS)], 100)
    for wall, _, line in guests.timed_lines(guests.qemu(build, "anykvm", "microvm", []), 900) if boots else ():
        if line.startswith("BOOT-OK"):
            table.add("boot_l2_" + vendor, "native", wall)


class Plan:
    """What to run, of the names that were asked for."""

    def __init__(self, only, scale):
        self.scale = scale
        self.kit = [n for n in WORK if n in only]
        self.smp = [n for n in SMP if n + "_2" in only]
        self.boots = [n for n in BOOTS if n in only]
        self.exits = ["ioexit 20000"] if "exits" in only else []
        self.real = ["work " + n for n in REAL if n in only]
        self.pairs = ["work pair %s %g" % (n, scale) for n in SCALE if "scale_" + n in only]

    def bench(self, names, longer):
        """The kit's commands for these rows: each has a process of its own, for a fork costs more where a row before took much memory."""
        return ["bench -s %g %s" % (self.scale * longer, name) for name in names]

    def native(self, table, build):
        root = os.path.join(build, "guest", "real")
        env = dict(os.environ, WORK=os.path.join(root, "work"),
                   PATH=":".join([os.path.join(root, "bin"), os.path.join(build, "guest"), os.environ["PATH"]]))
        bound = ["taskset", "-c", "0"]
        for runs, longer, prefix in ((self.bench(self.kit, LONGER), LONGER, bound), (self.real, 1, bound), (self.pairs, 1, [])):
            for command in runs:
                Reader(table, "native", "", longer).read(prefix + command.split(), 600, env)
        for command in self.bench(self.smp, LONGER):  # pipe's best is on one CPU; threads need two
            prefix = bound if command.endswith(" pipe") else []
            Reader(table, "native", "_2", LONGER).read(prefix + command.split(), 600, env)

    def guest(self, table, engine, build):
        for name in self.boots:
            print("bench: %s on %s" % (name, engine), file=sys.stderr)
            boot(table, engine, name, build)
        longer = LONGER if engine == "anykvm" else 1
        one, two = self.bench(self.kit, longer), self.bench(self.smp, longer)
        for runs, suffix, cpus, real, share in ((one + self.exits, "", 1, False, longer), (self.real, "", 1, True, 1),
                                                (two, "_2", 2, False, longer), (self.pairs, "", 2, True, 1)):
            if runs:
                print("bench: %s on %s" % (" ".join(runs), engine), file=sys.stderr)
                Reader(table, engine, suffix, share).read(guests.qemu(build, engine, "q35", runs, cpus, real), 3000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    only = args.only.split(",") if args.only else KNOWN
    unknown = [n for n in only if n not in KNOWN]
    if unknown:
        sys.exit("bench: unknown name %s; one of: %s" % (unknown[0], " ".join(KNOWN)))
    plan = Plan(only, args.scale)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    if plan.real or plan.pairs:
        subprocess.run(["sh", os.path.join(TOP, "bench", "real-image"), build], check=True)
    table = results.Table(results.targets(os.path.join(TOP, "bench", "targets.tsv")))
    for number in range(args.runs):
        print("bench: round %d of %d" % (number + 1, args.runs), file=sys.stderr)
        plan.native(table, build)
        for engine in ("tcg", "anykvm"):
            plan.guest(table, engine, build)
            guests.memory(table, engine, build, [n for n in guests.MEMORY if n in only])
        for vendor in guests.MODELS:
            nest(table, vendor, only, build)
        if "dirty_log" in only:
            guests.logged(table, build)
        if "watch" in only:
            print("bench: watched guests on anykvm", file=sys.stderr)
            guests.watched(table, build)
    if table.seconds or table.scales:
        table.write(os.path.join(build, "bench"))
    for line in table.wrong:
        print("bench: WRONG: " + line)
    return 1 if table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
