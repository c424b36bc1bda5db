#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""deterministic.py COMMAND MACHINE BUILD [--short] - runs of a machine with two vCPUs in deterministic mode are the same, byte for byte, or
another seed's; in one thread, in a thread for each vCPU, and in the other tempo, too.

The machine is the tests' own (machine.c), with Debian's kernel; the traces are those of `anykvm trace`."""
import os, re, shutil, signal, subprocess, sys, tempfile, time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
command, machine, build = map(os.path.abspath, sys.argv[1:4])
short = "--short" in sys.argv
subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
kernel, initrd = (os.path.join(build, "guest", n) for n in ("vmlinuz", "initramfs.cpio"))
folder = tempfile.mkdtemp()
os.chdir(folder)
wrong = []


def expect(what, truth):
    if not truth:
        wrong.append(what)


def run(name, seed, threads=False, tempo="run", busy=False, words=""):
    """The trace's bytes; the guest is booted with two processors, which a command in it counts."""
    env = dict(os.environ, ANYKVM_TEMPO=tempo, ANYKVM_STATS_FILE=name + ".stats")
    line = "console=ttyS0 panic=-1 reboot=t pci=off quiet run=nproc" + words
    noise = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3 if busy else 0)]
    done = subprocess.run([command, "trace", "-o", name + ".dat", command, "run", "--deterministic=%s" % seed, "--", machine, "-n", "2"] +
                          (["-t"] if threads else []) + [kernel, initrd, line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=500, env=env)
    for n in noise:
        n.kill()
        n.wait()
    expect("%s: status %d\n%s%s" % (name, done.returncode, done.stdout[-2000:], done.stderr), done.returncode == 0)
    expect("%s: says %s" % (name, done.stdout), "BOOT-OK" in done.stdout and "RUN nproc\n2\nEXIT-STATUS 0" in done.stdout.replace("\r", ""))
    expect("%s: %s" % (name, done.stderr), re.fullmatch(r"anykvm: \d+ events of 2 vCPUs in %s.dat\n" % name, done.stderr))
    count = sum(int(n) for n in re.findall(r"^instructions (\d+)$", open(name + ".stats").read(), re.M))
    expect("%s: %d instructions" % (name, count), count > 100_000_000)
    return open(name + ".dat", "rb").read(), done.stdout


def report(name):
    """What trace-cmd says, but for returns with EINTR, and for page faults: page tables are walked when the TLB needs it."""
    text = subprocess.run(["trace-cmd", "report", "-t", name + ".dat"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    rows, drop = [], {}
    for row in text.splitlines():
        cpu = re.search(r"\[\d+\]", row)
        if not cpu or "kvm_userspace_exit: " in row and "errno 4" in row or "kvm_page_fault: " in row:
            continue
        if re.search(r"kvm_exit: +reason (EPT_VIOLATION|EXIT_NPF)", row):
            drop[cpu[0]] = True
        elif not drop.pop(cpu[0], False):
            rows.append(row)
    return rows


ROUND = re.compile(r"(\[\d+\]) +([\d.]+): (kvm_entry|kvm_exit: +reason EXTERNAL_INTERRUPT)\b.* rip (\w+)")


def settled(rows):
    """Without exits that led back to the same place in no time: who waits for a turn within KVM_RUN is asked to look about."""
    kept, last = [], {}
    for row in rows:
        own = last.setdefault(re.search(r"\[\d+\]", row)[0], [])
        own.append(len(kept))
        kept.append(row)
        three = [ROUND.search(kept[n]) for n in own[-3:]]
        if len(three) == 3 and all(three) and len({(m[2], m[4]) for m in three}) == 1 and [m[3][:8] for m in three] == ["kvm_entr", "kvm_exit", "kvm_entr"]:
            for n in own[-2:]:
                kept[n] = ""
            del own[-2:]
    return [r for r in kept if r]


def first_difference(a, b):
    return next(("%d: %s\n%s" % (i, x, y) for i, (x, y) in enumerate(zip(a, b)) if x != y), "one is longer")


first, said = run("first", 1)
again, said_again = run("again", 1, busy=True)
expect("the same seed, another trace", first == again)
expect("the same seed, another output", said == said_again)
other, _ = run("other", 2)
expect("another seed, the same trace", first != other)
if not short:
    threads, _ = run("threads", 1, threads=True)
    again, _ = run("again", 1, threads=True, busy=True)
    expect("threads: the same seed, another trace", threads == again)
    # A vCPU is preempted, for the guest's steal time, where its thread is outside KVM_RUN: guests that look at that see how many threads there are.
    ways = {"alone": {}, "threads": {"threads": True}, "step": {"tempo": "step"}}
    for name, how in ways.items():
        run(name, 1, words=" no-steal-acc", **how)
    if shutil.which("trace-cmd"):
        rows = settled(report("alone"))
        expect("few rows: %d" % len(rows), len(rows) > 50000)
        for name in ("threads", "step"):
            theirs = settled(report(name))
            expect("%s differs\n%s" % (name, first_difference(rows, theirs)), rows == theirs)

for seed in ("x", "-1", "1x", "", "0x10000000000000000"):
    done = subprocess.run([command, "run", "--deterministic=" + seed, "true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    expect("seed %r: %d %r" % (seed, done.returncode, done.stderr), done.returncode == 125 and "a number" in done.stderr and done.stderr.count("\n") == 1)

# A signal ends KVM_RUN; the machine is gone when Ctrl-C comes.
busy = subprocess.Popen([command, "run", "--deterministic", "--", machine, "-n", "2", kernel, initrd, "console=ttyS0 panic=-1"], stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL)
time.sleep(1)
busy.send_signal(signal.SIGINT)
expect("Ctrl-C", busy.wait(timeout=30) == -signal.SIGINT)
shutil.rmtree(folder)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(bool(wrong))
