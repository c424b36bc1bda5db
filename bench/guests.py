# SPDX-License-Identifier: MIT
"""Guests and programs under the clock: QEMU's command lines, and output lines with the time at which they came."""
import os, re, select, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "clients"))
import inside

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RAM_KIB = 1024 * 1024
MACHINES = {"pc": "pc", "q35": "q35", "microvm": "microvm,acpi=off,rtc=on,pit=on,pic=on"}
APPEND = "console=ttyS0 panic=-1 reboot=t quiet iomem=relaxed"


def timed_lines(command, limit, env=None):
    """Run command; yield (wall seconds, CPU seconds, line) for each line of its output."""
    start = time.monotonic()
    proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
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


def qemu(build, engine, machine, runs, cpus=1, real=False):
    """The command that boots the guest on an engine ("tcg" or "anykvm") and runs the commands of runs in it."""
    guest = os.path.join(build, "guest")
    prefix = [os.path.join(build, "anykvm"), "run", "--"] if engine == "anykvm" else []
    return prefix + [
        "qemu-system-x86_64", "-accel", "kvm" if engine == "anykvm" else "tcg,thread=multi", "-machine", MACHINES[machine],
        "-cpu", "max", "-smp", str(cpus), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-m", "%dM" % (RAM_KIB // 1024), "-kernel", os.path.join(guest, "vmlinuz"), "-initrd",
        os.path.join(guest, "initramfs-real.cpio" if real else "initramfs.cpio"),
        "-append", " ".join([APPEND] + ["run=" + r.replace(" ", ",") for r in runs])]


# Vendors of virtualization, and the processors that have them.
MODELS = {"vmx": "ice-lake-sp", "svm": "milan"}


def nested_guest(build, vendor, runs, boots):
    """
    Lines of a guest with Debian's KVM: that of runs' commands in it, and of its QEMU, which boots the kernel as its guest if
    boots. A line L2-BEGINS stands before that.
    """
    init, guest = inside.LINUX, os.path.join(build, "guest")
    at = init.index("qemu-system-x86_64")
    init = init[:at] + "".join(r + "\n" for r in runs) + "echo L2-BEGINS\n" + ("" if boots else "reboot -f\n") + init[at:]
    with tempfile.NamedTemporaryFile(prefix="anykvm-l1-", suffix=".cpio") as image:
        inside.linux(inside.Kernel(build), os.path.join(guest, "initramfs.cpio"), image.name, init, [os.path.join(guest, "l2")])
        command = qemu(build, "anykvm", "q35", [])
        command[command.index("run") + 1:1 + command.index("run")] = ["--cpu", MODELS[vendor]]
        command[command.index("-cpu") + 1] = "host"
        command[command.index("-initrd") + 1] = image.name
        command[command.index("-append") + 1] += " l1.vcpus=1"
        yield from timed_lines(command, 900)


# What watches a guest, as the words before QEMU's. "bare" is the library alone; "off" the command, with everything off.
WATCHES = {"bare": ["env", "LD_PRELOAD={build}/libanykvm.so"], "off": ["{build}/anykvm", "run", "--"],
           "stat": ["{build}/anykvm", "run", "--stat=/dev/null", "--"], "trace": ["{build}/anykvm", "trace", "-o", "{folder}/{number}.dat", "--"]}
WATCHED_BOOTS, WATCHED_SETS, WATCHED_TURNS = 4, 3, 12
WATCHED_EXITS = {"cpuid": 50000, "outb_80": 20000}


def in_turn(turns):
    """The ways to watch, turns times over, each time beginning with another, for each suffers from what the one before left to do."""
    names = list(WATCHES)
    for turn in range(turns):
        yield [names[(turn + i) % len(names)] for i in range(len(names))]


def not_random():
    """Words before a command, for addresses without randomization; some containers forbid that."""
    words = ["setarch", "-R"]
    return words if not subprocess.run(words + ["true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode else []


class Watched:
    """
    QEMU, watched in that way; the guest measures exits when asked to. The shell tells QEMU's CPU time: that of a process that has ended is
    exact. Addresses are the same each time, as far as the host lets them: where things lie makes one process 3 % faster than another.
    """

    def __init__(self, build, folder, name, runs):
        command = qemu(build, "tcg", "pc", runs)
        command[command.index("tcg,thread=multi")] = "kvm"
        prefix = [w.format(build=build, folder=folder, number=name) for w in WATCHES[name]]
        self.proc = subprocess.Popen(not_random() + prefix + ["bash", "-c", 'TIMEFORMAT="TIMES %3U %3S"; time "$@"', "bash"] + command, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait(self, pattern):
        for line in self.proc.stdout:
            found = re.match(pattern, line.decode("latin-1"))
            if found:
                return found
        raise RuntimeError("bench: a watched guest ended without telling %s" % pattern)

    def cpu(self):
        """Seconds of QEMU's, once it has ended."""
        took = sum(float(s) for s in self.wait(r"TIMES (\S+) (\S+)").groups())
        self.proc.wait()
        return took

    def exit(self, name, count):
        """Seconds of one exit."""
        self.proc.stdin.write(b"%d %s\n" % (count, name.encode()))
        self.proc.stdin.flush()
        return float(self.wait(r"EXIT %s .*ns/it=(\S+)" % name)[1]) * 1e-9

    def end(self):
        self.proc.stdin.write(b"end\n")
        self.proc.stdin.flush()
        self.cpu()


def compare(table, what, samples):
    """
    What it costs, against the same without. Other work of the machine only adds to a time, so the quicker ones tell more: one of eight is
    quicker than what is taken.
    """
    took = {name: statistics.quantiles(seconds, n=8, method="inclusive")[0] for name, seconds in samples.items()}
    for name, base in (("off", "bare"), ("stat", "off"), ("trace", "off")):
        table.add("%s_%s" % (name, what), "anykvm", took[name])
        table.add("%s_%s" % (name, what), "off", took[base])


def watched_exits(table, build, folder):
    """Four guests side by side, of which one at a time measures."""
    running = {name: Watched(build, folder, name, ["ioexit -"]) for name in WATCHES}
    samples = {what: {name: [] for name in WATCHES} for what in WATCHED_EXITS}
    for guest in running.values():
        guest.wait("READY")
    for names in in_turn(WATCHED_TURNS):
        for what, count in WATCHED_EXITS.items():
            for name in names:
                samples[what][name].append(running[name].exit(what, count))
    for guest in running.values():
        guest.end()
    for what in WATCHED_EXITS:
        compare(table, "exit_" + what, samples[what])


def watched(table, build):
    """What it costs to watch: QEMU's CPU seconds of a boot, and exits by the guest's own clock."""
    boots = {name: [] for name in WATCHES}
    with tempfile.TemporaryDirectory() as folder:
        for names in in_turn(WATCHED_BOOTS):
            for name in names:
                boots[name].append(Watched(build, folder, name, []).cpu())
        compare(table, "boot", boots)
        for _ in range(WATCHED_SETS):
            watched_exits(table, build, folder)


def logged(table, build):
    """Dirty logging's cost: CPU time of bench/kit/logged.c's vCPU with it, and without."""
    exe = os.path.join(build, "bench", "logged")
    os.makedirs(os.path.dirname(exe), exist_ok=True)
    subprocess.run(["cc", "-O2", "-pthread", "-o", exe, os.path.join(TOP, "bench", "kit", "logged.c")], check=True)
    done = subprocess.run([os.path.join(build, "anykvm"), "run", "--", exe, "3"], stdout=subprocess.PIPE, text=True)
    took = dict((name, float(seconds)) for name, seconds in re.findall(r"^LOGGED (\S+) (\S+)$", done.stdout, re.M))
    if "on" in took and "off" in took:
        table.add("dirty_log", "anykvm", took["on"])
        table.add("dirty_log", "off", took["off"])
        print("bench: dirty_log: logging costs %+.1f %% of the vCPU's time" % (100 * (took["on"] / took["off"] - 1)))
    if done.returncode:
        table.wrong.append("dirty_log ends with status %d" % done.returncode)


def resident(pid):
    """KiB resident in the mapping that is the guest's RAM, and in all others; what is mapped twice counts once (Pss)."""
    ram = other = size = 0
    with open("/proc/%d/smaps" % pid, encoding="latin-1") as smaps:
        for line in smaps:
            if line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Pss:") and size == RAM_KIB:
                ram += int(line.split()[1])
            elif line.startswith("Pss:"):
                other += int(line.split()[1])
    return ram, other


MEMORY = {"memory_boot": ([], b"ALL-DONE"), "memory_gcc": (["work gcc"], b"BENCH gcc")}


def memory(table, engine, build, names):
    """What QEMU on the engine keeps resident beside guest RAM once the guest is up, and once gcc has run in it; nothing is freed before."""
    for name in names:
        runs, mark = MEMORY[name]
        proc = subprocess.Popen(qemu(build, engine, "microvm", runs, real=bool(runs)), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in proc.stdout:
            if line.startswith(mark):
                ram, other = (kib / 1024 for kib in resident(proc.pid))
                table.add_scale(name, engine, other)
                print("bench: %s on %s: %d MiB beside %d MiB of guest RAM" % (name, engine, other, ram))
        proc.wait()
