#!/usr/bin/env python3
"""Draws the pictures of docs/upstream.md from runs of the simulation in tests/upstream: `scripts/upstream.py`.
Needs nothing but Python 3 and cargo."""

import json
import os
import subprocess
import tempfile
from html import escape
from pathlib import Path

from charts import FAINT, GRID, INK, Axis, line, number, text

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
PLOT = (620, 200)
LEFT, RIGHT, TOP, BOTTOM = 58, 150, 66, 62
LIMIT, SERVED, REFUSED, UPSTREAM = "#0072b2", "#009e73", "#d55e00", "#6b7280"
AVERAGED = 5  # seconds of a point


def runs():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.json"
        subprocess.run(
            ["cargo", "test", "--quiet", "-p", "tollgate", "--test", "upstream", "--", "--ignored", "pictures"],
            env={**os.environ, "TOLLGATE_UPSTREAM_JSON": str(file)}, check=True, stdout=subprocess.DEVNULL,
        )
        return json.loads(file.read_text())


def draw(points, stroke, width, more=""):
    """A line through the points, but for what is above the plot."""
    path, last = "", TOP
    for x, y in points:
        path += f"{'M' if y == last == TOP or not path else 'L'}{x:.1f} {y:.1f}"
        last = y
    return f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{more}/>'


def picture(name, title, seconds, most, upstream, marks, notes):
    """`upstream` is what it allows, as (from, to, requests a second); `marks` are (second, words)."""
    width, height = PLOT
    axis = Axis([most])
    across = lambda second: LEFT + width * second / len(seconds)
    up = lambda value: TOP + height * (1 - min(axis.at(value), 1))
    whole = (LEFT + width + RIGHT, TOP + height + BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole[0]} {whole[1]}" width="{whole[0]}" '
        f'height="{whole[1]}" role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{whole[0] - 1}" height="{whole[1] - 1}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>',
        text(22, 27, title, 16, more=' font-weight="600"'),
        text(LEFT, 52, "requests a second", 11, FAINT),
    ]
    for tick in axis.ticks:
        parts += [line(LEFT, up(tick), LEFT + width, up(tick)), text(LEFT - 6, up(tick) + 4, number(tick), 11, FAINT, "end")]
    for second in range(0, len(seconds) + 1, 60):
        parts.append(text(across(second), TOP + height + 16, f"{second // 60} min", 11, FAINT, "middle"))

    points = range(0, len(seconds) - AVERAGED + 1, AVERAGED)
    mean = lambda key, at: sum(second[key] for second in seconds[at : at + AVERAGED]) / AVERAGED
    curve = lambda key: [(across(at + AVERAGED / 2), up(mean(key, at))) for at in points]
    steps = lambda of: [(across(at), up(value)) for start, end, value in of for at in (start, end)]
    limit = steps((at, at + 1, second["capacity"]) for at, second in enumerate(seconds))
    parts += [
        draw(steps(upstream), UPSTREAM, 1.6, ' stroke-dasharray="5 4"'),
        draw(limit, LIMIT, 1.8),
        draw(curve("served"), SERVED, 2.4),
        draw(curve("refused"), REFUSED, 2),
    ]
    for at, words in marks:
        parts += [line(across(at), TOP, across(at), TOP + height, INK), text(across(at) + 4, TOP - 5, words, 11, INK)]
    legend = [("limit in force", LIMIT), ("served", SERVED), ("refused", REFUSED), ("the upstream allows", UPSTREAM)]
    for i, (words, fill) in enumerate(legend):
        y = TOP + 16 + 20 * i
        parts += [
            f'<rect x="{LEFT + width + 12}" y="{y - 8}" width="12" height="4" fill="{fill}"/>',
            text(LEFT + width + 30, y - 2, words, 11, fill),
        ]
    parts += [text(22, TOP + height + 38 + 15 * i, note, 11, FAINT) for i, note in enumerate(notes)]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text("\n".join([*parts, "</svg>", ""]))


def main():
    found = runs()
    picture(
        "cut", "A limit of 1,000/s, a demand of 200/s, and an upstream of 100/s", found["cut"], 250,
        [(0, 270, 100), (270, 480, 1_000)], [(270, "the upstream allows 1,000/s")],
        ["The first refusals cut to a part of what was sent, not of 1,000/s. Then each step of the recovery tries for more.",
         f"Means of {AVERAGED} seconds. Figures above 250 are not shown."],
    )
    picture(
        "outage", "An outage of five minutes: one pause after another, and no deep cut", found["outage"], 120,
        [(0, 60, 1_000), (60, 60, 0), (360, 360, 0), (360, 480, 1_000)],
        [(60, "all is refused"), (360, "it is over")],
        ["A limit of 100/s, a demand of 50/s. After each pause a few requests are sent, to see whether the outage is over.",
         f"Means of {AVERAGED} seconds. Figures above 150 are not shown."],
    )
    picture(
        "adaptive", "An adaptive limit that starts at 10/s, and an upstream that changes", found["adaptive"], 140,
        [(0, 120, 100), (120, 240, 50), (240, 360, 100)],
        [(120, "the upstream allows 50/s"), (240, "100/s")],
        ["It grows each second until the first refusal. Then it lingers where it was refused, and looks for more.",
         f"Means of {AVERAGED} seconds, except for the limit."],
    )


if __name__ == "__main__":
    main()
