# SPDX-License-Identifier: MIT
"""Guests and programs under the clock: QEMU's command lines, and output lines with the time at which they came."""
import os, select, subprocess, sys, time

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


def memory(build):
    """What QEMU on each engine keeps resident beside guest RAM once the guest is up; nothing is freed before."""
    for engine in ("tcg", "anykvm"):
        proc = subprocess.Popen(qemu(build, engine, "microvm", []), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in proc.stdout:
            if line.startswith(b"ALL-DONE"):
                print("bench: memory on %s: %d MiB resident above guest RAM (of which %d MiB resident)" % (
                    (engine,) + tuple(kib // 1024 for kib in resident(proc.pid)[::-1])))
        proc.wait()
