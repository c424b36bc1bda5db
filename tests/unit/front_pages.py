#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""front_pages.py COMMAND SOURCE - each verb has a page that names all its options, and both completions know it.

Also: scdoc and man accept the pages, anykvm(7) names the models that there are, and bash completes."""
import os, re, shutil, subprocess, sys

command, top = sys.argv[1:]
wrong = []


def read(*path):
    with open(os.path.join(top, *path), encoding="utf-8") as f:
        return f.read()


def out(*args):
    return subprocess.run(args, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL).stdout


verbs = re.findall(r"^VERB\((\w+),", read("tables", "verbs.def"), re.M)
bash, zsh = read("completions", "anykvm"), read("completions", "_anykvm")
for verb in verbs:
    name = "anykvm-%s.1.scd" % verb
    if not os.path.exists(os.path.join(top, "docs", "man", name)):
        wrong.append("no page %s" % name)
        continue
    page = read("docs", "man", name)
    if "*anykvm-%s*(1)" % verb not in read("docs", "man", "anykvm.1.scd"):
        wrong.append("anykvm.1 does not name %s" % verb)
    usage = out(command, verb, "--help")
    own = re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", usage, re.M)
    own += re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(re.findall(r"^(?:usage:| +)anykvm .*", usage, re.M)))
    for option in set(own):
        if "*%s*" % option not in page and "*anykvm %s %s*" % (verb, option) not in page:
            wrong.append("%s does not name %s" % (name, option))
        if option not in bash:
            wrong.append("bash completion does not know %s of %s" % (option, verb))
        if option not in zsh:
            wrong.append("zsh completion does not know %s of %s" % (option, verb))
    if verb not in bash or verb not in zsh:
        wrong.append("no completion of %s" % verb)

models = read("docs", "man", "anykvm.7.scd")
for line in out(command, "cpus").splitlines():
    if "*%s*" % line.split()[0] not in models:
        wrong.append("anykvm.7 does not name the model %s" % line.split()[0])

# The lists of help are the tables', each row once, and the words that help takes are in the completions.
for word, table, row in (("ioctls", "ioctls.def", r"^\w+ +(\w+) "), ("caps", "caps.def", r"^\d+ +(\w+) "), ("params", "params.def", r"^(\w+\.\w+)="),
                         ("events", "events.def", r"^kvm:(\w+) ")):
    said = re.findall(row, out(command, "help", word), re.M)
    have = {"ioctls": r"^(?:NO_)?IOCTL\(\w+, *(\w+),", "caps": r"^(?:NO_)?CAP\((\w+),", "params": r"^PARAM\((\w+), (\w+),", "events": r"^EVENT\((\w+),"}[word]
    have = [".".join(n) if isinstance(n, tuple) else n for n in re.findall(have, read("tables", table) + read("tables", "refused.def"), re.M)]
    have = ["KVM_CAP_" + n if word == "caps" else n for n in have]
    if sorted(set(said)) != sorted(set(have)) or len(said) < 10:
        wrong.append("help %s and %s differ: %s" % (word, table, sorted(set(said) ^ set(have))[:10]))
    if not re.search(r"(\b|\\n)%s\b" % word, bash) or not re.search(r"\b%s\b" % word, zsh):
        wrong.append("no completion of help %s" % word)
    if "*%s*" % word not in read("docs", "man", "anykvm-help.1.scd"):
        wrong.append("anykvm-help.1 does not name %s" % word)

if shutil.which("scdoc"):
    for name in sorted(os.listdir(os.path.join(top, "docs", "man"))):
        if name.endswith(".scd"):
            done = subprocess.run(["scdoc"], input=read("docs", "man", name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode or done.stderr:
                wrong.append("%s: scdoc says: %s" % (name, done.stderr.strip()))
            # scdoc begins paragraphs where none is needed; nothing else is to be said.
            for checker in (["mandoc", "-Tlint", "-Wwarning"], ["groff", "-man", "-ww", "-Tutf8", "-z"]):
                if shutil.which(checker[0]):
                    said = subprocess.run(checker, input=done.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
                    said = [l for l in said.splitlines() if "skipping paragraph macro" not in l]
                    if said:
                        wrong.append("%s: %s says: %s" % (name, checker[0], said[0]))

FRAMEWORK = "/usr/share/bash-completion/bash_completion"
COMPLETE = """compopt() { :; }; . %s; . %s/completions/anykvm
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_anykvm; printf '%%s\\n' "${COMPREPLY[@]}" """
if os.path.exists(FRAMEWORK):
    for words, wanted in ((["d"], "doctor"), (["run", "--c"], "--cpu"), (["run", "--cpu", "mil"], "milan"), (["cpus", "--diff", "gen"], "genoa"),
                          (["run", "--param", "kvm.ignore"], "kvm.ignore_msrs="), (["help", "i"], "ioctls"), (["run", "--", "tru"], "true")):
        got = out("bash", "-c", COMPLETE % (FRAMEWORK, top), "bash", command, *words).split()
        if wanted not in got:
            wrong.append("bash: anykvm %s <tab> gives %s, not %s" % (" ".join(words), got, wanted))
if shutil.which("zsh") and subprocess.run(["zsh", "-n", os.path.join(top, "completions", "_anykvm")]).returncode:
    wrong.append("zsh: _anykvm does not parse")
for line in wrong:
    print("WRONG: " + line)
print("%d verbs, %d wrong" % (len(verbs), len(wrong)))
sys.exit(1 if wrong else 0)
