# SPDX-License-Identifier: Apache-2.0
"""`fourwave top` and `report`: closes by process and service or destination."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.table import Column
from tracer.outputs.text import endpoint, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracer.detectors.close_rates import CloseCounts, CloseGroup

    Row = tuple[CloseGroup, CloseCounts]

SORTS: Final[dict[str, Callable[[Row], int]]] = {
    "closes": lambda row: -row[1].closes,
    "resets": lambda row: -row[1].resets,
    "failed": lambda row: -row[1].failed,
    "active": lambda row: -row[1].active,
}
COLUMNS: Final = (
    Column("CLOSES", right=True),
    Column("PER S", right=True),
    Column("WE 1ST", right=True),
    Column("3 SEGS", right=True),
    Column("RST", right=True),
    Column("FAILED", right=True),
    Column("COMM", least=8),
    Column("CONNECTION", least=14),
)


def first(counts: Mapping[CloseGroup, CloseCounts], sort: str, limit: int) -> list[Row]:
    """Return the foremost groups in the order asked for."""
    ranked = sorted(counts.items(), key=lambda row: -row[1].closes)
    return sorted(ranked, key=SORTS[sort])[:limit]


def as_lines(rows: list[Row], every: int, span_s: float, width: int, *, color: bool) -> list[str]:
    """Return the table of these groups, of `every` that there are, over `span_s`."""
    if not rows:
        return [f"No connection ended in {form.seconds(span_s)}."]
    cells = [
        [
            f"{counts.closes:,}",
            f"{counts.closes / span_s:,.1f}" if span_s else "-",
            _share(counts.active, counts.active + counts.passive),
            _share(counts.three_way, counts.three_way + counts.four_way),
            f"{counts.resets:,}" if counts.resets else "-",
            f"{counts.failed:,}" if counts.failed else "-",
            group.comm,
            connection(group),
        ]
        for group, counts in rows
    ]
    lines = table.lines(COLUMNS, cells, width, color=color)
    left = every - len(rows)
    return [*lines, f"({plural(left, 'group')} not shown)"] if left else lines


def connection(group: CloseGroup) -> str:
    """Return the service, or the destination; which it was is not known of old sockets."""
    if group.lport is not None:
        return f":{group.lport}"
    if group.raddr is None:
        return "(older than the trace)"
    return f"to {endpoint(group.raddr, group.rport or 0)}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def as_json(rows: list[Row], mono_ns: int | None, span_s: float) -> Iterator[str]:
    """Return a line per group."""
    for group, counts in rows:
        at = {"mono_ns": mono_ns, "span_s": span_s, **asdict(group), **asdict(counts)}
        yield form.json_line("close_rate", at)
