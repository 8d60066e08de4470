#!/usr/bin/env python3
"""Applies each fault of loom-tests/faults.toml to a copy of the source. Its model must catch it.

    scripts/faults.py              # all faults, in about 20 minutes
    scripts/faults.py NAME...      # these
    scripts/faults.py --check      # only whether each fault can be applied, and each model has one

A fault is caught if the model fails and says what the table expects. A build error or a timeout is no
catch. The exit code is 1 if any fault is not caught.
"""

import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

if sys.version_info < (3, 11):
    print("scripts/faults.py needs Python 3.11 or newer, for tomllib", file=sys.stderr)
    sys.exit(3)
import tomllib

TIMEOUT = 300  # seconds for a model
ROOT = Path(__file__).resolve().parent.parent
WORK = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "faults"
COPY = WORK / "source"
ENV = os.environ | {
    "RUSTFLAGS": "--cfg loom",
    "CARGO_TARGET_DIR": str(WORK / "target"),
    "CARGO_PROFILE_LOOM_INCREMENTAL": "true",
    "RUST_BACKTRACE": "0",
}


def models():
    """The names of all models: those of main.rs bare, the others with their module."""
    for path in (ROOT / "loom-tests/tests/models").glob("*.rs"):
        prefix = "" if path.stem == "main" else path.stem + "::"
        for name in re.findall(r"#\[test\]\nfn (\w+)", path.read_text()):
            yield prefix + name


def check(faults):
    """What is wrong with the table."""
    known = set(models())
    names = [fault["name"] for fault in faults]
    for fault in faults:
        path = ROOT / fault["file"]
        found = path.read_text().count(fault["find"]) if path.exists() else 0
        if found != 1:
            yield f"{fault['name']}: its text occurs {found} times in {fault['file']}, not once"
        if fault["model"] not in known:
            yield f"{fault['name']}: there is no model {fault['model']}"
        if names.count(fault["name"]) > 1:
            yield f"{fault['name']}: the name is not unique"
    for model in sorted(known - {fault["model"] for fault in faults}):
        yield f"{model}: there is no fault that it must catch"


def copy_source():
    """Copies what git does not ignore. Unchanged files keep their time, so cargo rebuilds little."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for path in COPY.rglob("*"):
        if path.is_file() and str(path.relative_to(COPY)) not in names:
            path.unlink()
    for name in names:
        source, target = ROOT / name, COPY / name
        if not target.exists() or source.read_bytes() != target.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def build():
    """Builds the models of the copy. Returns their binary, or None and what the compiler said."""
    command = ["cargo", "test", "-p", "loom-tests", "--profile", "loom", "--test", "models", "--no-run"]
    # loom itself stays optimised. A fault's build takes seconds then, and so does its model.
    for package in ["tollgate", "loom-tests"]:
        command += ["--config", f"profile.loom.package.{package}.opt-level=0"]
    built = subprocess.run(command, cwd=COPY, env=ENV, capture_output=True, text=True)
    binary = re.search(r"^ *Executable .*\((.*)\)$", built.stderr, re.MULTILINE)
    if built.returncode != 0 or binary is None:
        return None, "it does not compile:\n" + built.stderr
    return binary[1], None


def run(binary, fault):
    """Runs the model of a fault. Returns what is wrong, or None if the fault was caught."""
    try:
        ran = subprocess.run(
            [binary, "--exact", fault["model"], "--nocapture"],
            cwd=COPY, env=ENV, timeout=TIMEOUT, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return f"{fault['model']} did not end in {TIMEOUT} s"
    if ran.returncode == 0:
        return f"{fault['model']} passes"
    if fault["says"] not in ran.stdout:
        return f"{fault['model']} fails, but does not say {fault['says']!r}:\n{ran.stdout[:2000]}"
    return None


def main():
    faults = tomllib.loads((ROOT / "loom-tests/faults.toml").read_text())["fault"]
    wanted = [name for name in sys.argv[1:] if name != "--check"]
    problems = list(check(faults))
    problems += [f"there is no fault {name}" for name in wanted if name not in {f["name"] for f in faults}]
    if problems or "--check" in sys.argv[1:]:
        print("\n".join(problems or [f"{len(faults)} faults can be applied"]))
        return 1 if problems else 0
    copy_source()
    if error := build()[1]:
        print("without a fault " + error)
        return 1
    chosen = [fault for fault in faults if not wanted or fault["name"] in wanted]
    missed = []
    # Neighbours in the table with the same mutation share a build.
    for (file, find, replace), group in groupby(chosen, itemgetter("file", "find", "replace")):
        original = (COPY / file).read_text()
        (COPY / file).write_text(original.replace(find, replace))
        try:
            binary, error = build()
        finally:
            (COPY / file).write_text(original)
        for fault in group:
            problem = error or run(binary, fault)
            print(f"{'MISSED' if problem else 'caught'}  {fault['name']}: {problem or fault['model']}", flush=True)
            missed += [fault["name"]] if problem else []
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults were caught")
    if missed:
        print("not caught: " + " ".join(missed))
    return 1 if missed else 0


sys.exit(main())
