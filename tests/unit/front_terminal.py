#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""front_terminal.py COMMAND - the verbs as a user calls them: in a pseudo-terminal and in a pipe, and on a full disk."""
import os, pty, struct, subprocess, sys, fcntl, termios

command = sys.argv[1]
wrong = []


def on_terminal(args, columns=80, **env):
    """What a terminal of that width shows, and the status."""
    pid, fd = pty.fork()
    if not pid:
        os.environ.update({"TERM": "xterm"}, **env)
        os.execv(args[0], args)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = b""
    try:
        while True:
            more = os.read(fd, 4096)
            if not more:
                break
            seen += more
    except OSError:
        pass
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode("utf-8", "replace")


def in_pipe(args, stdout=subprocess.PIPE):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def expect(what, truth):
    if not truth:
        wrong.append(what)


status, text = on_terminal([command, "doctor", "sh"])
expect("doctor on a terminal: status %d\n%s" % (status, text), status in (0, 1) and "ran: 41 + 1 = 42" in text)
expect("doctor on a terminal has no colours", "\033[32mok" in text)
status, text = on_terminal([command, "doctor"], NO_COLOR="1")
expect("doctor with NO_COLOR has colours", "\033" not in text)
status, text = on_terminal([command, "doctor"], TERM="dumb")
expect("doctor on a dumb terminal has colours", "\033" not in text)
status, text = on_terminal([command, "doctor"], columns=20)
expect("doctor on 20 columns: status %d" % status, status in (0, 1))
status, out, err = in_pipe([command, "doctor", "sh"])
expect("doctor in a pipe: status %d %s%s" % (status, out, err), status in (0, 1) and "\033" not in out and not err)
expect("doctor in a pipe, lines: %s" % out, all(l[:4] in ("ok  ", "warn", "FAIL") for l in out.splitlines()))
status, out, err = in_pipe([command, "doctor", "/no/such/program"])
expect("doctor of nothing: status %d\n%s" % (status, out), status == 2 and "FAIL  program" in out)
with open("/dev/full", "w") as full:
    for args in (["cpus"], ["--help"], ["help", "ioctls"], ["run", "--help"], ["cpus", "--diff", "milan", "genoa"], ["doctor"], ["--version"]):
        status, out, err = in_pipe([command] + args, stdout=full)
        expect("%s on a full disk: status %d, %r" % (args, status, err), status == 125 and "cannot write" in err and err.count("\n") == 1)
for line in wrong:
    print("WRONG: " + line)
print("%d wrong" % len(wrong))
sys.exit(1 if wrong else 0)
