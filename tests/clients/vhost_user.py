#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""vhost_user.py --build DIR [--cpus N] - Debian's qemu-storage-daemon is a guest's vhost-user-blk disk, in another process.

The guest reads, writes and compares checksums; the daemon's file must hold what was written. The path goes past QEMU: doorbells by
ioeventfds, interrupts by irqfds, both counted by anykvm; the data in memory that both processes map.
"""
import argparse, hashlib, os, random, shutil, subprocess, sys, tempfile, time

import busybox, guest

MIB = 1 << 20
SIZE = 32


def daemon(scratch, queues):
    sock = os.path.join(scratch, "sock")
    proc = subprocess.Popen(["qemu-storage-daemon", "--blockdev", "file,node-name=f,filename=" + os.path.join(scratch, "disk"), "--export",
                             "vhost-user-blk,id=e,node-name=f,writable=on,num-queues=%d,addr.type=unix,addr.path=%s" % (queues, sock)],
                            stdin=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not os.path.exists(sock):
        if proc.poll() is not None or time.monotonic() > end:
            raise guest.Failure("qemu-storage-daemon does not listen")
        time.sleep(0.05)
    return proc, sock


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def work(machine, scratch):
    path = os.path.join(scratch, "disk")
    if digest(path) not in machine.run("sha256sum /dev/vda", 300):
        raise guest.Failure("the guest reads something else than the disk holds")
    # A copy of the first half, the blocks in reverse order, past the guest's page cache; both ends must agree.
    machine.run("i=0; while [ $i -lt 16 ]; do dd if=/dev/vda of=/dev/vda bs=1M count=1 skip=$i seek=$((31 - i)) iflag=direct oflag=direct "
                "2>/dev/null || exit 1; i=$((i + 1)); done; sync", 300)
    with open(path, "rb") as file:
        data = file.read()
    for i in range(SIZE // 2):
        if data[i * MIB:(i + 1) * MIB] != data[(SIZE - 1 - i) * MIB:(SIZE - i) * MIB]:
            raise guest.Failure("block %d was not written" % (SIZE - 1 - i))
    machine.run("echo 3 >/proc/sys/vm/drop_caches")
    if digest(path) not in machine.run("sha256sum /dev/vda", 300):
        raise guest.Failure("the guest reads something else than it wrote")
    # Many small requests, from all processors.
    machine.run("(for p in 1 2; do (n=0; while [ $n -lt 300 ]; do dd if=/dev/vda of=/dev/null bs=4k count=1 skip=$((n * p)) iflag=direct "
                "2>/dev/null; n=$((n + 1)); done) & done; wait)", 300)


def test(build, cpus):
    scratch = tempfile.mkdtemp(prefix="anykvm-vhost-")
    proc = machine = None
    try:
        with open(os.path.join(scratch, "disk"), "wb") as out:
            out.write(random.Random(cpus).randbytes(SIZE * MIB))
        proc, sock = daemon(scratch, cpus)
        machine = busybox.start(build, ["-smp", str(cpus), "-object", "memory-backend-memfd,id=m,size=512M,share=on", "-chardev",
                                        "socket,id=c,path=" + sock, "-device", "vhost-user-blk-pci,chardev=c,num-queues=%d" % cpus],
                                machine="q35,memory-backend=m")
        work(machine, scratch)
        counters = busybox.finish(machine)
        print("vhost_user: %s" % {k: counters.get(k) for k in ("ioeventfd_signals", "irqfd_signals", "io_exits", "mmio_exits")})
        if counters.get("ioeventfd_signals", 0) < 600 or counters.get("irqfd_signals", 0) < 600:
            raise guest.Failure("requests took another way: %s" % counters)
    finally:
        if machine:
            machine.proc.kill()
        if proc:
            proc.kill()
            proc.wait()
        shutil.rmtree(scratch)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--cpus", type=int, default=1)
    args = parser.parse_args()
    if not shutil.which("qemu-storage-daemon"):
        print("no qemu-storage-daemon (Debian: qemu-system-common)")
        sys.exit(77)
    busybox.main(test, args.build, args.cpus)


main()
