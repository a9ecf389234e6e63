#!/usr/bin/env python3
"""What the supervisor costs and how fast it is, beside runsv and s6-supervise, in one run.

    scripts/bench.py [--quick] [--supervisor PATH] [--edge PATH] [--only NAME[,NAME]] [--markdown FILE]

Prints the machine, one table, and what could not be measured and why. `make bench` runs all of it
(about 10 minutes, 5 of them for the fleet); with --quick it is one minute.

Those measured take turns, and the order turns with each round. Figures are medians; in brackets stand
the 10th and the 90th percentile and the number of samples. In the rounds that measure latencies this
script has one processor and those measured another. The command reads the clock first thing, and
sends the stamp through a FIFO.
"""
import argparse
import collections
import contextlib
import ctypes
import itertools
import os
import pathlib
import platform
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# Nothing here is waited for longer than that, whatever the load.
CEILING = 20
# A timeout that never passes in a run.
NEVER = 10_000
SECOND = 1_000_000_000
PR_SET_CHILD_SUBREAPER = 36
CLOCK_REALTIME_COARSE = 5
BLIND = "heartbeat events can't be had"

# As in bench_child.c. Times are nanoseconds of CLOCK_MONOTONIC.
NOTE = struct.Struct("=iiiiqqq")
Note = collections.namedtuple("Note", "tag what pid parent at before after")
Job = collections.namedtuple("Job", "child place beats timeout options")
# Who is measured: the column of the table that it fills, its command line for a program and a job,
# whether it watches a heartbeat file, and what stands before its figures and behind that of the restart.
Peer = collections.namedtuple("Peer", "column argv program watches label throttle", defaults=[False, "", ""])

# Looks at the file's time once a second: what inotify is measured against.
POLLER = """
import os, subprocess, sys, time
path, timeout, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
os.environ["HEARTBEAT_FILE"] = path
child = subprocess.Popen(command)
while child.poll() is None:
    time.sleep(1)
    if os.path.exists(path) and time.time() - os.stat(path).st_mtime > timeout:
        child.terminate()
"""

FLEET = """
i=0
while [ $i -lt "$1" ]; do
    BENCH_TAG=$(($2 + i)) "$3" launch "$4" --enable-heartbeat --timeout 20 --heartbeat-file "beats/$i" \\
        --log-file "logs/$i" --name "fleet-$i" "$3" &
    i=$((i + 1))
done
wait
"""


class NotMeasured(Exception):
    """Why a section has no figures."""


def numbers(path, *keys):
    """The sum of the numbers behind these keys in a file such as /proc/PID/status."""
    lines = [line.split() for line in pathlib.Path(path).read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words and words[0].rstrip(":") in keys)


def threads(pid):
    return list(pathlib.Path(f"/proc/{pid}/task").iterdir())


def switches(pid):
    """Context switches of all threads: proc_pid_status(5)."""
    keys = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
    return sum(numbers(thread / "status", *keys) for thread in threads(pid))


def cpu_time(pid):
    """Of all threads, in nanoseconds."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads(pid))


def stat(path):
    """State and parent of a process or thread."""
    words = (path / "stat").read_text().rpartition(")")[2].split()
    return words[0], int(words[1])


def others_busy():
    """Seconds of processor time that others than we and our children have spent."""
    words = pathlib.Path("/proc/stat").read_text().split()
    user, nice, system, _idle, _wait, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def linkage(program):
    """A static program of 64 bits names no interpreter: elf(5)."""
    image = pathlib.Path(program).read_bytes()
    if image[:6] != b"\x7fELF\x02\x01":
        return ""
    [table] = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    pt_interp = struct.pack("<I", 3)
    named = any(image[at:at + 4] == pt_interp for at in range(table, table + size * count, size))
    return ", dynamic" if named else ", static"


def end_all():
    """Ends all that was started here. Orphans come to us, so that each is our child in its turn."""
    while True:
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            # Others may end while we look.
            with contextlib.suppress(OSError):
                if stat(process)[1] == os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def supervisor(program, job):
    watch = [] if job.timeout is None else [
        "--enable-heartbeat", "--heartbeat-file", job.beats, "--timeout", job.timeout]
    return [program, "--backoff-factor", 0, *watch, *job.options, job.child]


def service_directory(program, job):
    """runsv and s6-supervise run what is called `run` there."""
    (job.place / "run").symlink_to(job.child)
    return [program, job.place]


def poller(program, job):
    return [program, "-c", POLLER, job.beats, job.timeout or NEVER, job.child]


def nobody(_, job):
    return [job.child]


class Instance:
    """One that was started."""

    def __init__(self, bench, peer, tag):
        self.bench, self.peer, self.tag = bench, peer, tag
        self.log, self.counter = [bench.place / f"{tag}.{kind}" for kind in ["log", "count"]]
        self.counter.write_bytes(bytes(8))
        self.pid = None

    def notes(self, what):
        return [note for note in self.bench.notes[self.tag] if note.what == ord(what)]

    def beats(self):
        return int.from_bytes(self.counter.read_bytes(), sys.byteorder)


class Bench:
    def __init__(self, args, disk, memory):
        self.quick, self.disk, self.memory = args.quick, disk, memory
        self.rows, self.lacks = [], []
        self.tags, self.notes = itertools.count(), collections.defaultdict(list)
        self.cpus, self.cpu = sorted(os.sched_getaffinity(0)), -1
        self.begun, self.others = time.monotonic(), others_busy()
        self.fifo = disk / "fifo"
        os.mkfifo(self.fifo)
        # Opened for reading alone it would be at its end with each writer.
        self.notes_fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.poll = select.poll()
        self.poll.register(self.notes_fd, select.POLLIN)
        self.child = disk / "bench_child"
        # Static where that works: it shares no library with those measured.
        compiler = ["gcc", "-O2", "-o", self.child, HERE / "bench_child.c"]
        if subprocess.run([*compiler, "-static"], stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run(compiler, check=True)
        self.poller = Peer("reference", poller, sys.executable, watches=True, label="poller: ")
        self.nobody = Peer("reference", nobody, None, label="no supervisor: ")
        self.peers = []
        self.find_peers(args)
        self.watchers = [peer for peer in self.peers if peer.watches]

    def size(self, full, quick):
        return quick if self.quick else full

    def find_peers(self, args):
        for name, program in [("ours", args.supervisor), ("edge", args.edge)]:
            if program and program.is_file():
                self.peers.append(Peer(name, supervisor, self.copied(program, name), watches=True))
            else:
                self.lacks.append(f"{name}: no file {program}" if program else f"{name}: none was given")
        for name, package, throttle in [("runsv", "runit", ""), ("s6-supervise", "s6", "; waits 1 s")]:
            if found := shutil.which(name):
                self.peers.append(Peer(name, service_directory, found, throttle=throttle))
            else:
                self.lacks.append(f"{name}: not installed (Debian's {package})")
        for peer in list(self.peers):
            try:
                with self.scene():
                    self.started(1, peer)
            except NotMeasured as why:
                self.peers.remove(peer)
                self.lacks.append(str(why))

    def copied(self, program, name):
        """One that nobody else has mapped, and of which nothing is to be written any more: that
        would count as dirty."""
        copy = self.disk / name
        shutil.copy(program, copy)
        with open(copy, "rb") as stream:
            os.fsync(stream)
        return copy

    def turns(self, rounds, peers):
        for turn in range(rounds):
            first = turn % len(peers)
            yield from peers[first:] + peers[:first]

    @contextlib.contextmanager
    def scene(self):
        """A directory in memory for the files of some instances, and the end of all of them."""
        self.place = pathlib.Path(tempfile.mkdtemp(dir=self.memory))
        try:
            yield
        finally:
            end_all()
            shutil.rmtree(self.place, ignore_errors=True)

    @contextlib.contextmanager
    def pinned(self):
        """This script on one processor, what it launches on another."""
        if len(self.cpus) > 1:
            os.sched_setaffinity(0, self.cpus[:1])
            self.cpu = self.cpus[1]
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.cpus)
            self.cpu = -1

    def spawn(self, argv, log, **more):
        """Through the launcher; in a session of its own, so that a terminal makes no difference."""
        foreign = ("SUPERVISOR_", "HEARTBEAT_", "NOTIFY_", "BENCH_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        more |= {"BENCH_FIFO": self.fifo, "BENCH_CPU": self.cpu,
                 "SUPERVISOR_RUNTIME_DIR": self.place / "run"}
        environment |= {key: str(value) for key, value in more.items()}
        files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                 (os.POSIX_SPAWN_DUP2, 1, 2)]
        words = [str(word) for word in [self.child, "launch", *argv]]
        return os.posix_spawn(self.child, words, environment, file_actions=files, setsid=True)

    def launch(self, peer, mode="sleep", timeout=None, period=0, beats=None, options=()):
        """`period`: of beats, in nanoseconds; `beats`: the directory of the heartbeat file."""
        one = Instance(self, peer, next(self.tags))
        place = self.place / str(one.tag)
        place.mkdir()
        job = Job(self.child, place, (beats or place) / f"beat-{one.tag}", timeout, options)
        one.pid = self.spawn(peer.argv(peer.program, job), one.log, BENCH_TAG=one.tag,
                             BENCH_MODE=mode, BENCH_PERIOD=period, BENCH_COUNTER=one.counter)
        return one

    def started(self, count, *args, **more):
        """So many instances, their commands running."""
        made = [self.launch(*args, **more) for _ in range(count)]
        if not self.wait_until(lambda: all(one.notes("S") for one in made)):
            [late, *_] = [one for one in made if not one.notes("S")]
            said = late.log.read_text().strip().splitlines()[-1:]
            raise NotMeasured(f"{late.peer.column} did not start its command: {said}")
        return made

    def wait_until(self, is_so, ceiling=CEILING):
        """Whether it came to be so."""
        end = time.monotonic() + ceiling
        while not is_so():
            left = end - time.monotonic()
            if left <= 0:
                return False
            # Not for long: some of it no note tells.
            self.take_notes(min(0.002, left))
        return True

    def let_pass(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.take_notes(left)

    def take_notes(self, seconds):
        """Takes those that are there, or the next."""
        if self.poll.poll(seconds * 1000):
            for note in map(Note._make, NOTE.iter_unpack(os.read(self.notes_fd, NOTE.size * 1000))):
                self.notes[note.tag].append(note)

    def settle(self, instances):
        """Waits until what a start brings with it is over."""
        last, now = None, []
        while now != last:
            last = now
            self.let_pass(0.2)
            now = [switches(one.pid) for one in instances]

    def see_blind(self, instances):
        if count := sum(BLIND in one.log.read_text() for one in instances):
            self.lacks.append(f"watching by events: {count} of {len(instances)} {instances[0].peer.column} "
                              "had none (fs.inotify.max_user_instances)")

    def row(self, figure, values, text=str):
        """A row of the table, from what was found of each peer."""
        cells = collections.defaultdict(list)
        for peer, value in values.items():
            cells[peer.column].append(peer.label + text(value))
        self.rows.append((figure, {column: "; ".join(found) for column, found in cells.items()}))


def number(value):
    digits = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def spread(values, unit):
    ranked = sorted(values)
    at = lambda part: number(ranked[min(len(ranked) - 1, int(part * len(ranked)))])
    middle = f"{number(statistics.median(ranked))} {unit}"
    return middle if len(ranked) == 1 else f"{middle} ({at(.1)}..{at(.9)}, n={len(ranked)})"


def milliseconds(values):
    return spread([value / 1e6 for value in values], "ms")


def memory(bench):
    if not os.path.exists("/proc/self/smaps_rollup"):
        raise NotMeasured("this kernel has no /proc/PID/smaps_rollup")
    for title, count, rounds, timeout, peers in [
            ("200 at once, each", 200, 1, None, bench.peers),
            # Of one user no more than 128 have inotify, by default.
            ("100 with heartbeat, each", 100, 1, NEVER, bench.watchers),
            ("one alone", 1, bench.size(3, 1), None, [*bench.peers, bench.poller])]:
        found = collections.defaultdict(list)
        for peer in bench.turns(rounds, peers):
            with bench.scene():
                made = bench.started(count, peer, timeout=timeout)
                bench.settle(made)
                bench.see_blind(made)
                found[peer] += [pages(one.pid) for one in made]
        bench.row(f"memory, {title}: PSS; USS; of it dirty", found, kilobytes)


def pages(pid):
    """In kB: what is its share, what is its alone, and what of that it has written to."""
    private = ["Private_Clean", "Private_Dirty"]
    return [numbers(f"/proc/{pid}/smaps_rollup", *keys) for keys in [["Pss"], private, private[1:]]]


def kilobytes(found):
    pss, private, dirty = zip(*found)
    return f"{spread(pss, 'kB')}; {number(statistics.median(private))}; {number(statistics.median(dirty))}"


def idle(bench):
    seconds = bench.size(60, 5)
    with bench.scene():
        # All at once: who sleeps disturbs nobody.
        made = [("idle, no heartbeat", one) for peer in bench.peers for one in bench.started(1, peer)]
        made += [("idle, heartbeat and control socket", one)
                 for peer in [*bench.watchers, bench.poller] for one in bench.started(
                     1, peer, timeout=NEVER, options=["--name", f"idle-{peer.column}"])]
        bench.settle([one for _, one in made])
        before = [switches(one.pid) for _, one in made]
        bench.let_pass(seconds)
        found = collections.defaultdict(dict)
        for (title, one), count in zip(made, before):
            descriptors = len(os.listdir(f"/proc/{one.pid}/fd"))
            found[title][one.peer] = f"{switches(one.pid) - count}; {len(threads(one.pid))}; {descriptors}"
    for title, cells in found.items():
        bench.row(f"{title}, {seconds} s: switches; threads; fds", cells)


def start(bench):
    took = collections.defaultdict(list)
    with bench.pinned():
        for peer in bench.turns(bench.size(51, 12), [*bench.peers, bench.nobody]):
            with bench.scene():
                [one] = bench.started(1, peer)
                took[peer].append(one.notes("S")[0].at - one.notes("L")[0].at)
    bench.row("start: exec to the command's first statement", took, milliseconds)


def of_age(bench, peer):
    """Instances whose commands ran for so long that runsv does not hold up what follows."""
    made = bench.started(bench.size(17, 12), peer)
    bench.let_pass(1.3)
    return made


def restart(bench):
    took = collections.defaultdict(list)
    with bench.pinned():
        for peer in bench.turns(bench.size(3, 1), bench.peers):
            with bench.scene():
                made = of_age(bench, peer)
                killed = [kill_command(bench, one) for one in made]
                if not bench.wait_until(lambda: all(one.notes("S")[1:] for one in made)):
                    raise NotMeasured(f"{peer.column} did not restart its command")
                took[peer] += [one.notes("S")[1].at - at for one, at in zip(made, killed)]
    cells = {peer: milliseconds(times) + peer.throttle for peer, times in took.items()}
    bench.row("restart: SIGKILL of the command to its next run's", cells)


def kill_command(bench, one):
    """When. Who restarts at once is left to finish that before the next is killed."""
    at = time.monotonic_ns()
    os.kill(one.notes("S")[0].pid, signal.SIGKILL)
    if bench.wait_until(lambda: one.notes("S")[1:], 0.02):
        bench.wait_until(lambda: all(stat(thread)[0] == "S" for thread in threads(one.pid)))
    return at


def stop(bench):
    took = collections.defaultdict(list)
    with bench.pinned():
        for peer in bench.turns(bench.size(3, 1), bench.peers):
            with bench.scene():
                took[peer] += [until_gone(peer, one.pid) for one in of_age(bench, peer)]
    bench.row("stop: SIGTERM until gone, the command heeds it", took, milliseconds)


def until_gone(peer, pid):
    fd = os.pidfd_open(pid)
    gone = select.poll()
    gone.register(fd, select.POLLIN)
    begun = time.monotonic_ns()
    os.kill(pid, signal.SIGTERM)
    ended = gone.poll(CEILING * 1000)
    took = time.monotonic_ns() - begun
    os.close(fd)
    if not ended:
        raise NotMeasured(f"{peer.column} did not end within {CEILING} s")
    return took


def hang(bench):
    each = bench.size(10, 3)
    with bench.pinned(), bench.scene():
        made = [one for peer in bench.watchers
                for one in bench.started(4, peer, mode="hang", timeout=1)]
        # Of each: at most a second and a half of beats, and one of silence.
        if not bench.wait_until(lambda: all(len(one.notes("T")) >= each for one in made), each * 4 + CEILING):
            raise NotMeasured("a hang was not found")
    ends = collections.defaultdict(list)
    for one in made:
        ends[one.peer] += one.notes("T")[:each]
    bench.row("hang: SIGTERM late by, min / median / max", ends, lateness)


def lateness(ends):
    late = [(end.at - end.after - SECOND) / 1e6 for end in ends]
    early = sum(end.at < end.before + SECOND for end in ends)
    shown = [number(value) for value in [min(late), statistics.median(late), max(late)]]
    return f"{' / '.join(shown)} ms, n={len(ends)}, {early or 'none'} early"


def beat_cost(bench, made, rate, seconds):
    """Processor time and context switches of these supervisors for each beat."""
    if not os.path.exists("/proc/self/schedstat") or not cpu_time(os.getpid()):
        raise NotMeasured("this kernel has no /proc/PID/schedstat")
    # What is done once, at a start and for a new file, is not counted.
    if not bench.wait_until(lambda: all(one.beats() > max(5, rate // 3) for one in made)):
        raise NotMeasured(f"{made[0].peer.column}: its command does not beat")
    figures = lambda: [sum(cpu_time(one.pid) for one in made), sum(switches(one.pid) for one in made),
                       sum(one.beats() for one in made)]
    before = figures()
    bench.let_pass(seconds)
    spent, switched, beaten = (now - then for now, then in zip(figures(), before))
    if killed := sum(len(one.notes("S")) > 1 for one in made):
        bench.lacks.append(f"without kills: {made[0].peer.column} killed {killed} commands that did beat")
    return spent / beaten / 1000, switched / beaten


def per_beat(costs):
    times, switched = zip(*costs)
    return f"{spread(times, 'us')}; {number(statistics.median(switched))}"


def beats(bench):
    for name, rate, seconds in [("10 Hz", 10, bench.size(5, 3)), ("1000 Hz", 1000, bench.size(3, 1)),
                                ("flat out", 0, bench.size(3, 1))]:
        found = collections.defaultdict(list)
        for peer in bench.turns(bench.size(3, 1), [*bench.watchers, bench.poller]):
            with bench.scene():
                made = bench.started(1, peer, mode="beat", timeout=3, period=rate and SECOND // rate)
                found[peer].append(beat_cost(bench, made, rate or 10_000, seconds))
        bench.row(f"a beat, {name}: CPU time; context switches", found, per_beat)


def wakeups(bench):
    seconds = bench.size(20, 5)
    woken = lambda one: numbers(f"/proc/{one.pid}/task/{one.pid}/status", "voluntary_ctxt_switches")
    with bench.scene():
        made = [one for peer in bench.watchers
                for one in bench.started(1, peer, mode="beat", timeout=1, period=SECOND // 100)]
        bench.wait_until(lambda: all(one.beats() > 100 for one in made))
        before = [woken(one) for one in made]
        bench.let_pass(seconds)
        rates = {one.peer: (woken(one) - count) / seconds for one, count in zip(made, before)}
    bench.row("main loop's wake-ups a timeout, beats at 100 Hz", rates, number)


def crowd(bench):
    many, seconds = 100, bench.size(5, 2)
    found = {count: collections.defaultdict(list) for count in [1, many]}
    for peer in bench.turns(bench.size(3, 1), bench.watchers):
        for count, costs in found.items():
            with bench.scene():
                shared = bench.place / "beats"
                shared.mkdir()
                made = bench.started(count, peer, mode="beat", timeout=3, period=SECOND // 10, beats=shared)
                costs[peer].append(beat_cost(bench, made, 10, seconds))
                bench.see_blind(made)
    for count, costs in found.items():
        bench.row(f"a beat, 10 Hz, {count} in one directory: the same", costs, per_beat)
    median = lambda costs: statistics.median(spent for spent, _ in costs)
    ratios = {peer: median(found[many][peer]) / median(alone) for peer, alone in found[1].items()}
    bench.row(f"the same: CPU time, {many} against 1", ratios, number)


def fleet(bench):
    """Of ours alone, for it takes so long."""
    size, seconds = bench.size(1000, 100), bench.size(300, 10)
    [ours, *_] = bench.watchers
    with bench.scene():
        loop, launched, runs = start_fleet(bench, ours, size)
        supervisors = {note.parent for note in runs}
        pss = sum(numbers(f"/proc/{pid}/smaps_rollup", "Pss") for pid in supervisors)
        bench.let_pass(seconds)
        logs = [log.read_text() for log in (bench.place / "logs").iterdir()]
        hangs, ends = (sum(log.count(text) for log in logs) for text in ["heartbeat timeout", "] exited "])
        began = time.monotonic()
        # Of one that ended by itself the number may be another's.
        there = [pid for pid in supervisors if is_child(pid, loop)]
        for pid in there:
            os.kill(pid, signal.SIGTERM)
        ended = bench.wait_until(lambda: stat(pathlib.Path("/proc", str(loop)))[0] == "Z", 3 * CEILING)
        took = time.monotonic() - began
    up = (max(note.at for note in runs) - launched) / SECOND
    for title, cell in [
            (f"fleet of {size}: until all run; PSS of all", f"{up:.2f} s; {pss / 1000:.1f} MB"),
            ("fleet: those without events of the kernel", sum(BLIND in log for log in logs)),
            (f"fleet: false kills in {seconds} s; other ends", f"{hangs}; {ends - hangs}"),
            ("fleet: there at the end; SIGTERM until gone",
             f"{len(there)}; {f'{took:.2f} s' if ended else 'some are not'}")]:
        bench.row(title, {ours: cell})


def is_child(pid, parent):
    with contextlib.suppress(OSError):
        return stat(pathlib.Path("/proc", str(pid)))[1] == parent
    return False


def start_fleet(bench, peer, size):
    """One shell loop; when it was launched; and the first notes of all commands."""
    for name in ["beats", "logs"]:
        (bench.place / name).mkdir()
    counter = bench.place / "count"
    counter.write_bytes(bytes(8))
    tag, first = [next(bench.tags) for _ in range(size + 1)][:2]
    argv = ["sh", "-c", f"cd '{bench.place}' || exit; {FLEET}", "fleet", size, first, bench.child, peer.program]
    pid = bench.spawn(argv, bench.place / "log", BENCH_TAG=tag, BENCH_MODE="beat", BENCH_PERIOD=SECOND,
                      BENCH_COUNTER=counter)
    runs = lambda: [note for one in range(first, first + size)
                    for note in bench.notes[one] if note.what == ord("S")][:size]
    if not bench.wait_until(lambda: len(runs()) == size, CEILING + size / 10):
        raise NotMeasured(f"{len(runs())} of {size} commands ran")
    return pid, bench.notes[tag][0].at, runs()


def sizes(bench):
    cells = {peer: f"{os.path.getsize(peer.program) / 1000:.0f} kB{linkage(peer.program)}"
             for peer in bench.peers}
    bench.row("size of the program", cells)


SECTIONS = [memory, idle, start, restart, stop, hang, beats, wakeups, crowd, fleet, sizes]


def machine(bench):
    """Where and how the figures came about."""
    took = time.monotonic() - bench.begun
    others = max(0, others_busy() - bench.others) / took
    info = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    memory_size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    tick = time.clock_getres(CLOCK_REALTIME_COARSE) * 1000
    return [f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, Linux {platform.release()}, "
            f"{os.cpu_count()} x {(models or [platform.machine()])[0]}, {memory_size / 1e9:.1f} GB, "
            f"tick {tick:g} ms",
            f"{'Quick: ' if bench.quick else ''}{took:.0f} s, in which other processes took {others:.0%} "
            f"of one processor; heartbeat files and logs in {bench.memory.parent}"]


def report(bench, as_markdown):
    columns = [*(peer.column for peer in bench.peers), "reference"]
    rows = [["figure", *columns]]
    rows += [[figure, *(cells.get(column, "-") for column in columns)] for figure, cells in bench.rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    if as_markdown:
        lines = [f"| {' | '.join(row)} |" for row in rows]
    else:
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lacks = ["", "Not measured:", "", *(f"- {lack}" for lack in bench.lacks)] if bench.lacks else []
    return "\n".join([*machine(bench), "", *lines, *lacks])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [section.__name__ for section in SECTIONS]
    parser.add_argument("--quick", action="store_true", help="a minute: fewer samples, shorter windows")
    parser.add_argument("--supervisor", default=HERE.parent / "supervisor", type=pathlib.Path, metavar="PATH")
    parser.add_argument("--edge", type=pathlib.Path, metavar="PATH", help="another build, beside it")
    parser.add_argument("--only", default=",".join(names), metavar="NAME[,NAME]", help=", ".join(names))
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="write the table there, too")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(names):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return args


def measure(args):
    on_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    new = lambda place: tempfile.TemporaryDirectory(prefix="supervisor-bench-", dir=place)
    # /tmp may be in memory, where all of a program counts as dirty.
    with new("/var/tmp" if os.access("/var/tmp", os.W_OK) else None) as disk, new(on_memory) as files:
        try:
            bench = Bench(args, pathlib.Path(disk), pathlib.Path(files))
            if not on_memory:
                bench.lacks.append("files in memory: there is no /dev/shm")
            if len(bench.cpus) < 2:
                bench.lacks.append("latencies with a processor for those measured alone: there is but one")
            if not bench.peers or bench.peers[0].column != "ours":
                sys.exit(f"bench: {'; '.join(bench.lacks)}")
            run(bench, args.only)
        finally:
            # Nothing may stop us on the way to the end.
            for name in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
                signal.signal(name, signal.SIG_IGN)
            end_all()
        print(report(bench, False))
        if args.markdown:
            args.markdown.write_text(report(bench, True) + "\n")


def run(bench, names):
    for section in SECTIONS:
        if section.__name__ in names:
            print(f"{time.monotonic() - bench.begun:6.1f} s  {section.__name__}", file=sys.stderr)
            try:
                section(bench)
            # A process that ended has no files in /proc.
            except (NotMeasured, OSError) as why:
                bench.lacks.append(f"{section.__name__}: {why}")


def main():
    args = arguments()
    if not args.supervisor.is_file() or not os.access(args.supervisor, os.X_OK):
        sys.exit(f"bench: no program {args.supervisor}; `make` builds it")
    if not shutil.which("gcc"):
        sys.exit("bench: no gcc, which compiles the command that is supervised")
    # Orphans of what is started here come to us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for name in [signal.SIGTERM, signal.SIGHUP]:
        if signal.getsignal(name) != signal.SIG_IGN:
            signal.signal(name, signal.default_int_handler)
    try:
        measure(args)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
