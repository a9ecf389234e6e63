#!/usr/bin/env python3
"""The core of what is promised, checked of a binary for another processor, under an emulator.

    scripts/check_cross.py --supervisor PATH [--emulator COMMAND] [SCENARIO ...]

The emulator is `qemu-aarch64`, or `qemu-arm -L /usr/arm-linux-gnueabihf` where the C library is not in the
file. The supervisor is emulated, what it supervises is this machine's own: a shell or Python. Prints one row
for each scenario and exits with 1 if one of them fails; what the emulator itself can't do is told, and not
counted. Without an emulator it checks this machine's binary.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

# Nothing here is waited for longer than that, whatever the load.
CEILING = 60
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (ERROR|WARN|INFO|DEBUG) \[SUPERVISOR\] (\S.*)")


class Failed(Exception):
    """What was promised is not so."""


class Untold(Exception):
    """The emulator itself can't do what it takes."""


def must(is_so, what):
    if not is_so:
        raise Failed(what)


def wait_until(is_so, what):
    end = time.monotonic() + CEILING
    while not is_so():
        must(time.monotonic() < end, f"not within {CEILING} s: {what}")
        time.sleep(0.01)


def is_alive(pid):
    """A zombie is not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Bench:
    """Where one scenario takes place."""

    def __init__(self, emulator, supervisor, directory):
        self.program = [*emulator, str(supervisor.resolve())]
        self.is_emulated = bool(emulator)
        self.directory = directory
        self.runs = []
        ours = ("SUPERVISOR_", "HEARTBEAT_", "NOTIFY_", "WATCHDOG_", "NO_COLOR")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment["SUPERVISOR_RUNTIME_DIR"] = str(directory / "instances")

    def start(self, *words):
        run = Run(self, [str(word) for word in words])
        self.runs.append(run)
        return run

    def call(self, *words):
        """The exit code of a call to another instance, and what it printed."""
        done = subprocess.run(
            [*self.program, *words], env=self.environment, cwd=self.directory, capture_output=True,
            text=True, timeout=CEILING, check=False)
        return done.returncode, done.stdout

    def close(self):
        for run in self.runs:
            if run.process.poll() is None:
                run.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(CEILING)
                run.process.kill()
            run.process.wait()
        # Nothing of a scenario that failed stays behind.
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "cwd") == str(self.directory):
                    os.kill(int(process.name), signal.SIGKILL)


class Run:
    """One supervisor."""

    def __init__(self, bench, words):
        self.output, self.errors = (bench.directory / f"{len(bench.runs)}.{kind}" for kind in ("out", "err"))
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [*bench.program, *words], env=bench.environment, cwd=bench.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)

    def log(self):
        return self.errors.read_text()

    def said(self, what):
        """The first group of the first match in what the command printed."""
        wait_until(lambda: re.search(what, self.output.read_text()), f"printed: {what}")
        return re.search(what, self.output.read_text())[1]

    def logged(self, what):
        wait_until(lambda: re.search(what, self.log()), f"logged: {what}\n{self.log()}")
        return re.search(what, self.log())

    def ends_with(self, code):
        """The exit code is this, and what it wrote is a log."""
        try:
            found = self.process.wait(CEILING)
        except subprocess.TimeoutExpired:
            raise Failed(f"does not end\n{self.log()}") from None
        must(found == code, f"ends with {found} instead of {code}\n{self.log()}")
        lines = self.log().splitlines()
        now = datetime.datetime.now(datetime.timezone.utc)
        for line in lines:
            match = LINE.fullmatch(line)
            must(match, f"no line of a log: {line}")
            stamp = datetime.datetime.fromisoformat(match[1].replace("Z", "+00:00"))
            must(abs(now - stamp) < datetime.timedelta(hours=1), f"another time than {now}: {line}")
        must(lines and " finished code=" in lines[-1], f"the last line is not finished\n{self.log()}")


def exit_codes(bench):
    for command, code in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)]:
        bench.start("--max-restarts", 0, "sh", "-c", command).ends_with(code)
    (bench.directory / "plain").write_text("no program\n")
    bench.start("./plain").ends_with(126)
    bench.start("./missing").ends_with(127)
    code, _ = bench.call("--max-restarts", "many", "true")
    must(code == 2, f"wrong usage ends with {code}")


def a_command_as_it_was_given(bench):
    run = bench.start("python3", "-c", "import os, sys; print(sys.argv[1:], os.getpgid(0) == os.getpid())",
                      "two words", "", "*", "--status")
    run.ends_with(0)
    found = run.output.read_text()
    must(found == "['two words', '', '*', '--status'] True\n", f"the command got {found}")


def a_restart_after_a_crash(bench):
    run = bench.start("--max-restarts", 5, "--backoff-factor", 0.1, "sh", "-c",
                      'echo run >> runs; [ "$(wc -l < runs)" -gt 2 ] || kill -SEGV $$')
    run.ends_with(0)
    for line in ["exited pid=[0-9]+ signal=SIGSEGV ", "restarting restart=1/5 delay=0.100s",
                 "restarting restart=2/5 delay=0.200s", "finished code=0 runs=3 "]:
        must(re.search(line, run.log()), f"not logged: {line}\n{run.log()}")


def giving_up(bench):
    run = bench.start("--max-restarts", 1, "--backoff-factor", 0, "sh", "-c", "exit 9")
    run.ends_with(9)
    must("giving up restarts=1 code=9" in run.log(), run.log())


def hang(*options):
    return ["--max-restarts", 0, "--timeout", 2, *options]


FILE = ["--enable-heartbeat", "--heartbeat-file", "beats/file"]


def hung(run, silent_for):
    """It was found not to beat, neither early nor late by more than a busy machine and an emulator are."""
    run.ends_with(124)
    silent = float(run.logged(r"heartbeat timeout pid=[0-9]+ silent=([0-9.]+)s")[1])
    must(silent_for <= silent < silent_for + 5, f"silent for {silent} s\n{run.log()}")
    must(re.search(r"hung pid=[0-9]+ name=\S+ state=S ", run.log()), f"no diagnosis\n{run.log()}")


# Twelve beats, a fifth of the timeout apart.
BEATS = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do date > "$HEARTBEAT_FILE"; sleep 0.4; done'


def a_hang_by_the_file(bench):
    (bench.directory / "beats").mkdir()
    started = time.monotonic()
    hung(bench.start(*hang(*FILE), "sh", "-c", f"{BEATS}; sleep 1000"), 2)
    must(time.monotonic() - started > 6.4, "the beats did not count")
    must(not list((bench.directory / "beats").iterdir()), "the heartbeat file, or its guard, is still there")


def a_hang_without_a_beat(bench):
    (bench.directory / "beats").mkdir()
    hung(bench.start(*hang(*FILE, "--initial-check-delay", 0.5), "sleep", "1000"), 2.5)


def beats_by_the_file(bench):
    (bench.directory / "beats").mkdir()
    run = bench.start(*hang(*FILE), "sh", "-c", BEATS)
    run.ends_with(0)
    must("heartbeat timeout" not in run.log(), run.log())
    must(re.search("exited .* tightest_margin=[01][.]", run.log()), f"no margin\n{run.log()}")


BEATER = """
import os, socket, time
address = os.environ["NOTIFY_SOCKET"]
address = "\\0" + address[1:] if address[0] == "@" else address
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1\\nSTATUS=at work", address)
    for _ in range(12):
        notify.sendto(b"WATCHDOG=1", address)
        time.sleep(0.4)
print("silent now", flush=True)
time.sleep(1000)
"""


def a_hang_by_the_socket(bench):
    # Python is slow to start where all of the machine is emulated: until READY=1 it has the delay.
    options = hang("--sd-notify", "--name", "notifier", "--initial-check-delay", CEILING)
    run = bench.start(*options, "python3", "-c", BEATER)
    run.logged("started")
    shown = ["--status", "notifier", "--json"]
    wait_until(lambda: '"status":"at work"' in bench.call(*shown)[1], "what STATUS= said is shown")
    hung(run, 2)
    must("silent now" in run.output.read_text(), "the beats did not count")


def one_supervisor_for_a_file(bench):
    (bench.directory / "beats").mkdir()
    first = bench.start(*FILE, "sleep", "1000")
    first.logged("started")
    code, _ = bench.call(*FILE, "true")
    must(code == 125, f"the second one ends with {code}")
    first.process.terminate()
    first.ends_with(0)


def a_stop_that_is_heeded(bench):
    run = bench.start("sh", "-c", "echo $$ is my pid; exec sleep 1000")
    pid = int(run.said("(.*) is my pid"))
    run.process.terminate()
    run.ends_with(0)
    must(not is_alive(pid), "the command is still there")


def a_stop_that_is_ignored(bench):
    script = "trap '' TERM; echo $$ is my pid; sleep 1000; sleep 1000"
    run = bench.start("--grace-period", 0.5, "sh", "-c", script)
    pid = int(run.said("(.*) is my pid"))
    run.process.terminate()
    run.ends_with(137)
    must("killing pid=" in run.log(), run.log())
    must(not is_alive(pid), "the command is still there")


def an_interrupt(bench):
    run = bench.start("sleep", "1000")
    run.logged("started")
    run.process.send_signal(signal.SIGINT)
    run.ends_with(130)


def a_signal_for_the_command(bench):
    run = bench.start("sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done")
    run.said("(ready)")
    run.process.send_signal(signal.SIGUSR1)
    run.logged("exited pid=[0-9]+ code=5 ")
    run.process.terminate()
    run.process.wait(CEILING)


DAEMON = """
import os, signal, sys, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"%d" % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
print(os.read(reader, 20).decode(), "is its pid", flush=True)
"""


def must_be_gone(bench, run, pid):
    """An orphan."""
    if is_alive(pid) and bench.is_emulated and 'orphans not adopted error="Invalid argument"' in run.log():
        os.kill(pid, signal.SIGKILL)
        raise Untold("the emulator refuses PR_SET_CHILD_SUBREAPER, as qemu-user 7.2 does")
    must(not is_alive(pid), f"{pid} is still there\n{run.log()}")


def nothing_left_behind(bench):
    run = bench.start("--grace-period", 0.5, "python3", "-c", DAEMON)
    run.ends_with(0)
    pid = int(run.said("(.*) is its pid"))
    must_be_gone(bench, run, pid)


def a_stop_that_reaches_other_sessions(bench):
    script = "setsid sh -c 'echo $$ is its pid; exec sleep 1000' & wait"
    run = bench.start("--grace-period", 0.5, "sh", "-c", script)
    pid = int(run.said("(.*) is its pid"))
    run.process.terminate()
    run.ends_with(0)
    must_be_gone(bench, run, pid)


def descendants_that_are_kept(bench):
    run = bench.start("--keep-descendants", "python3", "-c", DAEMON)
    run.ends_with(0)
    pid = int(run.said("(.*) is its pid"))
    must(is_alive(pid), f"{pid} is gone\n{run.log()}")
    os.kill(pid, signal.SIGKILL)


def the_end_of_a_supervisor_that_is_killed(bench):
    run = bench.start("sh", "-c", "echo $$ is my pid; exec sleep 1000")
    pid = int(run.said("(.*) is my pid"))
    run.process.kill()
    wait_until(lambda: not is_alive(pid), "the command is gone")


def seeing_and_steering(bench):
    code, _ = bench.call("--status", "nobody")
    must(code == 4, f"of an unknown name: {code}")
    run = bench.start("--name", "web", "sleep", "1000")
    run.logged("started")
    code, text = bench.call("--status", "web", "--json")
    must(code == 0, f"of one that runs: {code}")
    shown = json.loads(text)
    found = [shown[key] for key in ("name", "state", "run", "command")]
    must(found == ["web", "running", 1, ["sleep", "1000"]], text)
    must(is_alive(shown["command_pid"]), text)
    code, text = bench.call("--list")
    must(code == 0 and re.search(r"^web +[0-9]+ +running ", text, re.MULTILINE), text)
    code, _ = bench.call("--restart", "web")
    must(code == 0, f"--restart: {code}")
    again = json.loads(bench.call("--status", "web", "--json")[1])
    must(again["run"] == 2 and again["command_pid"] != shown["command_pid"], f"{again}")
    code, _ = bench.call("--stop", "web")
    must(code == 0 and run.process.wait(CEILING) == 0, f"--stop: {code}")
    run.ends_with(0)
    must(not is_alive(again["command_pid"]), "the command is still there")


def hooks_and_metrics(bench):
    hook = 'echo "$SUPERVISOR_EVENT $SUPERVISOR_EVENT_CODE" >> events'
    run = bench.start("--max-restarts", 0, "--metrics-file", "metrics", "--name", "web", "--on-event", hook,
                      "sh", "-c", "exit 3")
    run.ends_with(3)
    events = (bench.directory / "events").read_text()
    must(events == "started \nexited 3\ngiving up 3\n", events)
    metrics = (bench.directory / "metrics").read_text()
    must('supervisor_last_exit_code{name="web"} 3\n' in metrics, metrics)


SCENARIOS = [
    exit_codes, a_command_as_it_was_given, a_restart_after_a_crash, giving_up, a_hang_by_the_file,
    a_hang_without_a_beat, beats_by_the_file, a_hang_by_the_socket, one_supervisor_for_a_file,
    a_stop_that_is_heeded, a_stop_that_is_ignored, an_interrupt, a_signal_for_the_command,
    nothing_left_behind, a_stop_that_reaches_other_sessions, descendants_that_are_kept,
    the_end_of_a_supervisor_that_is_killed, seeing_and_steering, hooks_and_metrics,
]


def main():
    parser = argparse.ArgumentParser(description="The core of what is promised, under an emulator.")
    parser.add_argument("--supervisor", required=True, type=pathlib.Path)
    parser.add_argument("--emulator", default="", help="the words before it")
    parser.add_argument("scenarios", nargs="*", help=" ".join(it.__name__ for it in SCENARIOS))
    options = parser.parse_args()
    emulator = shlex.split(options.emulator)
    for name in set(options.scenarios) - {it.__name__ for it in SCENARIOS}:
        parser.error(f"there is no scenario {name}")
    chosen = [it for it in SCENARIOS if not options.scenarios or it.__name__ in options.scenarios]
    failed = untold = 0
    for scenario in chosen:
        began = time.monotonic()
        # In memory, where there is any: a beat on a disk is told of by a line more.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="cross-", dir=place) as directory:
            bench = Bench(emulator, options.supervisor, pathlib.Path(directory))
            try:
                scenario(bench)
                verdict = "ok"
            except (Failed, OSError, LookupError, ValueError, subprocess.TimeoutExpired) as failure:
                verdict, failed = f"FAILED: {failure}", failed + 1
            except Untold as reason:
                verdict, untold = f"not to be told: {reason}", untold + 1
            finally:
                bench.close()
        name = scenario.__name__.replace("_", " ")
        print(f"{time.monotonic() - began:5.1f} s  {name}: {verdict}", flush=True)
    print(f"{len(chosen) - failed - untold} of {len(chosen)} hold, {untold} not to be told here")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
