# SPDX-License-Identifier: Apache-2.0
"""Turn what was measured into a table a person reads: ratios, with min, median and max."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Any

from tests.bench.machine import described

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def progress(text: str) -> None:
    """Say on stderr what is under way."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return min, median and max; a dash when nothing was measured."""
    if not values:
        return "-"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} {middle:.{digits}f} {high:.{digits}f}"


def kept(figures: dict[str, Any]) -> str:
    """Return the median of the blocks and its interval."""
    if not figures["kept_interval"]:
        return "-"
    low, middle, high = figures["kept_interval"]
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def predicted(figures: dict[str, Any]) -> str:
    """Return what the samples say will be kept."""
    share = figures["kept_predicted"]
    return "-" if share is None else f"{share:.3f}"


def bpf_ns_per_run(figures: dict[str, Any]) -> str:
    """Return the mean time of one run over all programs, the kernel's own 20 ns included."""
    runs = sum(program["run_cnt"] for program in figures["bpf"])
    return f"{sum(one['run_time_ns'] for one in figures['bpf']) / runs:.0f}" if runs else "-"


def bpf_ns_per_close(figures: dict[str, Any]) -> str:
    """Return the time in BPF per closed socket."""
    spent_ns = sum(program["run_time_ns"] for program in figures["bpf"])
    return f"{spent_ns / figures['bpf_closes']:.0f}" if figures["bpf_closes"] else "-"


def missing(made: int, accounts: dict[str, int]) -> int:
    """Return how many closes are not in the output, and how many the kernel side never saw.

    Other traffic of the host is in `closes` too: the second is a lower bound.
    """
    return accounts["lost"] + accounts["unaccounted"] + max(0, made - accounts["closes"])


def lost(figures: dict[str, Any]) -> str:
    """Return what is missing: counted as lost, or never seen at all; else by lines written."""
    pairs = zip(figures["closes_made"], figures["accounts"], strict=True)
    counted = [missing(made, accounts) for made, accounts in pairs if accounts]
    if counted:
        return str(sum(counted))
    pairs = zip(figures["closes_made"], figures["closes_written"], strict=True)
    absent = [max(0, made - written) for made, written in pairs if written is not None]
    return str(sum(absent)) if absent else "-"


def megabytes(name: str) -> Callable[[dict[str, Any]], str]:
    """Return a column: the highest value of one kind of memory."""

    def column(figures: dict[str, Any]) -> str:
        values = [memory[name] for memory in figures["memory_kb"]]
        return f"{max(values) / 1024:.1f}" if values else "-"

    return column


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("KEPT (95 %)", kept),
    ("BY SAMPLES", predicted),
    ("P50 RATIO", lambda figures: spread(figures["round_trip_p50"])),
    ("P99 RATIO", lambda figures: spread(figures["round_trip_p99"])),
    ("USER us/close", lambda figures: spread(figures["user_us_per_close"])),
    ("SYSTEM us/close", lambda figures: spread(figures["system_us_per_close"])),
    ("BPF ns/run", bpf_ns_per_run),
    ("ns/close", bpf_ns_per_close),
    ("LOST", lost),
    ("RSS MB", megabytes("rss")),
    ("PSS", megabytes("pss")),
    ("ANON", megabytes("anonymous")),
    ("MAPS", megabytes("bpf_maps")),
    ("READY s", lambda figures: spread(figures["ready_seconds"])),
)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Return the table's cells, header first; a contender that did not run is left out."""
    header = ["CONTENDER", *(title for title, _ in COLUMNS)]
    body = [
        [name, *(cell(figures) for _, cell in COLUMNS)]
        for name, figures in results["contenders"].items()
        if not figures["not_here"]
    ]
    return [header, *body]


def table(results: dict[str, Any]) -> str:
    """Return everything as text: the machine, the table, the long run, who was not here."""
    cells = rows(results)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    title = described(results["machine"])
    return "\n".join([title, " ".join(results["load"]), "", *lines, *notes(results)])


def notes(results: dict[str, Any]) -> list[str]:
    """Return sentences on the long run, and on who did not run."""
    lines = [""]
    if volume := results["volume"]:
        accounts = ", ".join(f"{name} {count:,}" for name, count in volume["accounts"].items())
        lines.append(
            f"Long run: {volume['closes_made']:,} closes made at "
            f"{volume['connections_per_second']:,.0f} connections/s, "
            f"{volume['user_us_per_close']:.2f} us user CPU per close; {accounts or 'no summary'}"
        )
    lines += [
        f"{name}: did not run: {figures['not_here']}"
        for name, figures in results["contenders"].items()
        if figures["not_here"]
    ]
    return lines
