# SPDX-License-Identifier: Apache-2.0
"""Rows of cells as aligned lines no wider than the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.outputs.text import BOLD, cut, paint

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A title; `right`: numbers; `least`: may be cut down to so much where there is no room.

    `idle`: the cell that says nothing; where there is no room, a column of these is left out.
    """

    title: str
    right: bool = False
    least: int | None = None
    idle: str | None = None


def lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, *, color: bool
) -> list[str]:
    """Return a line of titles and a line per row, cells cut with an ellipsis where need be."""
    if _over(_widths(columns, rows), width) > 0:
        columns, rows = _without_idle(columns, rows)
    widths = _fit(columns, rows, width)
    titles = _line(columns, [column.title for column in columns], widths)
    return [
        paint(titles, BOLD if color else ""),
        *(_line(columns, row, widths) for row in rows),
    ]


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        f"{cut(cell, width):{'>' if column.right else '<'}{width}}"
        for column, cell, width in zip(columns, cells, widths, strict=True)
    )
    return GAP.join(padded).rstrip()


# The widest of those that may shrink gives way first.
def _fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = _widths(columns, rows)
    least = [
        widths[i] if column.least is None else max(column.least, len(column.title))
        for i, column in enumerate(columns)
    ]
    over = _over(widths, width)
    while over > 0 and any(w > m for w, m in zip(widths, least, strict=True)):
        roomy = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        widths[roomy] -= 1
        over -= 1
    return widths


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    titles = [column.title for column in columns]
    return [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]


def _over(widths: Sequence[int], width: int) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1) - width


def _without_idle(
    columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> tuple[list[Column], list[list[str]]]:
    told = [i for i, column in enumerate(columns) if any(row[i] != column.idle for row in rows)]
    return [columns[i] for i in told], [[row[i] for i in told] for row in rows]
