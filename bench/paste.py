#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""paste.py RESULTS [PAGE] - the results of `make bench` (build/bench/results.tsv) as a Markdown table, printed, or put into the page between its
marks `<!-- bench -->` and `<!-- /bench -->`. Also takes what bench printed on the terminal."""
import re, sys

HEAD = "| | native, s | QEMU's TCG, s | anykvm, s | times as fast as TCG | times native |\n|---|---|---|---|---|---|\n"
BETWEEN = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.S)


def short(value):
    try:
        return "%.3g" % float(value)
    except ValueError:
        return "–"


def rows(path):
    """The rows below the head line, by name; those of scaling, which are no times, and of watching, which compares with itself, are left out."""
    found = None
    for line in open(path, encoding="utf-8"):
        cells = line.split()
        if cells[:2] == ["name", "native_s"]:
            found = []
        elif found is not None and len(cells) >= 8 and not cells[0].startswith(("bench:", "scale_", "off_", "stat_", "trace_", "dirty_log")):
            found.append(cells)
    if not found:
        sys.exit("paste: no results in %s" % path)
    return found


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    table = HEAD + "".join("| %s | %s |\n" % (c[0], " | ".join(map(short, c[1:6]))) for c in rows(sys.argv[1]))
    if len(sys.argv) == 2:
        print(table, end="")
        return
    page = open(sys.argv[2], encoding="utf-8").read()
    if not BETWEEN.search(page):
        sys.exit("paste: %s has no <!-- bench --> and <!-- /bench -->" % sys.argv[2])
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        out.write(BETWEEN.sub(lambda _: table, page))


main()
