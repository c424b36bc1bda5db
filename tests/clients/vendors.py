#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""vendors.py --build DIR MODEL... - a guest, and a program under `anykvm run`, see the model's processor, and nothing of the host's.

In both run Debian's cpuid -r and lscpu. The guest's /proc/cpuinfo, CPUID and kernel messages name the model's vendor, family and
brand; the host's vendor (where it is another), brand and hypervisor are nowhere; lscpu agrees in both. anykvm's counters must have moved.
"""
import argparse, os, re, shutil, subprocess, sys, tempfile

from boot import TOP, boot, prove
from systems import package_file

AGREE = ["Vendor ID", "CPU family", "Model", "Model name", "Stepping", "Address sizes", "Byte Order", "Architecture"]

# Flags of a guest that no silicon needs to have: what KVM makes itself, and what Linux concludes from being a guest.
KVM_ADDS = set("hypervisor x2apic tsc_deadline_timer tsc_adjust arch_capabilities umip arat tsc_known_freq cpuid_fault vmmcall extd_apicid "
               "xtopology invpcid_single clzero ibpb ibrs stibp ssbd ibrs_enhanced".split())


def image(build, scratch, programs):
    """The guest's initramfs and the programs with their libraries behind it."""
    root = os.path.join(scratch, "root")
    files = []
    for program in programs:
        libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout)
        for source, name in [(program, "/bin/" + os.path.basename(program))] + [(l, l) for l in libraries]:
            os.makedirs(os.path.dirname(root + name), exist_ok=True)
            shutil.copy(source, root + name)
    for folder, _, names in os.walk(root):
        files += [os.path.relpath(os.path.join(folder, n), root) for n in [""] + names]
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input="\n".join(files).encode(), stdout=subprocess.PIPE, cwd=root,
                            check=True).stdout
    path = os.path.join(scratch, "initramfs")
    with open(os.path.join(build, "guest", "initramfs.cpio"), "rb") as base, open(path, "wb") as out:
        out.write(base.read() + packed)
    return path


def leaves(text):
    """cpuid -r: (leaf, subleaf) to eax, ebx, ecx, edx."""
    rows = re.findall(r"^ +0x(\w+) 0x(\w+): eax=0x(\w+) ebx=0x(\w+) ecx=0x(\w+) edx=0x(\w+)", text, re.M)
    return {(int(r[0], 16), int(r[1], 16)): [int(w, 16) for w in r[2:]] for r in rows}


def text_of(words):
    return b"".join(w.to_bytes(4, "little") for w in words).decode("latin-1").strip("\0 ")


def said(command, **kw):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, **kw).stdout


def lscpu(text):
    return {k: v.strip() for k, v in re.findall(r"^ *([A-Z][^:\n]*):(.*)$", text, re.M)}


def identity(rows):
    """Vendor, signature and brand by CPUID."""
    vendor = text_of([rows[0, 0][i] for i in (1, 3, 2)])
    return vendor, rows[1, 0][0], text_of(sum((rows[0x80000002 + i, 0] for i in range(3)), []))


def check(build, scratch, model, cpuid):
    command = [os.path.join(build, "anykvm"), "run", "--cpu", model, "--"]
    env = dict(os.environ, LC_ALL="C")
    host = identity(leaves(said([cpuid, "-r", "-1"])))
    program = identity(leaves(said(command + [cpuid, "-r", "-1"])))
    ours = lscpu(said(command + ["lscpu"], env=env))
    os.environ["ANYKVM_CPU"] = model
    status, out, counters = boot(build, "q35", "host", ["dmesg", "cpuid -r -1", "sh -c lscpu|cat", "cat /proc/cpuinfo"], 400,
                                 extra=["-initrd", image(build, scratch, [cpuid, "/usr/bin/lscpu"])], extra_append="loglevel=3")
    del os.environ["ANYKVM_CPU"]
    out = out.replace("\r", "")
    wrong = prove(status, out, counters)
    parts = dict(re.findall(r"^RUN (\w+)[^\n]*\n(.*?)^EXIT-STATUS", out, re.M | re.S))
    if set(parts) != {"dmesg", "cpuid", "sh", "cat"}:
        return wrong + ["not all ran: %s" % sorted(parts)]
    if (0, 0) not in leaves(parts["cpuid"]):
        return wrong + ["cpuid -r says: " + parts["cpuid"][:500]]
    seen = identity(leaves(parts["cpuid"]))
    if seen != program:
        wrong.append("CPUID: %s in the guest, %s in a program" % (seen, program))
    theirs = lscpu(parts["sh"])
    wrong += ["lscpu, %s: %r in the guest, %r in a program" % (k, theirs.get(k), ours.get(k)) for k in AGREE if theirs.get(k) != ours.get(k)]
    if theirs.get("Vendor ID") != seen[0] or "vendor_id\t: " + seen[0] not in parts["cat"] or "model name\t: " + seen[2] not in parts["cat"]:
        wrong.append("/proc/cpuinfo does not name %s: %s" % (seen, parts["cat"][:300]))
    if "CPU0: %s" % re.sub(" +", " ", seen[2]) not in re.sub(" +", " ", parts["dmesg"]):
        wrong.append("dmesg does not name %s" % seen[2])
    hosts = [host[2]] + ([host[0]] if host[0] != seen[0] else [])
    kernel_lists = re.sub(r"KERNEL supported cpus:.*?(?=x86/|BIOS|signal)", "", parts["dmesg"], flags=re.S)
    for what, text in list(parts.items()) + [("dmesg", kernel_lists)]:
        if what == "dmesg" and text == parts["dmesg"]:
            continue
        wrong += ["%s shows the host's %r" % (what, h) for h in hosts if h and h != seen[2] and h in text]
    extra = set(theirs.get("Flags", "").split()) - set(ours.get("Flags", "").split())
    if extra - KVM_ADDS:
        wrong.append("flags that the program lacks: %s" % " ".join(sorted(extra - KVM_ADDS)))
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    build, failed = os.path.abspath(args.build), 0
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    cpuid = package_file(build, "cpuid", "/usr/bin/cpuid")
    for model in args.models:
        with tempfile.TemporaryDirectory() as scratch:
            wrong = check(build, scratch, model, cpuid)
        for line in wrong:
            print("vendors: %s: WRONG: %s" % (model, line))
        print("vendors: %s: %d wrong" % (model, len(wrong)))
        failed += bool(wrong)
    return 1 if failed else 0


sys.exit(main())
