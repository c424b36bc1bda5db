# SPDX-License-Identifier: MIT
"""Runs inside gdb (gdb.py starts it): stops, steps and watches gdb_guest.S in each of its modes, through QEMU's gdbstub.

The expected places are the labels of the assembler's symbol table, the expected values the constants in the source.
"""
import re

import gdb

VALUE = 0x6000
wrong = []


def expect(what, got, want):
    if got != want:
        wrong.append("%s: %s, expected %s" % (what, got, want))


def number(expression):
    return int(gdb.parse_and_eval(expression)) & (1 << 64) - 1


def place():
    """The label where the guest stands."""
    text = gdb.execute("info symbol $rip", to_string=True).split(" in section")[0]
    return text.strip()


def run_to(what, spec, **kind):
    """Continue to a breakpoint (or watchpoint) that is there for this once."""
    point = gdb.Breakpoint(spec, internal=True, **kind)
    gdb.execute("continue", to_string=True)
    point.delete()
    return place()


def hardware_break(what, label):
    gdb.execute("thbreak *%s" % label, to_string=True)
    gdb.execute("continue", to_string=True)
    expect(what + ", hardware breakpoint", place(), label)


def watch(what, access):
    return run_to(what, "*(int *)%d" % VALUE, type=gdb.BP_WATCHPOINT, wp_class=access)


def walk(mode, count, selector, level):
    def label(name):
        return "%s_%s" % (mode, name)
    expect(mode + ", breakpoint", run_to(mode, "*" + label("break")), label("break"))
    if selector is not None:
        expect(mode + ", CS", number("$cs"), selector)
    for name, value in (("step1", count), ("step2", count + 2)):
        gdb.execute("stepi", to_string=True)
        expect(mode + ", step", place(), label(name))
        expect(mode + ", EAX behind a step", number("$rax") & 0xffffffff, value)
    gdb.execute("stepi", to_string=True)
    expect(mode + ", ECX behind XCHG", number("$rcx") & 0xffffffff, count + 2)
    hardware_break(mode, label("hard"))
    gdb.execute("set var *(int *)%d = 0" % VALUE)
    expect(mode + ", write watchpoint", watch(mode, gdb.WP_WRITE), label("stored"))
    expect(mode + ", what was written", number("*(int *)%d" % VALUE), count + 2)
    expect(mode + ", access watchpoint", watch(mode, gdb.WP_ACCESS), label("loaded"))
    expect(mode + ", what was read", number("$rdx") & 0xffffffff, count + 2)
    registers = monitor("info registers")
    expect(mode + ", the monitor's RIP", int(re.search(r"[ER]IP=([0-9a-f]+)", registers).group(1), 16), number("&" + label("loaded")))
    expect(mode + ", the monitor's CPL", re.search(r"CPL=(\d)", registers).group(1), level)
    expect(mode + ", the monitor's x", words("x /1wx %d" % VALUE), [count + 2])
    expect(mode + ", the monitor's xp", words("xp /1wx %d" % VALUE), [count + 2])
    # EAX set from here is what the guest goes on with.
    gdb.execute("set var $rax = 0x77")
    gdb.execute("stepi", to_string=True)
    expect(mode + ", EAX as set", number("$rax"), 0x77)


def monitor(command):
    return gdb.execute("monitor " + command, to_string=True).replace("\r", "")


def words(command):
    return [int(w, 16) for w in monitor(command).split(":", 1)[1].split()]


def tables():
    """The guest's one gigabyte, as the monitor tells it."""
    expect("info mem", [line.split() for line in monitor("info mem").splitlines()],
           [["0000000000000000-0000000040000000", "0000000040000000", "urw"]])
    entries = [line.split() for line in monitor("info tlb").splitlines()]
    expect("info tlb, entries", len(entries), 512)
    expect("info tlb, the last one", [e[:2] for e in entries[-1:]], [["000000003fe00000:", "000000003fe00000"]])
    expect("info tlb, flags", re.sub(r"[AD]", "-", entries[0][2]), "--P----UW")


def statistics():
    """What moved, of KVM's statistics; and a filter."""
    text = monitor("info stats vcpu")
    seen = dict(re.findall(r"^\s+(\w+)[^:]*: (\d+)", text, re.M))
    for name in ("exits", "signal_exits", "irq_injections", "instructions"):
        expect("info stats vcpu, has " + name, name in seen, True)
    expect("info stats vcpu, exits moved", int(seen.get("exits", 0)) > 40, True)
    expect("info stats vm, has remote_tlb_flush", "remote_tlb_flush" in monitor("info stats vm"), True)


def main():
    expect("paging in real mode", "PG disabled" in monitor("info mem"), True)
    hardware_break("before the copy that software breakpoints would not outlive", "real_begin")
    walk("real", 0x1001, 0, "0")
    walk("prot", 0x1002, 0x08, "0")
    walk("user", 0x1003, 0x23, "3")
    walk("long", 0x1004, 0x18, "0")
    tables()
    walk("ring3", 0x1005, 0x33, "3")
    walk("compat", 0x1006, 0x23, "3")
    # A counter that the guest adds to: a watchpoint with a condition, and a count of single steps through a loop.
    gdb.execute("set var *(int *)%d = 0" % (VALUE + 8))
    point = gdb.Breakpoint("*(int *)%d" % (VALUE + 8), type=gdb.BP_WATCHPOINT, wp_class=gdb.WP_WRITE, internal=True)
    point.condition = "*(int *)%d == 20" % (VALUE + 8)
    gdb.execute("continue", to_string=True)
    expect("a watchpoint's condition", number("*(int *)%d" % (VALUE + 8)), 20)
    point.delete()
    gdb.execute("stepi 2000", to_string=True)
    expect("1000 rounds by 2000 steps", number("*(int *)%d" % (VALUE + 8)), 1020)
    statistics()


try:
    main()
except gdb.error as error:
    wrong.append("gdb: %s" % error)
for line in wrong:
    print("WRONG: " + line)
print("gdb: %d wrong" % len(wrong))
try:
    gdb.execute("kill")
except gdb.error:
    pass  # QEMU may be gone before its answer.
gdb.execute("quit %d" % bool(wrong))
