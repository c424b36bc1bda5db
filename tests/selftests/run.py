#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py [--build DIR] [--fast] [--only NAME,...] [--models NAME,...] [--known FILE] [--update] [--as user|container] [--storm]

Linux's KVM selftests on anykvm, as an Intel and as an AMD processor. Prints one table and writes it to
DIR/selftests.tsv. known.tsv names what does not pass yet, with the reason: a test that passes and stands there,
or does not pass and does not, fails the run. A pass counts only if anykvm's counters moved, and is partial
where a part of the test was skipped. The tests are built into DIR/selftests on the first call
(ANYKVM_SELFTESTS names a folder where that has been done).

--as user: without any privilege. --as container: in a user and mount namespace of its own, whose /dev has no devices but the
usual null, zero and the like. --storm: threads inside KVM_RUN get a signal each millisecond (storm.c). --fast: FAST.
"""
import argparse, concurrent.futures, os, re, signal, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = ["ice-lake-sp", "milan"]
# Tests of what only other models have.
MODELS_OF = {"amx_test": ["sapphire-rapids-ws"]}
LIMIT = 240
# Fast, and of every kind: at most five minutes in all, on two busy cores.
FAST = """amx_test coalesced_io_test guest_memfd_test guest_print_test kvm_binary_stats_test set_memory_region_test
    steal_time system_counter_offset_test apic_bus_clock_test cpuid_test cr4_cpuid_sync_test debug_regs
    exit_on_emulation_failure_test fix_hypercall_test get_msr_index_features hwcr_msr_test hyperv_clock
    hyperv_cpuid hyperv_evmcs hyperv_extended_hypercalls hyperv_features hyperv_svm_test kvm_clock_test kvm_pv_test max_vcpuid_cap_test
    monitor_mwait_test nested_exceptions_test platform_info_test pre_fault_memory_test private_mem_kvm_exits_test
    set_boot_cpu_id set_sregs_test smaller_maxphyaddr_emulation_test smm_test state_test svm_int_ctl_test svm_nested_shutdown_test
    svm_nested_soft_inject_test svm_vmcall_test sync_regs_test
    tsc_msrs_test tsc_scaling_sync ucna_injection_test userspace_io_test userspace_msr_exit_test
    xapic_state_test xcr0_cpuid_test xen_vmcall_test xss_msr_test nested_exceptions_test triple_fault_event_test
    vmx_apic_access_test vmx_close_while_nested_test vmx_dirty_log_test vmx_exception_with_invalid_guest_state vmx_invalid_nested_guest_state vmx_msrs_test
    vmx_set_nested_state_test vmx_tsc_adjust_test""".split()
# KVM has the capability that it wants only without two-dimensional paging; guests that KVM refuses it emulates only so.
PARAMS = {"smaller_maxphyaddr_emulation_test": ["kvm_intel.ept=0", "kvm_amd.npt=0"],
          "vmx_exception_with_invalid_guest_state": ["kvm_intel.unrestricted_guest=0"]}
# Busy threads by the dozen, or writes that must not stand still for 10 ms: alone, after all others.
ALONE = ["hardware_disable_test", "dirty_log_test"]
# Their VMs are all killed, and leave no counters; the session of --stat outlives them.
KILLED = ["hardware_disable_test"]
CONTAINER = """d=$(mktemp -d) && mount -t tmpfs none $d && mkdir $d/shm && mount -t tmpfs none $d/shm &&
    for f in null zero full random urandom; do : >$d/$f && mount --bind /dev/$f $d/$f || exit 99; done &&
    mount --move $d /dev && ! [ -e /dev/kvm ] && exec "$@" """
NOBODY = 65534
PLACES = {
    None: [],
    "user": ["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
             "--no-new-privs"],
    "container": ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", CONTAINER, "sh"],
}
# In the dynamic linker's order the storm stands before anykvm: it sees ioctl() first.
STORM = 'LD_PRELOAD="%s $LD_PRELOAD" exec "$@"'
INNER_SKIP = re.compile(r"^ok .*# SKIP.*|^.*skipping.*|^# SKIP.*", re.I | re.M)


def programs(folder):
    found = {}
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f in ("x86_64",)]
        for name in files:
            path = os.path.join(where, name)
            if os.access(path, os.X_OK) and "." not in name:
                found[name] = path
    return found


def known_read(path):
    known = {}
    for line in open(path, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            test, model, result, reason = line.rstrip("\n").split("\t")
            known[test, model] = (result.split("|"), reason)
    return known


def moved(stats):
    """True if the counters that the run left behind are not all zero."""
    return os.path.exists(stats) and any(line.split()[-1] != "0" for line in open(stats, encoding="utf-8") if line.strip())


def watched(report):
    """True if run --stat saw exits."""
    return os.path.exists(report) and re.search(r"^Total Samples:[1-9]", open(report, encoding="utf-8").read(), re.M)


def last_line(out):
    lines = [line.strip() for line in out.split("\n") if line.strip() and not line.startswith("# Totals")]
    for line in lines:
        if "# SKIP" in line or " - " not in line and "ssert" in line:
            at = lines.index(line)
            return " ".join(lines[at:at + 1] + [l for l in lines[at + 1:] if l and not re.match(r"\d+\s+0x|pid=", l)][:1])
    return lines[-1] if lines else ""


class Runner:
    def __init__(self, args, where):
        self.build = os.path.abspath(args.build)
        self.programs = programs(where)
        self.limit = args.limit
        # An ordinary user is one already.
        self.place = PLACES[args.place] if args.place != "user" or not os.getuid() else []
        self.storm = ["sh", "-c", STORM % os.path.join(self.build, "tests/selftests/storm.so"), "sh"] if args.storm else []

    def one(self, test, model):
        with tempfile.TemporaryDirectory(prefix="anykvm-stats-") as folder:
            os.chmod(folder, 0o777)
            return self.one_in(os.path.join(folder, "stats"), test, model)

    def one_in(self, stats, test, model):
        """stats: a file to be, in a folder where all may write."""
        command = self.place + [os.path.join(self.build, "anykvm"), "run", "--cpu", model]
        for param in PARAMS.get(test, []):
            command += ["--param", param]
        if test in KILLED:
            command.append("--stat=" + stats)
        began = time.monotonic()
        child = subprocess.Popen(command + ["--"] + self.storm + [self.programs[test]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, cwd=os.path.dirname(self.programs[test]), text=True,
                                 errors="replace", start_new_session=True,
                                 env=dict(os.environ, ANYKVM_STATS_FILE="/dev/null" if test in KILLED else stats))
        try:
            out, _ = child.communicate(timeout=self.limit)
            code = child.returncode
        except subprocess.TimeoutExpired:
            # The whole session: tests fork.
            os.killpg(child.pid, signal.SIGKILL)
            out, _ = child.communicate()
            code = None
        return self.judge(code, out, stats, watched if test in KILLED else moved) + (time.monotonic() - began,)

    def judge(self, code, out, stats, proved):
        if code is None:
            return "timeout", last_line(out)
        if code == 4:
            return "skip", last_line(out)
        if code:
            return "fail", "status %d: %s" % (code, last_line(out))
        if not proved(stats):
            return "fail", "anykvm's counters did not move"
        inner = INNER_SKIP.search(out)
        return ("partial", inner.group(0).strip()) if inner else ("pass", "")


def verdict(known, test, model, result):
    listed = known.get((test, model)) or known.get((test, "*"))
    if result == "pass":
        return "passes, but stands in known.tsv" if listed and "pass" not in listed[0] else ""
    if not listed:
        return "new"
    return "" if result in listed[0] else "known as %s" % "|".join(listed[0])


def update(path, known, rows):
    """The rows of the tests that ran, with the reasons given before; those of others stay."""
    head = [line for line in open(path, encoding="utf-8") if line.startswith("#")]
    ran = {row[:2] for row in rows} | {(row[0], "*") for row in rows}
    new = {key: ("|".join(val[0]), val[1]) for key, val in known.items() if key not in ran}
    for test, model, result, _, line in rows:
        if result != "pass":
            new[test, model] = (result, (known.get((test, model)) or known.get((test, "*")) or ("", line[:100].split("Requirement not met: ")[-1]))[1])
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(head + ["%s\t%s\t%s\t%s\n" % (key + val) for key, val in sorted(new.items())])


def parse():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--known", default=os.path.join(HERE, "known.tsv"))
    parser.add_argument("--update", action="store_true", help="rewrite known.tsv, keeping reasons")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--as", dest="place", choices=["user", "container"])
    parser.add_argument("--storm", action="store_true")
    parser.add_argument("--limit", type=int, default=LIMIT)
    return parser.parse_args()


def build(args):
    where = os.environ.get("ANYKVM_SELFTESTS", os.path.join(args.build, "selftests"))
    done = subprocess.run([os.path.join(HERE, "build.sh"), where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return open(os.path.join(where, "where"), encoding="utf-8").read().strip()


def main():
    args = parse()
    runner = Runner(args, build(args))
    names = args.only.split(",") if args.only else FAST if args.fast else sorted(runner.programs)
    known = known_read(args.known)
    rows, wrong = [], []
    models = args.models.split(",")
    todo = [(test, model) for model in models for test in names if test not in MODELS_OF]
    todo += [(test, model) for test in names for model in MODELS_OF.get(test, [])]
    for jobs, part in ((args.jobs, [t for t in todo if t[0] not in ALONE]), (1, [t for t in todo if t[0] in ALONE])):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            runs = {pool.submit(runner.one, test, model): (test, model) for test, model in part}
            for run in concurrent.futures.as_completed(runs):
                test, model = runs[run]
                result, line, took = run.result()
                why = verdict(known, test, model, result)
                rows.append((test, model, result, "%.1f" % took, line))
                wrong += [(test, model, result, why)] if why else []
                print("%-40s %-12s %-8s %6.1f  %s" % (test, model, result, took, line[:110]), flush=True)
    rows.sort(key=lambda row: (row[1], row[0]))
    name = "selftests%s%s.tsv" % ("." + args.place if args.place else "", ".storm" if args.storm else "")
    with open(os.path.join(args.build, name), "w", encoding="utf-8") as out:
        out.writelines("\t".join(row[:4]) + "\n" for row in rows)
    for model in models + sorted({row[1] for row in rows} - set(models)):
        tally = {}
        for row in rows:
            if row[1] == model:
                tally[row[2]] = tally.get(row[2], 0) + 1
        print("%s: %s" % (model, ", ".join("%d %s" % (tally[k], k) for k in ("pass", "partial", "skip", "fail", "timeout")
                                           if k in tally)))
    if args.update:
        update(args.known, known, rows)
    for row in wrong:
        print("unexpected: %s on %s: %s (%s)" % row)
    return 1 if wrong else 0


sys.exit(main())
