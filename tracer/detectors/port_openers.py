# SPDX-License-Identifier: Apache-2.0
"""Who opened the connections that took local ports, from their close records.

A TIME_WAIT has no process any more, and a process that connects in a loop may hold nothing at
the moment of a census: only the records of closes say whose they were.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tracer.close_text import comm
from tracer.detectors.holders import Holder
from tracer.detectors.port_users import NAMED_MAX, PortUser, destination_of
from tracer.detectors.rows import halves, number_groups
from tracer.tcp import ConnFlag

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.detectors.port_users import Destination
    from tracer.wire import Records

KEYS_MAX: Final = 10_000  # processes and destinations told apart; more are left out

_Opener: TypeAlias = tuple[str, int]


class PortOpeners:
    """Counts connections by destination and who opened them, as their closes come."""

    def __init__(self) -> None:
        self._counts: dict[Destination, Counter[_Opener]] = {}
        self._keys = 0
        self.left_out = 0

    def add(self, closes: Records) -> None:
        """Count those among the closes that were opened here and had a local port."""
        opened = closes["flags"] & int(ConnFlag.OPENED_ACTIVE) != 0
        rows = closes[opened & (closes["lport"] != 0) & (closes["opener"]["tgid"] != 0)]
        if not len(rows):
            return
        ids, first = number_groups(
            rows["opener"]["tgid"], rows["rport"], rows["netns"],
            *halves(rows["saddr"]), *halves(rows["daddr"]),
        )  # fmt: skip
        for row, count in zip(rows[first], np.bincount(ids).tolist(), strict=True):
            self._count(row, count)

    def _count(self, row: npt.NDArray[np.void], count: int) -> None:
        ends = row["saddr"].tobytes(), row["daddr"].tobytes()
        place: Destination = (int(row["netns"]), *ends, int(row["rport"]))
        opener = comm(row["opener"]["comm"].tobytes()), int(row["opener"]["tgid"])
        counts = self._counts.get(place, Counter())
        if opener not in counts:
            if self._keys == KEYS_MAX:
                self.left_out += count
                return
            self._keys += 1
            self._counts[place] = counts
        counts[opener] += count

    def of(self, row: npt.NDArray[np.void]) -> tuple[PortUser, ...]:
        """Return who opened most towards the destination of a row of PORTS."""
        most = self._counts.get(destination_of(row), Counter()).most_common(NAMED_MAX)
        return tuple(
            PortUser(Holder(pid=pid, comm=name, start_ns=0), count) for (name, pid), count in most
        )
