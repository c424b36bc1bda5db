# SPDX-License-Identifier: MIT
"""A guest in QEMU on anykvm: its serial line and QEMU's machine protocol in the hands of a test."""
import json, os, re, select, shutil, socket, subprocess, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
LOG = os.environ.get("GUEST_LOG")  # a file for all that comes from the serial line


class Failure(Exception):
    pass


class Guest:
    def __init__(self, build, options, machine="pc", cpu="host", model=None, memory="1G", fds=()):
        self.scratch = tempfile.mkdtemp(prefix="anykvm-guest-")
        self.stats = os.path.join(self.scratch, "stats")
        self.text, self.nr, self.end, self.events, self.seen = "", 0, False, [], 0
        ours, theirs = socket.socketpair()
        command = [os.path.join(build, "anykvm"), "run"] + (["--cpu", model] if model else []) + [
            "--", "qemu-system-x86_64", "-accel", "kvm", "-machine", machine, "-cpu", cpu, "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-m", memory, "-chardev", "socket,id=qmp,fd=%d" % theirs.fileno(), "-mon",
            "qmp,mode=control"]
        self.proc = subprocess.Popen(command + options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     pass_fds=[theirs.fileno()] + list(fds), env=dict(os.environ, ANYKVM_STATS_FILE=self.stats))
        theirs.close()
        self.qmp = ours.makefile("rw")
        self.qmp_socket = ours
        try:
            self.ask("qmp_capabilities")
        except Failure:
            self.close()
            raise

    def ask(self, command, **arguments):
        """A command of QEMU's machine protocol, and its answer. What happens meanwhile goes to .events."""
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command}) + "\n")
        self.qmp.flush()
        while True:
            got = self.message()
            if "return" in got:
                return got["return"]
            if "error" in got:
                raise Failure("%s: %s" % (command, got["error"]))

    def message(self):
        try:
            line = self.qmp.readline()
        except ConnectionError:
            line = ""
        if not line:
            self.drain(1)
            raise Failure("QEMU's machine protocol ended: " + self.text[-1500:])
        got = json.loads(line)
        if "event" in got:
            self.events.append(got["event"])
        return got

    def monitor(self, command):
        return self.ask("human-monitor-command", **{"command-line": command}).replace("\r", "")

    def wait_event(self, name, limit=60):
        end = time.monotonic() + limit
        while name not in self.events:
            self.drain(0.1)
            if time.monotonic() > end:
                raise Failure("no event %s; seen: %s" % (name, self.events))
            while name not in self.events and select.select([self.qmp_socket], [], [], 0)[0]:
                self.message()
        self.events.remove(name)

    def drain(self, wait):
        if self.end:
            time.sleep(wait)
        elif select.select([self.proc.stdout], [], [], wait)[0]:
            data = os.read(self.proc.stdout.fileno(), 65536)
            self.end = not data
            if LOG:
                with open(LOG, "ab") as out:
                    out.write(data)
            self.text += data.decode("latin-1").replace("\r", "")

    def wait(self, pattern, limit):
        """Wait for the pattern behind what was waited for before; returns the match."""
        end = time.monotonic() + limit
        while True:
            found = re.compile(pattern).search(self.text, self.seen)
            if found:
                self.seen = found.end()
                return found
            if self.end or time.monotonic() > end:
                raise Failure("never saw /%s/; the last of the serial line:\n%s" % (pattern, self.text[-1500:]))
            self.drain(0.5)

    def type(self, text):
        self.proc.stdin.write(text.encode())
        self.proc.stdin.flush()

    def login(self, limit):
        self.wait(r"guest login: ", limit)
        self.type("root\n")
        self.wait(r"root@guest:~# ", 120)
        self.type("stty -echo; PS1=; dmesg -n 1\n")
        self.run("true", 60)

    def run(self, command, limit=120):
        """Run a shell command in the guest; returns what it said. A status other than 0 is a failure."""
        self.nr += 1
        mark = "done-%d" % self.nr
        self.type("%s; echo \"<$?>%s\"\n" % (command, mark))
        start = self.seen
        found = self.wait(r"<(\d+)>" + mark, limit)
        said = self.text[start:found.start()]
        if found.group(1) != "0":
            raise Failure("%s: status %s:\n%s" % (command, found.group(1), said[-3000:]))
        return said

    def wait_exit(self, limit):
        end = time.monotonic() + limit
        while not self.end and time.monotonic() < end:
            self.drain(0.5)
        try:
            status = self.proc.wait(max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failure("QEMU does not end; the last of the serial line:\n" + self.text[-1500:])
        if status:
            raise Failure("QEMU ended with status %d:\n%s" % (status, self.text[-1500:]))

    def close(self):
        """Ends what is left; returns the counters."""
        if self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(20)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        text = open(self.stats, encoding="utf-8").read() if os.path.exists(self.stats) else ""
        shutil.rmtree(self.scratch)
        return {k: int(v) for k, v in re.findall(r"^(\S+) (\d+)$", text, re.M)}


def judged(name, machine, session):
    """Run the session, end the machine, and print how it went. The exit status: 0 if well, and on anykvm."""
    try:
        session()
        wrong = None
    except Failure as failure:
        wrong = str(failure)
    finally:
        counters = machine.close()
    if not wrong and counters.get("instructions", 0) < 1_000_000_000:
        wrong = "anykvm's counters did not move: %s" % counters
    print("%s: %s" % (name, wrong or "ok, %(instructions)d instructions" % counters))
    return 1 if wrong else 0


def disk(path, device, snapshot=True, form="raw"):
    """Options for a disk; with snapshot the file stays as it is."""
    name = "d" + str(abs(hash((path, device))) % 100000)
    return ["-drive", "if=none,id=%s,format=%s,file=%s,cache=unsafe,snapshot=%s" % (name, form, path, "on" if snapshot else "off"),
            "-device", "%s,drive=%s" % (device, name)]


def scripts_disk(scratch):
    """The folder debian/ as a disk for the guest."""
    image = os.path.join(scratch, "scripts.ext4")
    with open(image, "wb") as out:
        out.truncate(4 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", "scripts", "-d", os.path.join(HERE, "debian"), image], check=True)
    return image


def debian(build):
    """Make what is not there of the Debian guest: root file system, repository, and the disk on which it installed itself."""
    subprocess.run(["sh", os.path.join(HERE, "debian_image.sh"), build], check=True)  # Takes a disk of an older system away.
    place = os.path.join(build, "guest")
    target, root = os.path.join(place, "debian.disk"), os.path.join(place, "debian.ext4")
    if os.path.exists(target):
        return place
    with tempfile.TemporaryDirectory() as scratch:
        with open(target + ".tmp", "wb") as out:
            out.truncate(3 << 30)
        guest = Guest(build, disk(root, "virtio-blk-pci") + disk(target + ".tmp", "virtio-blk-pci", False) +
                      disk(scripts_disk(scratch), "virtio-blk-pci") +
                      ["-kernel", place + "/debian.vmlinuz", "-initrd", place + "/debian.initrd", "-append",
                       "root=/dev/vda rw console=ttyS0 quiet init=/bin/sh reboot=t", "-no-reboot"])
        try:
            guest.wait(r"\n# ", 800)
            guest.type("stty -echo; PS1=; mount -o ro /dev/vdc /mnt\n")
            guest.run("sh /mnt/install.sh", 1500)
            guest.type("echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger\n")
            guest.wait_exit(120)
        finally:
            guest.close()
    os.rename(target + ".tmp", target)
    return place
