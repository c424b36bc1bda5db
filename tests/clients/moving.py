# SPDX-License-Identifier: MIT
"""What migrate.py is made of: QEMU processes steered by QMP, and the ends of the streams that their guest keeps up.

The guest is guest_load.c. Its console goes to one file, whichever process it is in; its frames are sent back by Echo; its records
are read by Records, which wants them without a gap from one process to the next.
"""
import json, os, re, select, socket, struct, subprocess, threading, time

MASK = (1 << 64) - 1


class Wrong(Exception):
    pass


class Qmp:
    """One connection; events are kept by name."""

    def __init__(self, path, proc, limit=60):
        self.sock, self.buffer, self.events = socket.socket(socket.AF_UNIX), b"", []
        end = time.monotonic() + limit
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                if proc.poll() is not None or time.monotonic() > end:
                    raise Wrong("QEMU does not listen; status %s" % proc.poll())
                time.sleep(0.02)
        self.sock.settimeout(120)
        self.message()
        self("qmp_capabilities")

    def message(self):
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise Wrong("QEMU has gone")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def __call__(self, command, **arguments):
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        try:
            self.sock.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self.message()
                if "event" in answer:
                    self.events.append(answer["event"])
                elif "error" in answer:
                    raise Wrong("%s: %s" % (command, answer["error"]["desc"]))
                elif "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise Wrong("%s: %s" % (command, error))

    def human(self, line):
        said = self("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise Wrong("%s: %s" % (line, said.strip()))


class Process:
    """One QEMU on anykvm, with the guest in it or waiting for it."""
    count = 0

    def __init__(self, stand, incoming=None, extra=()):
        Process.count += 1
        self.name = os.path.join(stand.dir, "q%d" % Process.count)
        command = stand.command(self.name) + list(extra) + (["-incoming", incoming] if incoming else [])
        self.out = open(self.name + ".out", "wb")
        env = dict(os.environ, ANYKVM_STATS_FILE=self.name + ".stats")
        self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.STDOUT, env=env)
        stand.processes.append(self)
        try:
            self.qmp = Qmp(self.name + ".qmp", self.proc)
        except Wrong as wrong:
            raise Wrong("%s: %s" % (wrong, self.said()))

    def said(self):
        with open(self.name + ".out", encoding="utf-8", errors="replace") as out:
            return out.read()[-2000:]

    def state(self):
        """What the processors and their interrupt controllers are at: for a guest that stands still."""
        asked = ["info status", "info registers -a", "info lapic", "info pic", "info irq"]
        return "".join("%s\n%s\n" % (line, self.qmp("human-monitor-command", command_line=line)) for line in asked).replace("\r", "")

    def quit(self):
        """Returns the instructions that anykvm counted."""
        self.qmp("quit")
        status = self.proc.wait(60)
        if status:
            raise Wrong("QEMU ends with status %d: %s" % (status, self.said()))
        with open(self.name + ".stats", encoding="utf-8") as stats:
            counted = re.search(r"^instructions (\d+)$", stats.read(), re.M)
        return int(counted.group(1)) if counted else 0

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def wait_migration(self, limit, states=("completed",)):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            info = self.qmp("query-migrate")
            # QEMU says that it is completed a moment before it has the times.
            if info.get("status") in states and (info["status"] != "completed" or info.get("total-time", 1)):
                return info
            if info.get("status") in ("failed", "cancelled"):
                raise Wrong("migration: %s" % info)
            time.sleep(0.02)
        raise Wrong("migration takes longer than %d s: %s" % (limit, info))

    def wait_running(self, limit):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.qmp("query-status")["running"]:
                return
            time.sleep(0.01)
        raise Wrong("the guest does not go on: %s" % self.qmp("query-status"))


class Echo(threading.Thread):
    """The other end of the wire: sends every frame of the guest's back to the process that it came from."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.sock, self.frames = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), 0
        self.sock.bind(path)
        self.start()

    def run(self):
        while True:
            data, sender = self.sock.recvfrom(65536)
            if data[12:14] == b"\x88\xb5" and sender:
                self.frames += 1
                try:
                    self.sock.sendto(data[6:12] + data[0:6] + data[12:], sender)
                except OSError:
                    pass  # that process has gone


def mix(x):
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ x >> 30) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ x >> 27) * 0x94d049bb133111eb) & MASK
    return x ^ x >> 31


class Records(threading.Thread):
    """Reads one process's records to their end, then the next one's."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.sock, self.number, self.wrong, self.held = socket.socket(socket.AF_UNIX), 0, None, b""
        self.sock.bind(path)
        self.sock.listen(8)
        self.start()

    def take(self, record):
        words = struct.unpack("<8Q", record)
        if words[0] != self.number:
            self.wrong = self.wrong or "record %d comes where %d is due" % (words[0], self.number)
        if any(words[i] != mix(words[0] + i) for i in range(1, 8)):
            self.wrong = self.wrong or "record %d is damaged" % words[0]
        self.number = words[0] + 1

    def run(self):
        while True:
            peer, _ = self.sock.accept()
            while True:
                data = peer.recv(65536)
                if not data:
                    break
                self.held += data
                while len(self.held) >= 64:
                    self.take(self.held[:64])
                    self.held = self.held[64:]


class Console:
    """The lines that the guest has written so far."""
    LINE = re.compile(r"^LOAD (ms=\d+ pages=\d+ sent=\d+ echoed=\d+ again=\d+ records=\d+ ticks=\d+ gap_us=\d+)\n", re.M)
    WRONG = re.compile(r"LOAD-BAD.*|.*(?:Kernel panic|BUG:|WARNING:|soft lockup|rcu.*stall|Call Trace|clocksource.*unstable|general protection"
                       r"|I/O error).*")

    def __init__(self, path):
        self.path = path

    def text(self):
        if not os.path.exists(self.path):
            return ""
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return log.read().replace("\r", "")

    def lines(self):
        return [dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", line)) for line in self.LINE.findall(self.text())]

    def check(self):
        wrong = self.WRONG.search(self.text())
        if wrong:
            raise Wrong("the guest says: " + wrong.group(0))

    def wait_progress(self, keys, limit, proc=None):
        """Until each of the keys has grown, as new lines show; returns them, but the first, which may be of two times."""
        before, end = len(self.lines()), time.monotonic() + limit
        while time.monotonic() < end:
            self.check()
            new = self.lines()[before + 1:]
            if len(new) >= 3 and all(new[-1][k] > new[0][k] for k in keys):
                return new
            if proc and proc.proc.poll() is not None:
                raise Wrong("QEMU has ended, status %d: %s" % (proc.proc.poll(), proc.said()))
            time.sleep(0.05)
        raise Wrong("the guest makes no progress in %s: %s\n%s\n%s" % (keys, self.lines()[-3:], self.text()[-1500:], proc.state() if proc else ""))
