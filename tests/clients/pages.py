#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""pages.py --build DIR PAGE... - the commands on a page print what the page says.

In a fenced block of kind `console`, a line that begins with "$ " is a command (a here-document goes on to its end); what follows
is its output, where "..." stands for any text of a line, and a line of "..." alone for any lines, or none. A page's commands run in
one folder, with the command on the PATH and build/guest at hand. Blocks are compared as a whole."""
import argparse, os, re, shutil, subprocess, sys, tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def commands(text):
    """(command, expected lines) of all console blocks."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        lines = block.split("\n")[:-1]
        while lines:
            command = lines.pop(0)
            if not command.startswith("$ "):
                raise SystemExit("pages: a block begins with %r" % command)
            command = command[2:]
            here = re.search(r"<<'(\w+)'$", command)
            while here and lines:
                command += "\n" + lines[0]
                if lines.pop(0) == here[1]:
                    break
            expected = []
            while lines and not lines[0].startswith("$ "):
                expected.append(lines.pop(0))
            yield command, expected


def pattern(expected):
    out = ""
    for line in expected:
        if line == "...":
            out += r"(?:.*\n)*"
        else:
            out += ".*".join(re.escape(p) for p in line.split("...")) + r"\n"
    return out


def fits(text, expected):
    # A "..." line needs no backtracking over megabytes: outputs are short.
    return re.fullmatch(pattern(expected), text) is not None


def run_page(page, build):
    folder, wrong = tempfile.mkdtemp(), 0
    try:
        os.mkdir(os.path.join(folder, "build"))
        os.symlink(os.path.join(build, "guest"), os.path.join(folder, "build", "guest"))
        env = dict(os.environ, PATH=build + ":" + os.environ["PATH"], HOME=folder)
        for name in [n for n in env if n.startswith("ANYKVM_") and n not in ("ANYKVM_MASKED", "ANYKVM_KERNEL_DEB")]:
            del env[name]
        with open(page, encoding="utf-8") as f:
            text = f.read()
        for command, expected in commands(text):
            done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE if "matrix" in command else subprocess.STDOUT, timeout=300)
            out = done.stdout.decode("utf-8", "replace").replace("\r", "")
            ok = fits(out, expected)
            print("%s: %s: %s" % (os.path.basename(page), "ok" if ok else "WRONG", command.split("\n")[0][:100]), flush=True)
            if not ok:
                print("---- expected\n%s\n---- got (status %d)\n%s" % ("\n".join(expected), done.returncode, out))
                wrong += 1
    finally:
        # A daemon that a command was to end, and did not.
        if os.path.exists(os.path.join(folder, "pid")):
            try:
                os.kill(int(open(os.path.join(folder, "pid")).read()), 15)
            except (OSError, ValueError):
                pass
        shutil.rmtree(folder, ignore_errors=True)
    return wrong


def links(page):
    """Links to files that are not there."""
    with open(page, encoding="utf-8") as f:
        text = f.read()
    bad = [l for l in re.findall(r"\]\(([^)#]+)\)", text)
           if "://" not in l and not os.path.exists(os.path.join(os.path.dirname(page), l))]
    for link in bad:
        print("%s: WRONG: a link to %s" % (page, link))
    return len(bad)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("pages", nargs="+")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    subprocess.run(["sh", os.path.join(TOP, "tools", "guest-image"), build], check=True)
    wrong = sum(run_page(p, build) + links(p) for p in args.pages)
    print("%d pages, %d wrong" % (len(args.pages), wrong))
    return 1 if wrong else 0


sys.exit(main())
