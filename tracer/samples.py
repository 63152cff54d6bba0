# SPDX-License-Identifier: Apache-2.0
"""The values of all metrics at one time, bounded and harmless, as the tracer hands them on.

What metrics.py declares is filled here: series that must exist, caps, labels made of
anybody's bytes. The exporter only translates.
"""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer.errors import WireError
from tracer.metrics_declaration import OTHER, Fold, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Labels = tuple[str, ...]

LABEL_MAX: Final = 100
"""Longest label value; a systemd unit's name may have 255 bytes, and nests."""
_FOLDS: Final[dict[Fold, Callable[[float, float], float]]] = {
    Fold.SUM: operator.add,
    Fold.MAX: max,
    Fold.MIN: min,
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """Values of a histogram: counts per bucket, not cumulated, the last above all bounds."""

    counts: tuple[int, ...]
    sum: float


@dataclass(slots=True)
class Samples:
    """Values by name of the metric, then by label values. `created_s`: seconds since 1970.

    `page` is what the landing page shows beside them.
    """

    created_s: float
    series: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, Buckets] = field(default_factory=dict)
    page: dict[str, Any] = field(default_factory=dict)

    def put(self, metric: Metric, values: Mapping[Labels, float] | None = None) -> None:
        """Set a family; series that exist from the start and have no value are 0."""
        self.series[metric.name] = {**dict.fromkeys(metric.series, 0), **(values or {})}

    def put_one(self, metric: Metric, value: float | None) -> None:
        """Set a family without labels; what is not known has no sample."""
        self.series[metric.name] = {} if value is None else {(): value}

    def to_json(self) -> bytes:
        """Return what from_json() reads."""
        series = {
            name: [[*labels, value] for labels, value in values.items()]
            for name, values in self.series.items()
        }
        histograms = {name: asdict(buckets) for name, buckets in self.histograms.items()}
        return json.dumps(
            {
                "created_s": self.created_s,
                "series": series,
                "histograms": histograms,
                "page": self.page,
            },
            separators=(",", ":"),
        ).encode()


def from_json(text: bytes) -> Samples:
    """Return what to_json() wrote. Raises WireError for anything else."""
    try:
        content = json.loads(text)
        return Samples(
            float(content["created_s"]),
            {
                str(name): {tuple(map(str, labels)): float(value) for *labels, value in rows}
                for name, rows in content["series"].items()
            },
            {
                str(name): Buckets(tuple(map(int, made["counts"])), float(made["sum"]))
                for name, made in content["histograms"].items()
            },
            dict(content["page"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"not samples: {text[:80]!r}: {error}") from error


def capped(
    metric: Metric, values: Iterable[tuple[Labels, float]]
) -> tuple[dict[Labels, float], int]:
    """Return at most `metric.cap` series and `other`, and how many `other` stands for.

    The first ones stay, so put what matters first, in the same order for families that are
    compared with each other. Labels that became equal when they were shortened are folded too.
    """
    fold = _FOLDS[metric.fold]
    kept: dict[Labels, float] = {}
    rest: dict[Labels, float] = {}
    dropped = set()
    for labels, value in values:
        key = tuple(harmless(label) for label in labels)
        where = kept
        if key not in kept and metric.cap is not None and len(kept) >= metric.cap:
            dropped.add(key)
            where, key = rest, (OTHER,) * len(metric.labels)
        where[key] = fold(where[key], value) if key in where else value
    return {**kept, **rest}, len(dropped)


def harmless(text: str) -> str:
    r"""Return printable text of bounded length; all else is escaped like \n or \udcff."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LABEL_MAX else shown[: LABEL_MAX - 1] + "…"
