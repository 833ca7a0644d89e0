# SPDX-License-Identifier: Apache-2.0
"""A small VNC client for tests: raw pixels, keys, and reading text off the screen by the guest's own font."""
import socket
import struct
import time
import zlib


class Rfb:
    def __init__(self, address, timeout=10):
        deadline = time.monotonic() + timeout
        while True:
            try:
                if address.startswith("unix:"):
                    self.s = socket.socket(socket.AF_UNIX)
                    self.s.connect(address[5:])
                else:
                    host, port = address.rsplit(":", 1)
                    self.s = socket.create_connection((host or "127.0.0.1", int(port)))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.s.settimeout(timeout)
        assert self._read(12) == b"RFB 003.008\n"
        self.s.sendall(b"RFB 003.008\n")
        assert 1 in self._read(self._read(1)[0]), "the server wants a password"
        self.s.sendall(b"\x01")
        assert self._read(4) == bytes(4)
        self.s.sendall(b"\x01")
        self.width, self.height = struct.unpack(">HH", self._read(4))
        self._read(16)
        self.name = self._read(struct.unpack(">I", self._read(4))[0]).decode()
        self.s.sendall(struct.pack(">BxHii", 2, 2, 0, -223))
        self.pixels = bytearray(self.width * self.height * 4)
        self._request(False)

    def _read(self, n):
        data = b""
        while len(data) < n:
            part = self.s.recv(n - len(data))
            if not part:
                raise EOFError("the server closed the connection")
            data += part
        return data

    def _request(self, incremental):
        self.s.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def _update(self):
        assert self._read(2)[0] == 0
        for _ in range(struct.unpack(">H", self._read(2))[0]):
            x, y, w, h, encoding = struct.unpack(">HHHHi", self._read(12))
            if encoding == -223:
                self.width, self.height = w, h
                self.pixels = bytearray(w * h * 4)
                self._request(False)
                return
            assert encoding == 0
            data = self._read(w * h * 4)
            for i in range(h):
                at = ((y + i) * self.width + x) * 4
                self.pixels[at:at + w * 4] = data[i * w * 4:(i + 1) * w * 4]
        self._request(True)

    def poll(self, seconds):
        """Takes updates for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.s.settimeout(left)
            try:
                first = self.s.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                break
            if not first:
                raise EOFError("the server closed the connection")
            self.s.settimeout(10)
            self._update()

    def key(self, keysym, hold=0.02):
        for down in (1, 0):
            self.s.sendall(struct.pack(">BBxxI", 4, down, keysym))
            time.sleep(hold)

    def type(self, text):
        for c in text:
            self.key(0xFF0D if c == "\n" else ord(c))

    def png(self, path):
        raw = b""
        for y in range(self.height):
            row = self.pixels[y * self.width * 4:(y + 1) * self.width * 4]
            rgb = bytearray(self.width * 3)
            rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
            raw += b"\0" + rgb

        def chunk(kind, data):
            body = kind + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        with open(path, "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)) +
                    chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))
