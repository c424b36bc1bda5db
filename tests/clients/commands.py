#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""commands.py COMMAND SOURCE BUILD - no page tells a command that no test runs.

Fenced blocks of commands are run by pages.py: here, that every page with such a block is on its list, and that no block hides commands under
another kind. Commands elsewhere on a page, indented or within a line, have a script that runs them, or are a verb with the options that
they name. What the README claims has a test's name beside it (CLAIMS), and both are there."""
import glob, json, os, re, subprocess, sys

command, top, build = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
wrong = []
# Indented commands, and who runs them.
RUN_BY = {"./setup run": "tests/clients/bare.sh", "./setup check": ".ci/run", "./setup build": "tests/clients/bare.sh", "make format": None}
# Words of the README, and tests that show them.
CLAIMS = {
    "A program that opens `/dev/kvm`": ["run_memory_run", "boot_pc_host"], "without root": ["bare_debian", "package"],
    "the host's own instructions, bit for bit": ["insn", "kit_microvm_max_run"],
    "works on a bare Debian 12": ["bare_debian"], "puts it below `/usr/local`": ["install"], "makes a Debian package": ["package"],
    "is a GitHub action": ["action"], "needs neither `--privileged` nor `--device`": ["container"],
    "run by a test as it stands": ["page_README", "page_tutorial-ci", "page_tutorial-kvm-patch", "page_tutorial-debug"],
    "the same run again, SMP included": ["deterministic"], "say whether anykvm works here and reaches a program": ["page_README", "front_command"],
    "`--diff A B` compares two": ["front_command"], "in `kvm_stat`'s columns": ["stat"], "`trace.dat` for trace-cmd": ["trace"],
    "and KernelShark": ["kernelshark"], "registers by instruction": ["trace"], "folded stacks": ["trace"], "TAP, JUnit, a page": ["matrix"],
    "GitHub Actions, Slurm, make": ["matrix"], "`params` and `events` the rest": ["front_pages"],
    "125, 126 and 127 are anykvm's own": ["front_command", "bad_input"], "statically linked or setuid": ["front_command"],
    "bash and zsh complete them": ["front_pages"], "boots on the `pc`, `q35` and `microvm` machines": ["boot_pc_host", "boot_q35_max", "boot_microvm_qemu64"],
    "to a shell": ["shell_pc_host"], "compute what": ["kit_microvm_max_step"], "flat 32-bit code is translated": ["run_flat32"],
}


def read(*path):
    with open(os.path.join(top, *path), encoding="utf-8") as f:
        return f.read()


def blocks(text):
    """(kind, body) of fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def check_blocks(page, text, listed):
    for kind, body in blocks(text):
        if kind == "console" and page not in listed:
            wrong.append("%s: commands that pages.py does not run" % page)
        if kind != "console" and re.search(r"^(\$ |anykvm |\./setup |make )", body, re.M):
            wrong.append("%s: a block of kind '%s' has commands" % (page, kind))
        if kind not in ("console", "yaml", ""):
            wrong.append("%s: a block of kind '%s'" % (page, kind))
        if kind == "yaml":
            inputs = re.findall(r"^  (\w+):\n    description", read("action.yml"), re.M)
            wrong.extend("%s: the action has no input %s" % (page, n) for n in re.findall(r"^    (\w+):", body, re.M) if n not in inputs)


def check_indented(page, text):
    for line in re.findall(r"^    ((?:\./setup|make|anykvm|sh|python3) .*?)(?: *#.*)?$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M):
        if line not in RUN_BY:
            wrong.append("%s: nobody runs: %s" % (page, line))
        elif RUN_BY[line] and line.split()[1] not in read(RUN_BY[line]):
            wrong.append("%s: %s does not run: %s" % (page, RUN_BY[line], line))


def check_verb(page, said):
    words = said.split()
    verbs = re.findall(r"^VERB\((\w+),", read("tables", "verbs.def"), re.M)
    if len(words) < 2 or words[1].startswith("-"):
        return
    if words[1] not in verbs:
        wrong.append("%s: no verb: %s" % (page, said))
        return
    usage = subprocess.run([command, words[1], "--help"], stdout=subprocess.PIPE, text=True, check=False).stdout
    ours = words[2:words.index("--")] if "--" in words else words[2:]
    for option in (re.match(r"--?[a-z-]+", w) for w in ours if w.startswith("-")):
        if option and option[0] not in usage and option[0] != "--help":
            wrong.append("%s: no option %s: %s" % (page, option[0], said))


def check_inline(page, text):
    for said in re.findall(r"`([^`\n]+)`", text):
        first, *more = said.split()
        if first == "anykvm":
            check_verb(page, said)
        if first == "make" and more and not re.search(r"^%s:" % re.escape(more[0]), read("Makefile"), re.M):
            wrong.append("%s: no target: %s" % (page, said))
        if first == "./setup" and more and not re.search(r"^[\w |-]*\b%s\b[\w |-]*\)" % re.escape(more[0]), read("setup"), re.M):
            wrong.append("%s: no verb of setup: %s" % (page, said))
        if re.fullmatch(r"(?!tools/testing)(tests|tools|tables|bench|debian|completions)/[a-z0-9_./-]+", said) and not os.path.exists(os.path.join(top, said.rstrip("/"))):
            wrong.append("%s: no file: %s" % (page, said))


def check_claims():
    page = read("README.md").replace("\n", " ")
    with open(os.path.join(build, "meson-info", "intro-tests.json"), encoding="utf-8") as f:
        known = " ".join(t["name"] for t in json.load(f))
    for words, names in CLAIMS.items():
        if words not in page:
            wrong.append("README no longer says: %s" % words)
        for name in names:
            if name not in known:
                wrong.append("no test %s, for: %s" % (name, words))


def main():
    listed = [p + ".md" for p in re.findall(r"'((?:README|docs/tutorial)[\w/-]*)'", read("tests", "clients", "meson.build"))]
    pages = ["README.md", "CONTRIBUTING.md"] + sorted(os.path.relpath(p, top) for p in glob.glob(os.path.join(top, "docs", "*.md")))
    for page in pages:
        text = read(page)
        check_blocks(page, text, listed)
        check_indented(page, text)
        check_inline(page, text)
    check_claims()
    for line in wrong:
        print("WRONG: " + line)
    print("%d pages, %d run by pages.py, %d wrong" % (len(pages), len(listed), len(wrong)))
    return 1 if wrong else 0


sys.exit(main())
