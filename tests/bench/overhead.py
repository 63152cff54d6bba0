# SPDX-License-Identifier: Apache-2.0
"""Put tables and plots where a page has their marks; the prose around them stays."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench import plots, report
from tests.bench.machine import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "overhead.md"
PLOTS: Final = DOCS / "overhead"


def write_contenders(results: dict[str, Any]) -> None:
    """Write the comparison."""
    ran = {name: one for name, one in results["contenders"].items() if not one["not_here"]}
    images = [
        _image(
            "kept",
            plots.dots(
                "Connections per second kept at full load (median, 95 % interval)",
                "traced / untraced",
                [_kept(name, one) for name, one in ran.items()],
                high=1.05,
            ),
        ),
        _image(
            "cpu",
            plots.dots(
                "The tracer's own CPU time (min, median, max)",
                "µs per close, user and system",
                [_cpu(name, one) for name, one in ran.items()],
            ),
        ),
        _image(
            "memory",
            plots.dots(
                "Memory, BPF maps included (min, median, max)",
                "MB (PSS and maps)",
                [_memory(name, one) for name, one in ran.items()],
            ),
        ),
    ]
    header, *body = report.rows(results)
    heading = f"{described(results['machine'])}; `closes {' '.join(results['load'])}`."
    # Many columns: one row per figure reads better than one per contender.
    turned = [list(row) for row in zip(header, *body, strict=True)]
    notes = [f"- {note}" for note in report.notes(results) if note]
    put("contenders", [heading, "", *markdown(turned), "", *images, "", *notes])


def write_curves(
    name: str,
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    rows: Sequence[Sequence[str]],
) -> None:
    """Write one plot of curves and its table."""
    put(name, [_image(name, plots.curves(title, axes, series)), "", *markdown(rows)])


def put(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace what lies between the marks of this name."""
    text = page.read_text()
    begin, end = f"<!-- {name}: made by tests/bench -->", f"<!-- {name}: end -->"
    inside = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    block = "\n".join([begin, *lines, end])
    page.write_text(inside.sub(lambda _: block, text))


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, header first."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(row) + " |" for row in lines]


def _image(name: str, svg: str) -> str:
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / f"{name}.svg").write_text(svg)
    title = svg.split("<title>")[1].split("</title>", maxsplit=1)[0]
    return f"![{title}](overhead/{name}.svg)"


def _kept(name: str, figures: dict[str, Any]) -> plots.Dot:
    low, middle, high = figures["kept_interval"]
    return plots.Dot(name, low, middle, high, figures["ours"])


def _cpu(name: str, figures: dict[str, Any]) -> plots.Dot:
    pairs = zip(figures["user_us_per_close"], figures["system_us_per_close"], strict=True)
    return _spread(name, [user + system for user, system in pairs], figures)


def _memory(name: str, figures: dict[str, Any]) -> plots.Dot:
    values = [(one["pss"] + one["bpf_maps"]) / 1024 for one in figures["memory_kb"]]
    return _spread(name, values, figures)


def _spread(name: str, values: Sequence[float], figures: dict[str, Any]) -> plots.Dot:
    return plots.Dot(name, min(values), statistics.median(values), max(values), figures["ours"])
