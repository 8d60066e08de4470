#!/usr/bin/env python3
"""Draws the charts of benches/charts from what `cargo bench --bench scaling -- --json FILE` wrote:
`scripts/charts.py FILE FOLDER`. Needs nothing but Python 3."""

import json
import math
import sys
from html import escape
from pathlib import Path

# Told apart by the colour-blind, too. A contender has one colour in all charts.
COLOURS = {
    "tollgate": "#d55e00",
    "governor": "#0072b2",
    "ratelimit": "#009e73",
    "tokio Semaphore": "#b0568c",
    "leaky-bucket": "#a87000",
    "ticket and sleep_until": "#6b7280",
}
INK, FAINT, GRID = "#1f2328", "#59636e", "#e3e6ea"
PANEL = (210, 190)  # of the plot itself
LEFT, RIGHT, TOP, BOTTOM = 52, 128, 50, 46
MARGIN, HEAD, FOOT = 14, 34, 44


def colour(name):
    return next(of for start, of in COLOURS.items() if name.startswith(start))


def text(x, y, words, size=11, fill=INK, anchor="start", more=""):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
        f'text-anchor="{anchor}"{more}>{escape(words)}</text>'
    )


def line(x1, y1, x2, y2, stroke=GRID):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def number(value):
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def steps(low, high):
    """1, 2 and 5, times powers of ten, from the last one below `low` to the first above `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    all_steps = [unit * 10.0**power for power in powers for unit in (1, 2, 5)]
    first = max(step for step in all_steps if step <= low)
    last = min(step for step in all_steps if step >= high)
    return [step for step in all_steps if first <= step <= last]


class Axis:
    """Where a value stands between the lower edge, 0, and the upper one, 1."""

    def __init__(self, values, is_log=False, ends=None):
        if not values:
            sys.exit("a chart without a value: no turn was undisturbed, so the machine is too busy")
        self.is_log = is_log
        if is_log:
            self.ticks = steps(min(values), max(values))
        elif ends:
            self.ticks = [ends[0] + (ends[1] - ends[0]) * i / 4 for i in range(5)]
        else:
            step = next(step for step in steps(1e-3, max(values)) if step * 5 >= max(values))
            self.ticks = [step * i for i in range(math.ceil(max(values) / step) + 1)]

    def at(self, value):
        scale = math.log10 if self.is_log else float
        low, high = scale(self.ticks[0]), scale(self.ticks[-1])
        return (scale(value) - low) / (high - low)


def apart(ends, least=13):
    """The heights of labels, none nearer to another than `least`."""
    heights = {}
    for height, name in sorted(ends):
        last = max(heights.values(), default=-math.inf)
        heights[name] = max(height, last + least)
    return heights


def panel(left, top, title, unit, under, xs, series, axis, shade_from=None):
    """`series` is a list of (name, is_dashed, [a value for each of `xs`, or None])."""
    width, height = PANEL
    x0, y0 = left + LEFT, top + TOP
    across = [x0 + width * (i + 0.5) / len(xs) for i in range(len(xs))]
    parts = [text(x0, top + 16, title, 13, more=' font-weight="600"'), text(x0, top + 34, unit, 11, FAINT)]
    if shade_from is not None:
        x = x0 + width * shade_from / len(xs)
        parts.append(f'<rect x="{x:.1f}" y="{y0}" width="{x0 + width - x:.1f}" height="{height}" fill="#f3f4f6"/>')
        # Above the plot, where no line can run through it.
        parts.append(text(x0 + width, y0 - 4, "more than CPUs", 10, FAINT, "end"))
    for tick in axis.ticks:
        y = y0 + height * (1 - axis.at(tick))
        parts += [line(x0, y, x0 + width, y), text(x0 - 6, y + 4, number(tick), 11, FAINT, "end")]
    for x, label in zip(across, xs):
        parts.append(text(x, y0 + height + 16, number(label), 11, FAINT, "middle"))
    parts.append(text(x0 + width / 2, y0 + height + 34, under, 11, FAINT, "middle"))
    ends = []
    for name, is_dashed, values in series:
        points = [
            (x, y0 + height * (1 - axis.at(value)))
            for x, value in zip(across, values)
            if value is not None
        ]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if is_dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(name)}" '
            f'stroke-width="{2.6 if name.startswith("tollgate") else 1.8}"{dash}/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(name)}"/>' for x, y in points]
        ends.append((points[-1][1], name))
    for name, y in apart(ends).items():
        weight = ' font-weight="600"' if name.startswith("tollgate") else ""
        parts.append(text(x0 + width + 5, y + 4, name, 11, colour(name), more=weight))
    return parts


def chart(file, title, columns, panels, notes):
    """A white card, so that it can be read on a dark page as well."""
    width, height = LEFT + PANEL[0] + RIGHT, TOP + PANEL[1] + BOTTOM
    rows = math.ceil(len(panels) / columns)
    whole = (2 * MARGIN + columns * width, HEAD + rows * height + FOOT + MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole[0]} {whole[1]}" '
        f'width="{whole[0]}" height="{whole[1]}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{whole[0] - 1}" height="{whole[1] - 1}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>',
        text(MARGIN + 8, 27, title, 16, more=' font-weight="600"'),
    ]
    for i, one in enumerate(panels):
        parts += panel(MARGIN + i % columns * width, HEAD + i // columns * height, **one)
    foot = HEAD + rows * height + 22
    parts += [text(MARGIN + 8, foot + 17 * i, note, 11, FAINT) for i, note in enumerate(notes)]
    file.write_text("\n".join([*parts, "</svg>", ""]))


def values(rows, xs, x, y, **wanted):
    """Of the row that has each of `xs`, and all that is `wanted`."""
    by_x = {row[x]: row[y] for row in rows if all(row[key] == of for key, of in wanted.items())}
    return [by_x.get(at) for at in xs]


def known(series):
    return [value for *_, of in series for value in of if value is not None]


def each(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def share(rows):
    least = min(row["admitted"] for row in rows)
    return "every call was admitted" if least > 0.999 else f"admitted: {least:.1%} at least"


def threads(rows, file, source):
    xs = each(rows, "threads")
    crowded = sum(not row["crowded"] for row in rows if row["contender"] == rows[0]["contender"])
    panels = []
    for title, names in (
        ("check, by handle", ["tollgate, handle", "governor", "ratelimit"]),
        ("check, by name", ["tollgate, name", "governor keyed"]),
        ("permit, taken and dropped", ["tollgate, permit", "tokio Semaphore"]),
    ):
        millions = lambda of: [value and value / 1e6 for value in of]
        series = [
            (name, False, millions(values(rows, xs, "threads", "calls_a_second", contender=name)))
            for name in names
        ]
        panels.append(
            dict(title=title, unit="million calls a second, all threads", under="threads", xs=xs,
                 series=series, axis=Axis(known(series)), shade_from=crowded)
        )
    notes = [f"One limiter with a large bucket, called by all threads in a tight loop; {share(rows)}. Medians.", source]
    chart(file, "Threads that share one limiter: more is better", 3, panels, notes)


def keys(rows, file, source):
    xs = each(rows, "keys")
    panels = []
    for count in each(rows, "threads"):
        series = [
            (f"{name}, {law}" if law == "Zipf" else name, law == "Zipf",
             values(rows, xs, "keys", "nanos", contender=name, law=law, threads=count))
            for name in each(rows, "contender")
            for law in each(rows, "law")
        ]
        title = "1 thread" if count == 1 else f"{count} threads"
        panels.append(
            dict(title=title, unit="CPU, ns a call (log)", under="keys", xs=xs, series=series,
                 axis=Axis(known(series), is_log=True))
        )
    notes = [
        f"check, by name; keys drawn uniformly, or by Zipf's law (dashed); {share(rows)}. Medians.",
        source,
    ]
    chart(file, "The cost of a call by the number of keys: less is better", 2, panels, notes)


def waiters(rows, file, source):
    xs = each(rows, "tasks")
    panels = []
    for runtime in each(rows, "runtime"):
        def series(y):
            return [
                (name, False, values(rows, xs, "tasks", y, contender=name, runtime=runtime))
                for name in each(rows, "contender")
            ]
        cost, part = series("micros"), series("delivered")
        least = math.floor(min(known(part)) / 20) * 20
        panels += [
            dict(title=runtime, unit="CPU, us a turn (log): less is better", under="waiting tasks",
                 xs=xs, series=cost, axis=Axis(known(cost), is_log=True)),
            dict(title=runtime, unit="delivered, % of the rate: more is better", under="waiting tasks",
                 xs=xs, series=part, axis=Axis(known(part), ends=(least, 100))),
        ]
    notes = [f"Tasks that wait for one limiter of {rows[0]['limit']}, by tokio's runtime. Medians.", source]
    chart(file, "Tasks that wait for their turns", 2, panels, notes)


def main():
    found, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    source = f"{found['machine']}. {found['command']}"
    for draw in (threads, keys, waiters):
        draw(found[draw.__name__], folder / f"{draw.__name__}.svg", source)


if __name__ == "__main__":
    main()
