#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""stat.py COMMAND WATCHED - run --stat and stat, in a pipe and in a terminal, against a guest whose exits are known."""
import fcntl, os, pty, re, select, signal, struct, subprocess, sys, tempfile, termios, time

command, watched = map(os.path.abspath, sys.argv[1:])
wrong = []


def expect(what, truth):
    if not truth:
        wrong.append(what)


def call(*args, **kw):
    done = subprocess.run([command] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60, **kw)
    return done.returncode, done.stdout, done.stderr


def samples(report):
    return {name: int(n) for name, n in re.findall(r"^ +([A-Z0-9_]+) +(\d+) +[\d.]+%", report, re.M)}


# run --stat: exactly what the guest did.
status, out, err = call("run", "--stat", watched, "1000")
got = samples(err)
expect("run --stat: status %d, %s" % (status, err), status == 0 and not out)
expect("run --stat: %s" % got, (got.get("IO_INSTRUCTION"), got.get("CPUID"), got.get("HLT")) == (2000, 1000, 1))
expect("run --stat, instructions: %s" % err, re.search(r"1 vCPU, (\d+) instructions", err) and
       int(re.search(r"(\d+) instructions", err)[1]) == 2 + 7 * 1000 + 1)
# All are counted, some are timed: those of a reason with few of them, all, and all that are long, as on a busy machine most are.
status, out, err = call("run", "--stat", watched, "20000")
got = samples(err)
told = re.search(r"; times are those of (\d+) exits of (\d+)\n", err)
rows = [[float(v) for v in m] for m in re.findall(r"^ +[A-Z0-9_]+ +(\d+) +([\d.]+)% +([\d.]+)% +([\d.]+)us +([\d.]+)us +([\d.]+)us$", err, re.M)]
total = float(re.search(r"handled time:([\d.]+)us", err)[1])
expect("run --stat, 20000: %s" % err, (got.get("IO_INSTRUCTION"), got.get("CPUID"), got.get("HLT")) == (40000, 20000, 1))
expect("run --stat, exits timed: %s" % err, told and int(told[2]) == sum(got.values()) and 200 <= int(told[1]) < int(told[2]))
expect("run --stat, least, average, most: %s" % err, all(r[3] <= r[5] + 0.01 and r[5] <= r[4] + 0.01 for r in rows))
expect("run --stat, the total: %s" % err, abs(sum(r[0] * r[5] for r in rows) - total) <= 0.005 * sum(r[0] for r in rows) + 0.02 * len(rows))
with tempfile.TemporaryDirectory() as d:
    status, out, err = call("run", "--stat=%s/report" % d, "--", watched, "10")
    expect("run --stat=FILE", status == 0 and not err and samples(open(d + "/report").read()).get("CPUID") == 10)
    status, out, err = call("run", watched, "10", env=dict(os.environ, ANYKVM_STAT=d + "/second"))
    expect("ANYKVM_STAT", status == 0 and not err and samples(open(d + "/second").read()).get("CPUID") == 10)
# Counters: appended where the command was called, wherever the program goes, or nothing of them.
with tempfile.TemporaryDirectory() as d:
    status, out, err = call("run", "--counters", "c", "--", "sh", "-c", 'cd / && "$0" 5; exec "$0" 5', watched, cwd=d)
    lines = open(d + "/c").read().splitlines()
    expect("run --counters: %s" % lines, status == 0 and not err and sum(l == "instructions 38" for l in lines) == 2)
status, out, err = call("run", "--counters=/dev/full", watched, "5")
expect("run --counters to a full disk: %d %s" % (status, err), status == 0 and err == "anykvm: cannot write /dev/full: No space left on device\n")
status, out, err = call("run", "--stat=/no/such/folder/f", "true")
expect("run --stat to an unwritable file: %d %s" % (status, err), status == 125 and "cannot write" in err and err.count("\n") == 1)
status, out, err = call("run", "--stat=/dev/full", "true")
expect("run --stat to a full disk: %d %s" % (status, err), status == 125 and "cannot write" in err)
expect("run --stat keeps the status", call("run", "--stat", "sh", "-c", "exit 42")[0] == 42)
status, out, err = call("run", "--stat", "sh", "-c", "kill -9 $$")
expect("run --stat of a killed program: %d %s" % (status, err), status == 137 and "0 vCPUs" in err)
status, out, err = call("run", "--stat", "--", "sh", "-c", '"$0" 0 & sleep 0.5; kill -9 $!; wait 2>/dev/null; "$0" 5', watched)
expect("run --stat counts killed children, too: %s" % err, "2 vCPUs" in err and samples(err).get("CPUID", 0) > 5)

# stat of a running process.
guest = subprocess.Popen([command, "run", watched, "0"])
time.sleep(0.5)
pid = str(guest.pid)
try:
    status, out, err = call("stat", "-1", "-p", pid, "-s", "0.3")
    rows = {l.split()[0]: l.split() for l in out.splitlines()}
    expect("stat -1: status %d %s%s" % (status, out, err), status == 0 and "kvm_exit(CPUID)" in rows and "instructions" in rows)
    expect("stat -1: %s" % out, out.splitlines()[0].split() == ["Event", "Total", "%Total", "CurAvg/s"])
    io, cpuid = int(rows["kvm_exit(IO_INSTRUCTION)"][1]), int(rows["kvm_exit(CPUID)"][1])
    expect("stat -1: two port accesses to a CPUID: %d, %d" % (io, cpuid), cpuid > 10 and abs(io - 2 * cpuid) <= 4)
    status, out, err = call("stat", "--csv", "-n", "2", "-s", "0.2", "-f", "^kvm_cpuid$|^kvm_pio$")
    lines = out.splitlines()
    expect("stat --csv: %s%s" % (out, err), status == 0 and len(lines) == 3 and lines[0] == "timestamp,kvm_pio,kvm_cpuid" and
           all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+,\d+", l) for l in lines[1:]))
    # The same process under a session is found where it counts.
    second = subprocess.Popen([command, "run", "--stat=/dev/null", watched, "0"])
    time.sleep(0.5)
    child = open("/proc/%d/task/%d/children" % (second.pid, second.pid)).read().split()[0]
    status, out, err = call("stat", "-1", "-p", child, "-s", "0.2")
    expect("stat of a session's program: %d %s%s" % (status, out, err), status == 0 and "kvm_exit(CPUID)" in out)
    second.send_signal(signal.SIGTERM)
    expect("SIGTERM is handed on: %d" % second.wait(10), second.returncode == 143)

    def live(columns, key, sig=None):
        child, fd = pty.fork()
        if not child:
            os.environ["TERM"] = "xterm"
            os.execv(command, [command, "stat", "-s", "0.2", "-p", pid])
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
        seen, end = b"", time.time() + 1.5
        while time.time() < end:
            if select.select([fd], [], [], 0.1)[0]:
                seen += os.read(fd, 65536)
        os.write(fd, key)
        try:
            while True:
                seen += os.read(fd, 65536)
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()

    for columns, key in ((80, b"q"), (20, b"q"), (80, b"\x03")):
        status, text = live(columns, key)
        plain = re.sub(r"\033\[[?\d]*[a-zA-Z]", "", text)
        widest = max(len(l.rstrip("\r")) for l in plain.split("\n"))
        expect("live view, %d columns: status %d, widest %d\n%s" % (columns, status, widest, plain[-500:]),
               status == 0 and widest <= columns and "kvm_exit" in text and text.rstrip().endswith("\033[?1049l"))
        # Of a number that is too long for its line the first digits would be another number.
        last = [int(n) for n in re.findall(r"kvm_entry +(\d+)", plain)][-1:]
        expect("live view, %d columns: %s\n%s" % (columns, last, plain[-500:]), last and last[0] > 1000)
finally:
    guest.kill()
    guest.wait()
for args, message in ((["-p", "1"], "process 1 "), (["-p", "x"], "--pid wants"), (["-f", "["], "--fields"), (["-s", "0"], "--set-delay wants"),
                      (["-n", "0"], "--count wants"), (["x"], "no arguments"), (["-p", pid], "there is no process"), (["-p", str(os.getpid())], "no guest on anykvm"), (["--frob"], "unknown option")):
    status, out, err = call("stat", "-1", *args)
    expect("stat %s: %d %r" % (args, status, err), status == 125 and message in err and err.count("\n") == 1)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(1 if wrong else 0)
