#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""shell.py --build DIR - `make run` on a terminal gives a shell in the guest; its `exit` powers off, status 0.

The guest has to compute: the answer is not what was typed. anykvm's counters must have moved.
"""
import argparse, os, pty, re, select, sys, tempfile, time

from boot import TOP


class Terminal:
    def __init__(self, command, env):
        self.text, self.ended = "", False
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, env)

    def wait_for(self, pattern, deadline):
        while not re.search(pattern, self.text) and not self.ended:
            if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            self.ended = not data
            self.text += data.decode("latin-1")
        return bool(re.search(pattern, self.text))

    def type(self, line):
        os.write(self.fd, line.encode() + b"\n")


def talk(terminal, deadline):
    for pattern, line in ((r"A shell in the guest", "echo answer-$((6 * 7)) $(uname -m)"),
                          (r"answer-42 x86_64", "exit"), (r"ALL-DONE", None), (r"anykvm: status \d+;.*guest [\d.]+ s", None)):
        if not terminal.wait_for(pattern, deadline):
            return "never saw /%s/" % pattern
        if line:
            terminal.type(line)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--limit", type=int, default=500)
    args = parser.parse_args()
    stats = tempfile.NamedTemporaryFile(prefix="anykvm-stats-")
    env = dict(os.environ, ANYKVM_STATS_FILE=stats.name, TERM="dumb")
    terminal = Terminal(["sh", os.path.join(TOP, "tools", "boot-demo"), args.build], env)
    wrong = talk(terminal, time.monotonic() + args.limit)
    print(terminal.text.replace("\r", ""))
    if wrong:
        os.killpg(terminal.pid, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1])
    counted = re.search(r"^instructions (\d+)$", open(stats.name, encoding="utf-8").read(), re.M)
    if not wrong and status:
        wrong = "exit status %d" % status
    if not wrong and (not counted or int(counted.group(1)) < 100_000_000):
        wrong = "anykvm's counters did not move"
    print("shell: %s" % (wrong or "ok"))
    return 1 if wrong else 0


sys.exit(main())
