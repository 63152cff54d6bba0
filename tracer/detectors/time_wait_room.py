# SPDX-License-Identifier: Apache-2.0
"""How much room for TIME_WAIT the fullest namespace has, and how often there was none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.detectors.time_wait import TimeWaitTotal


@dataclass(frozen=True, slots=True)
class TimeWaitRoom:
    """The namespace nearest to its limit; None where no namespace tells."""

    used: int | None
    """Mini-sockets, those in FIN_WAIT2 included: what the limit counts (tw_refcount)."""
    limit: int | None
    """tcp_max_tw_buckets."""
    overflowed: int | None
    """TCPTimeWaitOverflow of all namespaces, gained between the looks; never falls."""


class TimeWaitWatch:
    """Follows namespaces by inode number; they may come and go."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}
        self._gained: int | None = None

    def look(self, totals: Iterable[TimeWaitTotal]) -> TimeWaitRoom:
        """Take in what a census says of all namespaces."""
        totals = tuple(totals)
        now = {one.netns: one.overflowed for one in totals if one.overflowed is not None}
        if now:
            gained = sum(self._gain(netns, count) for netns, count in now.items())
            self._gained = (self._gained or 0) + gained
        self._before = now
        limits = [
            (_used(one), one.max_tw_buckets) for one in totals if one.max_tw_buckets is not None
        ]
        if not limits:
            return TimeWaitRoom(None, None, self._gained)
        used, limit = max(limits, key=lambda room: (room[0] / max(room[1], 1), room[0]))
        return TimeWaitRoom(used, limit, self._gained)

    # What a namespace counted before it was first seen is of no known time. A count that fell
    # is another namespace's, new under the number of one that is gone.
    def _gain(self, netns: int, count: int) -> int:
        before = self._before.get(netns, count)
        return count - before if count >= before else count


def _used(total: TimeWaitTotal) -> int:
    return total.served + total.connected + total.fin_wait2
