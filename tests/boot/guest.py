# SPDX-License-Identifier: Apache-2.0
"""Runs build/sill on the kit of tools/guest-kit and talks to it, for the tests beside this file.

A test is a script: it calls check() and exits 0, or dies with what went wrong. Python's standard
library only.
"""
import ctypes
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SILL = os.environ.get("SILL", os.path.join(ROOT, "build/sill"))
KIT = os.path.join(ROOT, "build/guest")
KERNEL = os.path.join(KIT, "vmlinuz")
INITRD = os.path.join(KIT, "initrd.img")
# Generous: the machine may be slow and shared. Nothing waits this long when all is well.
TIMEOUT = float(os.environ.get("SILL_TEST_TIMEOUT", "180"))


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def need_kit(*flavour):
    """Skips the test if there is no guest (of that flavour of kernel) and none can be had."""
    r = subprocess.run([os.path.join(ROOT, "tools/guest-kit"), *flavour], stdin=subprocess.DEVNULL)
    if r.returncode != 0:
        skip("tools/guest-kit cannot get a kernel (no network?)")


def unpack(package):
    """The folder with a Debian package's files; skips the test if it cannot be had."""
    r = subprocess.run([os.path.join(ROOT, "tools/guest-kit"), "unpack", package], stdin=subprocess.DEVNULL)
    if r.returncode != 0:
        skip("tools/guest-kit cannot get the package %s (no network?)" % package)
    return os.path.join(KIT, package)


def check(condition, message):
    if not condition:
        print("FAILED:", message)
        sys.exit(1)


def initrd_with(scratch, *modules):
    """The kit's initial RAM disk with more modules in it, which `modprobe` finds; returns its path."""
    tree = os.path.join(KIT, "modules/lib/modules")
    version = os.listdir(tree)[0]
    with open(os.path.join(tree, version, "modules.dep")) as f:
        deps = {line.split(":")[0]: line.split(":")[1].split() for line in f}
    wanted = {}
    for name in modules:
        path = [p for p in deps if os.path.basename(p).split(".")[0].replace("-", "_") == name]
        check(len(path) == 1, "the kernel has no module %s" % name)
        for p in path + deps[path[0]]:
            wanted[p] = deps[p]
    root = scratch.file("more")
    for p in wanted:
        target = os.path.join(root, "lib/modules", version, p)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(tree, version, p), target)
    with open(os.path.join(root, "lib/modules", version, "modules.dep"), "w") as f:
        f.writelines("%s: %s\n" % (p, " ".join(d)) for p, d in wanted.items())
    names = subprocess.run(["find", "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout
    more = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, stdout=subprocess.PIPE, check=True).stdout
    path = scratch.file("initrd.img")
    with open(path, "wb") as f, open(INITRD, "rb") as g:
        f.write(g.read())
        f.write(b"\0" * (-f.tell() % 4))
        f.write(more)
    return path


def end_with_test():
    """For preexec_fn: the kernel ends this process when the test does, however that ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become_foreground():
    end_with_test()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Guest:
    """A running VM. Its console is a pipe, or a terminal with tty=True."""

    def __init__(self, *args, commands=None, tty=False, kernel=True, append="", flavour="",
                 image=None, initrd=None):
        self.output = b""
        argv = [SILL, "run"]
        if kernel:
            append = "console=ttyS0 quiet " + append
            if commands is not None:
                append += ' sill.exec="%s"' % commands
            kit = os.path.join(KIT, flavour)
            argv += ["--kernel", image or os.path.join(kit, "vmlinuz"), "--initrd", initrd or os.path.join(kit, "initrd.img"),
                     "--append", append]
        argv += list(args)
        if tty:
            self.fd, other = pty.openpty()
            self.tty = other
            # A session of its own, whose terminal this is: as if typed at a prompt.
            self.process = subprocess.Popen(
                argv, stdin=other, stdout=other, stderr=other, start_new_session=True,
                preexec_fn=become_foreground)
        else:
            read, write = os.pipe()
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=write, stderr=write, preexec_fn=end_with_test)
            os.close(write)
            self.fd = read

    def _read(self, timeout):
        ready, _, _ = select.select([self.fd], [], [], timeout)
        if not ready:
            return None
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # a terminal's other side was closed
            data = b""
        self.output += data
        return data

    def text(self):
        return self.output.decode(errors="replace")

    def wait_for(self, what, timeout=TIMEOUT):
        """Reads until `what` appears after what was waited for before."""
        deadline = time.monotonic() + timeout
        start = getattr(self, "seen", 0)
        while True:
            at = self.output.find(what.encode(), start)
            if at >= 0:
                self.seen = at + len(what)
                return
            data = self._read(max(0, deadline - time.monotonic()))
            if data is None or data == b"":
                self.kill()
                print(self.text())
                check(False, "%s before %r appeared" % ("timeout" if data is None else "the VM ended", what))

    def type(self, text):
        os.write(self.fd if hasattr(self, "tty") else self.process.stdin.fileno(), text.encode())

    def finish(self, timeout=TIMEOUT):
        """Waits for the end; returns the exit status (negative: a signal)."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if self._read(0.05) == b"":
                time.sleep(0.05)
            if time.monotonic() > deadline:
                self.kill()
                print(self.text())
                check(False, "the VM did not end in time")
        while self._read(0):
            pass
        return self.process.returncode

    def expect_end(self, status, timeout=TIMEOUT):
        found = self.finish(timeout)
        if found != status:
            print(self.text())
        check(found == status, "exit status %d instead of %d" % (found, status))

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class Scratch:
    """A directory that goes away, with a copy of the kit's disk if asked for."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="sill-test-")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def file(self, name):
        return os.path.join(self.path, name)

    def disk(self):
        path = self.file("disk.img")
        subprocess.run(["cp", "--sparse=always", os.path.join(KIT, "scratch.img"), path], check=True)
        return path
