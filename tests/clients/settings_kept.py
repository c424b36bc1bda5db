#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""settings_kept.py COMMAND - programs started with an environment of their own keep the settings, as long as they are preloaded."""
import os, subprocess, sys

INSIDE = """
import os, subprocess, sys
show, kept = ["cat", "/sys/module/kvm_amd/parameters/npt"], {k: os.environ[k] for k in ("LD_PRELOAD", "PATH")}
shell = "exec " + " ".join(show)
def said(*args, **kw):
    return subprocess.run(*args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **kw).stdout.strip()
got = {
    "execve": said(show, env=kept),
    "grandchild": said(["sh", "-c", shell + "; true"], env=kept),
    "env -i": said(["env", "-i", "LD_PRELOAD=" + kept["LD_PRELOAD"]] + show),
    "its own": said(show, env=dict(kept, ANYKVM_CPU="ice-lake-sp")),
}
read, write = os.pipe()
os.waitpid(os.posix_spawnp("cat", show, kept, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]), 0)
got["posix_spawnp"] = os.read(read, 9).decode().strip()
# Not preloaded: the host's own, whatever that is, is not what was set.
got["not preloaded"] = said(show, env={"PATH": kept["PATH"]})
print(got)
"""
WANT = {"execve": "N", "grandchild": "N", "env -i": "N", "its own": "", "posix_spawnp": "N"}


def main():
    done = subprocess.run([sys.argv[1], "run", "--cpu", "milan", "--param", "kvm_amd.npt=N", "--", sys.executable, "-c", INSIDE],
                          stdout=subprocess.PIPE, text=True, check=True)
    got = eval(done.stdout)
    host = got.pop("not preloaded")
    wrong = ["%s: %r, expected %r" % (k, got.get(k), v) for k, v in WANT.items() if got.get(k) != v]
    here = "/sys/module/kvm_amd/parameters/npt"
    if host != (open(here).read().strip() if os.path.exists(here) else ""):
        wrong.append("not preloaded: %r" % host)
    print("\n".join(wrong) or "settings_kept: ok")
    return 1 if wrong else 0


sys.exit(main())
