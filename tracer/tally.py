# SPDX-License-Identifier: Apache-2.0
"""What metrics count beyond the Aggregator: durations by bucket, and resets by direction.

A few array passes per batch, nothing per close.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.metrics import ACCEPT_WAIT, CLOSE_WAIT, TEARDOWN
from tracer.metrics_declaration import Metric, label_of
from tracer.spans import accept_wait_ns, close_wait_ns, teardown_ns
from tracer.tcp import RST_SENT, Cause
from tracer.verdict import Reason, column_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.wire import Records

_CAUSE: Final = column_of("cause")
_RST_CAME: Final = (
    Reason.RST_RECEIVED,
    Reason.RST_INFERRED,
    Reason.SYN_REFUSED,
    Reason.SYN_RECV_RESET,
)
_RECEIVED: Final = np.isin(np.arange(256), [int(reason) for reason in _RST_CAME])
# An abort whose RST was not seen is one all the same.
_SENT: Final = column_of("rst_sent") != 0
_EITHER: Final = _RECEIVED | _SENT


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
    accept_wait: Durations = field(default_factory=lambda: Durations(ACCEPT_WAIT))
    accepts_seen: bool = False
    """Whether a hook sees accept(): else nobody looks for it in the records."""
    without_port: int = 0
    """connect() calls that found no free local port."""
    _by_reason: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    _sent_besides: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, closes: Records, reasons: NDArray[np.uint8]) -> None:
        """Count closes and what judge() said of them."""
        self.teardown.add(teardown_ns(closes, reasons))
        self.close_wait.add(close_wait_ns(closes))
        if self.accepts_seen:
            self.accept_wait.add(accept_wait_ns(closes))
        counts = np.bincount(reasons, minlength=256)
        self._by_reason += counts
        if counts[Reason.SYN_NEVER_SENT]:
            never_sent = reasons == int(Reason.SYN_NEVER_SENT)
            self.without_port += int(np.count_nonzero(closes["lport"][never_sent] == 0))
        besides = reasons[(closes["rst_flags"] & RST_SENT) != 0]
        if len(besides):
            self._sent_besides += np.bincount(besides[~_EITHER[besides]], minlength=256)

    def resets(self) -> dict[tuple[str, str], int]:
        """Return the counts that are not zero by (direction, cause)."""
        received = np.where(_RECEIVED, self._by_reason, 0)
        sent = np.where(_SENT, self._by_reason, 0) + self._sent_besides
        found: dict[tuple[str, str], int] = {}
        for direction, counts in (("sent", sent), ("received", received)):
            for reason in np.flatnonzero(counts).tolist():
                key = direction, label_of(Cause(int(_CAUSE[reason])))
                found[key] = found.get(key, 0) + int(counts[reason])
        return found
