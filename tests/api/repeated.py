#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""repeated.py COMMAND PROGRAM - in deterministic mode a guest's clocks, timers and random numbers are the same again; in each tempo, on a busy
machine, too. Another seed gives other random numbers, and without the mode all differs."""
import os, re, subprocess, sys

command, program = sys.argv[1:]
wrong = []


def run(*options, busy=False):
    noise = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 if busy else 0)]
    done = subprocess.run([command, "run", *options, "--", program], stdout=subprocess.PIPE, text=True, timeout=100)
    for n in noise:
        n.kill()
        n.wait()
    if done.returncode or len(values(done.stdout, "tsc")) != 50:
        wrong.append("%s: status %d" % (options, done.returncode))
    return done.stdout


def values(text, name):
    return [int(n) for n in re.findall(r"^%s (\d+)$" % name, text, re.M)]


def difference(a, b):
    return next(("%s, not %s" % (y, x) for x, y in zip(a.splitlines(), b.splitlines()) if x != y), "one ends early")


for cpu in ("ice-lake-sp", "milan"):
    first = run("--deterministic=7", "--cpu", cpu)
    for options in (["--tempo", "run"], ["--tempo", "step"], ["--tempo", "lockstep"]):
        again = run("--deterministic=7", "--cpu", cpu, *options, busy=True)
        if again != first:
            wrong.append("%s %s: %s" % (cpu, options, difference(first, again)))
    other = run("--deterministic=8", "--cpu", cpu)
    for name in ("rdrand", "rdseed"):
        if set(values(first, name)) & set(values(other, name)) or len(set(values(first, name))) < 50:
            wrong.append("%s: %s of two seeds" % (cpu, name))
    # One instruction is one nanosecond is one tick.
    ticks = values(first, "tsc")
    if not all(20000 < b - a < 25000 for a, b in zip(ticks, ticks[1:])):
        wrong.append("%s: ticks %s" % (cpu, ticks[:4]))
    if not all(w - d < 100 for w, d in zip(values(first, "woken"), values(first, "deadline"))):
        wrong.append("%s: late timers" % cpu)
    hv = values(first, "hv")
    if not all(abs((b - a) - (t - s) / 100) <= 1 for a, b, s, t in zip(hv, hv[1:], ticks, ticks[1:])):
        wrong.append("%s: Hyper-V's time %s" % (cpu, hv[:4]))
    if not re.search(r"^kvmclock .*[1-9a-f]", first, re.M) or not re.search(r"^xen .*[1-9a-f]", first, re.M) or not re.search(r"^hv-page 0[1-9]", first, re.M):
        wrong.append("%s: an empty page" % cpu)
    if run("--cpu", cpu) == run("--cpu", cpu):
        wrong.append("%s: the same without the mode" % cpu)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(1 if wrong else 0)
