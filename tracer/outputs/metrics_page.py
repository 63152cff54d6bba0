# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md from the declarations: `python -m tracer.outputs.metrics_page`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from tracer.metrics import METRICS
from tracer.metrics_declaration import Group, Metric, Type

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRO: Final = """\
# Metrics

What `fourwave serve` exports. This page is generated from `tracer/metrics.py` by `make docs`.

Every series whose labels are known before is there from the start, at 0. A family whose labels
could grow holds so many series at most; the rest is one series whose labels say `other`, and
`fourwave_series_dropped_total` counts what it stands for. Counters begin at 0 when the tracer
starts; with OpenMetrics each says when that was (`_created`).
"""
TITLES: Final = {
    Group.CLOSES: "How connections end",
    Group.LEAKS: "Sockets, and who leaks them",
    Group.PORTS: "Local ports and TIME_WAIT",
    Group.LISTENERS: "Listeners",
    Group.TRACER: "The tracer itself",
}
FOLDS: Final = {"sum": "their sum", "max": "their greatest", "min": "their least"}


def as_markdown() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, *(line for group in Group for line in _section(group))])


def _section(group: Group) -> Iterator[str]:
    yield f"## {TITLES[group]}\n"
    for metric in METRICS:
        if metric.group is group:
            yield from _entry(metric)


def _entry(metric: Metric) -> Iterator[str]:
    yield f"### `{metric.name}`\n"
    unit = f", {metric.unit}" if metric.unit else ""
    yield f"{metric.type.value.capitalize()}{unit}. {metric.help}\n"
    yield from (f"- {line}" for line in _details(metric))
    if metric.labels or metric.buckets:
        yield ""


def _details(metric: Metric) -> Iterator[str]:
    for at, label in enumerate(metric.labels):
        values = list(dict.fromkeys(values[at] for values in metric.series))
        told = ": " + ", ".join(f"`{value}`" for value in values) if values else ""
        yield f"`{label}`{told}"
    if metric.cap:
        yield f"at most {metric.cap} series and `other`, which has {FOLDS[metric.fold]}"
    if metric.type is Type.HISTOGRAM:
        yield "buckets up to " + ", ".join(f"{bound:g}" for bound in metric.buckets) + " s"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
