#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tiles.py BUILD PROGRAM - a guest that computes with AMX's tiles (tiles.c), moved to another QEMU in between.

QEMU asks for the permission by itself. The processor is a model that has tiles, on whatever host; where it cannot lend them, a skip.
"""
import os, subprocess, sys, tempfile, time

from guest import Failure, Guest

MODEL = "sapphire-rapids-ws"


def options(build, image, more):
    return ["-no-reboot", "-kernel", os.path.join(build, "guest", "vmlinuz"), "-initrd", image, "-append",
            "console=ttyS0 panic=-1 reboot=t quiet"] + more


def wait_status(guest, command, wanted):
    end = time.monotonic() + 60
    while guest.ask(command).get("status") != wanted:
        if time.monotonic() > end:
            raise Failure("%s never says %s" % (command, wanted))
        time.sleep(0.1)


def migrate_to(guest, state):
    guest.ask("stop")
    guest.ask("migrate", uri="exec:cat >" + state)
    wait_status(guest, "query-migrate", "completed")


def session(build, image, state):
    guests = [Guest(build, options(build, image, []), "q35", model=MODEL, memory="256M")]
    try:
        for flag in ("amx_bf16", "amx_tile", "amx_int8"):
            guests[0].wait("FLAG " + flag, 200)
        guests[0].wait("ROUND 500", 200)
        migrate_to(guests[0], state)
        guests += [Guest(build, options(build, image, ["-incoming", "exec:cat " + state]), "q35", model=MODEL, memory="256M")]
        wait_status(guests[1], "query-status", "paused")
        guests[1].ask("cont")
        guests[1].wait(r"WRONG 0, child 0, signals [1-9]", 200)
        guests[1].wait_exit(60)
    finally:
        counters = [guest.close() for guest in guests]
    if not all(c.get("instructions", 0) > 1_000_000 for c in counters):
        raise Failure("anykvm's counters did not move")


def main():
    build, program = sys.argv[1:]
    host = open("/proc/cpuinfo", encoding="utf-8").read().split()
    if "avx2" not in host or "fma" not in host:
        return 77
    with tempfile.TemporaryDirectory(prefix="anykvm-tiles-") as scratch:
        os.symlink(os.path.abspath(program), os.path.join(scratch, "init"))
        image = os.path.join(scratch, "image.cpio")
        with open(image, "wb") as out:
            subprocess.run(["cpio", "-o", "-L", "-H", "newc", "--quiet"], input=b"init\n", stdout=out, cwd=scratch, check=True)
        try:
            session(build, image, os.path.join(scratch, "state"))
        except Failure as failure:
            print("tiles: %s" % failure)
            return 1
    print("tiles: ok")
    return 0


sys.exit(main())
