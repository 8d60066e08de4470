#!/usr/bin/env python3
"""Holds `rust-version`: no dependency that the library builds with, in any feature, needs a later one.

What only tests, benches, examples or the models under `cfg(loom)` use does not count. Clippy's
`incompatible_msrv` does the same for the standard library.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ["cargo", "metadata", "--all-features", "--format-version", "1"]


def version(text):
    """`1.89` or `1.89.0` as a triple; the lowest if a manifest says nothing."""
    numbers = [int(number) for number in (text or "0").split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def is_built(kind):
    return kind["kind"] != "dev" and kind["target"] != "cfg(loom)"


def built_with(start, nodes):
    """The ids of all packages below `start`, on any platform."""
    found, todo = set(), [start]
    while todo:
        package = todo.pop()
        if package not in found:
            found.add(package)
            todo += [dep["pkg"] for dep in nodes[package]["deps"] if any(map(is_built, dep["dep_kinds"]))]
    return found - {start}


def main():
    said = subprocess.run(COMMAND, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    metadata = json.loads(said)
    packages = {package["id"]: package for package in metadata["packages"]}
    ours = next(package for package in packages.values() if package["name"] == "tollgate")
    if ours["rust_version"] is None:
        print("tollgate declares no rust-version", file=sys.stderr)
        return 1
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found = [packages[package] for package in built_with(ours["id"], nodes)]
    late = [package for package in found if version(package["rust_version"]) > version(ours["rust_version"])]
    for package in sorted(late, key=lambda package: package["name"]):
        print(
            f"{package['name']} {package['version']} needs Rust {package['rust_version']},"
            f" and rust-version is {ours['rust_version']}",
            file=sys.stderr,
        )
    highest = max(found, key=lambda package: version(package["rust_version"]))
    print(
        f"{len(found)} dependencies, the latest for Rust {highest['rust_version']} ({highest['name']});"
        f" rust-version is {ours['rust_version']}"
    )
    return 1 if late else 0


sys.exit(main())
