# SPDX-License-Identifier: Apache-2.0
"""What a census was measured to cost, as tables: on the terminal, and in docs/census.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.bench import overhead
from tests.bench.machine import described, machine

if TYPE_CHECKING:
    from collections.abc import Callable

    Table = list[list[str]]

PAGE: Final = overhead.DOCS / "census.md"
LOADS: Final = {"spare": "a processor to spare", "busy": "both processors busy"}
PERCENTILES: Final = {"p50": "median", "p99": "99 %", "p999": "99.9 %", "max": "longest"}


def show(made: dict[str, Any]) -> None:
    """Print the tables of what was measured."""
    for lines in _tables(made).values():
        print("", *lines, sep="\n")


def write(made: dict[str, Any]) -> None:
    """Put them where the page has their marks."""
    for name, lines in _tables(made).items():
        overhead.put(f"census {name}", [f"{described(machine())}.", "", *lines], PAGE)


def _tables(made: dict[str, Any]) -> dict[str, list[str]]:
    tables = {}
    if found := [made[name] for name in ("time_wait", "owners") if name in made]:
        tables["beside ss"] = overhead.markdown(_beside_ss(found))
    for name, table in TABLES.items():
        if name in made:
            tables[name] = overhead.markdown(table(made[name]))
    return tables


def _beside_ss(found: list[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{one['sockets']:,}, {one['owners']:,} owners",
            f"`ss {one['ss_options']} \\| wc -l`",
            f"{one['rounds']}",
            f"{one['census_ms']:,.0f} ms",
            f"{one['ss_ms']:,.0f} ms",
            _interval(one["ratio"], 3),
            " to ".join(f"{kb / 1024:.1f}" for kb in one["rss_kb"]) + " MB",
        ]
        for one in found
    ]
    title = ["sockets", "against", "rounds", "census", "ss", "census / ss (95 %)", "memory"]
    return [title, *rows]


def _traffic(found: dict[str, Any]) -> Table:
    rows = [
        [
            LOADS[load],
            name,
            f"{arm['blocks']}",
            *(_interval(arm[which], 0) for which in PERCENTILES),
            _interval(arm["p99_ratio"], 2) if name != "alone" else "",
        ]
        for load, arms in found["loads"].items()
        for name, arm in arms.items()
    ]
    title = ["", "beside", "blocks", *(f"{words}, µs" for words in PERCENTILES.values())]
    return [[*title, "99 %, to alone"], *rows]


def _memory(found: dict[str, Any]) -> Table:
    views = list(next(iter(found.values())))
    rows = [
        [f"{int(sockets):,}", f"{int(sockets) // 4:,}", *(f"{mb:.1f} MB" for mb in peaks.values())]
        for sockets, peaks in found.items()
    ]
    return [["sockets", "in CLOSE_WAIT", *(f"`{view} --watch`" for view in views)], *rows]


def _interval(found: tuple[float, float, float], digits: int) -> str:
    low, middle, high = found
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


TABLES: Final[dict[str, Callable[[dict[str, Any]], Table]]] = {
    "traffic": _traffic,
    "memory": _memory,
    "large": _memory,
}
