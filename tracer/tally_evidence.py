# SPDX-License-Identifier: Apache-2.0
"""Counts of what a Reason alone does not say: lost data, the FIN's ACK, TIME_WAIT.

Only the records each count concerns are looked at. No clock, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.classify_ack import FATE_OF, IS_ALONE, fates_alone
from tracer.classify_loss import lost_early
from tracer.columns import Rows
from tracer.tcp import ENDED_EARLY, TW_NONE, AckFate, ActorFlag, Kind, TcpState, TimeWait
from tracer.verdict import RULES, TRISTATES, Reason, column_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tracer.wire import Records


def _where(*kinds: Kind, also: tuple[Reason, ...] = ()) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[[reason for reason, rule in RULES.items() if rule.kind in kinds or reason in also]] = True
    return table


# From CLOSING, too, the socket goes to TIME_WAIT, whoever was first on the wire.
_DUE: Final = _where(Kind.ACTIVE, Kind.SIMULTANEOUS, also=(Reason.FIN_STILL_QUEUED,))
# Which count, if any, must look at the record itself; a bit each.
_WAITS, _EARLY, _ALONE, _QUEUED = 1, 2, 4, 8
_LOOK: Final = (
    _DUE * _WAITS
    + _where(*ENDED_EARLY) * _EARLY
    + IS_ALONE * _ALONE
    + _where(also=(Reason.LISTENER_CLOSED,)) * _QUEUED
).astype(np.uint8)
# Counts by tw_substate times this are counts by TimeWait.
_TIME_WAIT_SUMS: Final = np.zeros((len(TimeWait), 256), np.int64)
_TIME_WAIT_SUMS[TimeWait.UNKNOWN] = 1
for _end, _substate in (
    (TimeWait.ENTERED, TcpState.TIME_WAIT),
    (TimeWait.ORPHANED, TcpState.FIN_WAIT2),
    (TimeWait.REFUSED, TW_NONE),
):
    _TIME_WAIT_SUMS[:, _substate] = 0
    _TIME_WAIT_SUMS[_end, _substate] = 1
_ACCEPTED: Final = int(ActorFlag.ACCEPTED)
_KIND_OF: Final = column_of("kind")


class EvidenceTally:
    """One cell per member of an enum; `add` is a few array passes."""

    def __init__(self) -> None:
        self._alone = np.zeros(len(AckFate), np.int64)
        self._losses = np.zeros((len(Kind), len(TRISTATES)), np.int64)
        self._time_wait = np.zeros(len(TimeWait), np.int64)
        self.accepted_in_queue = 0
        """Closes that never left the accept queue, though a hook saw their accept()."""

    def add(self, records: Records, reasons: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        """Count closes, given the Reason of each and how often each Reason comes."""
        wanted = np.bitwise_or.reduce(_LOOK[counts != 0])
        look = _LOOK[reasons]
        if wanted & _WAITS:
            substates = records["tw_substate"][(look & _WAITS) != 0]
            self._time_wait += _TIME_WAIT_SUMS @ np.bincount(substates, minlength=256)
        if wanted & _EARLY:
            index = np.flatnonzero(look & _EARLY)
            early = reasons[index]
            np.add.at(self._losses, (_KIND_OF[early], lost_early(Rows(records, index), early)), 1)
        if wanted & _QUEUED:
            openers = records["opener"]["flags"][(look & _QUEUED) != 0]
            self.accepted_in_queue += int(np.count_nonzero(openers & _ACCEPTED))
        if wanted & _ALONE:
            fates = fates_alone(Rows(records, np.flatnonzero(look & _ALONE)))
            self._alone += np.bincount(fates, minlength=len(AckFate))

    def ack_fates(self, by_reason: NDArray[np.int64]) -> dict[AckFate, int]:
        """Return how the ACKs of peers' FINs went, given all counts; passive closes only."""
        counts = self._alone.copy()
        plain = ~IS_ALONE & (FATE_OF != AckFate.NONE)
        np.add.at(counts, FATE_OF[plain], by_reason[plain])
        return {fate: int(counts[fate]) for fate in AckFate if counts[fate]}

    def time_wait(self) -> dict[TimeWait, int]:
        """Return what became of the sockets that were due for TIME_WAIT."""
        return {end: int(self._time_wait[end]) for end in TimeWait if self._time_wait[end]}

    def data_lost(self) -> Mapping[tuple[Kind, bool | None], int]:
        """Return how many aborts, resets and timeouts lost data, did not, or None: not known."""
        return {
            (kind, TRISTATES[code]): int(self._losses[kind, code])
            for kind in ENDED_EARLY
            for code in TRISTATES
            if self._losses[kind, code]
        }
