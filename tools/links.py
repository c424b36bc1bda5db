#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""links.py - hold the texts to the tree: what they name is there.

Checked are, of every tracked Markdown file, relative links and their anchors; of it and of every source file's comments, the
names of files and functions; of every room's README, that it names the room's .c files. A name without a folder may be
any file's of the tree; one with a folder is looked for beside the text, at the top, in src/, src/silicon/ and tests/.
Prints one line per breach; exit status 1 if there is any, 77 outside of a git checkout.
"""
import fnmatch, os, re, subprocess, sys

TOP = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
SUFFIX = r"\.(?:c|h|py|sh|md|def|tsv|svg)"
NAME = re.compile(r"(?<![\w./*<$-])((?:[A-Za-z0-9_.-]+/)*[A-Za-z0-9_-]+" + SUFFIX + r")(?![\w/*(-]|\.\w)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|(?:^|\s)#(?!\s*(?:include|define|if|el|en|un|er|pr|line))[^\n]*|"""[\s\S]*?"""', re.S)
CODE = (".c", ".h", ".S", ".def")
FUNCTION = re.compile(r"\b([a-z_][a-z0-9_]+)\(\)")
# Linux's.
LINUX = {"fpu_enable_guest_xfd_features", "fpu_xstate_prctl", "svm_set_nested_state", "trace_printk", "vmx_set_nested_state", "yield_to",
         "__kvm_set_memory_region", "kvm_clear_dirty_log_protect", "kvm_vcpu_has_run", "kvm_vcpu_ioctl_x86_get_vcpu_events"}
PLACES = ["", "src", "src/silicon", "tests"]
# Made by the build or by a run; another tree's; placeholders in capitals.
ELSEWHERE = re.compile(r"build/|results\.|arch/x86/|virt/|(?:linux|sys|asm|kernelshark)/\w+\.h|(?:.*/)?[A-Z]+[./]")


def tracked():
    git = ["git", "-c", "safe.directory=*", "ls-files"]
    done = subprocess.run(git, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode:
        print("SKIP: no git checkout")
        sys.exit(77)
    return done.stdout.split()


def anchors(text):
    """GitHub's: lower case, no punctuation, a hyphen for each space."""
    found = set()
    for head in re.findall(r"^#+\s+(.*)$", text, re.M):
        found.add(re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-"))
    return found


def read(path):
    return open(os.path.join(TOP, path), encoding="utf-8", errors="replace").read()


def exists(path, name, names):
    if "/" not in name:
        return name in names
    places = [os.path.dirname(path)] + PLACES
    return any(os.path.exists(os.path.join(TOP, place, name)) for place in places)


def check_links(path, text):
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        where = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(os.path.join(TOP, where)):
            yield "link to %s" % target
        elif anchor and where.endswith(".md") and anchor not in anchors(read(where)):
            yield "no heading for %s" % target


def check_names(path, text, names):
    for name in sorted(set(NAME.findall(text))):
        if not ELSEWHERE.match(name) and not exists(path, name, names):
            yield "no file %s" % name


def check_functions(path, comments, words):
    for name in sorted(set(FUNCTION.findall(comments))):
        if name not in words and name not in LINUX:
            yield "no function %s()" % name


def check_room(path, text):
    """A room's README names each of its .c files, or its header, or several by NAME_*.c."""
    folder = os.path.join(TOP, os.path.dirname(path))
    patterns = re.findall(r"\b([\w*]+)\.[ch]\b", text)
    for name in sorted(os.listdir(folder)):
        if name.endswith(".c") and not any(fnmatch.fnmatch(name[:-2], p) for p in patterns):
            yield "%s is not named" % name


def main():
    files = tracked()
    names = {os.path.basename(f) for f in files}
    words = set()
    for path in files:
        if path.endswith(CODE):
            words |= set(re.findall(r"[A-Za-z_]\w*", COMMENT.sub(" ", read(path))))
    bad, nr = [], 0
    for path in files:
        if path.endswith(".md"):
            text = read(path)
            found = list(check_links(path, text)) + list(check_functions(path, text, words))
            if not os.path.basename(path).startswith("tutorial-"):  # a reader's own files
                found += check_names(path, text, names)
            if path.startswith("src/"):
                found += check_room(path, text)
        elif path.endswith(CODE + (".py", ".sh", "meson.build")):
            comments = "\n".join(COMMENT.findall(read(path)))
            found = list(check_names(path, comments, names))
            if path.endswith(CODE):
                found += check_functions(path, comments, words)
        else:
            continue
        nr += 1
        bad += ["%s: %s" % (path, what) for what in found]
    for line in bad:
        print(line)
    print("links: %d files, %d breaches" % (nr, len(bad)))
    return 1 if bad else 0


sys.exit(main())
