#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check.py --build DIR [--long] [--only PART,...] - all that `make check` runs, with a budget per part.

The host's own /dev/kvm, where it exists, is masked by a private mount first, so that whatever answers in a
test is anykvm. Each part prints one line; a part that fails prints the end of its output. Then come the tests that took
longest. The last line is `N passed, N failed, N skipped`. Exit status 1 if anything failed.
"""
import argparse, json, os, shutil, subprocess, sys, time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TALLY = {"passed": 0, "failed": 0, "skipped": 0}
TIMES = []
TESTS = []  # seconds and name of each that meson ran
SLOWEST = 10


def count(ok, n=1):
    TALLY["passed" if ok else "failed"] += n


def run(command, limit, **kw):
    try:
        done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=limit, stdin=subprocess.DEVNULL, **kw)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
        return 124, (out.decode("utf-8", "replace") if isinstance(out, bytes) else out) + "\n[time limit reached]"


def command_part(command, limit):
    def part(args):
        code, out = run([a.replace("@BUILD@", args.build) for a in command], limit)
        count(code == 0)
        return code == 0, out
    return part


def build_part(folder, compiler, options):
    def part(args):
        env = dict(os.environ, CC=compiler)
        where = os.path.join(args.build, folder)
        if not os.path.exists(os.path.join(TOP, where, "build.ninja")):
            code, out = run(["meson", "setup", where, "-Dwerror=true"] + options, 120, env=env)
            if code:
                count(False)
                return False, out
        code, out = run(["ninja", "-C", where], 900, env=env)
        count(code == 0)
        return code == 0, out
    return part


def meson_part(folder, suites, limit, env=None):
    def part(args):
        where = os.path.normpath(os.path.join(TOP, args.build, folder))
        command = ["meson", "test", "-C", where, "--no-rebuild", "--print-errorlogs", "-q"]
        for suite in suites:
            command += ["--suite", suite]
        log = os.path.join(where, "meson-logs", "testlog.json")
        if os.path.exists(log):
            os.unlink(log)
        code, out = run(command, limit, env=dict(os.environ, **(env or {})))
        seen = tally(folder, log)
        if code and not seen["failed"]:
            count(False)
        return code == 0, out
    return part


def tally(folder, log):
    seen = {"passed": 0, "failed": 0, "skipped": 0}
    if os.path.exists(log):
        for line in open(log, encoding="utf-8"):
            test = json.loads(line)
            key = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(test["result"], "failed")
            TESTS.append((test["duration"], os.path.normpath(os.path.join(folder, test["name"].split(" / ")[-1]))))
            seen[key] += 1
    for key, n in seen.items():
        TALLY[key] += n
    return seen


QEMU = ["qemu-system-x86_64", "-accel", "kvm", "-machine", "none", "-nodefaults", "-no-user-config", "-display",
        "none", "-monitor", "stdio"]


def masked_part(args):
    """QEMU finds no KVM here but anykvm: it must fail alone, and start on anykvm."""
    if os.path.exists("/dev/kvm") and not os.environ.get("ANYKVM_MASKED"):
        TALLY["skipped"] += 1
        return True, ""
    alone, out = run(["sh", "-c", "echo quit | \"$@\"", "sh"] + QEMU, 60)
    ours, more = run(["sh", "-c", "echo quit | \"$@\"", "sh", os.path.join(args.build, "anykvm"), "run", "--"] + QEMU, 60)
    ok = alone != 0 and ours == 0
    count(ok)
    return ok, "alone: status %d, expected a failure\n%son anykvm: status %d, expected 0\n%s" % (alone, out, ours, more)


def format_part(args):
    code, files = run(["git", "ls-files", "*.c", "*.h"], 30)
    files = [f for f in files.split() if not f.startswith("bench/kit/")]
    code, out = run(["clang-format", "--dry-run", "-Werror"] + files, 120)
    count(code == 0)
    return code == 0, out


SANITIZE = ["-Db_sanitize=address,undefined", "-Doptimization=1"]
ASAN = {"ASAN_OPTIONS": "detect_leaks=1:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:"
        "use_sigaltstack=0:allow_user_segv_handler=1:detect_stack_use_after_return=0:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}

# name, budget in seconds, function
PARTS = [
    ("layers", 5, command_part(["python3", "tools/layers.py"], 30)),
    ("sizes", 5, command_part(["python3", "tools/sizes.py", "--strict"], 30)),
    ("format", 30, format_part),
    ("vecfree", 20, command_part(["python3", "tools/vecfree.py", "@BUILD@"], 120)),
    ("masked", 10, masked_part),
    ("unit", 60, meson_part(".", ["unit"], 300)),
    ("insn", 150, meson_part(".", ["insn"], 600)),
    ("guest", 60, meson_part(".", ["guest"], 300)),
    ("api", 60, meson_part(".", ["api"], 300)),
    ("fuzz", 30, meson_part(".", ["fuzz"], 300)),
    ("compat", 40, meson_part(".", ["compat"], 600)),
    ("regress", 30, meson_part(".", ["regress"], 300)),
    ("selftests", 300, command_part(["python3", "tests/selftests/run.py", "--fast", "--build", "@BUILD@"], 900)),
    ("clients", 240, meson_part(".", ["clients"], 900)),
    ("clang", 120, build_part("clang", "clang", [])),
    ("clang-tests", 120, meson_part("clang", ["unit", "guest", "programs"], 300)),
    ("sanitize", 240, build_part("sanitize", "gcc", SANITIZE)),
    ("sanitize-tests", 150, meson_part("sanitize", ["unit", "guest", "api", "fuzz", "regress", "programs"], 900, ASAN)),
]
# Races in kvm/ and silicon/chips/; tests/tsan/meson.build says how.
THREADS = ["-Db_sanitize=thread", "-Db_lundef=false"]
SELFTESTS = ["python3", "tests/selftests/run.py", "--build", "@BUILD@"]
LONG = [
    ("threads", 240, build_part("threads", "gcc", THREADS)),
    ("threads-tests", 480, meson_part("threads", ["tsan"], 1800)),
    ("selftests-long", 1500, command_part(SELFTESTS, 5400)),
    ("selftests-user", 1500, command_part(SELFTESTS + ["--as", "user"], 5400)),
    ("selftests-container", 1500, command_part(SELFTESTS + ["--as", "container"], 5400)),
    ("selftests-storm", 1500, command_part(SELFTESTS + ["--storm"], 5400)),
    ("tempos", 600, meson_part(".", ["tempos"], 3600)),
    ("fuzz-long", 1800, meson_part(".", ["fuzz-long"], 3600)),
    ("sanitize-long", 1200, meson_part("sanitize", ["fuzz-many"], 3600, ASAN)),
    ("insn-long", 2400, meson_part(".", ["insn-long"], 7200)),
    ("clients-long", 1200, meson_part(".", ["clients-long"], 3600)),
    ("stress-long", 4800, meson_part(".", ["stress-long"], 9000)),
]


def mask_dev_kvm():
    """Run again in a mount namespace where /dev/kvm is a null device, unless that is so already."""
    if not os.path.exists("/dev/kvm") or os.environ.get("ANYKVM_MASKED"):
        return
    inner = "mount --bind /dev/null /dev/kvm && exec \"$@\""
    wrap = ["unshare", "-m", "sh", "-c", inner, "sh"]
    if os.getuid():
        # A namespace of the user's own for the mount, another to be the same user in it again.
        wrap[1:2] = ["-rm"]
        wrap += ["unshare", "--map-user=%d" % os.getuid(), "--map-group=%d" % os.getgid()]
    if shutil.which("unshare") and subprocess.run(wrap + ["true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ["ANYKVM_MASKED"] = "1"
        os.execvp("unshare", wrap + [sys.executable] + sys.argv)
    print("check: cannot mask the host's /dev/kvm here (no mount namespaces); the counters alone prove anykvm")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only")
    args = parser.parse_args()
    mask_dev_kvm()
    parts = PARTS + (LONG if args.long else [])
    wanted = args.only.split(",") if args.only else [p[0] for p in parts]
    for name, budget, part in parts:
        if name not in wanted:
            continue
        print("check: %-15s ..." % name, end="" if sys.stdout.isatty() else "\n", flush=True)
        began = time.monotonic()
        ok, out = part(args)
        took = time.monotonic() - began
        TIMES.append((name, took, budget))
        print("%scheck: %-15s %-4s %6.1f s (budget %d%s)" % ("\r" if sys.stdout.isatty() else "", name,
              "ok" if ok else "FAIL", took, budget, ": over" if took > budget else ""), flush=True)
        if not ok:
            print("\n".join(out.strip().split("\n")[-60:]), flush=True)
    for took, name in sorted(TESTS, reverse=True)[:SLOWEST]:
        print("check: %6.1f s %s" % (took, name))
    print("check: %.0f s in all, budget %d" % (sum(t[1] for t in TIMES), sum(t[2] for t in TIMES)))
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % TALLY)
    return 1 if TALLY["failed"] else 0


sys.exit(main())
