# SPDX-License-Identifier: Apache-2.0
"""Count closes as they come, by reason; hand out a snapshot of plain Python when asked.

Bounded by construction: one cell per Reason, of which all else follows. No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from tracer.tally_evidence import EvidenceTally
from tracer.tcp import Stray, TimeWaitChange
from tracer.verdict import RULES, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from tracer.tcp import AckFate, Cause, FinAck, Handshake, Kind, TimeWait
    from tracer.verdict import Rule
    from tracer.wire import Records

Key = TypeVar("Key")

# The kernel's own counters of what never became a record (struct counters in bpf/records.h).
KERNEL_LOSSES: Final = ("ring_full", "conn_map_full", "unseen")


# TIME_WAIT that ended because what came was answered by a RST; a SYN only in FIN_WAIT2.
ENDED_BY_ANSWER: Final = (TimeWaitChange.ENDED_BY_DATA, TimeWaitChange.ENDED_BY_SYN)


class StrayReset(NamedTuple):
    """RSTs of ours that belong to no connection; `reason` is a value of enum sk_rst_reason."""

    netns: int
    lport: int
    cause: Stray
    reason: int
    resets: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was counted since the start. Cells that are zero are left out of the mappings.

    `records` counts every close that arrived, `shown` those that passed the filter;
    all mappings count the latter. `kernel` holds the kernel's own totals, empty when
    none came; `lost` is keyed by where. `contradicted`: closes of which a hook and the
    socket told different stories. `resets_unmatched`: reports of a RST of ours for
    which no close was found.
    """

    records: int
    shown: int
    closes: Mapping[tuple[Kind, Handshake], int]
    fin_acks: Mapping[FinAck, int]
    causes: Mapping[tuple[Kind, Cause], int]
    lost: Mapping[str, int]
    kernel: Mapping[str, int]
    contradicted: int = 0
    resets_unmatched: int = 0
    ack_fates: Mapping[AckFate, int] = field(default_factory=dict)
    """How the ACKs of peers' FINs went, where the peer closed first."""
    silent: Mapping[Cause, int] = field(default_factory=dict)
    """Aborts without a RST, by cause; `causes` counts them, too."""
    data_lost: Mapping[tuple[Kind, bool | None], int] = field(default_factory=dict)
    """Aborts, resets and timeouts by whether bytes were lost; None: not known."""
    time_wait: Mapping[TimeWait, int] = field(default_factory=dict)
    """What became of sockets that were due for TIME_WAIT."""
    time_wait_changes: Mapping[TimeWaitChange, int] | None = None
    """What became of mini-sockets, of the whole host; None where no hook tells."""
    strays: tuple[StrayReset, ...] = ()
    """RSTs of ours without a connection, most frequent first, of the whole host."""

    @property
    def lost_total(self) -> int:
        """Closes known to be lost, wherever that was."""
        return sum(self.lost.values())

    @property
    def resets_unseen(self) -> int:
        """RSTs sent from TIME_WAIT beyond the mini-sockets that a hook saw end that way."""
        if self.time_wait_changes is None:
            return 0
        ended = sum(self.time_wait_changes.get(change, 0) for change in ENDED_BY_ANSWER)
        sent = sum(stray.resets for stray in self.strays if stray.cause is Stray.TIME_WAIT)
        return max(0, sent - ended)

    @property
    def unaccounted(self) -> int | None:
        """Closes the kernel saw that are neither records nor lost; None without totals.

        Records may have come after the totals were taken, never before.
        """
        if "closes" not in self.kernel:
            return None
        return max(0, self.kernel["closes"] - self.records - self.lost_total)


@dataclass(slots=True)
class Aggregator:
    """Counters of one run; `add` costs a few array passes per batch, whatever is in it."""

    records: int = 0
    shown: int = 0
    undecodable: int = 0
    resets_unmatched: int = 0
    kernel: dict[str, int] = field(default_factory=dict)
    strays: tuple[StrayReset, ...] = ()
    time_wait_changes: dict[TimeWaitChange, int] | None = None
    _evidence: EvidenceTally = field(default_factory=EvidenceTally)
    _by_reason: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, closes: Records, reasons: NDArray[np.uint8]) -> None:
        """Count closes that passed the filter, given the Reason of each."""
        counts = np.bincount(reasons, minlength=256)
        self.shown += len(reasons)
        self._by_reason += counts
        self._evidence.add(closes, reasons, counts)

    def add_counters(self, totals: Mapping[str, Any]) -> None:
        """Take the kernel's totals; they replace the earlier ones."""
        self.kernel = {name: value for name, value in totals.items() if isinstance(value, int)}
        self.strays = strays_of(totals.get("strays", ()))
        self.time_wait_changes = changes_of(totals.get("time_waits"))

    def snapshot(self) -> Snapshot:
        """Return the counts so far as plain Python objects."""
        return Snapshot(
            records=self.records,
            shown=self.shown,
            closes=self._summed(lambda rule: (rule.kind, rule.handshake)),
            fin_acks=self._summed(lambda rule: rule.fin_ack),
            causes=self._summed(lambda rule: (rule.kind, rule.cause)),
            silent=self._summed(lambda rule: rule.cause if rule.silent else None),
            lost=self.lost(),
            kernel=dict(self.kernel),
            contradicted=int(self._by_reason[Reason.HOOK_CONTRADICTS])
            + self._evidence.accepted_in_queue,
            resets_unmatched=self.resets_unmatched,
            ack_fates=self._evidence.ack_fates(self._by_reason),
            data_lost=self._evidence.data_lost(),
            time_wait=self._evidence.time_wait(),
            time_wait_changes=self.time_wait_changes,
            strays=self.strays,
        )

    def lost(self) -> dict[str, int]:
        """Return how many closes are known to be lost, by where; zeros included."""
        losses = {where: self.kernel.get(where, 0) for where in KERNEL_LOSSES}
        return {**losses, "decode": self.undecodable}

    def _summed(self, key: Callable[[Rule], Key | None]) -> dict[Key, int]:
        sums: dict[Key, int] = {}
        for reason in np.flatnonzero(self._by_reason):
            cell = key(RULES[Reason(int(reason))])
            if cell is not None:
                sums[cell] = sums.get(cell, 0) + int(self._by_reason[reason])
        return sums


def strays_of(rows: Iterable[Iterable[int]]) -> tuple[StrayReset, ...]:
    """Return the rows [netns, lport, cause, reason, resets] of the kernel's totals, ranked.

    Raises ValueError or TypeError for what are no such rows.
    """
    strays = []
    for netns, lport, cause, reason, resets in rows:
        strays.append(StrayReset(int(netns), int(lport), Stray(cause), int(reason), int(resets)))
    return tuple(sorted(strays, key=lambda stray: -stray.resets))


def changes_of(totals: Iterable[int] | None) -> dict[TimeWaitChange, int] | None:
    """Return the kernel's totals by number of enum tw_change, by name; None where it has none.

    Raises ValueError or TypeError for what are no such totals.
    """
    if totals is None:
        return None
    return {TimeWaitChange(number): int(total) for number, total in enumerate(totals)}
