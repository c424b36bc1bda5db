#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bad_guest.py --build DIR - what is wrong with a machine, its firmware, its kernel or its memory: QEMU's answer is that on KVM.

Expected answers are QEMU's own messages, and what KVM's api.rst says of KVM_RUN. Nothing may end by a signal.
"""
import argparse, contextlib, os, subprocess, sys, tempfile, time

import guest

# name, model or None, options, status, a part of what QEMU says
REFUSED = [
    ("unknown property", None, ["-cpu", "host,frobnicate=on"], 1, "Property 'host-x86_64-cpu.frobnicate' not found"),
    ("unknown processor", None, ["-cpu", "zx81"], 1, "unable to find CPU model 'zx81'"),
    ("bad value", None, ["-cpu", "host,avx=perhaps"], 1, "expects 'on' or 'off'"),
    ("too many CPUs", None, ["-smp", "2000"], 1, "Invalid SMP CPUs 2000"),
    ("too much memory", None, ["-m", "100000T"], 1, "cannot set up guest memory"),
    ("no such kernel", None, ["-kernel", "/no/such/kernel"], 1, "could not open kernel file"),
    ("no such firmware", None, ["-bios", "/no/such/firmware"], 1, "could not load PC BIOS"),
    ("no such disk", None, ["-drive", "file=/no/such/disk"], 1, "Could not open"),
    ("enforced and not lent", "nehalem-ep", ["-cpu", "Skylake-Server,enforce"], 1,
     "Host doesn't support requested features"),
]
WARNED = [
    ("no CPUs: one", None, ["-cpu", "host", "-smp", "0"], "CPU topology parameters must be greater than zero"),
    ("no memory: as much as the machine has by default", None, ["-cpu", "host", "-m", "0"], ""),
    ("asked for and not lent", "nehalem-ep", ["-cpu", "Skylake-Server"], "host doesn't support requested feature: CPUID.07H:EBX.avx512f"),
    ("the other vendor's", "milan", ["-cpu", "max,+vmx"], "host doesn't support requested feature: CPUID.01H:ECX.vmx"),
]
# Writes into its own image, which is read-only memory, sees that nothing changed, says so on port E9H and ends by ISA debug exit.
FIRMWARE = """
	.code16
start:	mov	%cs, %ax
	mov	%ax, %ds
	mov	$word, %bx
	movw	$0x1234, (%bx)
	lock incw (%bx)
	mov	$0x4000, %cx
	mov	$word, %di
	mov	%ax, %es
	rep stosb
	cmpw	$0xaa55, (%bx)
	mov	$'C', %al
	jne	1f
	mov	$'S', %al
1:	out	%al, $0xe9
	mov	$0x10, %al
	out	%al, $0xf4
	hlt
word:	.word	0xaa55
	.org	0xfff0
	ljmp	$0xf000, $start
	.org	0x10000
"""


def command(build, model, options):
    return [os.path.join(build, "anykvm"), "run"] + (["--cpu", model] if model else []) + [
        "--", "qemu-system-x86_64", "-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none"] + options


def run(build, model, options, limit=30):
    """Status and output; status None if it goes on to run."""
    try:
        done = subprocess.run(command(build, model, options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=limit)
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode("utf-8", "replace")


def refused(build, wrong):
    for name, model, options, want, part in REFUSED:
        status, out = run(build, model, options)
        if status != want or part not in out:
            wrong.append("%s: status %s, expected %s: %s" % (name, status, want, out[-400:]))
    for name, model, options, part in WARNED:
        machine = guest.Guest(build, options[2:], cpu=options[1], model=model)
        machine.ask("quit")
        try:
            machine.wait_exit(30)
            if part not in machine.text:
                wrong.append("%s: no %r: %s" % (name, part, machine.text[-400:]))
        finally:
            machine.close()


def assemble(scratch, source):
    part, bios = os.path.join(scratch, "part.o"), os.path.join(scratch, "bios")
    subprocess.run(["gcc", "-c", "-x", "assembler", "-", "-o", part], input=source, text=True, check=True)
    subprocess.run(["ld", "--oformat", "binary", "-Ttext", "0", "-e", "0", "-o", bios, part], check=True)
    return bios


def firmware(build, scratch, wrong):
    # microvm's firmware is in RAM, by QEMU's own choice.
    for machine, sees in (("pc", "S"), ("q35", "S"), ("microvm", "C")):
        out = os.path.join(scratch, "e9")
        options = ["-machine", machine, "-bios", assemble(scratch, FIRMWARE), "-chardev", "file,id=e9,path=" + out, "-device",
                   "isa-debugcon,iobase=0xe9,chardev=e9", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        status, said = run(build, None, options)
        text = open(out, encoding="latin-1").read() if os.path.exists(out) else ""
        if status != 0x21 or text != sees:
            wrong.append("firmware that writes itself, %s: status %d, %r: %s" % (machine, status, text, said[-400:]))


def no_kernel(build, scratch, wrong):
    """Text, random bytes, and a kernel's head with nothing behind it: the guest does what it does, QEMU lives, and obeys."""
    real = open(os.path.join(build, "guest", "vmlinuz"), "rb").read(32 << 10)
    for name, data in (("text", b"This is no kernel.\n" * 4000), ("random", os.urandom(65536)), ("half a kernel", real)):
        file = os.path.join(scratch, "kernel")
        with open(file, "wb") as out:
            out.write(data)
        done = subprocess.Popen(command(build, None, ["-kernel", file, "-m", "64M", "-no-reboot", "-monitor", "stdio"]), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(3)
        try:
            out = done.communicate(b"info status\nquit\n" if done.poll() is None else None, 60)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            done.kill()
            out = "it does not end"
        if done.returncode not in (0, 1) or "KVM internal error" in out and "emulation failure" not in out:
            wrong.append("no kernel, %s: status %d: %s" % (name, done.returncode, out[-600:]))


def linux(build):
    place = os.path.join(build, "guest")
    return ["-kernel", place + "/vmlinuz", "-initrd", place + "/initramfs.cpio", "-append", "console=ttyS0 reboot=t panic=-1 quiet shell", "-no-reboot"]


def wait_shell(machine):
    machine.wait("A shell in the guest", 200)
    machine.type("stty -echo; PS1=\n")
    machine.run("true")


def memory_vanishes(build, scratch, wrong):
    """KVM_RUN answers EFAULT. QEMU says so and stops the machine, or ends by its own SIGBUS when it reads the guest's code for its account."""
    memory = os.path.join(scratch, "ram")
    machine = guest.Guest(build, ["-object", "memory-backend-file,id=ram,size=256M,share=on,mem-path=" + memory] + linux(build),
                          machine="pc,memory-backend=ram", memory="256M")
    try:
        wait_shell(machine)
        os.truncate(memory, 0)
        with contextlib.suppress(BrokenPipeError):  # a timer may have been quicker
            machine.type("\n")
        machine.wait("kvm run failed Bad address", 60)
        machine.proc.terminate()
        if machine.proc.wait(60) not in (0, -7):
            wrong.append("memory that vanishes: status %d" % machine.proc.returncode)
    finally:
        machine.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    build, wrong = os.path.abspath(parser.parse_args().build), []
    subprocess.run(["sh", os.path.join(guest.HERE, "..", "..", "tools", "guest-image"), build], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        refused(build, wrong)
        for case in (firmware, no_kernel, memory_vanishes):
            try:
                case(build, scratch, wrong)
            except guest.Failure as failure:
                wrong.append("%s: %s" % (case.__name__, failure))
    for line in wrong:
        print("WRONG: " + line)
    print("bad_guest: %d wrong" % len(wrong))
    return 1 if wrong else 0


sys.exit(main())
