# SPDX-License-Identifier: Apache-2.0
"""How long closes took, of a whole array at once: what close_times.py says of one, vectorised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.tcp import TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.verdict import Verdicts
    from tracer.wire import Records

_NEVER = np.iinfo(np.uint64).max
_IN_CLOSE_WAIT = 1 << TcpState.CLOSE_WAIT


def teardown_ns(closes: Records, verdicts: Verdicts) -> NDArray[np.uint64]:
    """Return first FIN or RST to CLOSE of those closes that had either."""
    # To data after close the kernel calls tcp_reset() on itself: no RST came from the peer.
    received = np.where(
        verdicts["reason"] == int(Reason.DATA_AFTER_CLOSE), 0, closes["rst_received_ns"]
    )
    first = _moments(received)
    for name in ("fin_received_ns", "fin_sent_ns", "rst_sent_ns"):
        np.minimum(first, _moments(closes[name]), out=first)
    known = first != _NEVER
    return _span(first[known], closes["closed_ns"][known])


def close_wait_ns(closes: Records) -> NDArray[np.uint64]:
    """Return how long those that were in CLOSE_WAIT kept the peer's FIN waiting."""
    start = closes["fin_received_ns"]
    waited = (closes["states_seen"] & _IN_CLOSE_WAIT) != 0
    waited |= closes["old_state"] == int(TcpState.CLOSE_WAIT)
    known = waited & (start != 0)
    sent = closes["fin_sent_ns"][known]
    return _span(start[known], np.where(sent == 0, closes["closed_ns"][known], sent))


# 0 is "never seen": later than everything.
def _moments(times_ns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.where(times_ns == 0, _NEVER, times_ns)


# A RST may follow CLOSE by microseconds: never negative.
def _span(start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.where(end > start, end - start, np.uint64(0))
