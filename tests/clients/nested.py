#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nested.py --build DIR [KIND] [--model MODEL] [--kernel VERSION] [--vcpus N] [--kvm OPTION,...] [--avic] - hypervisors in a guest on anykvm.

The guest (L1) is Debian's kernel with its own kvm_intel or kvm_amd. KIND:
linux      Debian's QEMU boots the same kernel as its guest (L2).
l3         L2 does the same once more. L2's machine is a pc, whose interrupt controllers are KVM's, unless --machine says otherwise:
           6.1's own kvm_amd gives a nested guest vector 0 where QEMU has them, and asks for interrupt windows.
xen        L1 is Xen, with Debian's kernel as its dom0, which starts an HVM guest.
selftests  L1 runs Linux's KVM selftests but those that measure; each must pass or skip, but for KNOWN.
Passes if the innermost kernel says BOOT-OK and has all its processors, all QEMUs end well, L1's kernel warns of nothing, and anykvm's counters say that it
was its work. --kvm: options of L1's module, such as ept=0. --avic: L1's kvm_amd has AVIC, and L2 an APIC in memory.
"""
import argparse, os, re, subprocess, sys, tempfile

import inside
from boot import MACHINES, TOP
from systems import xen_image

SELFTESTS = os.path.join(TOP, "tests", "selftests")
# They measure, or want more memory and time than L1 has.
MEASURE = re.compile(r"perf|stress|hardware_disable|max_guest_memory|kvm_page_table|demand_paging|rseq|steal_time|arch_timer")
# They hold guests to the wall clock: not on a busy machine.
KNOWN = ("apic_bus_clock_test", "vmx_preemption_timer_test", "vmx_nested_tsc_scaling_test")


def programs(args, build):
    where = os.environ.get("ANYKVM_SELFTESTS", os.path.join(build, "selftests"))
    subprocess.run([os.path.join(SELFTESTS, "build.sh"), where], check=True, stdout=subprocess.DEVNULL)
    folder = open(os.path.join(where, "where"), encoding="utf-8").read().strip()
    found = {}
    for place in (folder, os.path.join(folder, "x86_64")):
        for name in os.listdir(place):
            path = os.path.join(place, name)
            if os.path.isfile(path) and os.access(path, os.X_OK) and "." not in name and not MEASURE.search(name):
                found[name] = path
    return {n: p for n, p in found.items() if n in args.only.split(",")} if args.only else found


def image(args, kernel, build, out):
    guest = os.path.join(build, "guest", "initramfs.cpio")
    if args.kind == "selftests":
        inside.selftests(kernel, programs(args, build), out)
    elif args.kind == "xen":
        inside.xen(kernel, guest, build, out)
    elif args.kind == "l3":
        with tempfile.NamedTemporaryFile(prefix="anykvm-l2-", suffix=".cpio") as inner:
            inside.linux(kernel, guest, inner.name)
            inside.linux(kernel, inner.name, out)
    else:
        inside.linux(kernel, guest, out)


PACKAGES = {(kind, "6.12"): ("linux-image-6.12-cloud-amd64", "linux-image-6.12.") for kind in ("linux", "l3", "selftests")}
# The cloud kernel cannot be Xen's dom0.
PACKAGES["xen", "6.1"] = ("linux-image-amd64", "linux-image-6.")
# L1's memory, and words of its command line.
KINDS = {"linux": ("1G", ""), "l3": ("2G", "l1.mem=800M l1.next=indirect_target_selection=off,l1.vcpus=1,l1.kvm=,l1.next="), "selftests": ("2G", "l1.limit=480"),
         "xen": ("1500M", "console=hvc0 l1.limit=600 ")}


def boots(args, build, kernel, initramfs, scratch):
    """QEMU's options for what L1 is."""
    memory, words = KINDS[args.kind]
    words += args.next + " l1.machine=" + MACHINES.get(args.machine, args.machine) if args.kind == "l3" else ""
    # Without ACPI a microvm's Linux finds one processor. KVM does without AVIC beside a PIT and a PIC.
    if args.avic:
        words += " l1.cpu=host,-x2apic l1.machine=microvm,acpi=on,rtc=on,pit=off,pic=off"
    elif args.kind == "linux" and args.vcpus > 1:
        words += " l1.machine=microvm,acpi=on,rtc=on,pit=on,pic=on"
    words += " l1.next=run=nproc" if args.kind == "linux" else ""
    # Where 6.12 makes thunks against ITS (QEMU 7.2 does not pass on that they are not needed), its own code warns of W^X.
    kvm = ",".join(filter(None, [args.kvm, "avic=1" if args.avic else ""]))
    append = "console=ttyS0 panic=-1 reboot=t quiet indirect_target_selection=off l1.vcpus=%d l1.kvm=%s %s" % (args.vcpus, kvm, words)
    if args.kind == "xen":
        return ["-m", memory, "-kernel", xen_image(build, scratch), "-initrd", "%s %s,%s" % (kernel.vmlinuz, append, initramfs),
                "-append", "console=com1 com1=115200,8n1 dom0_mem=800M"]
    return ["-m", memory, "-kernel", kernel.vmlinuz, "-initrd", initramfs, "-append", append]


def run(args, build, options):
    stats = tempfile.NamedTemporaryFile(prefix="anykvm-stats-")
    command = [os.path.join(build, "anykvm"), "run", "--cpu", args.model] + (["--param", "anykvm.nested_avic=1"] if args.avic else []) + ["--", "qemu-system-x86_64", "-accel", "kvm",
               "-machine", "q35", "-cpu", "host", "-smp", str(args.vcpus), "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-serial", "stdio"] + options
    # A file, so that what there was is seen if it takes too long.
    with tempfile.NamedTemporaryFile(prefix="anykvm-console-") as console:
        try:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, timeout=args.limit,
                                    env=dict(os.environ, ANYKVM_STATS_FILE=stats.name)).returncode
        except subprocess.TimeoutExpired:
            status = 124
        with open(console.name, "rb") as text:
            out = text.read()
    moved = re.search(r"^instructions [1-9]\d{8}", open(stats.name, encoding="utf-8").read(), re.M)
    return status, out.decode("utf-8", "replace").replace("\r", ""), moved


# Of Xen, beside what its guest says: what it is, that dom0 knows, that the guest is started, and runs or waits (xl's list of domains).
XEN = [r"L1 xen nested: xen 4\.17", "DOM0 PV control_d", "XL-STATUS 0", r"XL-LISTS l2 +\d+ +1[56]\d +1 +[r-][b-]----"]


def judge_linux(args, out):
    levels = {"linux": 1, "l3": 2, "xen": 0}[args.kind]
    wrong = ["no '%s'" % want for want in ("BOOT-OK", "ALL-DONE") if not re.search("^" + want, out, re.M)]
    if args.avic and not re.search(r"^L1 .*AVIC enabled", out, re.M):
        wrong.append("no AVIC in L1")
    if args.kind == "linux" and not re.search(r"^RUN nproc\n%d\n" % args.vcpus, out, re.M):
        wrong.append("not %d processors in L2" % args.vcpus)
    well = len(re.findall(r"^L2-STATUS 0", out, re.M))
    if args.kind == "xen":
        wrong += ["no '%s'" % want for want in XEN if not re.search("^" + want, out, re.M)]
    return wrong + (["%d of %d QEMUs ended well" % (well, levels)] if well != levels else [])


def judge_selftests(args, out):
    seen = {name: word for word, name in re.findall(r"^SELFTEST (\w+) (\S+)", out, re.M)}
    tally = {word: list(seen.values()).count(word) for word in ("PASS", "SKIP", "FAIL")}
    print("nested: selftests in L1 on %s: %d pass, %d skip, %d fail" % (args.model, tally["PASS"], tally["SKIP"], tally["FAIL"]))
    left = set(programs(args, os.path.abspath(args.build))) - set(seen)
    return ["%s fails" % n for n, w in sorted(seen.items()) if w == "FAIL" and n not in KNOWN] + (
        ["not run: " + " ".join(sorted(left))] if left else [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", nargs="?", default="linux", choices=sorted(KINDS))
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", default="ice-lake-sp")
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--kvm", default="")
    parser.add_argument("--avic", action="store_true")
    parser.add_argument("--next", default="", help="l3: words of the innermost command line, with commas")
    parser.add_argument("--machine", default="pc", help="l3: what the hypervisor in between runs on")
    parser.add_argument("--only", help="of the selftests these")
    parser.add_argument("--limit", type=int, default=1500)
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), args.build], check=True)
    kernel = inside.Kernel(build, *PACKAGES.get((args.kind, args.kernel), ()))
    with tempfile.TemporaryDirectory(prefix="anykvm-l1-") as scratch:
        initramfs = os.path.join(scratch, "cpio")
        image(args, kernel, build, initramfs)
        status, out, moved = run(args, build, boots(args, build, kernel, initramfs, scratch))
    print(out)
    wrong = [] if status == 0 else ["exit status %d" % status]
    wrong += (judge_selftests if args.kind == "selftests" else judge_linux)(args, out)
    wrong += [bad for bad in ("NO-MODULE", "L1-WARNS") if bad in out]
    wrong += [] if moved else ["anykvm's counters did not move"]
    print("nested: %s in %s on %s, %d vCPUs, %s: %s" % (args.kind, args.kernel, args.model, args.vcpus, args.kvm or "defaults",
                                                        "; ".join(wrong) or "ok"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
