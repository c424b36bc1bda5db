#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""guest_memory.py --build DIR KIND - guest memory that is large, shared, huge, or comes and goes.

KIND: sparse (256 GiB, of which the host has a tenth; what anykvm needs beside it does not grow with it), shared (a file that another process
reads and changes), huge (hugetlb pages, where the host has some), balloon (inflated, and free pages reported: the host has them back),
virtio_mem (plugged and unplugged), overhead (what a booted guest with one vCPU takes beside its memory and QEMU's own: 64 MiB and
1 % of what it touched; QEMU's own is what it has under TCG, less the room for TCG's code).
"""
import argparse, mmap, os, re, shutil, subprocess, sys, tempfile, time

import boot, busybox, guest

MIB, GIB = 1 << 20, 1 << 30


def meminfo(name):
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"^%s:\s+(\d+)" % name, file.read(), re.M).group(1))


def resident(pid, ram, mode=""):
    """MiB: what is there of the mapping of guest memory, and of all others (proportional, as what is mapped twice is there once); with a mode only
    mappings that have it."""
    inside = outside = size = 0
    counts = True
    with open("/proc/%d/smaps" % pid, encoding="latin-1") as smaps:
        for line in smaps:
            if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
                counts = mode in line.split()[1]
            elif not counts:
                continue
            elif line.startswith("Size:"):
                size = int(line.split()[1]) << 10
            elif line.startswith("Pss:") and size >= ram:
                inside += int(line.split()[1])
            elif line.startswith("Pss:"):
                outside += int(line.split()[1])
    return inside >> 10, outside >> 10


def until(what, limit, condition):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise guest.Failure(what)
        time.sleep(0.2)


def total(machine):
    return int(re.search(r"MemTotal:\s+(\d+)", machine.run("grep MemTotal /proc/meminfo")).group(1)) >> 10


def fill(machine, mib, limit=120):
    """Random bytes into the guest's memory, compared with where they come from."""
    machine.run("mkdir -p /t && (mountpoint -q /t || mount -t tmpfs -o size=90%% t /t) && dd if=/dev/urandom of=/t/seed bs=4M count=1 2>/dev/null && "
                "for i in $(seq %d); do cat /t/seed; done >/t/x && for i in $(seq 0 8 %d); do dd if=/t/x bs=4M skip=$i count=1 2>/dev/null | "
                "cmp - /t/seed || exit 1; done" % (mib // 4, mib // 4 - 1), limit)


def sparse(build):
    if meminfo("MemAvailable") < 9 << 20:
        print("the guest's own page structures take 5 GiB, which are not there")
        sys.exit(77)
    beside = {}
    for size in (1, 256):
        machine = busybox.start(build, ["-object", "memory-backend-ram,id=m,size=%dG,reserve=off" % size], machine="q35,memory-backend=m",
                                memory="%dG" % size)
        fill(machine, 64)
        ram, beside[size] = resident(machine.proc.pid, (size - 2 if size > 4 else size) * GIB)
        print("guest_memory: %d GiB: %d MiB resident, %d MiB beside it" % (size, ram, beside[size]))
        if size > 4 and "%d" % size not in machine.run("awk '/MemTotal/ { print int($2 / 1048576 / 0.95) \" %d\" }' /proc/meminfo" % size):
            raise guest.Failure("the guest does not see its memory")
        busybox.finish(machine)
    if beside[256] > beside[1] + 32:
        raise guest.Failure("what is needed beside guest memory grows with it: %s" % beside)


def shared(build):
    scratch = tempfile.mkdtemp(prefix="anykvm-shared-", dir="/dev/shm")
    try:
        machine = busybox.start(build, ["-object", "memory-backend-file,id=m,size=256M,share=on,mem-path=" + os.path.join(scratch, "ram")],
                                machine="q35,memory-backend=m", memory="256M")
        mark = os.urandom(16).hex()
        machine.run("mkdir /t && mount -t tmpfs t /t && echo before-%s >/t/x && [ $(cat /t/x) = before-%s ]" % (mark, mark))
        with open(os.path.join(scratch, "ram"), "r+b") as file, mmap.mmap(file.fileno(), 0) as ram:
            # At a page's start: the file's page in the guest, not what its console or shell keep of it.
            at = ram.find(b"before-" + mark.encode() + b"\n")
            found = 0
            while at >= 0:
                if at % 4096 == 0:
                    ram[at:at + 6] = b"after-"
                    found += 1
                at = ram.find(b"before-" + mark.encode() + b"\n", at + 1)
            if not found:
                raise guest.Failure("another process does not see what the guest wrote")
            machine.run("[ $(cat /t/x) = after--%s ]" % mark)
        fill(machine, 64)
        busybox.finish(machine)
    finally:
        shutil.rmtree(scratch)


def huge(build):
    if meminfo("HugePages_Free") * meminfo("Hugepagesize") < 512 << 10:
        print("the host has not 512 MiB of free hugetlb pages (vm.nr_hugepages)")
        sys.exit(77)
    machine = busybox.start(build, ["-object", "memory-backend-memfd,id=m,size=512M,hugetlb=on,share=on"], machine="q35,memory-backend=m")
    fill(machine, 256)
    if meminfo("HugePages_Free") * meminfo("Hugepagesize") > (meminfo("HugePages_Total") * meminfo("Hugepagesize")) - (256 << 10):
        raise guest.Failure("the guest's memory is not in huge pages")
    busybox.finish(machine)


def booted(build, prefix, accel, ram=512):
    """MiB when the guest is up, all that it took still there: of its memory, beside it, and of writable code beside it."""
    place = os.path.join(os.path.abspath(build), "guest")
    proc = subprocess.Popen(prefix + ["qemu-system-x86_64", "-accel", accel, "-machine", boot.MACHINES["microvm"], "-cpu", "max", "-nodefaults",
                                      "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-m", "%dM" % ram, "-kernel",
                                      place + "/vmlinuz", "-initrd", place + "/initramfs.cpio", "-append",
                                      "console=ttyS0 panic=-1 reboot=t quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        for line in proc.stdout:
            if line.startswith(b"ALL-DONE"):
                return resident(proc.pid, ram * MIB) + (resident(proc.pid, ram * MIB, "rwxp")[1],)
        raise guest.Failure("the guest does not come up")
    finally:
        proc.kill()
        proc.communicate()


def overhead(build):
    subprocess.run(["sh", os.path.join(busybox.TOP, "tools", "guest-image"), build], check=True)
    _, qemu, code = booted(build, [], "tcg")
    ram, beside, _ = booted(build, [os.path.join(build, "anykvm"), "run", "--"], "kvm")
    took = beside - (qemu - code)
    print("guest_memory: %d MiB beside %d MiB of guest memory; QEMU's own are %d" % (took, ram, qemu - code))
    if took > 64 + ram / 100:
        raise guest.Failure("%d MiB are more than 64 and 1 %% of %d" % (took, ram))


def balloon(build):
    machine = busybox.start(build, ["-device", "virtio-balloon-pci,free-page-reporting=on"])
    ram = lambda: resident(machine.proc.pid, 512 * MIB)[0]
    fill(machine, 300)
    full = ram()
    if full < 300:
        raise guest.Failure("%d MiB of guest memory there, though 300 were written" % full)
    machine.run("rm /t/x")
    until("free pages are not given back: %d MiB of %d" % (ram(), full), 60, lambda: ram() < full - 200)
    fill(machine, 300)
    machine.run("rm /t/x")
    before = total(machine)
    machine.ask("balloon", value=256 * MIB)
    until("the balloon does not grow", 60, lambda: machine.ask("query-balloon")["actual"] == 256 * MIB)
    if before - total(machine) < 250 or ram() > 270:
        raise guest.Failure("the balloon took %d MiB, %d are there" % (before - total(machine), ram()))
    machine.ask("balloon", value=512 * MIB)
    until("the balloon does not shrink", 60, lambda: machine.ask("query-balloon")["actual"] == 512 * MIB)
    fill(machine, 300)
    busybox.finish(machine)


def virtio_mem(build):
    machine = busybox.start(build, ["-object", "memory-backend-ram,id=v,size=1G,reserve=off", "-device", "virtio-mem-pci,id=vm0,memdev=v"],
                            memory="512M,maxmem=4G,slots=2", append="memhp_default_state=online_movable")
    plug = lambda mib: machine.ask("qom-set", path="/machine/peripheral/vm0", property="requested-size", value=mib * MIB)
    size = lambda: machine.ask("qom-get", path="/machine/peripheral/vm0", property="size") >> 20
    before = total(machine)
    for mib in (256, 1024, 384):
        plug(mib)
        until("asked for %d MiB, %d are plugged" % (mib, size()), 90, lambda: size() == mib)
        until("the guest has %d MiB" % total(machine), 30, lambda: abs(total(machine) - before - mib) < 16)
        fill(machine, mib // 2 + 200)
        machine.run("rm /t/x")
    plug(0)
    until("%d MiB are still plugged" % size(), 90, lambda: size() == 0)
    if abs(total(machine) - before) > 16:
        raise guest.Failure("unplugged, the guest has %d MiB, not %d" % (total(machine), before))
    fill(machine, 200)
    busybox.finish(machine)


KINDS = {f.__name__: f for f in (sparse, shared, huge, balloon, virtio_mem, overhead)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("kind", choices=KINDS)
    args = parser.parse_args()
    busybox.main(KINDS[args.kind], args.build)


main()
