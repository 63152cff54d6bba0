# SPDX-License-Identifier: Apache-2.0
"""Counters whose series are a changing choice: each counts on from where it was, never falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracer.metrics_declaration import OTHER, Metric
from tracer.samples import capped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.samples import Labels

REMEMBERED_MAX: Final = 1_000
"""Series that keep their count while they are not shown; the longest unseen begin again at 0."""


class Totals:
    """The series of one capped counter, which are given what was gained."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._other = (OTHER,) * len(metric.labels)
        self._totals: dict[Labels, float] = {}

    def add(
        self, gains: Iterable[tuple[Labels, float]], rest: float = 0
    ) -> tuple[dict[Labels, float], int]:
        """Return the series of these labels, and how many `other` stands for now.

        What one gained that is not shown goes to `other`, as does `rest`, and stays there: added
        up, all series are all that was gained.
        """
        gained, dropped = capped(self._metric, gains)
        if rest or self._other in self._totals:
            gained[self._other] = gained.get(self._other, 0) + rest
        for labels, gain in gained.items():
            self._totals[labels] = self._totals.pop(labels, 0) + gain
        self._forget()
        return {labels: self._totals[labels] for labels in gained}, dropped

    # Those shown were put behind the others.
    def _forget(self) -> None:
        for labels in list(self._totals)[:-REMEMBERED_MAX]:
            if labels != self._other:
                del self._totals[labels]
