#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""vecfree.py BUILD - code that runs while guest vector state is live calls nothing that may touch it.

Looks at the undefined symbols of the objects built with -mgeneral-regs-only: each must be defined by another
such object, by host/ code named below, or be one of the few names that are no calls. Also looks for vector
instructions in them, which inline assembly could have brought in.
"""
import glob, os, re, subprocess, sys

# host/ functions built for this purpose, and linker-made names. Anything else is a call that may clobber.
# Calls that are made only with vector state saved (after fpu_save()) stand in SAVED, with the place.
ALLOWED = {"_GLOBAL_OFFSET_TABLE_", "memcpy", "memset", "memmove", "memcmp"}
SAVED = {line.split()[0].rstrip(":") for line in open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vecfree.allow"))
         if line.strip() and not line.startswith("#")}
VECTOR = re.compile(r"%[xyz]mm\d|%mm\d|%st\b")
# The functions whose purpose is to move that state.
MOVERS = {"__fpu_load", "__fpu_save", "fpu_reset"}


def main():
    lib = glob.glob(os.path.join(sys.argv[1], "src", "libsilicon_general.a.p", "*.o"))
    defined, wanted = set(), {}
    for obj in lib:
        for line in subprocess.run(["nm", obj], capture_output=True, text=True, check=True).stdout.splitlines():
            kind, name = line.split()[-2:]
            if kind == "U":
                wanted.setdefault(name, []).append(os.path.basename(obj))
            elif kind.isupper():
                defined.add(name)
    bad = ["%s: calls %s" % (", ".join(objs), name) for name, objs in sorted(wanted.items())
           if name not in defined | ALLOWED | SAVED]
    bad += vector_code(lib)
    for line in bad:
        print("vecfree: " + line)
    print("vecfree: %d objects, %d breaches" % (len(lib), len(bad)))
    return 1 if bad or not lib else 0


def vector_code(lib):
    bad = []
    for obj in lib:
        where = ""
        for line in subprocess.run(["objdump", "-d", "--no-show-raw-insn", obj], capture_output=True, text=True,
                                   check=True).stdout.splitlines():
            if line.endswith(">:"):
                where = line.split("<")[1][:-2]
            elif VECTOR.search(line) and where.split(".")[0] not in MOVERS:
                bad.append("%s: %s: %s" % (os.path.basename(obj), where, line.strip()))
    return bad


sys.exit(main())
