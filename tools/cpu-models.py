#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""cpu-models.py FILE.tsv... - the raw dumps of src/silicon/models/raw as C: one model_spec each, named as its file."""
import os, re, sys

VENDORS = {"GenuineIntel": "VENDOR_INTEL", "AuthenticAMD": "VENDOR_AMD"}


def spec(path):
    name = os.path.splitext(os.path.basename(path))[0]
    lines = open(path, encoding="utf-8").read().split("\n")
    head = re.match(r'# (.*?) \| brand "(.*?)" \| (\w+) ', lines[0])
    rows = [line.split() for line in lines if line and line[0] not in "#m"]
    print("static const struct cpuid_row rows_%s[] = {" % name.replace("-", "_"))
    for row in rows:
        if any(int(v, 16) for v in row[2:]):
            print("\t{0x%s, 0x%s, {%s}}," % (row[0], row[1], ", ".join("0x" + v for v in row[2:])))
    print("};\n")
    print("static const struct model_msr msrs_%s[] = {" % name.replace("-", "_"))
    for line in lines:
        if line.startswith("msr"):
            print("\t{0x%s, 0x%s}," % tuple(line.split()[1:]))
    print("\t{0, 0},\n};\n")
    brand = re.sub(r"\(R\)|\(TM\)| CPU| @.*| \d+-Core.*| processor$", "", head[2], flags=re.I).strip()
    brand = brand.replace("INTEL XEON PLATINUM", "Intel Xeon Platinum")
    core = re.sub(r" \((?!same).*\)|Xeon \S+ |\(.*\)", "", head[1]).strip()
    return name, "%s (%s)" % (brand, core), VENDORS[head[3]]


print("/* SPDX-License-Identifier: MIT */\n/* Made by tools/cpu-models.py. */")
print('#include "silicon/models/model_internal.h"\n')
specs = [spec(path) for path in sorted(sys.argv[1:])]
print("const struct model_spec model_specs_raw[] = {")
for name, title, vendor in sorted(specs, key=lambda s: s[2], reverse=True):
    rows = "rows_" + name.replace("-", "_")
    msrs = "msrs_" + name.replace("-", "_")
    print('\t{"%s", "%s", %s, %s, ARRAY_SIZE(%s), %s},' % (name, title, vendor, rows, rows, msrs))
print("};\nconst unsigned model_nr_specs_raw = ARRAY_SIZE(model_specs_raw);")
