#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py - hold the tree to docs/architecture.md: who may include whom, and no circles.

Reads the #include lines of src/. Prints one line per breach; exit status 1 if there is any.
Rules: a room may use itself and the rooms named for it below.
"""
import os, re, sys

SILICON = ["models", "cpu", "mmu", "sys", "exec"]  # each may use those before it
ALLOWED = {
    "host": [],
    "kvm/vm": ["host", "silicon"],
    "kvm/pv": ["host", "silicon", "kvm/vm"],
    "kvm/vcpu": ["host", "silicon", "kvm/vm", "kvm/pv"],
    "kvm/api": ["host", "silicon", "kvm/vm", "kvm/pv", "kvm/vcpu"],
    "front": ["host", "kvm/api"],
}
for n, room in enumerate(SILICON):
    ALLOWED["silicon/" + room] = ["host"] + ["silicon/" + r for r in SILICON[:n]]
for room in ("silicon/vmx", "silicon/svm"):
    ALLOWED[room] = ["host", "silicon/models", "silicon/cpu", "silicon/mmu", "silicon/sys"]
ALLOWED["silicon/chips"] = ["host", "silicon/cpu"]
# Room headers that lower rooms may see: the vCPU's and VM's structs are one contract of kvm/.
EXCEPTIONS = {("kvm/vm", "kvm/vcpu/vcpu.h"), ("kvm/pv", "kvm/vcpu/vcpu.h")}
# Who watches and who is watched share a layout.
EXCEPTIONS |= {("front", "kvm/vcpu/watch.h")}
# A launcher checks model names before it starts a program.
EXCEPTIONS |= {("front", "silicon/models/model.h"), ("front", "silicon/models/features.h")}


def room_of(path):
    parts = path.split("/")
    if parts[0] in ("host", "front"):
        return parts[0]
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def allowed(user, used):
    return any(used == a or used.startswith(a + "/") for a in ALLOWED.get(user, []) + [user])


def main():
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src")
    bad, includes = [], {}
    for folder, _, names in os.walk(top):
        for name in sorted(names):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.relpath(os.path.join(folder, name), top)
            user = room_of(path)
            text = open(os.path.join(folder, name), encoding="utf-8").read()
            for used in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
                if "/" not in used:
                    continue
                includes.setdefault(path, []).append(used)
                if not os.path.exists(os.path.join(top, used)):
                    bad.append("%s: includes %s, which does not exist" % (path, used))
                elif not allowed(user, room_of(used)) and (user, used) not in EXCEPTIONS:
                    bad.append("%s: room %s may not use %s" % (path, user, used))
            code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
            if user.startswith("silicon") and re.search(r"\bKVM_[A-Z]|linux/kvm", code):
                bad.append("%s: silicon/ names KVM's API" % path)
    bad += ["circle of headers: " + " -> ".join(c) for c in circles(includes)]
    for line in bad:
        print(line)
    print("layers: %d files, %d breaches" % (len(includes), len(bad)))
    return 1 if bad else 0


def circles(includes):
    found, state = [], {}

    def visit(path, trail):
        state[path] = 1
        for used in includes.get(path, []):
            if state.get(used) == 1:
                found.append(trail[trail.index(used):] + [used] if used in trail else [path, used])
            elif used not in state:
                visit(used, trail + [used])
        state[path] = 2

    for path in includes:
        if path not in state:
            visit(path, [path])
    return found


sys.exit(main())
