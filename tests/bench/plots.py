# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG, by hand: dots with their intervals, and curves. Nothing to install.

Colours stand out on a light and on a dark page.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH: Final = 720
LEFT, RIGHT, TOP, BOTTOM = 170, 30, 40, 45
ROW: Final = 26
HEIGHT: Final = 300
OURS, THEIRS, GREY = "#1f7a8c", "#c8553d", "#8a8a8a"
COLORS: Final = (OURS, THEIRS, "#7a5195", "#6a994e", "#bc5090")


class Dot(NamedTuple):
    """One row: a value and where it may lie."""

    name: str
    low: float
    middle: float
    high: float
    ours: bool


class Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, here = (
            (math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (here - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values to label."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def _round_step(least: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def dots(title: str, unit: str, rows: Sequence[Dot], *, high: float | None = None) -> str:
    """Return one row per contender, from zero."""
    height = TOP + ROW * len(rows) + BOTTOM
    top = high or max(row.high for row in rows) * 1.05
    scale = Scale(0, top, LEFT, WIDTH - RIGHT)
    parts = [*_x_axis(scale, unit, TOP, height - BOTTOM)]
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        color = OURS if row.ours else THEIRS
        parts += [
            _text(LEFT - 10, y + 4, row.name, "end"),
            _interval(scale.at(row.low), scale.at(row.high), y, color),
            f'<circle cx="{scale.at(row.middle):.1f}" cy="{y}" r="5" fill="{color}"/>',
        ]
    return _svg(title, height, parts)


def curves(
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = True,
) -> str:
    """Return lines of (x, y) points; x logarithmic, y from zero."""
    points = [point for line in series.values() for point in line]
    x = Scale(min(p[0] for p in points), max(p[0] for p in points), LEFT, WIDTH - RIGHT, log)
    y = Scale(0, max(p[1] for p in points) * 1.05 or 1, HEIGHT - BOTTOM, TOP)
    parts = [*_x_axis(x, axes[0], TOP, HEIGHT - BOTTOM)]
    parts += [_text(LEFT - 8, y.at(tick) + 4, f"{tick:,g}", "end") for tick in y.ticks()]
    parts.append(_text(10, TOP - 10, axes[1]))
    for number, (name, line) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x.at(one):.1f},{y.at(other):.1f}" for one, other in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x.at(one):.1f}" cy="{y.at(other):.1f}" r="3" fill="{color}"/>'
            for one, other in line
        ]
        parts.append(_text(LEFT + 12, TOP + 14 + 16 * number, name, color=color))
    return _svg(title, HEIGHT, parts)


def _x_axis(scale: Scale, unit: str, top: float, bottom: float) -> Iterable[str]:
    for tick in scale.ticks():
        at = scale.at(tick)
        yield (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}" stroke="{GREY}"'
            ' stroke-opacity="0.35"/>'
        )
        yield _text(at, bottom + 16, f"{tick:,g}", "middle")
    yield _text((scale.start + scale.end) / 2, bottom + 36, unit, "middle")


def _interval(start: float, end: float, y: float, color: str) -> str:
    place = f'x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"'
    return f'<line {place} stroke="{color}" stroke-width="3"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = GREY) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'
    )


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">'
    )
    heading = (
        f'<text x="{WIDTH / 2}" y="18" text-anchor="middle" font-size="14"'
        f' fill="{GREY}">{escape(title)}</text>'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", heading, *parts, "</svg>", ""])
