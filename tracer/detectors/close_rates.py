# SPDX-License-Identifier: Apache-2.0
"""Closes counted by process and service or destination: who ends how many connections, and how.

A few sorts per batch; what is kept is a row of counts per group, bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tracer.actors import are_known
from tracer.census import comm_alone
from tracer.classify import closers_known
from tracer.close_text import address, comm
from tracer.detectors.rows import halves, number_groups
from tracer.tcp import ConnFlag, Handshake, Kind
from tracer.verdict import column_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.classify_graceful import Reasons
    from tracer.wire import Records

OPENED_MASK: Final = int(ConnFlag.OPENED_ACTIVE | ConnFlag.OPENED_PASSIVE)
GROUPS_MAX: Final = 10_000  # further ones are counted together, as nobody's
NOBODY: Final = "-"

_KIND, _HANDSHAKE = column_of("kind"), column_of("handshake")
_COUNTED: Final = (
    np.ones(256, np.bool_),
    _KIND == Kind.ACTIVE,
    _KIND == Kind.PASSIVE,
    _HANDSHAKE == Handshake.THREE_WAY,
    _HANDSHAKE == Handshake.FOUR_WAY,
    (column_of("rst_sent") != 0) | (_KIND == Kind.RESET),
    np.isin(_KIND, [int(Kind.TIMEOUT), int(Kind.REFUSED), int(Kind.ATTEMPT_FAILED)]),
)
"""Which Reasons each of CloseCounts counts, in its order."""

_Counts: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class CloseGroup:
    """Who closed what.

    `lport` is the service others connected to, else `raddr` and `rport` are where we connected to;
    all are None when the connection is older than the tracer.

    `comm` is whoever ended it, else whoever opened it; "-" when neither is known.
    """

    netns: int
    comm: str
    lport: int | None
    raddr: str | None
    rport: int | None


OTHERS: Final = CloseGroup(0, "others", None, None, None)


@dataclass(frozen=True, slots=True)
class CloseCounts:
    """How many closes of a group ended how."""

    closes: int
    active: int
    """Our FIN was first."""
    passive: int
    """The peer's FIN was first."""
    three_way: int
    four_way: int
    resets: int
    """A RST ended it, ours or the peer's."""
    failed: int
    """Timed out, refused, or never established."""


class CloseRates:
    """Counts from the beginning, and since the last time it was asked."""

    def __init__(self) -> None:
        self._totals: dict[CloseGroup, _Counts] = {}
        self._before: dict[CloseGroup, _Counts] = {}

    def add(self, closes: Records, reasons: Reasons) -> None:
        """Count these, given the Reason of each."""
        if not len(closes):
            return
        names, opened = _who(closes, reasons), closes["flags"] & OPENED_MASK
        known, served = opened != 0, opened == ConnFlag.OPENED_PASSIVE
        # Of a service the port counts, of a destination the address too, else neither.
        port = np.where(served, closes["lport"], closes["rport"]) * known
        remote = (half.astype(np.uint64) * (known & ~served) for half in halves(closes["daddr"]))
        ids, first = number_groups(closes["netns"], opened, port, *remote, *halves(names))
        counts = np.stack(
            [np.bincount(ids[counted[reasons]], minlength=len(first)) for counted in _COUNTED]
        )
        for group, row in enumerate(first.tolist()):
            self._count(_group(closes[row], names[row], int(opened[row])), counts[:, group])

    def _count(self, group: CloseGroup, counts: _Counts) -> None:
        if group not in self._totals and len(self._totals) >= GROUPS_MAX:
            group = OTHERS
        known = self._totals.get(group)
        self._totals[group] = counts if known is None else known + counts

    def totals(self) -> dict[CloseGroup, CloseCounts]:
        """Return all counts since the beginning."""
        return {group: CloseCounts(*counts.tolist()) for group, counts in self._totals.items()}

    def lately(self) -> dict[CloseGroup, CloseCounts]:
        """Return the counts since this was last called, of groups that closed anything."""
        nothing = np.zeros(len(fields(CloseCounts)), np.int64)
        fresh = {
            group: CloseCounts(*(counts - self._before.get(group, nothing)).tolist())
            for group, counts in self._totals.items()
        }
        self._before = dict(self._totals)
        return {group: counts for group, counts in fresh.items() if counts.closes}


# The closer where it may be named, else the opener.
def _who(closes: Records, reasons: Reasons) -> npt.NDArray[np.uint8]:
    opener, closer = closes["opener"], closes["closer"]
    names = np.where(are_known(opener)[:, None], opener["comm"], 0)
    closed = closers_known(closes, reasons)
    return comm_alone(np.where(closed[:, None], closer["comm"], names).astype(np.uint8))


def _group(row: npt.NDArray[np.void], name: npt.NDArray[np.uint8], opened: int) -> CloseGroup:
    active, passive = opened == ConnFlag.OPENED_ACTIVE, opened == ConnFlag.OPENED_PASSIVE
    return CloseGroup(
        netns=int(row["netns"]),
        comm=comm(name.tobytes()) or NOBODY,
        lport=int(row["lport"]) if passive else None,
        raddr=address(row["daddr"].tobytes(), int(row["family"])) if active else None,
        rport=int(row["rport"]) if active else None,
    )
