#!/usr/bin/env python3
"""The shape of the tree: which module may use which, what may stand at the top and be in a package.

Exits with 1 and a line for each breach. A module that has no row here fails too, so that a new room
gets its rule when it gets its door.
"""
import pathlib
import re
import subprocess
import sys

TOP = {"Cargo.toml", "Cargo.lock", "src", "tests", "scripts", "README.md", "Makefile"}

# Plain data, which everybody may use.
DATA = {"config", "error", "exit", "report", "text", "clock", "threads", "lock", "pulse", "status"}
MAY_USE = {
    "clock": set(),
    "text": set(),
    "lock": set(),
    "threads": set(),
    "exit": set(),
    "error": {"text"},
    "report": {"exit", "text"},
    "flood": {"report"},
    "config": set(),
    "pulse": {"clock"},
    "status": {"exit"},
    "hooks": {"report"},
    "echo": set(),
    "cli": {"config", "exit", "text"},
    "sys": set(),
    # The pure machine has no clock either: time is an argument.
    "supervisor": {"config", "exit", "report", "status"},
    "child": DATA | {"sys"},
    "signals": DATA | {"sys"},
    "terminal": DATA | {"sys"},
    "heartbeat": DATA | {"sys"},
    "logging": DATA,
    "notify_socket": DATA | {"sys"},
    "diagnose": DATA,
    "control": DATA | {"sys"},
    "metrics": DATA,
    "manager": DATA | {"sys"},
    # The other side of the control socket.
    "client": DATA | {"sys", "control", "logging"},
    "reactor": DATA
    | {"child", "signals", "terminal", "heartbeat", "logging", "notify_socket", "diagnose", "control"}
    | {"metrics", "manager", "sys", "supervisor", "flood", "echo", "hooks"},
    "main": {"cli", "client", "config", "error", "exit", "logging", "reactor", "signals"},
    "lib": set(),
}


def room_of(path):
    """The first-level module that a source file belongs to."""
    first = path.relative_to("src").parts[0]
    return first.removesuffix(".rs")


def product_code(text):
    """The text without comments and without the tests at its end."""
    text = text.split("#[cfg(test)]\nmod tests {")[0]
    return re.sub(r"//.*", "", text)


def lines_of(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def tracked():
    """Nothing, where this is no checkout."""
    return lines_of("git", "ls-files") if pathlib.Path(".git").exists() else []


def uses(text):
    """The first-level modules that a text names."""
    for name in re.findall(r"\b(?:crate|supervisor)::(\w+)", text):
        yield name
    for group in re.findall(r"\b(?:crate|supervisor)::\{([^;]*)\}", text):
        yield from re.findall(r"(?:^|,)\s*(\w+)", group)


def breaches():
    rooms = {room_of(path) for path in pathlib.Path("src").rglob("*.rs")}
    for path in sorted(pathlib.Path("src").rglob("*.rs")):
        room = room_of(path)
        if "tests" in path.parts or path.name == "tests.rs":
            continue
        if room not in MAY_USE:
            yield f"{path}: no rule for the module '{room}'"
            continue
        for used in sorted(set(uses(product_code(path.read_text()))) & rooms):
            if used != room and used not in MAY_USE[room]:
                yield f"{path}: '{room}' may not use '{used}'"
    for name in sorted({line.split("/")[0] for line in tracked()}):
        if name not in TOP and not name.startswith("."):
            yield f"{name}: does not belong at the top"


def package_breaches():
    """A package has what is tracked, but for CI's own, and what cargo adds."""
    expected = {name for name in tracked() if not name.startswith((".ci/", ".gitignore"))}
    if not expected:
        return
    expected |= {"Cargo.toml.orig", ".cargo_vcs_info.json"}
    packaged = set(lines_of("cargo", "package", "--quiet", "--list", "--allow-dirty", "--locked"))
    for name in sorted(expected ^ packaged):
        yield f"{name}: {'not in' if name in expected else 'has no place in'} a package"


def version_breaches():
    manifest = re.search(r'^version = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.M)[1]
    latest = re.search(r"\((.*?)\)", pathlib.Path("scripts/documents/changelog").read_text())[1]
    if manifest != latest:
        yield f"scripts/documents/changelog: its latest version is {latest}, but it is {manifest} now"


def main():
    found = [*breaches(), *package_breaches(), *version_breaches()]
    for line in found:
        print(line, file=sys.stderr)
    print(f"layout: {len(found)} breaches")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
