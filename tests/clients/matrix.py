#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""matrix.py COMMAND WATCHED - anykvm matrix: verdicts, limits, files, the page, emitted jobs, Ctrl-C, bad input."""
import fcntl, html.parser, json, os, pty, re, resource, select, shutil, struct, subprocess, sys, tempfile, termios, time
import xml.etree.ElementTree as xml

command, watched = map(os.path.abspath, sys.argv[1:])
folder = tempfile.mkdtemp()
os.chdir(folder)
wrong = []


def expect(what, truth):
    if not truth:
        wrong.append(what)


def matrix(*args, **kw):
    done = subprocess.run([command, "matrix"] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=90, **kw)
    return done.returncode, done.stdout, done.stderr


def left(word):
    """Processes whose command line has the word."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = open("/proc/%s/cmdline" % pid, "rb").read().decode("utf-8", "replace")
        except OSError:
            continue
        if word in line and int(pid) != os.getpid():
            found.append(line.replace("\0", " "))
    return found


def verdicts(where):
    return {c["name"]: c["verdict"] for c in json.load(open(os.path.join(where, "results.json")))["cells"]}


# One of each verdict; the guest runs; what a cell leaves running goes with it.
MARK = "314159%d" % os.getpid()
script = ('echo "$kind </script><b>&amp; {kind}"; "%s" 5 || exit 99; echo kept >"$ANYKVM_ARTEFACTS/f"; '
          'case $kind in bad) exit 3;; skip) exit 77;; slow) sleep %s;; flaky) [ -e "$ANYKVM_ARTEFACTS/g" ] || { touch "$ANYKVM_ARTEFACTS/g"; exit 1; };; '
          'dead) kill -9 $$;; child) sleep %s & exit 0;; esac' % (watched, MARK, MARK))
arguments = ["--cpu", "INTEL,AMD", "--param", "kvm_intel.ept=0,1", "--param", "kvm.nx_huge_pages=0,1", "--axis", "kind=good,bad,skip,slow,flaky,dead,child",
             "--timeout", "3", "--retry", "1", "-j", "4", "--", "sh", "-c", script]
status, out, err = matrix(*arguments)
got = verdicts("anykvm-matrix")
want = {"good": "pass", "bad": "fail", "skip": "skip", "slow": "timeout", "flaky": "pass", "dead": "fail", "child": "pass"}
expect("status %d, cells %d\n%s%s" % (status, len(got), out, err), status == 1 and len(got) == 7 * (2 * 2 + 2))
for name, verdict in got.items():
    kind = re.search(r"kind=(\w+)", name)[1]
    expect("%s: %s" % (name, verdict), verdict == ("skip" if "nx_huge_pages=1" in name else want[kind]))
expect("a parameter of the other vendor", not any("milan" in n and "kvm_intel" in n for n in got))
expect("left running: %s" % left(MARK), not [l for l in left(MARK) if l.startswith("sleep")])
expect("lines per cell", err.count("\n") == len(got) and "only N is supported" in err)
cell = os.path.join("anykvm-matrix", "cells", "milan_kvm.nx_huge_pages=0_kind=flaky")
expect("artefacts", open(os.path.join(cell, "artefacts", "f")).read() == "kept\n" and "---- again ----" in open(os.path.join(cell, "log")).read())

# TAP, JUnit.
tap = open("anykvm-matrix/results.tap").read().splitlines()
expect("TAP", tap[:2] == ["TAP version 13", "1..%d" % len(got)] and sum(l.startswith("not ok ") for l in tap) ==
       sum(v in ("fail", "timeout") for v in got.values()) and sum("# SKIP" in l for l in tap) == list(got.values()).count("skip"))
suite = xml.parse("anykvm-matrix/junit.xml").getroot()
expect("JUnit", int(suite.get("tests")) == len(got) == len(suite) and len(suite.findall("testcase/failure")) == int(suite.get("failures")) and
       len(suite.findall("testcase/skipped")) == int(suite.get("skipped")) and "</script>" in suite.find("testcase/system-out").text)


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.outside, self.data, self.take = [], [], "", False

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "button" and "data-cell" in attrs:
            self.cells.append(attrs)
        self.outside += [attrs[a] for a in ("src", "href") if a in attrs]
        self.take = attrs.get("type") == "application/json"

    def handle_data(self, data):
        if self.take:
            self.data += data


def read_page():
    page = Page()
    page.feed(open("anykvm-matrix/index.html", encoding="utf-8").read())
    return page


page = read_page()
logs = json.loads(page.data)
expect("the page's cells", len(page.cells) == len(got) == len(logs) and not page.outside and "url(" not in open("anykvm-matrix/index.html").read())
expect("a log in the page", "good </script><b>&amp; good" in logs[0]["log"])
expect("colours for dark", "prefers-color-scheme:dark" in open("anykvm-matrix/index.html").read())
# A second run knows the first.
for n, a in enumerate(arguments):
    if a == script:
        arguments[n] = script.replace("bad) exit 3;;", "bad) exit 0;;")
matrix(*arguments)
page = read_page()
changed = [c["title"] for c in page.cells if "changed" in c["class"]]
expect("what changed: %s" % changed, changed and all("kind=bad" in c for c in changed) and "was failed" in open("anykvm-matrix/index.html").read())
# Another time than before is told if it is by half a second; a cell of a tenth may well take twice as long.
for seconds in (1000.0, 0.3):
    json.dump({"cells": [{"name": "milan", "verdict": "pass", "seconds": seconds}]}, open("before.json", "w"))
    status, out, err = matrix("-o", "times", "--cpu", "AMD", "--compare", "before.json", "--", "true")
    took = json.load(open("times/results.json"))["cells"][0]["seconds"]
    expect("times: %d %s" % (status, err), status == 0 and (" %</small>" in open("times/index.html").read()) == (abs(took - seconds) >= 0.5))
if shutil.which("chromium"):
    for scheme, background in (("1", "rgb(255, 255, 255)"), ("0", "rgb(21, 24, 28)")):
        probe = open("anykvm-matrix/index.html").read().replace("</body>", "<script>document.querySelector('td button').click();document.title=getComputedStyle("
                                                             "document.body).backgroundColor+'|'+document.querySelector('dialog pre').textContent</script></body>")
        open("probe.html", "w").write(probe)
        dom = subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=%s/chromium" % folder,
                              "--blink-settings=preferredColorScheme=" + scheme, "--dump-dom", "file://%s/probe.html" % folder],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
        title = re.search(r"<title>(.*?)</title>", dom, re.S)
        expect("Chromium, scheme %s: %s" % (scheme, title and title[1][:100]), title and title[1].startswith(background + "|") and "good &lt;/script" in title[1])
else:
    print("no chromium: the page was not looked at in a browser")

# For other systems: what they would run is run.
few = ["--cpu", "AMD", "--axis", "n=3,4", "--", watched, "{n}"]
status, out, err = matrix("--emit", "make", *few)
open("Makefile", "w").write(out)
path = dict(os.environ, PATH=os.path.dirname(command) + ":" + os.environ["PATH"])
done = subprocess.run(["make", "-s", "-k", "-j2"], env=path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
expect("make: %s" % done.stdout, status == 0 and done.returncode == 0 and os.path.exists("cell-1.log"))
status, out, err = matrix("--emit", "slurm", *few)
open("job.sh", "w").write(out)
codes = [subprocess.run(["sh", "job.sh"], env=dict(path, SLURM_ARRAY_TASK_ID=str(n)), stderr=subprocess.DEVNULL).returncode for n in range(3)]
expect("slurm: %s" % codes, codes == [0, 0, 125] and "#SBATCH --array=0-1" in out)
status, out, err = matrix("--emit", "github", *few)
include = [json.loads(l.strip()[2:]) for l in out.splitlines() if l.strip().startswith("- {")]
expect("github: %s" % out, [c["n"] for c in include] == ["3", "4"] and include[0]["settings"] == "--cpu milan" and
       "anykvm run ${{ matrix.settings }} -- " in out and "${{ matrix.n }}" in out)


def on_terminal(columns, key, *args):
    child, fd = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(command, [command, "matrix"] + list(args))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    text, end = b"", time.time() + 2
    try:
        while time.time() < end:
            if select.select([fd], [], [], 0.1)[0]:
                text += os.read(fd, 65536)
        os.write(fd, key)
        while True:
            text += os.read(fd, 65536)
    except OSError:
        pass
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.decode()


# Ctrl-C in the middle of cells that never end, on a narrow terminal.
status, text = on_terminal(20, b"\x03", "-o", "stopped", "-j", "2", "--axis", "n=1,2,3", "--", "sh", "-c", "sleep %s; exit {n}" % MARK)
widest = max(len(re.sub(r"\033\[K|\^C", "", p)) for p in re.split(r"[\r\n]", text.split("3 cells")[0]))
expect("Ctrl-C: %d, widest %d: %r" % (status, widest, text[-300:]), status == 130 and widest < 20)
expect("Ctrl-C, results: %s" % verdicts("stopped"), set(verdicts("stopped").values()) == {"not run"} and "interrupted" in open("stopped/index.html").read())
expect("Ctrl-C leaves %s" % left(MARK), not [l for l in left(MARK) if l.startswith("sleep")])

open("file", "w").close()
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
for args, message, kw in ((["--cpu", "zx81", "--", "true"], "no model 'zx81'", {}), ([], "no command", {}), (["--frob", "--", "true"], "frob", {}),
                          (["--param", "frob", "--", "true"], "--param wants", {}), (["--axis", "a=", "--", "true"], "--axis wants", {}),
                          (["-j", "0", "--", "true"], "--jobs wants", {}), (["--timeout", "x", "--", "true"], "timeout", {}),
                          (["--axis", "a=1,1", "--", "true"], "there twice", {}), (["--emit", "frob", "--", "true"], "emit", {}),
                          (["-o", "/proc/none", "--", "true"], "cannot write", {}), (["-o", "file", "--", "true"], "cannot write", {}),
                          (["--compare", "/no/such", "--", "true"], "cannot compare", {}), (["--compare", "file", "--", "true"], "cannot compare", {}),
                          (["-o", "full", "--", "true"], "cannot write", {"preexec_fn": limit})):
    status, out, err = matrix(*args, **kw)
    last = err.strip().splitlines()[-1] if err else ""
    expect("matrix %s: %d %r" % (args, status, err), status == 125 and message in last and last.startswith("anykvm: "))
expect("a full disk leaves %s" % os.listdir("full"), os.listdir("full") == ["cells"])
status, out, err = matrix("-o", "t", "--cpu", "INTEL,AMD", "--param", "kvm.tdp_mmu=0,1", "--", "cat", "/sys/module/kvm/parameters/tdp_mmu")
logs = {n: open("t/cells/%s/log" % n.replace(" ", "_")).read().split() for n in verdicts("t")}
expect("a kept parameter: %d %s" % (status, logs), status == 0 and len(logs) == 4 and
       all(v == ["Y" if n.endswith("=1") else "N"] for n, v in logs.items()))
status, out, err = matrix("-o", "r", "--param", "kvm.frob=1", "--", "true")
expect("an unknown parameter: %d %s" % (status, err), status == 125 and "kvm.frob" in err and err.count("\n") == 1 and not os.path.exists("r"))
shutil.rmtree(folder)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(1 if wrong else 0)
