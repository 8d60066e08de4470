#!/usr/bin/env python3
"""Holds the layering of src: no layer imports a later one, and no folder's files import in a circle.

A file imports what its code names after `crate::` or `super::`; comments and unit tests do not count.
The parent module (`mod.rs`) declares its files, so what they take from it is no import of a file.
"""

import re
import sys
from pathlib import Path

LAYERS = "sync trace counts clock bucket wait adapt limiter bus ledger swarm integrations".split()
SRC = Path(__file__).resolve().parent.parent / "src"


def code(file):
    """The file's code, without comments, with `use a::{b, c::d}` written as `a::b a::c::d`."""
    text = re.sub(r"//.*", "", file.read_text())

    def expand(match):
        names = re.split(r",(?![^{]*})", match[2].replace("\n", " "))
        return " ".join(match[1] + name.strip() for name in names)

    while (wider := re.sub(r"((?:\w+::)+)\{([^{}]*)\}", expand, text)) != text:
        text = wider
    return text


def layer(file):
    return file.relative_to(SRC).parts[0].removesuffix(".rs")


def upward(file):
    own = layer(file)
    if own not in LAYERS:
        return
    for name in re.findall(r"\bcrate::(\w+)", code(file)):
        if name not in LAYERS:
            yield f"{file}: takes `{name}` from the crate's root"
        elif LAYERS.index(name) > LAYERS.index(own):
            yield f"{file}: {own} imports {name}, a later layer"


def siblings(file):
    """The files and folders beside this one that it imports."""
    found = set()
    for name in re.findall(r"\bsuper::(\w+)", code(file)):
        beside = [file.parent / f"{name}.rs", file.parent / name]
        found.update(path for path in beside if path.exists() and path != file)
    return found


def circle(folder):
    """A circle among the files of a folder, as a list, or None."""
    files = [file for file in folder.glob("*.rs") if file.name != "mod.rs" and "test" not in file.stem]
    edges = {file: siblings(file) for file in files}
    done, path = set(), []

    def visit(file):
        if file in path:
            return path[path.index(file) :] + [file]
        if file in done or file not in edges:
            return None
        path.append(file)
        for target in sorted(edges[file]):
            if found := visit(target):
                return found
        done.add(path.pop())
        return None

    return next(filter(None, map(visit, sorted(edges))), None)


def main():
    files = [file for file in SRC.rglob("*.rs") if "test" not in file.stem]
    wrong = [line for file in sorted(files) for line in upward(file)]
    for folder in sorted({file.parent for file in files}):
        if found := circle(folder):
            wrong.append("a circle: " + " -> ".join(file.stem for file in found))
    print("\n".join(line.replace(f"{SRC}/", "src/") for line in wrong) or "the layers hold")
    sys.exit(bool(wrong))


main()
