#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""trace.py COMMAND LIBRARY WATCHED DEEP NESTED - anykvm trace against guests whose exits are known, read back by Debian's trace-cmd."""
import os, pty, re, resource, shutil, signal, subprocess, sys, tempfile, time

command, library, watched, deep, nested = map(os.path.abspath, sys.argv[1:])
folder = tempfile.mkdtemp()
os.chdir(folder)
wrong = []


def expect(what, truth):
    if not truth:
        wrong.append(what)


def call(*args, **kw):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90, **kw)
    return done.returncode, done.stdout, done.stderr


def trace(*args, **kw):
    return call(command, "trace", *args, **kw)


LINE = re.compile(r"^ *(\S.*)-(\d+) +\[(\d+)\] +([\d.]+): (\w+): +(.*)$")


def report(path):
    """(time, event, text) of each line that trace-cmd prints, and its complaints."""
    status, out, err = call("trace-cmd", "report", path)
    rows = [LINE.match(l) for l in out.splitlines()]
    expect("trace-cmd report %s: %d %s" % (path, status, err), status == 0 and "unknown" not in err and "error" not in err.lower())
    return [(float(m[4]), m[5], m[6]) for m in rows if m]


def count(rows, event, text=""):
    return sum(1 for r in rows if r[1] == event and text in r[2])


if not shutil.which("trace-cmd"):
    print("no trace-cmd")
    sys.exit(77)

# Everything, as an Intel and as an AMD processor, with the plugin's names of exit reasons.
for model, names in (("ice-lake-sp", ("IO_INSTRUCTION", "CPUID", "HLT")), ("milan", ("EXIT_IOIO", "EXIT_CPUID", "EXIT_HLT"))):
    status, out, err = trace(watched, "100", env=dict(os.environ, ANYKVM_CPU=model))
    expect("trace: %d %s" % (status, err), status == 0 and re.fullmatch(r"anykvm: \d+ events of 1 vCPU in trace.dat\n", err))
    rows = report("trace.dat")
    got = [count(rows, "kvm_exit", "reason " + n) for n in names]
    expect("%s: exits %s" % (model, got), got == [200, 100, 1])
    expect("port accesses", count(rows, "kvm_pio", "pio_write at 0x80 size 1 count 1") == 100 and
           count(rows, "kvm_pio", "pio_read at 0x80 size 1 count 1 val 0x5a") == 100)
    expect("CPUIDs", count(rows, "kvm_cpuid", "func 0 idx 0") == 100)
    expect("returns", count(rows, "kvm_userspace_exit", "reason 2 ") == 200 and count(rows, "kvm_userspace_exit", "reason 5 ") == 1)
    times = [r[0] for r in rows]
    expect("times fall", times == sorted(times) and times[-1] - times[0] < 60)
    turns = [r[1] for r in rows if r[1] in ("kvm_entry", "kvm_exit")]
    expect("entries and exits do not alternate", turns == ["kvm_entry", "kvm_exit"] * (len(turns) // 2))
    expect("the number told: %s, read %d" % (err, len(rows)), "anykvm: %d events" % len(rows) in err)

# More than the ring holds, several times over: nothing is lost, and all in order.
status, out, err = trace("-o", "many.dat", watched, "15000")
rows = report("many.dat")
turns = [r[1] for r in rows if r[1] in ("kvm_entry", "kvm_exit")]
expect("many: %d %s, read %d" % (status, err, len(rows)), status == 0 and err == "anykvm: %d events of 1 vCPU in many.dat\n" % len(rows))
expect("many: entries and exits do not alternate", turns == ["kvm_entry", "kvm_exit"] * (len(turns) // 2))
expect("many: counts", (count(rows, "kvm_exit"), count(rows, "kvm_pio"), count(rows, "kvm_cpuid")) == (45002, 30000, 15000))

# An exit for CPUID has its events in one piece, if all three are wanted; they are those that are told one by one.
counted = dict(os.environ, ANYKVM_DETERMINISTIC="1")
status, out, err = trace("-o", "one.dat", watched, "20", env=counted)
rows = report("one.dat")
for events in ("kvm_exit,kvm_cpuid", "kvm_entry"):
    trace("-o", "each.dat", "-e", events, watched, "20", env=counted)
    each = report("each.dat")
    expect("in one piece and one by one: %s\n%s" % (rows[:9], each[:9]), len(each) >= 40 and each == [r for r in rows if r[1] in events.split(",")])

# A guest that is a hypervisor: the addresses are its source's.
status, out, err = trace("-o", "nested.dat", nested, "5", env=dict(os.environ, ANYKVM_CPU="milan"))
rows = report("nested.dat")
expect("a nested guest: %d %s%s" % (status, out, err), status == 0)
expect("entries: %s" % rows[:9], count(rows, "kvm_nested_vmenter", "rip: 0x000000000000100a vmcb: 0x0000000000002000 nested_rip: 0x0000000000000000 ") == 5 and
       count(rows, "kvm_nested_vmenter", "nested_npt=n guest_cr3: 0x0000000000000000") == 5)
expect("exits: %s" % rows[:9], count(rows, "kvm_nested_vmexit") == 5 and count(rows, "kvm_nested_vmexit_inject", "reason EXIT_CPUID ") == 5)
expect("flushes: %s" % rows[:9], count(rows, "kvm_invlpga", "rip: 0x0000000000001017 asid: 7 address: 0x0000000000005000") == 5)
order = [r[1] for r in rows if "nested" in r[1] or "invlpga" in r[1]]
expect("order: %s" % order, order == ["kvm_nested_vmenter", "kvm_nested_vmexit", "kvm_nested_vmexit_inject", "kvm_invlpga"] * 5)

# Some events only; a window of instructions, by what the guest's source says.
status, out, err = trace("-o", "some.dat", "-e", "kvm_cpuid,kvm:kvm_msr", watched, "7")
rows = report("some.dat")
expect("-e: %s" % err, status == 0 and len(rows) == 7 and count(rows, "kvm_cpuid") == 7)
status, out, err = trace("-o", "insn.dat", "-e", "kvm_msr", "--insn", "0:9", watched, "2")
rows = report("insn.dat")
want = [0x1000, 0x1006, 0x1009, 0x100a, 0x100b, 0x100e, 0x1010, 0x1013, 0x1015]
expect("--insn: %s" % rows, [int(re.search(r"rip (0x\w+)", r[2])[1], 16) for r in rows] == want)
expect("--insn, registers: %s" % rows, "#6 " in rows[6][2] and "rsi 0x2 " in rows[6][2] and "[ba 80 00 66 4e " in rows[6][2] and
       "rsi 0x1 " in rows[8][2])

# Stacks, with names of a kallsyms, a perf map, and without.
open("kallsyms", "w").write(call(deep, "--symbols")[1])
symbols = [(int(a, 16), n) for a, t, n in (l.split() for l in open("kallsyms"))]
with open("perf.map", "w") as f:
    for (start, name), (end, _) in zip(symbols, symbols[1:]):
        f.write("%x %x %s\n" % (start, end - start, name))
for names, frames in (("kallsyms", ";outer;middle;inner"), ("perf.map", ";outer;middle;inner"), (None, ";0x80")):
    status, out, err = trace("--stacks", "folded", "-F", "500", *(["--symbols", names] if names else []), deep, "40")
    lines = open("folded").read().splitlines()
    right = sum(int(l.split()[-1]) for l in lines if l.startswith("vcpu0;kernel" + frames))
    every = sum(int(l.split()[-1]) for l in lines)
    expect("stacks with %s: %d of %d\n%s%s" % (names, right, every, "\n".join(lines[:5]), err),
           status == 0 and every >= 10 and right >= 0.9 * every and not os.path.exists("trace2.dat"))

# Status, signals, Ctrl-C, a collector that dies.
expect("status", trace("-o", "s.dat", "sh", "-c", "exit 42")[0] == 42)
status, out, err = trace("-o", "k.dat", "sh", "-c", '"$0" 0 & sleep 0.3; kill -9 $!; wait 2>/dev/null; kill -9 $$', watched)
expect("killed: %d %s" % (status, err), status == 137 and count(report("k.dat"), "kvm_cpuid") > 10)
child, fd = pty.fork()
if not child:
    os.execv(command, [command, "trace", "-o", "c.dat", "-e", "kvm_cpuid", watched, "0"])
time.sleep(1)
os.write(fd, b"\x03")
text = b""
try:
    while True:
        text += os.read(fd, 4096)
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
expect("Ctrl-C: %d %r" % (status, text), status == 130 and b"in c.dat" in text and count(report("c.dat"), "kvm_cpuid") > 10)
collector = subprocess.Popen([command, "trace", "-o", "d.dat", watched, "0"], stderr=subprocess.DEVNULL)
time.sleep(0.5)
children = open("/proc/%d/task/%d/children" % (collector.pid, collector.pid)).read().split()
collector.kill()
collector.wait()
time.sleep(0.5)


def running(pid):
    try:
        return open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


expect("a killed collector leaves %s" % children, len(children) == 1 and not running(children[0]))
expect("a killed collector leaves files: %s" % os.listdir("."), not any(n.startswith("d.dat") or n.startswith(".any") for n in os.listdir(".")))

# Files that cannot be written. What was there stays.
# Full disks are of a mount namespace's own.
FULL = """mkdir -p small && mount -t tmpfs -o size=64k none small && cd small || exit 99
printf old >old; "$0" "$@"; status=$?; ls -A >../left; cat old >>../left; exit $status"""
for what, args in (("trace", ["trace", "-o", "old", watched, "20000"]), ("stacks", ["trace", "--stacks", "old", "--symbols", "/proc/self/fd/0", deep, "5"]),
                   ("stat", ["run", "--stat=old", watched, "5"])):
    fill = "" if what == "trace" else "dd if=/dev/zero of=filler bs=4k 2>/dev/null; "
    args = [os.path.join(folder, "kallsyms") if a == "/proc/self/fd/0" else a for a in args]
    status, out, err = call("unshare", "-rm" if os.getuid() else "-m", "sh", "-c", FULL.replace('"$0" "$@"', fill + '"$0" "$@"'), command, *args)
    if status == 99 or "unshare:" in err:
        print("no mounts here: a full disk was not tried")
        break
    expect("%s on a full disk: %d %s" % (what, status, err), status == 125 and "No space left" in err and err.count("\n") == 1)
    expect("%s on a full disk leaves %s" % (what, open("left").read()), open("left").read() == ("filler\n" if fill else "") + "old\nold")
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
status, out, err = trace(watched, "20000", preexec_fn=limit)
expect("a limit on files: %d %s" % (status, err), status == 125 and "File too large" in err and "ulimit -f" in err and err.count("\n") == 1)
for args, message in ((["-o", "/no/such/folder/t", "true"], "cannot write"), (["-o", "/dev/full", "true"], "no regular file"), (["-e", "kvm_frob", "true"], "no event"),
                      (["--insn", "5", "true"], "--insn wants"), (["-F", "0", "true"], "--frequency wants"), ([], "no program"),
                      (["--symbols", "/no/such", "true"], "cannot read"), (["--symbols", "/dev/null", "true"], "no symbols"),
                      (["--stacks", "/no/such/folder/t", "true"], "cannot write"), (["--frob"], "unknown option")):
    status, out, err = trace(*args)
    expect("trace %s: %d %r" % (args, status, err), status == 125 and message in err and err.count("\n") == 1)
expect("no such program", trace("no-such-program-here")[0] == 127)

# Probes: their notes, and a debugger that sets one.
if shutil.which("readelf"):
    notes = re.findall(r"Provider: anykvm\n +Name: (\w+)", call("readelf", "-n", library)[1])
    events = re.search(r"Events:\n(.*)", call(command, "trace", "--help")[1], re.S)[1].split()
    expect("probes: %s" % sorted(set(events) ^ set(notes)), sorted(events) == sorted(notes))
if shutil.which("gdb"):
    with open("gdb.in", "w") as f:
        f.write("set breakpoint pending on\nset debuginfod enabled off\nhandle SIGSEGV nostop noprint pass\nset environment LD_PRELOAD %s\n"
                "break -probe-stap anykvm:kvm_cpuid\ncommands\nsilent\nprintf \"leaf %%d\\n\", $_probe_arg0\ncontinue\nend\nrun\n" % library)
    status, out, err = call("gdb", "-batch", "-nx", "-x", "gdb.in", "--args", watched, "5")
    expect("gdb at a probe: %s%s" % (out, err), out.count("leaf 0") == 5)
shutil.rmtree(folder)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(1 if wrong else 0)
