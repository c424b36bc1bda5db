#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devices.py --build DIR - one Debian guest uses each device: disks, networks, timers, balloon, tablet, screen; and sleeps in between.

virtio-blk, NVMe and AHCI hold what was written; virtio-net and e1000e reach their gateway; virtio-rng gives bytes, virtio-serial carries
text both ways, the balloon takes memory; HPET, ACPI's PM timer and the TSC agree on a second; the tablet's pointer arrives; the VGA console
shows text (--screenshot FILE keeps it); suspend to RAM comes back with all of them at work. anykvm's counters must have moved.
The machine is pc, for SeaBIOS of 2022 forgets q35's ACPI registers in suspend to RAM (with TCG, too).
"""
import argparse, os, re, socket, sys, tempfile, time

import guest

TIMERS = ["tsc", "hpet", "acpi_pm", "kvm-clock"]


def options(place, scratch, port):
    for name in ("nvme", "ahci", "blk"):
        with open(os.path.join(scratch, name), "wb") as out:
            out.truncate(64 << 20)
    ret = guest.disk(os.path.join(place, "debian.disk"), "virtio-blk-pci,bootindex=0") + ["-device", "ahci,id=ahci"]
    for name, device in (("blk", "virtio-blk-pci,serial=BLK,id=blk"), ("nvme", "nvme,serial=NVME"), ("ahci", "ide-hd,serial=AHCI,bus=ahci.0")):
        ret += guest.disk(os.path.join(scratch, name), device, False)
    for i, device in enumerate(("virtio-net-pci", "e1000e")):
        ret += ["-netdev", "user,id=n%d,net=10.0.%d.0/24" % (i, 50 + i), "-device", "%s,netdev=n%d,romfile=,mac=52:54:00:00:00:%02x" % (device, i, i)]
    ret += ["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-device", "virtio-serial-pci", "-chardev",
            "socket,id=text,fd=%d" % port, "-device", "virtserialport,chardev=text,name=text", "-device", "qemu-xhci", "-device",
            "usb-tablet", "-device", "VGA", "-global", "PIIX4_PM.disable_s3=0", "-rtc", "base=utc"]
    return ret


def disks(machine, pulled=False):
    """Random bytes through each kind of disk, read again past the page cache."""
    for name, pattern in (("virtio-blk", "virtio-BLK"), ("NVMe", "nvme-*NVME"), ("AHCI", "ata-*AHCI")):
        if pulled and name == "virtio-blk":
            continue
        said = machine.run("d=$(ls /dev/disk/by-id/%s | head -n 1) && dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none && "
                           "dd if=/tmp/data of=$d bs=64k oflag=direct status=none && dd if=$d bs=1M count=8 iflag=direct status=none | "
                           "cmp - /tmp/data && echo same-$((1 + 1))" % pattern)
        if "same-2" not in said:
            raise guest.Failure("%s: %s" % (name, said))


def networks(machine):
    for i, driver in enumerate(("virtio_net", "e1000e")):
        machine.run("i=$(basename $(dirname $(grep -l 52:54:00:00:00:%02x /sys/class/net/*/address))); "
                    "basename $(readlink /sys/class/net/$i/device/driver) | grep -x %s && for t in $(seq 60); do "
                    "ip -4 -o addr show dev $i | grep -q 10.0.%d.15 && break; sleep 1; done; ping -c 3 -W 20 -I $i 10.0.%d.2" %
                    (i, driver, 50 + i, 50 + i), 200)


def timers(machine):
    """Each clock source counts a second of the RTC's to a second."""
    base = "/sys/devices/system/clocksource/clocksource0/"
    there = machine.run("cat %savailable_clocksource" % base).split()
    for name in ("hpet", "acpi_pm", "kvm-clock"):
        if name not in there:
            raise guest.Failure("no clock source %s, but %s" % (name, there))
    for name in [t for t in TIMERS if t in there]:
        said = machine.run("echo %s >%scurrent_clocksource && [ $(cat %scurrent_clocksource) = %s ] && a=$(cat /proc/uptime) && "
                           "r=$(cat /sys/class/rtc/rtc0/since_epoch) && sleep 4 && echo span $a $(cat /proc/uptime) $r "
                           "$(cat /sys/class/rtc/rtc0/since_epoch)" % (name, base, base, name))
        span = [float(n) for n in re.search(r"span (\S+) \S+ (\S+) \S+ (\d+) (\d+)", said).groups()]
        if abs((span[1] - span[0]) - (span[3] - span[2])) > 2.5 or span[1] - span[0] < 4:
            raise guest.Failure("%s: %.2f s by it, %d s by the RTC" % (name, span[1] - span[0], span[3] - span[2]))
    machine.run("echo kvm-clock >%scurrent_clocksource" % base)


def odds(machine, text):
    machine.run("grep -q virtio /sys/class/misc/hw_random/rng_current && dd if=/dev/hwrng bs=1k count=4 status=none | gzip | wc -c | "
                "grep -E '^4[0-9]{3}$'")
    machine.type("")
    text.sendall(b"to the guest\n")
    machine.run("p=$(ls /dev/virtio-ports/text) && read line <$p && echo \"from the guest: $line\" >$p")
    text.settimeout(60)
    got = b""
    while b"\n" not in got:
        got += text.recv(100)
    if got != b"from the guest: to the guest\n":
        raise guest.Failure("virtio-serial: %r" % got)
    before = int(machine.run("awk '/MemTotal/ { print \"kib\", $2 }' /proc/meminfo").split("kib ")[1].split()[0])
    machine.ask("balloon", value=640 << 20)
    end = time.monotonic() + 120
    while machine.ask("query-balloon")["actual"] > 640 << 20:
        if time.monotonic() > end:
            raise guest.Failure("the balloon does not grow")
        time.sleep(0.5)
    after = int(machine.run("awk '/MemTotal/ { print \"kib\", $2 }' /proc/meminfo").split("kib ")[1].split()[0])
    if abs(before - after - (1024 - 640) * 1024) > 4096:
        raise guest.Failure("the balloon took %d KiB" % (before - after))
    machine.ask("balloon", value=1 << 30)


def tablet(machine):
    """A pointer's place, as the guest's input device tells it: EV_ABS events of X and Y."""
    machine.run("e=$(grep -l Tablet /sys/class/input/event*/device/name | head -n 1 | cut -d/ -f5) && (timeout 20 head -c 96 /dev/input/$e | "
                "od -An -tx2 -w24 >/tmp/events &) ; sleep 2")
    for x in (0x1234, 0x2345):
        machine.ask("input-send-event", events=[{"type": "abs", "data": {"axis": "x", "value": x}}, {"type": "abs", "data": {"axis": "y", "value": x + 1}}])
        time.sleep(0.5)
    said = machine.run("for t in $(seq 40); do [ -s /tmp/events ] && break; sleep 0.5; done; cat /tmp/events")
    for x in (0x1234, 0x2345):
        if not re.search(r"0003 0000 %04x 0000" % x, said):
            raise guest.Failure("the tablet's pointer at %#x did not come: %s" % (x, said))


def screen(machine, scratch, keep):
    """The text console holds what was written to it: dark, with letters in more than one row and more than one colour."""
    machine.run("setterm -blank 0 -term linux >/dev/tty1 2>/dev/null; for i in $(seq 10); do printf '\\033[3%dmanykvm line %d\\033[0m\\n' "
                "$((i % 7 + 1)) $i; done >/dev/tty1; sleep 1")
    file = keep or os.path.join(scratch, "screen.ppm")
    machine.ask("screendump", filename=file)
    with open(file, "rb") as image:
        kind, size, _, pixels = image.read().split(b"\n", 3)
    width, height = (int(n) for n in size.split())
    if kind != b"P6" or len(pixels) != 3 * width * height or width < 640 or height < 400:
        raise guest.Failure("the screendump is %s %s" % (kind, size))
    rows = [pixels[i:i + 3 * width] for i in range(0, len(pixels), 3 * width)]
    lit = sum(any(row) for row in rows)
    colours = len({pixels[i:i + 3] for i in range(0, len(pixels), 3)})
    if lit < 100 or colours < 5:
        raise guest.Failure("the screen is blank: %d rows, %d colours" % (lit, colours))
    return "%d x %d, %d colours" % (width, height, colours)


def sleep(machine):
    machine.events.clear()
    machine.type("echo mem >/sys/power/state && echo woke-$((40 + 2))\n")
    machine.wait_event("SUSPEND", 120)
    time.sleep(1)
    machine.ask("system_wakeup")
    machine.wait_event("WAKEUP")
    machine.wait("woke-42", 300)


def vanish(machine):
    """A disk is pulled out under a reader, who gets an error; the guest goes on."""
    machine.run("d=$(readlink -f /dev/disk/by-id/virtio-BLK) && (while dd if=$d of=/dev/null iflag=direct bs=64k status=none; do :; done; echo $? "
                ">/tmp/pulled) >/dev/null 2>&1 & sleep 1")
    machine.ask("device_del", id="blk")
    machine.wait_event("DEVICE_DELETED", 120)
    machine.run("for t in $(seq 60); do [ -s /tmp/pulled ] && break; sleep 0.5; done; [ -s /tmp/pulled ] && ! [ -e /dev/disk/by-id/virtio-BLK ]")


def work(machine, text, scratch, keep, say):
    machine.login(800)
    for what, action in (("disks", lambda: disks(machine)), ("networks", lambda: networks(machine)), ("timers", lambda: timers(machine)),
                         ("rng, serial, balloon", lambda: odds(machine, text)), ("tablet", lambda: tablet(machine)),
                         ("screen", lambda: screen(machine, scratch, keep)),
                         ("a disk vanishes", lambda: vanish(machine)), ("suspend to RAM", lambda: sleep(machine)),
                         ("disks again", lambda: disks(machine, True)), ("networks again", lambda: networks(machine))):
        say(what + (lambda said: ": " + said if said else "")(action()))
    machine.type("poweroff\n")
    machine.wait_exit(200)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--screenshot")
    args = parser.parse_args()
    build, began = os.path.abspath(args.build), time.monotonic()
    place = guest.debian(build)

    def say(what):
        print("devices: %6.1f s: %s" % (time.monotonic() - began, what), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        text, theirs = socket.socketpair()
        machine = guest.Guest(build, options(place, scratch, theirs.fileno()), machine="pc", fds=[theirs.fileno()])
        return guest.judged("devices", machine, lambda: work(machine, text, scratch, args.screenshot, say))


sys.exit(main())
