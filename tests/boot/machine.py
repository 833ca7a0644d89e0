# SPDX-License-Identifier: Apache-2.0
"""A VM that starts from firmware, with its screen and keyboard by way of the control socket."""
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import zlib

from guest import Guest, TIMEOUT, check, skip


def need(*commands_or_files):
    for name in commands_or_files:
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        if not (os.path.exists(name) if name.startswith("/") else shutil.which(name, path=path)):
            skip("%s is not installed (make deps)" % name)


def run(*argv, **kwargs):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    check(r.returncode == 0, "%s: %s" % (" ".join(argv), r.stdout.decode(errors="replace")))


class Machine(Guest):
    def __init__(self, scratch, *args, **kwargs):
        path = scratch.file("control")
        super().__init__("--control", "unix:" + path, *args, **{"kernel": False, **kwargs})
        deadline = time.monotonic() + 20
        while True:
            try:
                self.control = socket.socket(socket.AF_UNIX)
                self.control.connect(path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self._read(1)
                    check(False, "no control socket: " + self.text())
                time.sleep(0.05)
        self.control.settimeout(TIMEOUT)
        self.lines = self.control.makefile("r")
        check("sill" in json.loads(self.lines.readline()), "no greeting")

    def request(self, name, **arguments):
        """The answer's "return", or a string: the sentence of its error."""
        self.control.sendall((json.dumps({"execute": name, "arguments": arguments, "id": 1}) + "\n").encode())
        answer = json.loads(self.lines.readline())
        check(answer.get("id") == 1, "an answer has another id: %r" % answer)
        return answer.get("return", answer.get("error"))

    def screen(self):
        r = self.request("screen-text")
        return r["text"] if isinstance(r, dict) else ""

    def picture(self):
        """The screen as (width, height, pixel(x, y) -> (r, g, b), all bytes)."""
        r = self.request("screenshot")
        check(isinstance(r, dict), "no screenshot: %r" % r)
        w, h, data = r["width"], r["height"], unpng(base64.b64decode(r["png"]))
        return w, h, lambda x, y: tuple(data[y * (w * 3 + 1) + 1 + 3 * x:][:3]), data

    def wait_screen(self, what, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while True:
            text = self.screen()
            if what in text:
                return text
            # What goes to the serial line must be read, or the guest waits.
            if self._read(0.1) == b"":
                time.sleep(0.1)
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                print(text)
                print(self.text())
                check(False, "%r did not appear on the screen" % what)

    def keys(self, *chords):
        for chord in chords:
            check(self.request("send-key", keys=chord) == {}, "the key %s was refused" % chord)

    def type_keys(self, text):
        check(self.request("type", text=text) == {}, "typing was refused")

    def quit(self):
        self.request("quit")
        self.expect_end(0)


def unpng(png):
    """The rows of a PNG as Sill writes them: each a filter byte, which is 0, and its pixels."""
    at, body = 8, b""
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IDAT":
            body += png[at + 8:at + 8 + n]
        at += 12 + n
    return zlib.decompress(body)


def grub_iso(scratch, files, config):
    """An ISO image that BIOS and UEFI boot GRUB from: files maps names in it to files here."""
    root = scratch.file("iso")
    os.makedirs(root + "/boot/grub")
    for name, source in files.items():
        shutil.copy(source, os.path.join(root, name))
    with open(root + "/boot/grub/grub.cfg", "w") as f:
        f.write(config)
    iso = scratch.file("grub.iso")
    run("grub-mkrescue", "-o", iso, root)
    return iso
