# SPDX-License-Identifier: MIT
"""Guests and programs under the clock: QEMU's command lines, and output lines with the time at which they came."""
import os, re, select, subprocess, sys, tempfile, time

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
           "stat": ["{build}/anykvm", "run", "--stat=/dev/null", "--"], "trace": ["{build}/anykvm", "trace", "-o", "{folder}/trace.dat", "--"]}
WATCHED_EXITS = ("cpuid", "outb_80", "lapic_read")


def watched_lines(build, prefix, runs):
    """Lines of a guest; the last but one tells, as times(1) of the shell does, the CPU time of QEMU."""
    command = qemu(build, "tcg", "pc", runs)
    command[command.index("tcg,thread=multi")] = "kvm"
    for _, _, line in timed_lines(prefix + ["sh", "-c", '"$@"; times', "sh"] + command, 300):
        yield line


def watched(table, build):
    """What it costs to watch: QEMU's CPU seconds of a boot, and exits by the guest's own clock, against those that nobody watches."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in WATCHES.items():
            prefix = [w.format(build=build, folder=folder) for w in words]
            for line in watched_lines(build, prefix, []):
                spent = re.match(r"(\d+)m([\d.]+)s (\d+)m([\d.]+)s$", line)
                if spent:  # of the shell, then of its children
                    seconds[name, "boot"] = sum(float(s) * f for s, f in zip(spent.groups(), (60, 1, 60, 1)))
            for line in watched_lines(build, prefix, ["ioexit 20000"]):
                took = re.match(r"EXIT (\S+) .*ns/it=(\S+)", line)
                if took and took[1] in WATCHED_EXITS:
                    seconds[name, "exit_" + took[1]] = float(took[2]) * 1e-9
    for (name, what), took in seconds.items():
        if name != "bare":
            table.add("%s_%s" % (name, what), "anykvm", took)
            table.add("%s_%s" % (name, what), "off", seconds["bare" if name == "off" else "off", what])


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
