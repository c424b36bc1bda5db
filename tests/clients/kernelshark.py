#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kernelshark.py COMMAND WATCHED - KernelShark's own library opens what anykvm trace writes, and finds the events of a guest that are known:
their names, order, processors, thread and what the KVM plugin says of exits. Debian: libkshark2."""
import ctypes, os, re, shutil, subprocess, sys, tempfile
from collections import Counter

command, watched = map(os.path.abspath, sys.argv[1:])
ROUNDS = 50


class Entry(ctypes.Structure):
    """struct kshark_entry of kernelshark/libkshark.h."""
    _fields_ = [("next", ctypes.c_void_p), ("visible", ctypes.c_uint16), ("stream", ctypes.c_int16), ("event", ctypes.c_int16),
                ("cpu", ctypes.c_int16), ("pid", ctypes.c_int32), ("offset", ctypes.c_int64), ("ts", ctypes.c_int64)]


def library():
    try:
        lib = ctypes.CDLL("libkshark.so.2")
    except OSError:
        print("no libkshark2")
        sys.exit(77)
    lib.kshark_get_event_name.restype = lib.kshark_get_info.restype = ctypes.c_void_p
    lib.kshark_load_entries.restype = ctypes.c_ssize_t
    return lib


def text(lib, function, entry):
    at = function(entry)
    said = ctypes.string_at(at).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(at))
    return said


def entries(lib, path):
    """(entry, event's name, its text), as KernelShark's table shows them."""
    context = ctypes.c_void_p()
    rows = ctypes.POINTER(ctypes.POINTER(Entry))()
    if not lib.kshark_instance(ctypes.byref(context)):
        sys.exit("no kshark_context")
    stream = lib.kshark_open(context, path.encode())
    if stream < 0:
        sys.exit("KernelShark refuses %s: %d" % (path, stream))
    for i in range(lib.kshark_load_entries(context, stream, ctypes.byref(rows))):
        yield rows[i][0], text(lib, lib.kshark_get_event_name, rows[i]), text(lib, lib.kshark_get_info, rows[i])


def look(lib, path, names):
    rows = list(entries(lib, path))
    count = Counter(name for _, name, _ in rows)
    want = {"kvm/kvm_pio": 2 * ROUNDS, "kvm/kvm_cpuid": ROUNDS, "kvm/kvm_userspace_exit": 2 * ROUNDS + 1}
    wrong = ["%s: %d, expected %d" % (n, count[n], w) for n, w in want.items() if count[n] != w]
    reasons = Counter(re.search(r"reason (\S+)", info)[1] for _, name, info in rows if name == "kvm/kvm_exit")
    want = dict(zip(names, (2 * ROUNDS, ROUNDS, 1)))
    wrong += ["exits by %s: %d, expected %d" % (n, reasons[n], w) for n, w in want.items() if reasons[n] != w]
    times = [e.ts for e, _, _ in rows]
    if times != sorted(times) or not 0 < times[-1] - times[0] < 60e9:
        wrong.append("times")
    if {e.cpu for e, _, _ in rows} != {0} or len({e.pid for e, _, _ in rows}) != 1 or rows[0][0].pid <= 1:
        wrong.append("processors, threads")
    return wrong


def main():
    lib, wrong = library(), []
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "trace.dat")
    for model, names in (("ice-lake-sp", ("IO_INSTRUCTION", "CPUID", "HLT")), ("milan", ("io", "cpuid", "hlt"))):
        subprocess.run([command, "trace", "-o", path, watched, str(ROUNDS)], env=dict(os.environ, ANYKVM_CPU=model), check=True, timeout=60)
        wrong += ["%s: %s" % (model, w) for w in look(lib, path, names)]
    shutil.rmtree(folder)
    for line in wrong:
        print("WRONG: " + line)
    print("%d wrong" % len(wrong))
    return 1 if wrong else 0


sys.exit(main())
