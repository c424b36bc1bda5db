# SPDX-License-Identifier: MIT
"""What was measured: medians, the table on the terminal, results.tsv, and the plot results.svg."""
import csv, os, statistics
from xml.sax.saxutils import escape

HEAD = ["name", "native_s", "tcg_s", "anykvm_s", "times_as_fast_as_tcg", "times_native", "limit", "met"]


def targets(path):
    """{name: (limit, of what)}"""
    with open(path, encoding="utf-8") as lines:
        rows = csv.reader((l for l in lines if not l.startswith("#")), delimiter="\t")
        return {name: (float(limit), of) for name, limit, of in rows}


class Table:
    def __init__(self, limits):
        self.limits, self.seconds, self.scales, self.sums, self.wrong = limits, {}, {}, {}, []

    def add(self, name, engine, seconds):
        self.seconds.setdefault(name, {}).setdefault(engine, []).append(seconds)

    def add_scale(self, name, engine, factor):
        self.scales.setdefault(name, {}).setdefault(engine, []).append(factor)

    def check_sum(self, name, engine, count, total):
        first = self.sums.setdefault((name, count), (engine, total))
        if first[1] != total:
            self.wrong.append("%s: checksum %s on %s, %s on %s" % (name, total, engine, first[1], first[0]))

    def median(self, name, engine):
        values = self.seconds.get(name, self.scales.get(name, {})).get(engine)
        return statistics.median(values) if values else None

    def ratio(self, name, engine, of):
        """Of medians; what is measured in pairs has the median of the pairs' ratios, for each pair has its own state of the machine."""
        if of == "off":
            pairs = list(zip(self.seconds.get(name, {}).get(engine, []), self.seconds.get(name, {}).get(of, [])))
            return statistics.median(a / b for a, b in pairs) if pairs else None
        value, base = self.median(name, engine), self.median(name, of)
        return value / base if value and base else None

    def judged(self, name):
        """(limit as shown, "yes", "no" or "-")"""
        if name not in self.limits:
            return "-", "-"
        limit, of = self.limits[name]
        value = self.median(name, "anykvm") if of in ("s", "scale") else self.ratio(name, "anykvm", of)
        shown = {"native": "%g", "tcg": "%g tcg", "s": "%g s", "scale": ">%g", "off": "%g off"}[of] % limit
        if value is None:
            return shown, "-"
        return shown, "yes" if (value >= limit if of == "scale" else value <= limit) else "no"

    def row(self, name):
        show = lambda v: "-" if v is None else "%.4g" % v
        tcg = self.ratio(name, "anykvm", "tcg") if name in self.seconds else None
        native = self.ratio(name, "anykvm", "native") if name in self.seconds else None
        return [name] + [show(self.median(name, e)) for e in ("native", "tcg", "anykvm")] + \
            [show(1 / tcg if tcg else None), show(native)] + list(self.judged(name))

    def write(self, directory):
        os.makedirs(directory, exist_ok=True)
        rows = [HEAD] + [self.row(n) for n in list(self.seconds) + list(self.scales)]
        with open(os.path.join(directory, "results.tsv"), "w", encoding="utf-8") as out:
            out.writelines("\t".join(r) + "\n" for r in rows)
        for r in rows:
            print("%-22s %10s %10s %10s %20s %12s %10s %4s" % tuple(r))
        for name in self.seconds:
            if self.ratio(name, "anykvm", "off"):
                print("bench: %s: %.3f times what it is without" % (name, self.ratio(name, "anykvm", "off")))
        with open(os.path.join(directory, "results.svg"), "w", encoding="utf-8") as out:
            out.write(self.plot())
        self.say_met()

    def say_met(self):
        met = [self.judged(n)[1] for n in list(self.seconds) + list(self.scales)]
        print("bench: %d of %d limits met" % (met.count("yes"), met.count("yes") + met.count("no")))

    def plot(self):
        """Times native of anykvm and TCG, logarithmic, with a mark at the limit."""
        names = [n for n in self.seconds if self.ratio(n, "anykvm", "native")]
        left, width, step, top = 170, 700, 20, 46
        height = top + step * len(names) + 30
        at = lambda value: left + width * min(max(_log10(value), 0), 3) / 3
        out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">'
               % (left + width + 60, height), '<rect width="100%" height="100%" fill="white"/>',
               '<text x="%d" y="18" font-size="14">Time against native (1 = native, logarithmic)</text>' % left]
        out += ['<text x="%d" y="36" fill="%s">%s</text>' % (left + x, colour, text) for x, colour, text in
                ((0, "#1b6ca8", "anykvm"), (70, "#b8b8b8", "QEMU TCG"), (160, "#c0392b", "| limit"))]
        for value in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
            out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#eee"/><text x="%.1f" y="%d" fill="#666">%d</text>'
                       % (at(value), at(value), top, height - 24, at(value) - 6, height - 8, value))
        for i, name in enumerate(names):
            y = top + i * step
            out.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 8, y + 13, escape(name)))
            for engine, colour, dy in (("anykvm", "#1b6ca8", 2), ("tcg", "#b8b8b8", 10)):
                value = self.ratio(name, engine, "native")
                if value:
                    out.append('<rect x="%d" y="%d" width="%.1f" height="7" fill="%s"><title>%s %s: %.2f</title></rect>'
                               % (left, y + dy, max(at(value) - left, 1), colour, escape(name), engine, value))
            if self.limits.get(name, (0, ""))[1] == "native":
                x = at(self.limits[name][0])
                out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#c0392b" stroke-width="2"/>' % (x, x, y, y + 19))
        return "\n".join(out + ["</svg>", ""])


def _log10(value):
    import math
    return math.log10(value)
