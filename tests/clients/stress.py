#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""stress.py --build DIR [--smp N] [--seconds S] [--limit L] - stress-ng --verify in a guest with several vCPUs.

Debian's stress-ng runs its stressors of processors, memory, scheduling, processes, timers and signals side by side and checks what they
compute. Passes if it says so, the guest's kernel complains of nothing, and the guest was anykvm's work.
"""
import argparse, os, re, subprocess, sys

import boot

HERE = os.path.dirname(os.path.abspath(__file__))
STRESSORS = ("--cpu 2 --vm 1 --vm-bytes 48M --switch 1 --futex 1 --fork 1 --mmap 1 --mmap-bytes 32M --timer 1 --signal 1 --sigq 1"
             " --atomic 1 --membarrier 1 --tlb-shootdown 1").split()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--smp", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--limit", type=int, default=0)
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(HERE, "..", "..", "tools", "guest-image"), build], check=True)
    subprocess.run(["sh", os.path.join(HERE, "stress_image.sh"), build], check=True)
    command = ["stress-ng", "--verify", "--temp-path", "/tmp", "--timeout", "%ds" % args.seconds] + STRESSORS
    status, out, counters = boot.boot(build, "q35", "host", [" ".join(command), "dmesg"], args.limit or args.seconds * 4 + 300,
                                      memory="768M", extra=["-smp", str(args.smp)], image="initramfs-stress.cpio")
    print(out)
    wrong = boot.prove(status, out, counters) + boot.complaints(out)
    if not re.search(r"successful run completed", out):
        wrong.append("stress-ng does not say that all went well")
    print("stress: %d vCPUs: %s" % (args.smp, "; ".join(wrong) or "ok, %(instructions)d instructions" % counters))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
