# SPDX-License-Identifier: Apache-2.0
"""The kit's initial RAM disk with more of the kernel's modules in it, and a script "load" that loads them."""
import os

from guest import INITRD, KIT


def _cpio(files):
    """An archive in the "newc" format that the kernel unpacks after the first one: names to (mode, data)."""
    out = bytearray()

    def add(name, mode, data):
        raw = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0]
        out.extend(b"070701" + b"".join(b"%08X" % f for f in fields) + raw)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    folders = set()
    for name in files:
        parent = os.path.dirname(name)
        while parent:
            folders.add(parent)
            parent = os.path.dirname(parent)
    for name in sorted(folders):
        add(name, 0o040755, b"")
    for name, (mode, data) in files.items():
        add(name, 0o100000 | mode, data)
    add("TRAILER!!!", 0, b"")
    return bytes(out)


def initrd_with(path, wanted, files=None):
    """Writes it to path. wanted: names of modules; files: more names and contents (made executable)."""
    root = os.path.join(KIT, "modules/lib/modules")
    root = os.path.join(root, os.listdir(root)[0])
    deps = {}
    with open(os.path.join(root, "modules.dep")) as f:
        for line in f:
            name, _, rest = line.partition(":")
            deps[os.path.basename(name).split(".ko")[0].replace("-", "_")] = [name] + rest.split()
    order = []
    for module in wanted:
        # Nearest dependencies are listed first: loaded last. What is built in is not listed.
        for name in reversed(deps.get(module.replace("-", "_"), [])):
            if name not in order:
                order.append(name)
    archive = {}
    for name in order:
        with open(os.path.join(root, name), "rb") as f:
            archive["more/" + os.path.basename(name)] = (0o644, f.read())
    load = "#!/bin/sh\n" + "".join("insmod /more/%s 2>/dev/null\n" % os.path.basename(name) for name in order)
    archive["bin/load"] = (0o755, load.encode())
    for name, text in (files or {}).items():
        archive[name] = (0o755, text.encode())
    with open(INITRD, "rb") as f:
        base = f.read()
    with open(path, "wb") as f:
        f.write(base + b"\0" * (-len(base) % 512) + _cpio(archive))
    return path
