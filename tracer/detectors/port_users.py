# SPDX-License-Identifier: Apache-2.0
"""Who has the open connections to each destination. A TIME_WAIT is nobody's any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tracer.close_text import comm
from tracer.detectors.holders import Holder

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census

GROUPS_MAX: Final = 4_000  # holders and destinations that become objects; the largest
NAMED_MAX: Final = 3

Destination: TypeAlias = tuple[int, bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class PortUser:
    """A process and how many descriptors of connections it has there."""

    holder: Holder
    count: int


class PortUsers:
    """The users of a census by (netns, laddr, raddr, rport)."""

    def __init__(self, census: Census) -> None:
        self._users: dict[Destination, list[PortUser]] = {}
        rows = census.users
        most_first = np.argsort(-rows["count"].astype(np.int64), kind="stable")
        for row in rows[most_first[:GROUPS_MAX]]:
            users = self._users.setdefault(destination_of(row), [])
            if len(users) < NAMED_MAX:
                users.append(PortUser(_holder(row), int(row["count"])))

    def of(self, row: npt.NDArray[np.void]) -> tuple[PortUser, ...]:
        """Return who has most connections to the destination of a row of PORTS."""
        return tuple(self._users.get(destination_of(row), ()))


def _holder(row: npt.NDArray[np.void]) -> Holder:
    name, began_ns = comm(bytes(row["comm"])), int(row["start_ns"])
    return Holder(pid=int(row["tgid"]), comm=name, start_ns=began_ns)


def destination_of(row: npt.NDArray[np.void]) -> Destination:
    """Return what names the destination of a row of PORTS or USERS."""
    ends = row["laddr"].tobytes(), row["raddr"].tobytes()
    return (int(row["netns"]), *ends, int(row["rport"]))
