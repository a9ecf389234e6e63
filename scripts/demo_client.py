#!/usr/bin/env python3
"""The command of the demonstration: each run does something else (see demo.sh)."""
import os
import sys
import time

HEARTBEAT = os.environ["HEARTBEAT_FILE"]
RUNS = os.environ["DEMO_RUNS"]  # a file with one byte for each run so far
ACTS = os.environ.get("DEMO_ACTS", "crash stumble hang finish").split()  # one for each run


def say(text):
    print(f"    client: {text}", flush=True)


def work(seconds):
    for _ in range(int(seconds / 0.5)):
        with open(HEARTBEAT, "w") as file:
            file.write(str(time.time()))
        say("beat")
        time.sleep(0.5)


def main():
    with open(RUNS, "a") as file:
        file.write("x")
        file.flush()
        act = ACTS[os.stat(RUNS).st_size - 1]
    if act == "stumble":
        say("crash at once, code 2")
        sys.exit(2)
    work(60 if act == "serve" else 2)
    if act == "crash":
        say("crash, code 1")
        sys.exit(1)
    if act == "hang":
        say("hang: alive, but no beats")
        time.sleep(1000)
    say("done, code 0")


if __name__ == "__main__":
    main()
