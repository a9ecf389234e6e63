#!/usr/bin/env python3
"""Example client: beats every 5 seconds until SIGTERM.

    client.py [heartbeat_file]

The path is the argument, else HEARTBEAT_FILE (set by supervisor), else
heartbeat.txt. To be seen as alive under `supervisor --enable-heartbeat`, the
timeout must be longer than 5 seconds (the default is 20).
"""
import logging
import os
import signal
import sys
import time

INTERVAL = 5.0  # seconds between two beats
DEFAULT_FILE = "heartbeat.txt"


def beat(path):
    """Write the current time into the file. A failure is logged, not fatal."""
    try:
        with open(path, "w") as f:
            f.write("%.6f\n" % time.time())
        logging.info("beat written to %s", path)
    except OSError as e:
        logging.error("no beat, cannot write %s: %s", path, e.strerror)


def on_sigterm(signum, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    sys.exit(0)  # raised in the main loop; main() logs it


def main():
    signal.signal(signal.SIGTERM, on_sigterm)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C without a traceback
    logging.basicConfig(level=logging.INFO)
    logging.raiseExceptions = False  # a log that cannot be written is no reason to complain

    path = os.environ.get("HEARTBEAT_FILE") or DEFAULT_FILE
    if len(sys.argv) > 1:
        path = sys.argv[1]
    try:
        logging.info("beating every %g s into %s", INTERVAL, path)
        # The beat stands in the loop that does the work, not in a thread of its
        # own: a thread would go on beating when the work hangs.
        while True:
            beat(path)
            time.sleep(INTERVAL)  # your work goes here
    except SystemExit:
        logging.info("SIGTERM received, ending")
        raise


if __name__ == "__main__":
    main()
