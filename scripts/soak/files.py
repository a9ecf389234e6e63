#!/usr/bin/env python3
"""A command for the soak: whatever it does to its file, the file's directory and the links that lead
there is a beat.

    files.py OUT noticed|moved MAX_GAP_MS

`moved`: the directory is also moved away with the file in it, which no event tells. SIGUSR1: one
more beat, a tenth of a second later, then a hang. OUT is written as beater.c does.
"""
import os
import pathlib
import random
import shutil
import signal
import sys
import time

BEATS = ["write", "touch", "rename", "remove", "move", "hold", "directory", "way", "target", "link",
         "relink", "middle"]


class Files:
    """`way` is a link to one of two directories; in it the file, or links that lead to it."""

    def __init__(self, path, out):
        self.path = path
        self.base = path.parent.parent
        self.out = open(out, "a", buffering=1)
        self.before = self.after = 0
        self.held = None

    def note(self, what):
        now = time.monotonic_ns()
        self.out.write(f"{what} {os.getpid()} {now} {self.before} {self.after}\n")

    def point(self, link, target):
        """A link to `target` in the place of whatever is there."""
        new = link.with_name(link.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        os.replace(new, link)

    def write(self):
        self.path.write_text("x")

    def touch(self):
        os.utime(self.path, None)

    def rename(self):
        fresh = self.path.with_name("fresh")
        fresh.write_text("x")
        os.replace(fresh, self.path)

    def remove(self):
        self.path.unlink()
        self.write()

    def move(self):
        os.replace(self.path, self.path.with_name("away"))
        self.write()

    def hold(self):
        self.held = open(self.path)
        self.rename()

    def directory(self):
        there = self.path.parent.resolve()
        shutil.rmtree(there)
        there.mkdir()
        self.write()

    def way(self):
        other = self.base / random.choice("ab")
        other.mkdir(exist_ok=True)
        self.point(self.base / "way", other.name)
        self.write()

    def target(self):
        self.link()
        fresh = self.base / "fresh"
        fresh.write_text("x")
        os.replace(fresh, self.path.resolve())

    def link(self):
        self.point(self.path, self.base / random.choice("cd"))
        self.write()

    def relink(self):
        self.path.unlink()
        self.path.symlink_to(self.base / random.choice("cd"))
        self.write()

    def middle(self):
        self.point(self.base / "m", self.base / random.choice("cd"))
        self.point(self.path, self.base / "m")
        self.write()
        self.point(self.base / "m", self.base / random.choice("cd"))
        self.write()

    def away(self):
        there = self.path.parent.resolve()
        shutil.rmtree(self.base / "moved", ignore_errors=True)
        os.rename(there, self.base / "moved")
        there.mkdir()
        self.write()

    def beat(self, kind):
        begun = time.monotonic_ns()
        getattr(self, kind)()
        # Of a beat that is cut short nobody saw anything.
        self.before, self.after = begun, time.monotonic_ns()


def main():
    out, mode, gap = sys.argv[1:]
    files = Files(pathlib.Path(os.environ["HEARTBEAT_FILE"]), out)

    def end(*_):
        files.note("term")
        os._exit(0)

    hang = []
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGUSR1, lambda *_: hang.append(1))
    files.beat("way")
    files.note("start")
    kinds = BEATS + (["away"] if mode == "moved" else [])
    while not hang:
        time.sleep(random.random() * int(gap) / 1000)
        files.beat(random.choice(kinds))
    time.sleep(0.1)
    files.beat("write")
    files.note("hang")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
