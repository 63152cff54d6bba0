# SPDX-License-Identifier: Apache-2.0
"""Rows of cells as aligned lines no wider than the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.outputs.text import BOLD, paint, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A title; `right`: numbers; `least`: may be cut down to so much where there is no room."""

    title: str
    right: bool = False
    least: int | None = None


def lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, *, color: bool
) -> list[str]:
    """Return a line of titles and a line per row, cells cut with an ellipsis where need be."""
    widths = _fit(columns, rows, width)
    titles = _line(columns, [column.title for column in columns], widths)
    return [
        paint(titles, BOLD if color else ""),
        *(_line(columns, row, widths) for row in rows),
    ]


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        f"{shorten(cell, width):{'>' if column.right else '<'}{width}}"
        for column, cell, width in zip(columns, cells, widths, strict=True)
    )
    return GAP.join(padded).rstrip()


# The widest of those that may shrink gives way first.
def _fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = [
        max(len(cell) for cell in cells)
        for cells in zip([column.title for column in columns], *rows, strict=True)
    ]
    least = [
        widths[i] if column.least is None else max(column.least, len(column.title))
        for i, column in enumerate(columns)
    ]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while over > 0 and any(w > m for w, m in zip(widths, least, strict=True)):
        roomy = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        widths[roomy] -= 1
        over -= 1
    return widths
