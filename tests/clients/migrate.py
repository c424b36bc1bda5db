#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""migrate.py --build DIR KIND [--rounds N] - a guest at work is saved, restored and moved from process to process.

KIND: live (over a unix socket), postcopy, file (the stream is kept in a file), savevm (savevm and loadvm in one process),
kill (the source is killed at random moments of its migration: the guest is whole on the other side or never begins there),
damage (streams cut short or with bits changed). --inside MODEL: the guest is itself a hypervisor, KVM on a processor of that model, whose
guest does the work.
Nothing may be lost: the guest checks its memory, clocks, timers and frames (guest_load.c), this program its records. Prints what each round
took. The processes' own counters must say that anykvm ran the guest.
"""
import argparse, os, random, shutil, socket, subprocess, sys, tempfile, time

import inside
from boot import MACHINES, TOP
from moving import Console, Echo, Process, Records, Wrong

GROWS = ["ms", "pages", "echoed", "records", "ticks"]


class Stand:
    def __init__(self, args):
        self.args, self.processes, self.instructions = args, [], 0
        self.dir = tempfile.mkdtemp(prefix="anykvm-migrate-")
        self.build = os.path.abspath(args.build)
        self.streams = args.kind not in ("savevm", "kill", "damage") and not args.inside
        self.console = Console(self.path("console"))
        if args.inside:
            inside.linux(inside.Kernel(self.build), os.path.join(self.build, "guest", "initramfs-load.cpio"), self.path("initramfs"))
        if self.streams:
            self.echo, self.records = Echo(self.path("wire")), Records(self.path("records"))

    def path(self, name):
        return os.path.join(self.dir, name)

    def command(self, name):
        args, guest = self.args, os.path.join(self.build, "guest")
        load = "LOADCPUS=%d LOADMB=%d LOADRATE=%d" % (args.cpus, args.mb, args.rate)
        model, memory, initramfs = [], args.mb + 112, os.path.join(guest, "initramfs-load.cpio")
        if args.inside:
            model, memory, initramfs = ["--cpu", args.inside], args.mb + 800, self.path("initramfs")
            load = "l1.vcpus=%d l1.kvm= l1.mem=%dM l1.next=%s" % (args.cpus, args.mb + 112, load.replace(" ", ","))
        append = "console=ttyS0 panic=-1 reboot=t quiet " + load
        command = [os.path.join(self.build, "anykvm"), "run"] + model + ["--", "qemu-system-x86_64", "-accel",
                   "kvm" + (",dirty-ring-size=%d" % args.ring if args.ring else ""), "-machine", MACHINES.get(args.machine, args.machine),
                   "-cpu", args.cpu, "-smp", str(args.cpus), "-m", "%dM" % memory, "-nodefaults", "-no-user-config", "-display",
                   "none", "-no-reboot", "-qmp", "unix:%s.qmp,server=on,wait=off" % name, "-chardev",
                   "file,id=con,append=on,path=" + self.path("console"), "-serial", "chardev:con", "-kernel",
                   os.path.join(guest, "vmlinuz"), "-initrd", initramfs, "-append", append]
        if self.streams:
            command += ["-netdev", "dgram,id=n,local.type=unix,local.path=%s.net,remote.type=unix,remote.path=%s" % (name, self.path("wire")),
                        "-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-serial-pci", "-chardev",
                        "socket,id=rec,path=" + self.path("records"), "-device", "virtserialport,chardev=rec,name=load"]
        if args.kind == "savevm":
            command += ["-drive", "if=none,id=snap,format=qcow2,file=" + self.path("snap")]
        if args.sandbox:
            command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
        return command

    def grows(self):
        return GROWS if self.streams else ["ms", "pages", "ticks"]

    def boot(self):
        """A fresh guest, at work."""
        proc = Process(self)
        if self.streams or not self.console.lines():
            self.console.wait_progress(self.grows(), self.args.limit, proc)
        else:
            self.console.wait_progress(["ticks"], self.args.limit, proc)
        return proc

    def check(self):
        self.console.check()
        if self.streams and self.records.wrong:
            raise Wrong(self.records.wrong)

    def quit(self, proc):
        self.instructions += proc.quit()
        self.processes.remove(proc)

    def end(self, keep):
        for proc in self.processes:
            proc.kill()
        if keep:
            print("kept: " + self.dir)
        else:
            shutil.rmtree(self.dir)


def settings(proc, args, **capabilities):
    proc.qmp("migrate-set-parameters", **{"downtime-limit": args.downtime, "max-bandwidth": args.bandwidth, "max-postcopy-bandwidth": 0})
    proc.qmp("migrate-set-capabilities", capabilities=[{"capability": k.replace("_", "-"), "state": v} for k, v in capabilities.items()])


def report(stand, number, info, lines):
    print("round %d: total %d ms, downtime %d ms, guest's longest gap %d ms, %d KiB sent in %d passes" % (
        number, info.get("total-time", 0), info.get("downtime", 0), max(line["gap_us"] for line in lines) // 1000,
        info["ram"]["transferred"] >> 10, info["ram"].get("dirty-sync-count", 0)), flush=True)


def round_live(stand, source, number):
    where = "unix:" + stand.path("m%d" % number)
    target = Process(stand, where)
    settings(source, stand.args)
    source.qmp("migrate", uri=where)
    info = source.wait_migration(stand.args.limit)
    target.wait_running(60)
    stand.quit(source)
    report(stand, number, info, stand.console.wait_progress(stand.grows(), 120, target))
    return target


def round_postcopy(stand, source, number):
    where = "unix:" + stand.path("m%d" % number)
    target = Process(stand, "defer")
    settings(source, stand.args, postcopy_ram=True)
    settings(target, stand.args, postcopy_ram=True)
    source.qmp("migrate-set-parameters", **{"max-bandwidth": 8 << 20})
    target.qmp("migrate-incoming", uri=where)
    source.qmp("migrate", uri=where)
    source.wait_migration(60, ("active", "completed"))
    time.sleep(random.random())
    source.qmp("migrate-start-postcopy")
    target.wait_running(60)
    lines = stand.console.wait_progress(["ms", "ticks"], 120, target)
    info = source.wait_migration(stand.args.limit)
    if not info["ram"].get("postcopy-requests"):
        print("round %d: no page was asked for" % number)
    stand.quit(source)
    report(stand, number, info, lines + stand.console.wait_progress(stand.grows(), 120, target))
    return target


def round_file(stand, source, number):
    stream = stand.path("stream")
    settings(source, stand.args)
    source.qmp("stop")
    source.qmp("migrate", uri="exec:cat >" + stream)
    info = source.wait_migration(stand.args.limit)
    stand.quit(source)
    target = Process(stand, "exec:cat " + stream)
    target.wait_migration(60)
    target.qmp("cont")
    report(stand, number, info, stand.console.wait_progress(stand.grows(), 120, target))
    return target


def round_savevm(stand, source, number):
    time.sleep(random.random() * 0.2)
    began = time.monotonic()
    source.qmp.human("savevm s")
    saved = time.monotonic() - began
    before = stand.console.lines()[-1]
    stand.console.wait_progress(["ms", "ticks"], 60, source)
    time.sleep(random.random() * 0.3)
    began = time.monotonic()
    source.qmp.human("loadvm s")
    loaded = time.monotonic() - began
    after = stand.console.wait_progress(stand.grows(), 120, source)
    now = after[0]
    if now["ticks"] < before["ticks"] - 400 or now["ms"] < before["ms"] - 2000:
        raise Wrong("after loadvm the guest is at %s, before savevm at %s" % (now, before))
    source.qmp.human("delvm s")
    print("round %d: savevm %.2f s, loadvm %.2f s" % (number, saved, loaded), flush=True)
    return source


def kill_amid(stand, source):
    """At a moment of its migration that no machine's speed decides: when it has sent some share of the guest's memory once, or, one time in
    four, when it is through with that. Says which it was."""
    share, end = random.random() * 1.33, time.monotonic() + stand.args.limit
    while time.monotonic() < end:
        info = source.qmp("query-migrate")
        ram = info.get("ram", {"total": 1, "remaining": 1})
        if info.get("status") not in (None, "setup", "active") or 1 - ram["remaining"] / ram["total"] >= share:
            break
    time.sleep(random.random() * 0.02)
    source.kill()
    stand.processes.remove(source)
    return "with %d %% sent" % (share * 100) if share < 1 else "at the end"


def round_kill(stand, source, number):
    """The source dies at some moment. The target then runs a whole guest, or none ever."""
    where = "unix:" + stand.path("m%d" % number)
    target = Process(stand, where)
    settings(source, stand.args)
    source.qmp("migrate-set-parameters", **{"max-bandwidth": 64 << 20, "downtime-limit": 200})
    source.qmp("migrate", uri=where)
    moment = kill_amid(stand, source)
    whole = False
    try:
        for _ in range(50):
            if target.qmp("query-status")["running"]:
                whole = True
                break
            time.sleep(0.02)
    except Wrong:
        status = target.proc.wait(60)
        if status != 1:
            raise Wrong("the target ends with status %d: %s" % (status, target.said()))
    print("round %d: killed %s: %s" % (number, moment, "whole" if whole else "not begun"), flush=True)
    if whole:
        stand.console.wait_progress(stand.grows(), 120, target)
        return target
    target.kill()
    stand.processes.remove(target)
    return stand.boot()


def feed(stand, number, stream):
    """A target that is given these bytes: 'running', 'waiting', or its exit status."""
    where = stand.path("m%d" % number)
    target = Process(stand, "unix:" + where, ["-S"])
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(where)
    try:
        sock.sendall(stream)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(250):
            status = target.qmp("query-status")["status"]
            if status != "inmigrate":
                break
            time.sleep(0.02)
    except (Wrong, OSError):
        status = target.proc.wait(60)
    if target.proc.poll() is None:
        target.kill()
    stand.processes.remove(target)
    sock.close()
    return status


def damage(stand):
    source = stand.boot()
    settings(source, stand.args)
    source.qmp("stop")
    source.qmp("migrate", uri="exec:cat >" + stand.path("stream"))
    source.wait_migration(stand.args.limit)
    stand.quit(source)
    with open(stand.path("stream"), "rb") as stream:
        whole = stream.read()
    if feed(stand, 0, whole) != "paused":
        raise Wrong("the whole stream is not taken")
    state = whole.rfind(b'"page_size"')  # what follows describes the stream for people; what is before it, is processors and devices
    if state < 0:
        raise Wrong("the stream has no description")
    tail = max(0, state - 60000)
    for number in range(1, stand.args.rounds + 1):
        cut = random.randrange(tail, state - 16) if number % 2 else random.randrange(len(whole) // 2)
        status = feed(stand, number, whole[:cut])
        print("cut at %d of %d: %s" % (cut, len(whole), status), flush=True)
        if status not in (0, 1, "inmigrate"):
            raise Wrong("a stream cut at %d ends in %s" % (cut, status))
    for number in range(stand.args.rounds + 1, 2 * stand.args.rounds + 1):
        changed = bytearray(whole)
        at = random.randrange(tail, state)
        changed[at] ^= 1 << random.randrange(8)
        status = feed(stand, number, bytes(changed))
        print("bit changed at %d: %s" % (at, status), flush=True)
        if status not in (0, 1, "inmigrate", "paused"):
            raise Wrong("a stream with a bit changed at %d ends in %s" % (at, status))


ROUNDS = {"live": round_live, "postcopy": round_postcopy, "file": round_file, "savevm": round_savevm, "kill": round_kill}


def rounds(stand):
    args = stand.args
    if args.kind == "savevm":
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", stand.path("snap"), "1M"], check=True)
    proc = stand.boot()
    for number in range(1, args.rounds + 1):
        proc = ROUNDS[args.kind](stand, proc, number)
        stand.check()
    stand.quit(proc)
    last = stand.console.lines()[-1]
    print("guest: " + " ".join("%s %d" % pair for pair in sorted(last.items())))
    if stand.streams and stand.records.number < last["records"] - 1:
        raise Wrong("%d records came of %d" % (stand.records.number, last["records"]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("kind", choices=sorted(ROUNDS) + ["damage"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", metavar="MODEL")
    parser.add_argument("--machine", default="q35")
    parser.add_argument("--cpu", default="host")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--mb", type=int, default=32)
    parser.add_argument("--rate", type=int, default=4000, help="pages a second that each processor rewrites")
    parser.add_argument("--ring", type=int, default=0)
    parser.add_argument("--downtime", type=int, default=2000)
    parser.add_argument("--bandwidth", type=int, default=1 << 32)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--sandbox", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    if args.kind == "postcopy" and os.geteuid() and open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii").read() == "0\n":
        print("migrate: postcopy: this user may not use userfaultfd")
        return 77
    random.seed(args.seed)
    print("seed %d" % args.seed)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), args.build], check=True)
    stand, wrong = Stand(args), None
    try:
        (damage if args.kind == "damage" else rounds)(stand)
        if stand.instructions < 10_000_000:
            raise Wrong("anykvm's counters did not move: %d instructions" % stand.instructions)
    except Wrong as error:
        wrong = error
    stand.end(args.keep)
    print("migrate: %s: %s" % (args.kind, wrong or "ok, %d instructions" % stand.instructions))
    return 1 if wrong else 0


sys.exit(main())
