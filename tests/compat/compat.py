#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compat.py --build DIR [--record VERSION] [--old DIR] - saved states of every version of the guest-visible behaviour still run.

vN/ keeps what a VM of version N was saved as: ioctl dumps of states.c at its points, and a QEMU migration stream of bios.S. Each is
restored under every version, old on new and new on old; what is saved now is, too. --old DIR: by another build's anykvm
as well, in both directions. --record VERSION writes vVERSION/ anew (once, when the version is made). docs/compatibility.md is
held to the tables: each behaviour and each quirk must have its line there, and each row of behaviour.def its states.
"""
import argparse, lzma, os, re, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
POINTS = ["vector", "string", "smm", "fault", "halt"]
CPU = "haswell-ep"  # lent by any host with AVX2
MACHINE = "pc-i440fx-7.2"
MASK = (1 << 64) - 1


class Wrong(Exception):
    pass


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as text:
        return text.read()


def versions():
    rows = re.findall(r"^BEHAVIOUR\((\d+), (\w+),", read("tables", "behaviour.def"), re.M)
    return range(1, max([1] + [int(v) for v, _ in rows]) + 1), [name for _, name in rows]


def anykvm(build, version, cpu=CPU):
    asked = ["--param", "anykvm.behaviour=%d" % version] if version > 1 else []  # a build of version 1 may not know the parameter
    return [os.path.join(build, "anykvm"), "run", "--cpu", cpu] + asked + ["--"]


def call(command, what):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, errors="replace")
    if done.returncode:
        raise Wrong("%s: status %d: %s" % (what, done.returncode, done.stdout[-600:]))


# ---- the documents ----

def check_documents():
    text = read("docs", "compatibility.md")
    names = versions()[1]
    header = re.search(r"#define VM_QUIRKS(.*?)\n\n", read("src", "kvm", "vm", "vm.h"), re.S).group(1)
    names += re.findall(r"KVM_X86_QUIRK_\w+", header)
    for name in names:
        if "`%s`" % name not in text:
            raise Wrong("docs/compatibility.md does not list %s" % name)
    for name in re.findall(r"`(KVM_X86_QUIRK_\w+)`", text):
        if name not in header:
            raise Wrong("docs/compatibility.md lists %s, which is not in VM_QUIRKS" % name)


# ---- QEMU ----

def steps(number):
    """The hash of bios.S after that many steps."""
    r12, lanes = 1, [0, 0]
    for _ in range(number):
        r12 = (r12 * 0x5851F42D + 0x14057B7E) & MASK
        lanes[0] = (lanes[0] + r12) & MASK
        words = [lanes[0] & 0xffffffff, lanes[0] >> 32, lanes[1] & 0xffffffff, lanes[1] >> 32]
        words = [words[3], words[0], words[1], words[2]]
        lanes = [words[0] | words[1] << 32, words[2] | words[3] << 32]
    return r12 ^ lanes[0] ^ lanes[1]


def qemu(build, version, bios, extra):
    return anykvm(build, version) + ["qemu-system-x86_64", "-accel", "kvm", "-machine", MACHINE, "-cpu", "qemu64", "-m", "2M", "-nodefaults",
                                     "-no-user-config", "-display", "none", "-bios", bios, "-monitor", "stdio"] + extra


def lines(path):
    if not os.path.exists(path):
        return []
    return re.findall(r"^([0-9a-f]{16}) ([0-9a-f]{16})\n", open(path, encoding="latin-1").read(), re.M)


def wait_lines(proc, path, wanted, what, command=None):
    """The command is said again and again: QEMU may not have got all of the stream yet."""
    end = time.monotonic() + 60
    while len(lines(path)) < wanted:
        if proc.poll() is not None or time.monotonic() > end:
            raise Wrong("%s: the guest shows no life (status %s)" % (what, proc.poll()))
        if command:
            proc.stdin.write(command + "\n")
            proc.stdin.flush()
        time.sleep(0.1)


def check_lines(path, what):
    seen = lines(path)
    for number, shown in seen:
        if steps(int(number, 16)) != int(shown, 16):
            raise Wrong("%s: step %s is not %s" % (what, number, shown))
    for one, two in zip(seen, seen[1:]):
        if int(two[0], 16) != int(one[0], 16) + 20:
            raise Wrong("%s: after step %s comes %s" % (what, one[0], two[0]))
    return int(seen[0][0], 16), int(seen[-1][0], 16)


def qemu_run(build, version, bios, extra, console, what, before=None, after=()):
    """Says `before` until three lines have come, then those of `after`, and ends."""
    proc = subprocess.Popen(qemu(build, version, bios, extra + ["-serial", "file:" + console]), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_lines(proc, console, 3, what, before)
        for command in after:
            proc.stdin.write(command + "\n")
        proc.stdin.flush()
        out = proc.communicate("quit\n", timeout=60)[0]
        if proc.returncode:
            raise Wrong("%s: QEMU ends with %d: %s" % (what, proc.returncode, out[-500:]))
    finally:
        if proc.poll() is None:
            proc.kill()
            proc.wait()


def qemu_save(build, version, scratch, stream):
    bios, console = os.path.join(scratch, "bios.bin"), os.path.join(scratch, "con.save")
    if not os.path.exists(bios):
        call(["gcc", "-c", "-o", bios + ".o", os.path.join(HERE, "bios.S")], "bios.S")
        call(["objcopy", "-O", "binary", "-j", ".text", bios + ".o", bios], "bios.S")
    qemu_run(build, version, bios, [], console, "save as version %d" % version, after=["stop", 'migrate "exec:cat >%s"' % stream])
    last = check_lines(console, "saved")[1]
    os.unlink(console)
    return last


def qemu_restore(build, version, scratch, stream, what):
    empty, console = os.path.join(scratch, "empty.bin"), os.path.join(scratch, "con.restore")
    with open(empty, "wb") as out:  # the firmware comes with the stream
        out.write(bytes(65536))
    # The guest is stopped in the stream.
    qemu_run(build, version, empty, ["-incoming", "exec:cat " + stream], console, what, before="cont")
    if check_lines(console, what)[0] <= 20:
        raise Wrong(what + ": the guest began anew")
    os.unlink(console)


# ---- states ----

def restore(args, build, version, name, path, scratch, what):
    if name == "qemu":
        qemu_restore(build, version, scratch, path, what)
    else:
        call(anykvm(build, version) + [args.states, "restore", path], what)


def save(args, build, version, name, path, scratch):
    if name == "qemu":
        qemu_save(build, version, scratch, path)
    else:
        call(anykvm(build, version) + [args.states, "save", path, name], "save %s as version %d" % (name, version))


def names(args):
    return POINTS + ([] if args.no_qemu else ["qemu"])


def record(args, scratch):
    folder = os.path.join(HERE, "v%d" % args.record)
    os.makedirs(folder, exist_ok=True)
    for name in names(args):
        path = os.path.join(scratch, name)
        save(args, args.build, args.record, name, path, scratch)
        with open(path, "rb") as raw, open(os.path.join(folder, name + ".xz"), "wb") as out:
            out.write(lzma.compress(raw.read(), preset=9))
        print("recorded v%d/%s.xz, %d bytes" % (args.record, name, os.path.getsize(os.path.join(folder, name + ".xz"))))


def kept(args, scratch):
    """(version, name, path) of what is kept; every version must have all."""
    for version in versions()[0]:
        for name in names(args):
            packed, path = os.path.join(HERE, "v%d" % version, name + ".xz"), os.path.join(scratch, "v%d.%s" % (version, name))
            if not os.path.exists(packed):
                raise Wrong("no v%d/%s.xz is kept" % (version, name))
            with open(path, "wb") as out:
                out.write(lzma.decompress(open(packed, "rb").read()))
            yield version, name, path


def check(args, scratch):
    done, builds = 0, [args.build] + ([args.old] if args.old else [])
    for version, name, path in kept(args, scratch):
        for build in builds:
            for now in versions()[0] if build == args.build else [1]:
                restore(args, build, now, name, path, scratch, "%s of version %d under version %d of %s" % (name, version, now, build))
                done += 1
    newest = versions()[0][-1]
    for name in names(args):
        path = os.path.join(scratch, "new")
        for by, version, on, now in [(args.build, newest, args.build, 1), (args.build, 1, args.build, newest)] + (
                [(args.build, newest, args.old, 1), (args.old, 1, args.build, newest)] if args.old else []):
            save(args, by, version, name, path, scratch)
            restore(args, on, now, name, path, scratch, "%s saved now as version %d by %s, under %d of %s" % (name, version, by, now, on))
            done += 1
    # A processor without XSAVE.
    for name in POINTS:
        path = os.path.join(scratch, "old")
        call(anykvm(args.build, 1, "nehalem-ep") + [args.states, "save", path, name], "nehalem-ep: save " + name)
        call(anykvm(args.build, newest, "nehalem-ep") + [args.states, "restore", path], "nehalem-ep: " + name)
        done += 1
    return done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--states")
    parser.add_argument("--record", type=int)
    parser.add_argument("--old")
    parser.add_argument("--no-qemu", action="store_true")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    args.states = args.states or os.path.join(args.build, "tests", "compat", "states")
    try:
        with tempfile.TemporaryDirectory(prefix="anykvm-compat-") as scratch:
            if args.record:
                record(args, scratch)
                return 0
            check_documents()
            print("compat: %d restored, versions 1 to %d" % (check(args, scratch), versions()[0][-1]))
    except Wrong as wrong:
        print("compat: WRONG: %s" % wrong)
        return 1
    return 0


sys.exit(main())
