# SPDX-License-Identifier: Apache-2.0
"""How long connections waited for accept(), by local port: from the records of closed ones.

Only where a hook sees accept(). Waits are counted in buckets an eighth of a power of two wide, so
that a percentile is at most 13 percent too high, and never above the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.spans import accept_seen
from tracer.tcp import WAITED_MAX_US

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tracer.wire import Records

PORTS_MAX: Final = 1_000  # ports followed at once; waits at further ones are left out
_FINE: Final = 8  # buckets of one power of two
_BUCKETS: Final = _FINE * 33  # of 32 bits, and one for waits that have no upper bound
_UPPER_US: Final = np.append(
    np.ldexp(1 + (np.arange(_BUCKETS) % _FINE + 1) / _FINE, np.arange(_BUCKETS) // _FINE - 1).clip(
        max=WAITED_MAX_US - 1
    ),
    WAITED_MAX_US,
)


@dataclass(frozen=True, slots=True)
class AcceptWait:
    """Of one local port: how many were accepted and have closed, and how long they had waited.

    A time of WAITED_MAX_US is a lower bound.
    """

    accepted: int
    p50_us: int
    p99_us: int
    max_us: int
    beyond: int
    """How many waited for WAITED_MAX_US or longer."""


class AcceptWaits:
    """Counts them as closes come."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._longest_us: dict[tuple[int, int], int] = {}
        self.left_out = 0

    def add(self, closes: Records, _reasons: NDArray[np.uint8]) -> None:
        """Count those among the closes."""
        accepted = closes[accept_seen(closes)]
        places = accepted["netns"].astype(np.uint64) << np.uint64(16) | accepted["lport"]
        for place in np.unique(places).tolist():
            waits_us = accepted["opener"]["uid"][places == place]
            self._count((place >> 16, place & 0xFFFF), waits_us)

    def _count(self, port: tuple[int, int], waits_us: NDArray[np.uint32]) -> None:
        counts = self._counts.get(port)
        if counts is None:
            if len(self._counts) >= PORTS_MAX:
                self.left_out += len(waits_us)
                return
            counts = self._counts[port] = np.zeros(_BUCKETS + 1, np.int64)
        counts += np.bincount(_buckets_of(waits_us), minlength=_BUCKETS + 1)
        self._longest_us[port] = max(self._longest_us.get(port, 0), int(waits_us.max()))

    def found(self) -> Mapping[tuple[int, int], AcceptWait]:
        """Return what is known by network namespace and local port."""
        return {port: self._of(port) for port in self._counts}

    def _of(self, port: tuple[int, int]) -> AcceptWait:
        counts, longest_us = self._counts[port], self._longest_us[port]
        upto = np.cumsum(counts)
        ranks = [int(np.searchsorted(upto, share * upto[-1])) for share in (0.50, 0.99)]
        p50_us, p99_us = (min(longest_us, int(_UPPER_US[rank])) for rank in ranks)
        return AcceptWait(int(upto[-1]), p50_us, p99_us, longest_us, int(counts[-1]))


# By exponent and the three bits behind the leading one: 0 µs is in bucket 0, 1 µs in bucket 8.
def _buckets_of(waits_us: NDArray[np.uint32]) -> NDArray[np.intp]:
    mantissa, exponent = np.frexp(waits_us.astype(np.float64))
    fine = ((mantissa * 2 - 1) * _FINE).astype(np.intp)
    found = np.where(waits_us == 0, 0, exponent * _FINE + fine)
    return np.where(waits_us == WAITED_MAX_US, _BUCKETS, found)
