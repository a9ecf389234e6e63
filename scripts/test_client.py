#!/usr/bin/env python3
"""Test client for supervisor: acts out one scenario.

    test_client.py [scenario] [duration] [heartbeat_file]

The path is the argument, else HEARTBEAT_FILE (set by supervisor), else
heartbeat.txt. SIGTERM ends each scenario with exit code 0.
"""
import argparse
import logging
import os
import random
import signal
import stat
import sys
import time

DEFAULT_FILE = "heartbeat.txt"
DEFAULT_DURATION = 30.0
LONGEST = 1e9  # seconds; more does not fit every system's clock

HELP = """scenarios:
  normal          beats for DURATION seconds, 3 to 7 s apart, then exit code 0
  crash_periodic  as normal, but after each pause a 20 % chance of exit code 1
  hang            beats for 10 s, then none; runs on until it is stopped
  sigterm_test    beats every 5 s until SIGTERM, then exit code 0
  long_request    one beat, DURATION seconds without any, one beat, exit code 0

HEARTBEAT_FILE     heartbeat file if none is given (else heartbeat.txt)
TEST_CLIENT_SPEED  divides the pauses between beats: 10 makes 5 s into 0.5 s;
                   DURATION stays as it is
"""


class StderrHandler(logging.Handler):
    """One unbuffered write per line: a stderr that is closed or full loses the
    line and changes nothing else, the exit code included."""

    def emit(self, record):
        try:
            os.write(2, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass


class Client:
    def __init__(self, path, duration, speed):
        self.path = path
        self.duration = duration
        self.speed = speed

    def beat(self):
        try:
            with open(self.path, "w") as f:
                f.write("%.6f\n" % time.time())
            logging.info("beat")
        except OSError as e:
            logging.error("no beat, cannot write %s: %s", self.path, e.strerror)

    def pause(self, seconds):
        """A pause between beats, shortened by TEST_CLIENT_SPEED."""
        time.sleep(min(seconds / self.speed, LONGEST))

    def remove_stale_file(self):
        # Regular files only. A link, perhaps to a memory file system, stays; so
        # does a device that was named by mistake (think of root and /dev/null).
        try:
            if stat.S_ISREG(os.lstat(self.path).st_mode):
                os.remove(self.path)
                logging.info("removed the old heartbeat file %s", self.path)
        except FileNotFoundError:
            pass
        except OSError as e:
            logging.error("cannot remove the old heartbeat file %s: %s", self.path, e.strerror)

    def beat_for_duration(self):
        """Beat until the duration is over; yield after each pause."""
        end = time.monotonic() + self.duration
        while time.monotonic() < end:
            self.beat()
            left = max(0.0, end - time.monotonic())
            # The last pause ends with the duration, not up to 7 s after it.
            time.sleep(min(random.uniform(3, 7) / self.speed, left))
            yield

    def normal(self):
        logging.info("normal: beating for %g s", self.duration)
        for _ in self.beat_for_duration():
            pass
        logging.info("normal: done")
        return 0

    def crash_periodic(self):
        logging.info("crash_periodic: beating for %g s, unless a crash comes first", self.duration)
        for _ in self.beat_for_duration():
            if random.random() < 0.2:
                logging.error("crash_periodic: crash, exit code 1")
                return 1
        logging.info("crash_periodic: done without a crash")
        return 0

    def hang(self):
        logging.info("hang: beating for %g s", 10 / self.speed)
        for _ in range(2):
            self.beat()
            self.pause(5)
        logging.warning("hang: no more beats from here on")
        while True:
            time.sleep(1)

    def sigterm_test(self):
        logging.info("sigterm_test: beating until SIGTERM")
        while True:
            self.beat()
            self.pause(5)

    def long_request(self):
        self.beat()
        logging.info("long_request: no beat for %g s", self.duration)
        time.sleep(self.duration)
        self.beat()
        logging.info("long_request: done")
        return 0


SCENARIOS = {
    f.__name__: f
    for f in (
        Client.normal,
        Client.crash_periodic,
        Client.hang,
        Client.sigterm_test,
        Client.long_request,
    )
}


def number(text):
    """The number that the text spells, or None if it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def parse_arguments():
    """Return scenario, duration, path and speed; exit on a mistake."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [scenario] [duration] [heartbeat_file]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Acts out one scenario for tests of supervisor.",
        epilog=HELP,
    )
    parser.add_argument("scenario", nargs="?", default="normal", help="default: normal")
    parser.add_argument("duration", nargs="?", help="seconds, 0.5 for example; default: %g" % DEFAULT_DURATION)
    parser.add_argument("heartbeat_file", nargs="?", help="default: see below")
    args = parser.parse_args()

    if args.scenario not in SCENARIOS:
        logging.error("unknown scenario %r; known: %s", args.scenario, ", ".join(SCENARIOS))
        sys.exit(1)

    path = args.heartbeat_file
    duration = DEFAULT_DURATION
    if args.duration is not None:
        duration = number(args.duration)
        if duration is None and path is None:
            # `normal hb.txt`: no duration, the word is the file.
            path, duration = args.duration, DEFAULT_DURATION
        elif duration is None or not 0 <= duration <= LONGEST:
            parser.error("duration must be a number from 0 to %g, not %r" % (LONGEST, args.duration))

    text = os.environ.get("TEST_CLIENT_SPEED") or "1"
    speed = number(text)
    if speed is None or not 1e-9 <= speed <= 1e9:
        parser.error("TEST_CLIENT_SPEED must be a number above 0, not %r" % text)

    path = path or os.environ.get("HEARTBEAT_FILE") or DEFAULT_FILE
    return args.scenario, duration, path, speed


def on_sigterm(signum, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    logging.info("SIGTERM received, exit code 0")
    sys.exit(0)


def main():
    signal.signal(signal.SIGTERM, on_sigterm)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C without a traceback
    logging.basicConfig(level=logging.INFO, handlers=[StderrHandler()])

    scenario, duration, path, speed = parse_arguments()
    client = Client(path, duration, speed)
    logging.info("heartbeat file: %s", path)
    client.remove_stale_file()
    sys.exit(SCENARIOS[scenario](client))


if __name__ == "__main__":
    main()
