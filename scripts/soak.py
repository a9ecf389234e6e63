#!/usr/bin/env python3
"""Long runs under faults: no healthy command is killed, no hang is missed, nothing grows.

    scripts/soak.py [--short] [--supervisor PATH] [--beats DIRECTORY] [SCENARIO ...]

Prints one row for each scenario and exits with 1 if any of them shows a false kill, a missed
hang, or a leak. `make soak` runs all of it (about 20 minutes), `make test` the short form.
"""
import argparse
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
# Nothing here is waited for longer than that, whatever the load.
CEILING = 20


def wait_until(is_so, ceiling=CEILING):
    """Whether it came to be so."""
    end = time.monotonic() + ceiling
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Instance:
    """A supervisor and its beater."""

    def __init__(self, soak, name, timeout, mode, number, options=(), user=None, files=False):
        self.out = soak.directory / f"{name}.out"
        self.log = soak.directory / f"{name}.log"
        self.timeout = timeout
        # In the directory of all, or on a way of its own.
        beats = soak.beats / name / "way" / "hb" if files else soak.beats / name
        heartbeat = [] if timeout is None else [
            "--enable-heartbeat", "--timeout", str(timeout), "--heartbeat-file", str(beats)]
        program = ["python3", HERE / "soak" / "files.py"] if files else [soak.beater]
        command = [*program, self.out, mode, str(number)]
        if files:
            beats.parent.parent.mkdir()
        self.log_stream = open(self.log, "w")
        self.process = subprocess.Popen(
            [soak.supervisor, *heartbeat, "--backoff-factor=0.1", *options, *command],
            stderr=self.log_stream, stdin=subprocess.DEVNULL, user=user)
        soak.instances.append(self)

    def notes(self, what):
        """The lines that the beaters wrote of this kind: lists of integers, the pid first."""
        if not self.out.exists():
            return []
        lines = [line.split() for line in self.out.read_text().splitlines()]
        return [[int(word) for word in words[1:]] for words in lines if words[0] == what]

    def started(self, runs=1):
        return wait_until(lambda: len(self.notes("start")) >= runs)

    def command(self):
        return self.notes("start")[-1][0]

    def tell(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.command(), number)

    def ends(self):
        """Of each SIGTERM: whether it came early, how late it was, whether the command had hung.

        It is early where the last beat had begun less than a timeout ago. Not where the command
        was silent for longer against its will, for want of a processor or a disk."""
        hung = {pid for pid, *_ in self.notes("hang")}
        due = self.timeout * 1e9
        return [(at < before + due, max(0, at - after - due) / 1e9, pid in hung)
                for pid, at, before, after in self.notes("term")]

    def unfound(self):
        """How many hung and were not told to end."""
        return len({note[0] for note in self.notes("hang")} - {note[0] for note in self.notes("term")})

    def figures(self):
        """What must not grow: memory in kB, threads, descriptors, zombies among its children."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        rollup = (proc / "smaps_rollup").read_text().split()
        of = lambda key: int(rollup[rollup.index(key + ":") + 1])
        return {
            "rss": of("Rss"),
            # Between a fork and its exec the child shares them.
            "dirty": of("Private_Dirty") + of("Shared_Dirty"),
            "threads": len(list((proc / "task").iterdir())),
            "fds": len(list((proc / "fd").iterdir())),
        }

    def zombies(self):
        listed = subprocess.run(["ps", "-o", "stat=", "--ppid", str(self.process.pid)],
                                capture_output=True, text=True, check=False)
        return sum(line.startswith("Z") for line in listed.stdout.splitlines())

    def stop(self, number=signal.SIGTERM):
        """Whether it ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        self.log_stream.close()
        try:
            self.process.wait(CEILING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.tell(signal.SIGKILL)
            return False
        return True


class Row:
    """What a scenario came to."""

    def __init__(self, fault):
        self.fault = fault
        self.tried = self.false_kills = self.missed = self.slow = self.leaks = 0
        self.late = []
        self.notes = []

    def judge(self, instance, allowed=float("inf")):
        """`allowed`: so many seconds late may it be, and what the load costs."""
        self.missed += instance.unfound()
        for early, late, hung in instance.ends():
            self.false_kills += early
            self.slow += not early and not hung
            if hung and not early:
                self.late.append(late)
                self.missed += late > allowed

    def is_good(self):
        return not (self.false_kills or self.missed or self.leaks)

    def text(self):
        worst = "-"
        if self.late:
            ms = sorted(late * 1000 for late in self.late)
            at = lambda part: ms[min(len(ms) - 1, int(part * len(ms)))]
            worst = f"{len(ms)}: {at(.5):.1f} / {at(.9):.1f} / {at(.99):.1f} / {ms[-1]:.1f}"
        if self.slow:
            self.notes.append(f"silent against its will: {self.slow}")
        row = [self.fault, self.tried, self.false_kills, self.missed, self.leaks, worst,
               "; ".join(self.notes)]
        return "| " + " | ".join(str(cell) for cell in row) + " |"


class Soak:
    def __init__(self, supervisor, place, short):
        self.supervisor = supervisor
        self.place = place
        self.short = short
        self.instances = []

    def size(self, full, short):
        return short if self.short else full

    @contextlib.contextmanager
    def scene(self):
        """A directory for the files of a scenario, and the end of all that it started."""
        # In memory: a disk can hold up a note for longer than a timeout.
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        new = lambda place: tempfile.TemporaryDirectory(prefix="supervisor-soak-", dir=place)
        with new(memory) as directory, new(self.place or memory) as beats:
            self.directory = pathlib.Path(directory)
            self.beats = pathlib.Path(beats)
            for path in [self.directory, self.beats]:
                path.chmod(0o777)
            self.beater = self.directory / "beater"
            subprocess.run(["cc", "-O2", "-o", self.beater, HERE / "soak" / "beater.c"], check=True)
            self.instances = []
            try:
                yield
            finally:
                for instance in self.instances:
                    instance.stop()

    def start(self, count, *args, **more):
        made = [Instance(self, str(len(self.instances)), *args, **more) for _ in range(count)]
        assert all(instance.started() for instance in made), "not started"
        return made

    def hang(self, row, instances, within, spread=0.0):
        """Lets each hang, at a random moment, and gives `within` timeouts to find it."""
        for instance in sorted(instances, key=lambda _: random.random()):
            instance.tell(signal.SIGUSR1)
            time.sleep(random.random() * 2 * spread / len(instances))
        longest = max(instance.timeout for instance in instances)
        end = time.monotonic() + (within + 2) * longest + 5
        for instance in instances:
            found = lambda: instance.notes("hang") and not instance.unfound()
            wait_until(found, max(0.1, end - time.monotonic()))
            # Half a timeout is more than any load costs; a blind watch costs up to a whole one.
            row.judge(instance, (within - 0.5) * longest)


def freeze(pids, on):
    for pid in pids:
        # One that was killed is found by its notes.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)


def frozen(soak):
    """The supervisor is stopped for three timeouts while the command goes on beating."""
    row = Row("supervisor stopped for 3 timeouts, command beats on")
    batches, size = soak.size((5, 20), (1, 10))
    for batch in range(batches):
        with soak.scene():
            # Gaps of up to 0.7 of the timeout, and of a millisecond: a beat in the last one.
            instances = soak.start(size, 1, "beat", 1 if batch % 2 else 700)
            freeze([instance.process.pid for instance in instances], True)
            time.sleep(3)
            freeze([instance.process.pid for instance in instances], False)
            time.sleep(2)
            row.tried += size
            soak.hang(row, instances, 1)
    return row


def together(soak):
    """Both are stopped for three timeouts; the first beat comes half a timeout after."""
    row = Row("both stopped for 3 timeouts, first beat 0.5 later")
    batches, size = soak.size((5, 20), (1, 10))
    for _ in range(batches):
        with soak.scene():
            instances = soak.start(size, 1, "beat", 300)
            both = [pid for instance in instances for pid in (instance.process.pid, instance.command())]
            freeze(both, True)
            time.sleep(3)
            for instance in instances:
                instance.tell(signal.SIGUSR2)
            freeze(both, False)
            time.sleep(1.5)
            row.tried += size
            soak.hang(row, instances, 2)
    return row


def storms(soak):
    """More events than the queue holds, while nobody takes them."""
    row = Row("queue overflow (20,000 events while stopped)")
    size = soak.size(20, 4)
    with soak.scene():
        instances = soak.start(size, 4, "storm", 10000)
        freeze([instance.process.pid for instance in instances], True)
        for instance in instances:
            instance.tell(signal.SIGUSR2)
        time.sleep(2)
        freeze([instance.process.pid for instance in instances], False)
        time.sleep(5)
        row.tried = size
        soak.hang(row, instances, 1)
    return row


def endless(soak):
    """Events come faster than they can be read, for as long as the command lives."""
    row = Row("events without end: SIGTERM heeded within a second")
    size = soak.size(20, 4)
    slowest = 0
    for _ in range(size):
        with soak.scene():
            [instance] = soak.start(1, 5, "storm", 2_000_000_000)
            # Both on one processor: the writer is the faster one.
            for thread in os.listdir(f"/proc/{instance.process.pid}/task"):
                os.sched_setaffinity(int(thread), {0})
            os.sched_setaffinity(instance.command(), {0})
            instance.tell(signal.SIGUSR2)
            time.sleep(2)
            begun = time.monotonic()
            instance.stop()
            slowest = max(slowest, time.monotonic() - begun)
            row.tried += 1
    row.missed += slowest > 1
    row.notes.append(f"slowest {slowest * 1000:.0f} ms")
    return row


def replaced(soak):
    """The file is replaced by rename, again and again."""
    count = soak.size(60_000, 3_000)
    row = Row(f"replaced by rename {count:,} times")
    with soak.scene():
        [instance] = soak.start(1, 2, "replace", count)
        time.sleep(0.1)
        before = instance.figures()
        assert wait_until(lambda: instance.notes("done")), "not done"
        after = instance.figures()
        grown(row, before, after)
        row.tried = count
        soak.hang(row, [instance], 1)
    return row


def grown(row, before, after):
    """Says how it was and is; a leak where it grew by more than a few pages, or by more descriptors
    than a launch needs for a moment."""
    row.notes.append(", ".join(f"{key} {before[key]} -> {after[key]}" for key in before))
    for key, slack in [("rss", 256), ("dirty", 128), ("threads", 0), ("fds", 3)]:
        row.leaks += after[key] > before[key] + slack


def files(soak):
    """Whatever is done to the file, its directory and the links that lead there."""
    return played(soak, "noticed", "files, directories and links removed, replaced, re-pointed", 1)


def moved(soak):
    """The same, and directories are moved away with the file, which no event tells."""
    return played(soak, "moved", "the same, and directories moved away with the file", 2)


def played(soak, mode, what, within):
    size, seconds = soak.size((10, 120), (3, 3))
    row = Row(f"{size} for {seconds} s: {what}")
    with soak.scene():
        instances = soak.start(size, 1, mode, 600, files=True)
        time.sleep(seconds)
        row.tried = size
        soak.hang(row, instances, within)
    return row


def restarts(soak):
    """Restarts without a delay, with and without heartbeat, and mixed with hangs."""
    count = soak.size(10_000, 300)
    row = Row(f"{count:,} restarts: plain, with heartbeat, one in ten a hang")
    options = ["--backoff-factor=0", "--reset-after=0"]
    for timeout, one_in in [(None, 0), (5, 0), (0.05, 10)]:
        with soak.scene():
            instance = Instance(soak, "0", timeout, "crash", one_in, options)
            counter = soak.directory / "0.out.runs"
            runs = lambda: counter.stat().st_size if counter.exists() else 0
            assert wait_until(lambda: runs() >= count / 10)
            before = instance.figures()
            assert wait_until(lambda: runs() >= count, 600)
            grown(row, before, instance.figures())
            # A zombie stays no longer than a moment.
            row.leaks += not wait_until(lambda: not instance.zombies(), 5)
            row.tried += count
            if timeout:
                # The last one may be hanging just now.
                row.missed += max(0, instance.unfound() - 1)
    return row


@contextlib.contextmanager
def busy(cores):
    burners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(cores)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def crowd(soak):
    """Many in one directory, both cores busy with something else: healthy, then hung at random moments."""
    size, seconds, spread = soak.size((100, 300, 60), (10, 4, 2))
    burners = soak.size(os.cpu_count(), 0)
    row = Row(f"{size} in one directory for {seconds} s, gaps up to 0.7, then all hang; "
              f"{burners} cores busy")
    with soak.scene(), busy(burners):
        instances = soak.start(size, 2, "beat", 1400)
        time.sleep(seconds)
        row.tried = size
        restarted = sum(len(instance.notes("start")) - 1 for instance in instances)
        row.notes.append(f"restarts before the hangs: {restarted}")
        soak.hang(row, instances, 1, spread)
    return row


def limit(soak):
    """More supervisors of one user than the kernel gives inotify instances."""
    allowed = int(pathlib.Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    size = allowed + 12
    row = Row(f"{size} of one user, {allowed} inotify instances")
    if os.geteuid() != 0 or size > 300 or soak.short:
        row.notes.append("skipped: it takes root to become a user without instances, and a low limit")
        return row
    with soak.scene():
        own = soak.directory / "supervisor"
        own.write_bytes(pathlib.Path(soak.supervisor).read_bytes())
        own.chmod(0o755)
        soak.supervisor, given = own, soak.supervisor
        try:
            instances = soak.start(size, 2, "beat", 1400, user=54322)
        finally:
            soak.supervisor = given
        time.sleep(20)
        row.tried = size
        warned = [i.log.read_text().count("events can't be had") for i in instances]
        row.notes.append(f"{sum(warned)} warnings of {sum(map(bool, warned))} supervisors")
        row.leaks += max(warned) > 1
        soak.hang(row, instances, 2)
    return row


SCENARIOS = [frozen, together, storms, endless, replaced, files, moved, restarts, crowd, limit]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few seconds of each")
    parser.add_argument("--supervisor", default=HERE.parent / "supervisor", type=pathlib.Path)
    parser.add_argument("--beats", metavar="DIRECTORY", help="where the heartbeat files lie (memory)")
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=", ".join(names))
    args = parser.parse_args()
    if unknown := set(args.scenario) - set(names):
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(names)}")
    soak = Soak(args.supervisor.resolve(), args.beats, args.short)
    print("| fault | tried | false kills | missed | leaks | hangs: ms late p50 / p90 / p99 / max | |")
    print("|---|---|---|---|---|---|---|")
    good = True
    for scenario in SCENARIOS:
        if scenario.__name__ in (args.scenario or names):
            row = scenario(soak)
            print(row.text(), flush=True)
            good &= row.is_good()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
