# SPDX-License-Identifier: Apache-2.0
"""connect() that found no local port: the ground truth of exhaustion, from the close records.

connect() enters SYN_SENT before it looks for a port (inet_hash_connect()), so each failure is a
record from SYN_SENT to CLOSE, without a local port and without a segment sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from tracer.close_text import address, comm
from tracer.verdict import Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracer.wire import Records

KEYS_MAX: Final = 10_000  # processes and destinations told apart; more are counted together

_Key: TypeAlias = tuple[int, str, int, int, str]


@dataclass(frozen=True, slots=True)
class PortFailure:
    """How often a process got EADDRNOTAVAIL for a destination."""

    netns: int
    raddr: str
    rport: int
    pid: int
    comm: str
    count: int


class PortFailures:
    """Counts them as closes come."""

    def __init__(self) -> None:
        self._counts: Counter[_Key] = Counter()
        self.left_out = 0

    def add(self, closes: Records, reasons: NDArray[np.uint8]) -> None:
        """Count those among the closes."""
        no_port = (reasons == Reason.SYN_NEVER_SENT) & (closes["lport"] == 0)
        for row in closes[no_port]:
            key = (
                int(row["netns"]),
                address(row["daddr"].tobytes(), int(row["family"])),
                int(row["rport"]),
                int(row["opener"]["tgid"]),
                comm(row["opener"]["comm"].tobytes()),
            )
            if key in self._counts or len(self._counts) < KEYS_MAX:
                self._counts[key] += 1
            else:
                self.left_out += 1

    def found(self) -> tuple[PortFailure, ...]:
        """Return all, the most frequent first."""
        return tuple(PortFailure(*key, count) for key, count in self._counts.most_common())
