# SPDX-License-Identifier: Apache-2.0
"""Count closes as they come, in arrays; hand out a snapshot of plain Python when asked.

Bounded by construction: one cell per combination of enum members. No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracer.tcp import Cause, FinAck, Handshake, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import IntEnum

    from numpy.typing import NDArray

# The kernel's own counters of what never became a record (struct counters in bpf/records.h).
KERNEL_LOSSES: Final = ("ring_full", "conn_map_full", "unseen")


def _size(members: Iterable[IntEnum]) -> int:
    return max(int(member) for member in members) + 1


KINDS: Final = _size(Kind)
HANDSHAKES: Final = _size(Handshake)
FIN_ACKS: Final = _size(FinAck)
CAUSES: Final = _size(Cause)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was counted since the start. Cells that are zero are left out of the mappings.

    `records` counts every close that arrived, `shown` those that passed the filter;
    all mappings count the latter. `kernel` holds the kernel's own totals, empty when
    none came; `lost` is keyed by where.
    """

    records: int
    shown: int
    closes: Mapping[tuple[Kind, Handshake], int]
    fin_acks: Mapping[FinAck, int]
    causes: Mapping[tuple[Kind, Cause], int]
    lost: Mapping[str, int]
    kernel: Mapping[str, int]

    @property
    def lost_total(self) -> int:
        """Closes known to be lost, wherever that was."""
        return sum(self.lost.values())

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
    kernel: dict[str, int] = field(default_factory=dict)
    _closes: NDArray[np.int64] = field(default_factory=lambda: _zeros(KINDS * HANDSHAKES))
    _fin_acks: NDArray[np.int64] = field(default_factory=lambda: _zeros(FIN_ACKS))
    _causes: NDArray[np.int64] = field(default_factory=lambda: _zeros(KINDS * CAUSES))

    def add(self, verdicts: NDArray[np.void]) -> None:
        """Count closes that passed the filter."""
        self.shown += len(verdicts)
        kind = verdicts["kind"].astype(np.intp)
        self._closes += _count(kind * HANDSHAKES + verdicts["handshake"], KINDS * HANDSHAKES)
        self._fin_acks += _count(verdicts["fin_ack"], FIN_ACKS)
        self._causes += _count(kind * CAUSES + verdicts["cause"], KINDS * CAUSES)

    def add_counters(self, totals: Mapping[str, Any]) -> None:
        """Take the kernel's totals; they replace the earlier ones."""
        self.kernel = {name: value for name, value in totals.items() if isinstance(value, int)}

    def snapshot(self) -> Snapshot:
        """Return the counts so far as plain Python objects."""
        return Snapshot(
            records=self.records,
            shown=self.shown,
            closes={
                (Kind(cell // HANDSHAKES), Handshake(cell % HANDSHAKES)): count
                for cell, count in _nonzero(self._closes)
            },
            fin_acks={FinAck(cell): count for cell, count in _nonzero(self._fin_acks)},
            causes={
                (Kind(cell // CAUSES), Cause(cell % CAUSES)): count
                for cell, count in _nonzero(self._causes)
            },
            lost=self.lost(),
            kernel=dict(self.kernel),
        )

    def lost(self) -> dict[str, int]:
        """Return how many closes are known to be lost, by where; zeros included."""
        losses = {where: self.kernel.get(where, 0) for where in KERNEL_LOSSES}
        return {**losses, "decode": self.undecodable}


def _zeros(size: int) -> NDArray[np.int64]:
    return np.zeros(size, dtype=np.int64)


def _count(cells: NDArray[Any], size: int) -> NDArray[np.int64]:
    return np.bincount(cells, minlength=size)


def _nonzero(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(cell), int(counts[cell])) for cell in np.flatnonzero(counts)]
