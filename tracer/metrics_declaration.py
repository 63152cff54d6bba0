# SPDX-License-Identifier: Apache-2.0
"""What a declaration of a metric says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tracer.tcp import Labelled

NAMESPACE: Final = "fourwave"
OTHER: Final = "other"
"""The label value that stands for all series a cap refused."""

Values = tuple[str, ...]


class Type(StrEnum):
    """Of OpenMetrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Group(StrEnum):
    """What a metric tells about: a section of the documentation, a dashboard."""

    CLOSES = "closes"
    LEAKS = "leaks"
    PORTS = "ports"
    LISTENERS = "listeners"
    TRACER = "tracer"


class Fold(StrEnum):
    """How the values of the series beyond `cap` become that of `other`."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family.

    `name` is what Prometheus shows, with `_total` or `_info`. `series` are the label values that
    exist from the start at 0; empty where they are not known before. `cap` bounds the series of a
    family whose labels could grow, by `fold`. `buckets` are upper bounds of a histogram in seconds.
    """

    name: str
    type: Type
    group: Group
    help: str
    labels: Values = ()
    series: tuple[Values, ...] = ()
    cap: int | None = None
    fold: Fold = Fold.SUM
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str | None:
        """The base unit that the name ends with, None for a count."""
        bare = self.name.removesuffix("_total")
        return "seconds" if bare.endswith("_seconds") else None


def label_of(member: Labelled) -> str:
    """Return the label value of an enum member; where JSON has null a label says none."""
    return member.label or "none"
