# SPDX-License-Identifier: Apache-2.0
"""How a program of the benchmarks' system is run natively, under Sill and under QEMU's TCG, for the scripts here."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
OUT = TOP / "build/bench"
GUEST = TOP / "build/guest"
SYSTEM = f"{GUEST}/full.img,readonly"
PLACES = ["native", "sill", "tcg"]


def chosen(parser, text):
    """Those that --places names, but TCG only if there is QEMU."""
    names = text.split(",")
    if bad := set(names) - set(PLACES):
        parser.error(f"--places: there is no {', '.join(bad)}")
    if "tcg" in names and not shutil.which("qemu-system-x86_64"):
        print(f"{parser.prog}: qemu-system-x86_64 is not installed (make deps): TCG is skipped", file=sys.stderr, flush=True)
        names.remove("tcg")
    return names


def native(folder, run, with_sys=False, root=OUT / "root"):
    """The command that runs `run` in the system's files, with folder as /mnt, and /sys if wanted."""
    inner = " && ".join([
        f"mount --rbind /dev {root}/dev", f"mount --rbind /proc {root}/proc",
        *([f"mkdir -p {root}/sys", f"mount --rbind /sys {root}/sys"] if with_sys else []),
        f"mount -t tmpfs tmpfs {root}/tmp", f"mount --bind {folder} {root}/mnt",
        f"exec chroot {root} {run}"])
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-c", inner]


def guest_append(data, tmp, commands, *parameters):
    """The guest's command line: its second disk, mounted with these options, on /mnt/mnt, memory of this size on
    /mnt/tmp, then the commands."""
    script = "; ".join([f"mount {data} /dev/vdb /mnt/mnt", f"mount -t tmpfs -o size={tmp} tmpfs /mnt/tmp",
                        "mount --bind /dev /mnt/dev", "mount --bind /proc /mnt/proc", *commands, "poweroff -f"])
    return " ".join(["console=ttyS0 quiet", *parameters, f'sill.exec="{script}"'])


def sill(program, name, append, memory, cpus, disks):
    """disks: as --disk has them."""
    return [program, "run", "--name", name, "--kernel", str(GUEST / "vmlinuz"), "--initrd",
            str(GUEST / "initrd.img"), "--append", append, "--memory", memory, "--cpus", str(cpus),
            *(x for d in disks for x in ("--disk", d))]


def tcg(append, memory, cpus, disks):
    """The same machine."""
    split = (d.partition(",") for d in disks)
    drives = (f"file={path},format=raw,if=virtio" + (",readonly=on" if readonly else "") for path, _, readonly in split)
    return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", memory,
            "-smp", str(cpus), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", str(GUEST / "vmlinuz"), "-initrd", str(GUEST / "initrd.img"), "-append", append,
            *(x for d in drives for x in ("-drive", d))]


def follow(tool, place, command, names, log, word):
    """Runs command(names), whose output says `word NAME` before each of them and `word-DONE` at the end, and yields each
    name with the lines that follow it. One that stops the VM does not keep the others from being run. The output is
    added to the file log; tool is the name to speak under."""
    names = list(names)
    while names:
        last, lines, done = None, [], False
        with subprocess.Popen(command(names), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process, open(log, "ab") as copy:
            for line in process.stdout:
                copy.write(line)
                line = line.decode(errors="replace").strip()
                if m := re.fullmatch(rf"{word} (\S+)", line):
                    if last:
                        yield last, lines
                    last, lines = m[1], []
                    if sys.stderr.isatty():
                        print(f"\r\x1b[K{tool}: {place}: {last}", end="", file=sys.stderr, flush=True)
                elif line == f"{word}-DONE":
                    done = True
                else:
                    lines.append(line)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if last:
            yield last, lines
        if done:
            return
        if last is None:
            sys.exit(f"{tool}: {place} did not get to the first of them; its output is in {log}")
        print(f"{tool}: {place}: stopped in {last}; its output is in {log}", file=sys.stderr, flush=True)
        names = names[names.index(last) + 1:]
