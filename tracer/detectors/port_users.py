# SPDX-License-Identifier: Apache-2.0
"""Who has the open connections to each destination. A TIME_WAIT is nobody's any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tracer.detectors.holders import Holder, Holders
from tracer.detectors.listeners import inbound
from tracer.detectors.rows import halves, number_groups
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census

GROUPS_MAX: Final = 4_000  # holders and destinations that become objects; the largest
NAMED_MAX: Final = 3

_Destination: TypeAlias = tuple[int, bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class PortUser:
    """A process and how many connections it has there; shared ones go to the lowest pid."""

    holder: Holder
    count: int


class PortUsers:
    """The holders of a census by (netns, laddr, raddr, rport)."""

    def __init__(self, census: Census) -> None:
        sockets = census.sockets
        rows = sockets[(sockets["state"] != TcpState.LISTEN) & (sockets["ino"] != 0)]
        rows = rows[~inbound(census, rows)]
        holders = Holders(census)
        self._users: dict[_Destination, list[PortUser]] = {}
        if not len(rows):
            return
        ids, first = number_groups(
            rows["netns"], holders.sets(rows["ino"]), rows["rport"],
            *halves(rows["laddr"]), *halves(rows["raddr"]),
        )  # fmt: skip
        counts = np.bincount(ids)
        for group in np.argsort(-counts, kind="stable")[:GROUPS_MAX].tolist():
            row = rows[first[group]]
            named, _ = holders.of(int(row["ino"]))
            users = self._users.setdefault(_destination(row), [])
            if named and len(users) < NAMED_MAX:
                users.append(PortUser(named[0], int(counts[group])))

    def of(self, row: npt.NDArray[np.void]) -> tuple[PortUser, ...]:
        """Return who has most connections to the destination of a row of PORTS."""
        return tuple(self._users.get(_destination(row), ()))


def _destination(row: npt.NDArray[np.void]) -> _Destination:
    ends = row["laddr"].tobytes(), row["raddr"].tobytes()
    return (int(row["netns"]), *ends, int(row["rport"]))
