#!/usr/bin/env python3
"""What a start costs, in counts, and whether that has grown past what is recorded here.

    scripts/footprint.py --supervisor PATH [--record]

Counts, and no times, so that a slow machine changes nothing: allocations, system calls, threads and
descriptors from the start until the main thread waits for events for the first time, and the size of
the program. Allocations and system calls are those of the main thread: how far the others have come by
then is chance. `--record` prints the bounds to be pasted in here.

Exits with 1 and a line for each figure that is over its bound. Where strace or gcc is missing, or the
kernel lets nobody trace: with 2 where the variable CI is set; else the rest is judged.
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
# Nothing here is waited for longer than that, whatever the load.
CEILING = 60

# By `--record`, with a margin: another machine has another C library, kernel and compiler, and a process id
# of more digits may take an allocation or two more.
BOUNDS = {
    "program": {"size kB": 836, "exported names": 0},
    "plain": {"allocations": 243, "threads": 1, "descriptors": 9, "system calls": 117},
    "heartbeat": {"allocations": 465, "threads": 3, "descriptors": 13, "system calls": 181},
    "everything": {"allocations": 677, "threads": 3, "descriptors": 14, "system calls": 224},
}
HEARTBEAT = ["--enable-heartbeat", "--heartbeat-file", "{home}/beats/file", "--timeout", "100"]
CASES = {
    "plain": [],
    "heartbeat": HEARTBEAT,
    "everything": [
        *HEARTBEAT, "--sd-notify", "--on-event", "true", "--on-give-up", "true",
        "--metrics-file", "{home}/metrics/file", "--name", "name"],
}
ALLOCATIONS, CALLS, SIZE, EXPORTS = "allocations", "system calls", "size kB", "exported names"
# As the library tells them.
COUNTED = [ALLOCATIONS, "threads", "descriptors"]
# Not as root, whose socket stands in /run, where all entries are gone through, which are the machine's.
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


class Bench:
    """Where the supervisor is started: `home` is all that it sees, the rest lies in `work`."""

    def __init__(self, supervisor, stack):
        # Not where TMPDIR says: everybody can come here. It may be a disk, so the heartbeat file, of
        # which a line would say so, has its place in memory; and that may allow no programs.
        self.work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        self.homes = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        self.library, self.output, self.log = (self.work / name for name in ("library", "output", "log"))
        self.give(self.work)
        self.give(self.homes)
        # The original may lie where only root comes.
        self.supervisor = pathlib.Path(shutil.copy(supervisor, self.work / "supervisor"))
        self.supervisor.chmod(0o755)
        self.runs = 0

    def give(self, path):
        if NOBODY:
            os.chown(path, NOBODY["user"], NOBODY["group"])

    def home(self):
        """A new one. All names are of one length: a longer one may take one allocation more."""
        self.runs += 1
        home = self.homes / f"{self.runs:02}"
        for directory in (home, home / "beats", home / "metrics", home / "instances"):
            directory.mkdir(0o700)
            self.give(directory)
        return home

    def run(self, options, is_idle, tracer=(), **environment):
        """Starts it; what is in the file `self.output` when `is_idle` finds it so."""
        home = self.home()
        self.output.unlink(missing_ok=True)
        # Its own places, and nothing else that it may read.
        environment.update(PATH="/usr/bin:/bin", XDG_RUNTIME_DIR=str(home))
        environment.update(SUPERVISOR_RUNTIME_DIR=str(home / "instances"))
        words = [option.format(home=home) for option in options]
        with open(self.log, "wb") as stream:
            process = subprocess.Popen(
                [*tracer, self.supervisor, *words, "sleep", "1000"], cwd=home, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream,
                start_new_session=True, **NOBODY)
        try:
            end = time.monotonic() + CEILING
            while not (self.output.exists() and is_idle(self.output.read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"footprint: not seen to become idle: {self.log.read_text().strip()}")
                time.sleep(0.01)
            if " started pid=" not in self.log.read_text():
                sys.exit(f"footprint: the command did not start: {self.log.read_text().strip()}")
            return self.output.read_text()
        finally:
            # strace is in the same group, does not heed SIGTERM, and ends with the supervisor.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(CEILING)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def counts(self, options):
        """Allocations, threads and descriptors, by the library that counts them."""
        variables = {"LD_PRELOAD": str(self.library), "FOOTPRINT": str(self.output)}
        text = self.run(options, lambda text: text.endswith("\n"), **variables)
        return dict(zip(COUNTED, map(int, text.split())))

    def calls(self, options):
        """System calls, the exec's included. strace without -f follows nobody but the main thread."""
        strace = [shutil.which("strace"), "-o", self.output]
        return count_calls(self.run(options, WAITS.search, tracer=strace))


WAITS = re.compile(r"^epoll_p?wait2?\(", re.MULTILINE)


def count_calls(text):
    """Those before the first wait, but what is chance: a hook ends before that or later, and then our
    handler runs; another thread is waited for, or has gone on already."""
    number, in_handler = 0, False
    for line in text[:WAITS.search(text).start()].splitlines():
        in_handler = in_handler or line.startswith("--- SIG")
        number += not in_handler and re.match(r"(?!futex|sched_yield)\w+\(", line) is not None
        in_handler = in_handler and not line.startswith("rt_sigreturn(")
    return number


def attempt(*words, **user):
    """None, or why the program does not do it."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **user)
    except OSError as error:
        return f"{words[0]} can't be run: {error.strerror}"
    lines = done.stderr.strip().splitlines() or [f"it exits with {done.returncode}"]
    return f"{words[0]} does not work here: {lines[0]}" if done.returncode else None


def obstacles(bench):
    """What can't be counted, and why."""
    compiled = attempt("gcc", "-O1", "-shared", "-fPIC", HERE / "footprint.c", "-o", bench.library)
    traced = attempt("strace", "-o", "/dev/null", "true", **NOBODY)
    listed = attempt("nm", "--version")
    reasons = {", ".join(COUNTED): compiled, CALLS: traced, EXPORTS: listed}
    return {what: why for what, why in reasons.items() if why}


def measure(bench, missing):
    """The figures of each case."""
    figures = {"program": {SIZE: math.ceil(bench.supervisor.stat().st_size / 1024)}}
    if EXPORTS not in missing:
        # What it exported would take the place of what a preloaded library means by that name.
        listed = subprocess.run(["nm", "-D", "--defined-only", bench.supervisor], check=True,
                                capture_output=True)
        figures["program"][EXPORTS] = len(listed.stdout.splitlines())
    for case, options in CASES.items():
        figures[case] = {}
        if bench.library.exists():
            # Where the main thread waits for another it allocates, and now and then it need not wait.
            rows = [bench.counts(options) for _ in range(3)]
            figures[case] = {what: max(row[what] for row in rows) for what in COUNTED}
        if CALLS not in missing:
            figures[case][CALLS] = bench.calls(options)
    return figures


def bound_for(what, now):
    """Threads and descriptors are exact."""
    margins = {ALLOCATIONS: now * 1.05, CALLS: now + 3, SIZE: now * 1.03}
    return math.ceil(margins.get(what, now))


def record(figures):
    print("BOUNDS = {")
    for case, row in figures.items():
        print(f'    "{case}":', json.dumps({what: bound_for(what, row[what]) for what in row}) + ",")
    print("}")


def judge(figures):
    """How many are over their bounds."""
    over, notes = [], []
    print(f"{'figure':26}    now  bound")
    for case, what in [(case, what) for case, row in figures.items() for what in row]:
        name, now, bound = f"{case}: {what}", figures[case][what], BOUNDS[case][what]
        print(f"{name:26}  {now:5}  {bound:5}")
        if now > bound:
            over.append(f"{name}: grew to {now}, past the bound {bound}; if it is worth it, raise the "
                        "bound in scripts/footprint.py in the commit that makes it grow, and say why there")
        elif now < bound * 0.85:
            notes.append(f"note: {name}: {now}: lower the bound {bound} to {bound_for(what, now)}")
    print(*notes, sep="\n", end="\n" if notes else "", flush=True)
    print(*over, sep="\n", end="\n" if over else "", file=sys.stderr)
    return len(over)


def forget_the_caller():
    """What a caller ignores and blocks is handed on, and is answered by other calls."""
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # These two Python itself ignores, and hands on as they were by default.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--supervisor", required=True, type=pathlib.Path, help="the release build")
    parser.add_argument("--record", action="store_true", help="print the bounds to be pasted in here")
    arguments = parser.parse_args()
    forget_the_caller()
    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(arguments.supervisor, stack)
            missing = obstacles(bench)
            for what, why in missing.items():
                print(f"not counted: {what}: {why}", file=sys.stderr)
            if missing and (arguments.record or os.environ.get("CI")):
                sys.exit(2)
            figures = measure(bench, missing)
    except OSError as error:
        sys.exit(f"footprint: {error}")
    if arguments.record:
        record(figures)
    elif judge(figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
