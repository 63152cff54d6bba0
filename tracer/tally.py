# SPDX-License-Identifier: Apache-2.0
"""What metrics count beyond the Aggregator: durations by bucket, and resets by direction.

A few array passes per batch, nothing per close.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.metrics import CLOSE_WAIT, TEARDOWN
from tracer.metrics_declaration import Metric, label_of
from tracer.spans import close_wait_ns, teardown_ns
from tracer.tcp import Cause, Kind
from tracer.verdict import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.verdict import Verdicts
    from tracer.wire import Records

_CAUSES: Final = max(Cause) + 1
_RST_CAME: Final = (
    Reason.RST_RECEIVED,
    Reason.RST_INFERRED,
    Reason.SYN_REFUSED,
    Reason.SYN_RECV_RESET,
)
_BY_PEER: Final = np.isin(np.arange(256), [int(reason) for reason in _RST_CAME])


class Durations:
    """One histogram: counts per bucket, the last one above all bounds, and the sum in ns."""

    def __init__(self, metric: Metric) -> None:
        """Take the bounds of the metric's buckets."""
        self._bounds_ns = np.array([round(bound * 1e9) for bound in metric.buckets], np.uint64)
        self._counts = np.zeros(len(metric.buckets) + 1, np.int64)
        self.sum_ns = 0

    def add(self, spans_ns: NDArray[np.uint64]) -> None:
        """Count these; a bound belongs to its own bucket."""
        if not len(spans_ns):
            return
        cells = np.searchsorted(self._bounds_ns, spans_ns, side="left")
        self._counts += np.bincount(cells, minlength=len(self._counts))
        self.sum_ns += int(spans_ns.sum())

    @property
    def counts(self) -> list[int]:
        """Return how many fell into each bucket, not cumulated."""
        counts: list[int] = self._counts.tolist()
        return counts


@dataclass(slots=True)
class Tally:
    """Counters of one run; give its `add` to the Session."""

    teardown: Durations = field(default_factory=lambda: Durations(TEARDOWN))
    close_wait: Durations = field(default_factory=lambda: Durations(CLOSE_WAIT))
    without_port: int = 0
    """connect() calls that found no free local port."""
    _sent: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_CAUSES, np.int64))
    _received: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_CAUSES, np.int64))

    def add(self, closes: Records, verdicts: Verdicts) -> None:
        """Count closes and what they were judged to be."""
        self.teardown.add(teardown_ns(closes, verdicts))
        self.close_wait.add(close_wait_ns(closes))
        never_sent = verdicts["reason"] == int(Reason.SYN_NEVER_SENT)
        self.without_port += int(np.count_nonzero(never_sent & (closes["lport"] == 0)))
        cause = verdicts["cause"]
        received = _BY_PEER[verdicts["reason"]]
        # An abort whose RST was not seen is one all the same: the rule proved it.
        sent = (verdicts["rst_sent"] != 0) | (verdicts["kind"] == int(Kind.ABORT))
        self._received += np.bincount(cause[received], minlength=_CAUSES)
        self._sent += np.bincount(cause[sent & ~received], minlength=_CAUSES)

    def resets(self) -> dict[tuple[str, str], int]:
        """Return the counts that are not zero by (direction, cause)."""
        both = (("sent", self._sent), ("received", self._received))
        return {
            (direction, label_of(Cause(cause))): int(counts[cause])
            for direction, counts in both
            for cause in np.flatnonzero(counts).tolist()
        }
