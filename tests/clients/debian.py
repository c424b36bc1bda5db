#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""debian.py --build DIR [--firmware seabios|ovmf] - a Debian disk made by Debian's tools boots through firmware, GRUB and virtio.

To a login on the serial line; there it gets a lease, installs a package from a repository on a disk, runs gcc, reboots, and powers
off when the ACPI button is pressed. anykvm's counters must have moved.
"""
import argparse, os, sys, tempfile, time

import guest
from systems import pflash


def options(build, place, firmware, scratch):
    ret = guest.disk(os.path.join(place, "debian.disk"), "virtio-blk-pci,bootindex=0")
    ret += guest.disk(os.path.join(place, "repository.ext4"), "virtio-blk-pci")
    ret += guest.disk(guest.scripts_disk(scratch), "virtio-blk-pci")
    ret += ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci"]
    if firmware == "ovmf":
        ret += pflash(build, scratch, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
    return ret


def session(machine, say):
    machine.wait(r"GNU GRUB", 400)
    say("GRUB's menu")
    machine.login(800)
    say("login")
    machine.run("mount -o ro LABEL=scripts /mnt && sh /mnt/work.sh", 900)
    say("lease, package, gcc")
    machine.type("reboot\n")
    machine.wait_event("RESET", 600)
    machine.login(800)
    machine.run("hello && /root/sum && /root/sum32")
    machine.run("systemctl is-system-running --wait || :", 900)  # The button has its driver.
    say("again after its reboot")
    machine.ask("system_powerdown")
    machine.wait_event("POWERDOWN")
    machine.wait_event("SHUTDOWN", 600)
    machine.wait_exit(60)
    say("powered off by ACPI")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--firmware", choices=["seabios", "ovmf"], default="seabios")
    parser.add_argument("--model")
    args = parser.parse_args()
    build, began = os.path.abspath(args.build), time.monotonic()
    place = guest.debian(build)

    def say(what):
        print("debian: %s %6.1f s: %s" % (args.firmware, time.monotonic() - began, what), flush=True)
    say("disk made")
    with tempfile.TemporaryDirectory() as scratch:
        ovmf = args.firmware == "ovmf"
        machine = guest.Guest(build, options(build, place, args.firmware, scratch), machine="q35" if ovmf else "pc",
                              cpu="host,host-phys-bits-limit=40" if ovmf else "host", model=args.model)
        return guest.judged("debian: " + args.firmware, machine, lambda: session(machine, say))


sys.exit(main())
