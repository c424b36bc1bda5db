# SPDX-License-Identifier: MIT
"""A small Linux guest with a shell, virtio's modules loaded: guest.Guest over the kernel and initramfs of tools/guest-image."""
import os, subprocess, sys, tempfile

import guest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def image(build, scratch):
    """The initramfs with the modules in a second archive behind it, as Linux takes them."""
    place, out = os.path.join(build, "guest"), os.path.join(scratch, "initramfs")
    with open(os.path.join(place, "modules", "list"), encoding="utf-8") as names:
        modules = names.read().split()
    listed = "".join("modules/%s\n" % name for name in ["list"] + modules)
    more = subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=("modules\n" + listed).encode(), cwd=place,
                          stdout=subprocess.PIPE, check=True).stdout
    with open(os.path.join(place, "initramfs.cpio"), "rb") as first, open(out, "wb") as both:
        data = first.read()
        both.write(data + b"\0" * (-len(data) % 4) + more)
    return out


def start(build, options, machine="q35", cpu="max", memory="512M", append=""):
    """Boot it to a shell; the caller closes it."""
    build = os.path.abspath(build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    with tempfile.TemporaryDirectory(prefix="anykvm-busybox-") as scratch:
        ret = guest.Guest(build, ["-no-reboot", "-kernel", os.path.join(build, "guest", "vmlinuz"), "-initrd", image(build, scratch),
                                  "-append", "console=ttyS0 panic=-1 reboot=t quiet shell " + append] + options,
                          machine=machine, cpu=cpu, memory=memory)
        try:
            ret.wait(r"A shell in the guest", 120)
            ret.wait(r"# ", 30)
            ret.type("stty -echo; PS1=\n")
            ret.run("for m in $(cat /modules/list); do insmod /modules/$m || exit 1; done", 60)
        except guest.Failure:
            ret.close()
            raise
    return ret


def finish(machine, complaints=r"WARNING:|BUG:|Oops|Call Trace|lockup|I/O error"):
    """End the guest well; its kernel must have had nothing to say. Returns the counters."""
    said = machine.run("dmesg | grep -E '%s' || true" % complaints)
    machine.type("exit\n")
    machine.wait_exit(60)
    counters = machine.close()
    if said.strip():
        raise guest.Failure("the kernel complains: " + said)
    if counters.get("instructions", 0) < 100_000_000:
        raise guest.Failure("anykvm's counters did not move: %s" % counters)
    return counters


def main(test, *args):
    """Exit status of a test: 0, or 1 with what went wrong."""
    try:
        test(*args)
    except guest.Failure as failure:
        print("FAILED: %s" % failure)
        sys.exit(1)
