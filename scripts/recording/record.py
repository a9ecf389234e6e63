#!/usr/bin/env python3
"""Makes recording.svg: ./supervisor in two terminals of its own, as it went, in real time.

What is typed is below; what is shown is what the terminals got, and when. The picture needs no script:
the text stands still, and one shape for each terminal, in the colour of the background, covers what is
not there yet. It moves with the cursor. So this is right only for output that never goes back.
"""
import contextlib
import fcntl
import getpass
import os
import pathlib
import pty
import re
import socket
import struct
import sys
import tempfile
import termios
import threading
import time
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PICTURE = HERE / "recording.svg"

# In memory, and a name that tells nothing of the machine.
HEARTBEAT = pathlib.Path("/dev/shm/web")
COMMAND = f"supervisor --name web --enable-heartbeat --heartbeat-file {HEARTBEAT} --timeout 3 ./web"
ACTS = "crash hang serve"  # what ./web does, which is scripts/demo_client.py: one word a run
ASK = "supervisor --list"
STOP = "supervisor --stop web"
TITLE = "./web crashes, and then it hangs"

# So many columns that no line but the diagnosis of the hang is broken, so many rows that the last screen
# goes back to the hang.
COLUMNS, UPPER, LOWER = 112, 22, 5
CEILING = 30  # seconds: no wait of a healthy run is nearly so long
HOLD = 5  # seconds that the last screen stays
LARGEST = 40_000  # bytes

# Pixels: as wide as GitHub shows a README.
CELL, ROW, FONT, PAD, BAR, GAP = 7.2, 16, 12, 12, 32, 17
WIDTH = COLUMNS * CELL + 2 * PAD
FONTS = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace'
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341"}
BACKGROUND, EDGE = "#161b22", "#3d444d"


class Terminal:
    """A shell in a pseudo-terminal, and what it showed: (seconds, text) for each read."""

    def __init__(self, rows, directory, environment):
        self.rows, self.seen, self.cursor = rows, [], 0
        self.changed = threading.Condition()
        child, self.master = pty.fork()
        if child == 0:
            os.chdir(directory)
            os.execve("/bin/sh", ["sh", "-i"], environment)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))

    def follow(self):
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(OSError):  # EIO: the shell has ended
            while read := os.read(self.master, 4096):
                with self.changed:
                    self.seen.append((time.monotonic(), read.decode()))
                    self.changed.notify()

    def text(self):
        return "".join(text for _, text in self.seen)

    def shows(self, part, times=1):
        """Waits until this stands there, after what was waited for before."""
        for _ in range(times):
            with self.changed:
                if not self.changed.wait_for(lambda: part in self.text()[self.cursor :], CEILING):
                    sys.exit(f"no {part!r} in\n{self.text()}")
                self.cursor = self.text().index(part, self.cursor) + len(part)

    def types(self, line, pause):
        for character in line:
            os.write(self.master, character.encode())
            time.sleep(pause)

    def enters(self):
        os.write(self.master, b"\r")


def play(upper, lower):
    """The story."""
    upper.shows("$")
    lower.shows("$")
    time.sleep(0.5)
    upper.types(COMMAND, 0.02)
    time.sleep(0.3)
    upper.enters()
    # While the delay before the third run passes.
    upper.shows("restarting restart=2")
    time.sleep(0.7)
    lower.types(ASK, 0.05)
    upper.shows("run=3")
    upper.shows("beat", times=2)
    time.sleep(0.2)
    lower.enters()
    lower.shows("$")
    time.sleep(1)
    lower.types(STOP, 0.05)
    time.sleep(0.2)
    lower.enters()
    lower.shows("$")
    upper.shows("finished")
    upper.shows("$")
    time.sleep(0.2)


def record():
    """The two terminals after the play, and when it began."""
    if HEARTBEAT.exists():
        sys.exit(f"{HEARTBEAT} is there already")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        for name, target in ("supervisor", "supervisor"), ("web", "scripts/demo_client.py"):
            os.symlink(PROJECT / target, os.path.join(directory, name))
        environment = {
            "PATH": f"{directory}:{os.environ['PATH']}",
            "TERM": "xterm",
            "PS1": "\x1b[32m$\x1b[0m ",
            "SUPERVISOR_RUNTIME_DIR": os.path.join(directory, "run"),
            "DEMO_RUNS": os.path.join(directory, "runs"),
            "DEMO_ACTS": ACTS,
        }
        terminals = [Terminal(rows, directory, environment) for rows in (UPPER, LOWER)]
        began = time.monotonic()
        for terminal in terminals:
            # The end of the terminal is the end of whoever is left in it.
            stack.callback(os.close, terminal.master)
            terminal.follow()
        play(*terminals)
        private = [directory, str(PROJECT), os.path.expanduser("~"), getpass.getuser(), socket.gethostname()]
    for word in private:
        if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", terminal.text()) for terminal in terminals):
            sys.exit(f"{word!r} is nobody's business")
    return terminals, began


def laid_out(terminal, began):
    """Its rows, each a list of (colour, text), which of them go on from the one before, and where the
    cursor was when: (seconds, row, column)."""
    rows, goes_on, moves, colour, column = [[]], set(), [], None, 0
    for at, text in terminal.seen:
        for piece in re.findall(r"\x1b\[[^@-~]*[@-~]|\r?\n|.", text, re.DOTALL):
            if piece.endswith("\n"):
                rows.append([])
                column = 0
            elif piece.startswith("\x1b["):
                if piece.endswith("m"):
                    colour = COLOURS.get(piece[2:-1])
            elif piece == "\r":
                # The shell's own, before the line feed that ends what was typed.
                column = 0
            elif not piece.isprintable():
                sys.exit(f"the picture can't show {piece!r}")
            else:
                if column == COLUMNS:
                    goes_on.add(len(rows))
                    rows.append([])
                    column = 0
                if not rows[-1] or rows[-1][-1][0] != colour:
                    rows[-1].append((colour, ""))
                rows[-1][-1] = (colour, rows[-1][-1][1] + piece)
                column += 1
        moves.append((at - began, len(rows) - 1, column))
    return rows, goes_on, moves


def number(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")


def keyframes(name, steps, whole):
    """Steps are (seconds, what holds from then on)."""
    stops, last = [], None
    for at, what in steps:
        percent = number(at / whole * 100) if stops else "0"
        if what == last:
            continue
        if stops and stops[-1][0] == percent:
            stops.pop()
        stops.append((percent, what))
        last = what
    body = "".join(f"{percent}%{{transform:translate({what})}}" for percent, what in stops)
    return (
        f".{name}{{transform:translate({last});animation:{name} {number(whole)}s step-end infinite}}"
        f"@keyframes {name}{{{body}}}"
    )


def pane(name, terminal, began, whole, top):
    """The style and the elements of a terminal."""
    rows, goes_on, moves = laid_out(terminal, began)
    start = [(0, 0, 0)]
    cursor = [(at, f"{number(column * CELL)}px,{number(row * ROW)}px") for at, row, column in start + moves]
    scroll = [(at, f"0,{number(-max(0, row + 1 - terminal.rows) * ROW)}px") for at, row, _ in start + moves]
    style = keyframes(f"{name}c", cursor, whole) + keyframes(f"{name}s", scroll, whole)
    lines = []
    for row, parts in enumerate(rows):
        length = sum(len(text) for _, text in parts)
        if not length:
            continue
        text = "".join(
            f'<tspan fill="{colour}">{escape(text)}</tspan>' if colour else escape(text)
            for colour, text in parts
        )
        mark = ' class="on"' if row in goes_on else ""
        # The length, for not every font's letters are as wide as our cells.
        lines.append(
            f'<text{mark} y="{number(row * ROW + 12)}" textLength="{number(length * CELL)}"'
            f' lengthAdjust="spacingAndGlyphs">{text}</text>'
        )
    all_rows, right = number(len(rows) * ROW), number(COLUMNS * CELL)
    bottom = terminal.rows * ROW
    body = "\n".join(
        [
            f'<svg x="{PAD}" y="{top}" width="{right}" height="{bottom + 4}" overflow="hidden">',
            f'<g class="{name}s">',
            *lines,
            # What is right of the cursor and what is below it is yet to come.
            f'<g class="{name}c" fill="{BACKGROUND}"><rect width="{right}" height="{ROW}"/>'
            f'<rect x="-{right}" y="{ROW}" width="{number(2 * COLUMNS * CELL)}" height="{all_rows}"/>'
            f'<rect width="{CELL}" height="{ROW}" fill="#8b949e"/></g>',
            "</g></svg>",
            # Where the edge cuts through a pixel, the cover does not quite cover it.
            f'<rect x="{PAD}" y="{top + bottom + 2}" width="{right}" height="4" fill="{BACKGROUND}"/>',
        ]
    )
    spoken = "".join(
        ("" if row in goes_on or row == 0 else "\n") + "".join(text for _, text in parts)
        for row, parts in enumerate(rows)
    )
    return style, body, spoken


def picture(terminals, began):
    whole = max(at for terminal in terminals for at, _ in terminal.seen) - began + HOLD
    tops = [BAR + 8, BAR + 8 + UPPER * ROW + GAP]
    height = number(tops[1] + LOWER * ROW + 10)
    width, middle = number(WIDTH), number(tops[1] - GAP / 2)
    panes = [pane(name, *rest) for name, *rest in zip("ab", terminals, [began] * 2, [whole] * 2, tops)]
    lights = "".join(
        f'<circle cx="{20 + 20 * i}" cy="{BAR // 2}" r="6" fill="{fill}"/>'
        for i, fill in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    label = f'<text class="bar" x="{number(WIDTH / 2)}" y="{BAR // 2 + 4}">{TITLE}</text>'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" aria-labelledby="title text">
<title id="title">supervisor restarts a command that crashes, and again when it hangs</title>
<desc id="text">A recording of two terminals, {number(whole - HOLD)} seconds in real time. The first:
{escape(panes[0][2])}

The second:
{escape(panes[1][2])}</desc>
<style>
text{{font:{FONT}px {FONTS};fill:#e6edf3;white-space:pre}}
.bar{{fill:#9198a1;text-anchor:middle}}
{panes[0][0]}
{panes[1][0]}
@media (prefers-reduced-motion:reduce){{g{{animation:none!important}}}}
</style>
<rect x=".5" y=".5" width="{number(WIDTH - 1)}" height="{number(float(height) - 1)}" rx="9" \
fill="{BACKGROUND}" stroke="{EDGE}"/>
{lights}{label}
<path d="M1 {BAR}H{number(WIDTH - 1)}M1 {middle}H{number(WIDTH - 1)}" stroke="{EDGE}"/>
{panes[0][1]}
{panes[1][1]}
</svg>
"""


def main():
    made = picture(*record())
    if len(made) > LARGEST:
        sys.exit(f"{len(made)} bytes are more than {LARGEST}")
    PICTURE.write_text(made)
    print(f"{PICTURE.relative_to(PROJECT)}: {len(made)} bytes")


if __name__ == "__main__":
    main()
