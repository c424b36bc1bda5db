#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""sizes.py [--strict] - how long functions and files are, against the project's marks.

Marks: functions median <= 12 lines, 90th percentile <= 45, over 100 lines < 1.5 %; files at most 1,500 lines.
A function is what stands between a line that is just "{" and the next line that is just "}" (kernel layout).
"""
import os, sys


def main():
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    sizes, files = [], []
    for base in ("src", "tools"):
        for folder, _, names in os.walk(os.path.join(top, base)):
            for name in names:
                if name.endswith((".c", ".h")):
                    measure(os.path.join(folder, name), top, sizes, files)
    if not sizes:
        return 0
    sizes.sort()
    lines = [s[0] for s in sizes]
    over = [s for s in sizes if s[0] > 100]
    median, p90 = lines[len(lines) // 2], lines[len(lines) * 9 // 10]
    share = 100.0 * len(over) / len(sizes)
    print("sizes: %d functions: median %d lines (mark 12), 90th percentile %d (45), over 100 lines %.1f %% (1.5)"
          % (len(sizes), median, p90, share))
    for size, where in over:
        print("sizes: %d lines: %s" % (size, where))
    big = [f for f in sorted(files) if f[0] > 1500]
    for size, where in big:
        print("sizes: %d lines in file %s (mark 1,500)" % (size, where))
    bad = median > 12 or p90 > 45 or share >= 1.5 or big
    return 1 if bad and "--strict" in sys.argv else 0


def measure(path, top, sizes, files):
    start = None
    shown = os.path.relpath(path, top)
    lines = open(path, encoding="utf-8").read().split("\n")
    files.append((len(lines), shown))
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            sizes.append((number - start + 1, "%s:%d" % (shown, start)))
            start = None


sys.exit(main())
