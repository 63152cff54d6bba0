# SPDX-License-Identifier: Apache-2.0
"""How long closes took, of a whole array at once: what close_times.py says of one, vectorised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.tcp import ActorFlag, TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.wire import Records

_NEVER = np.iinfo(np.uint64).max
_ONE = np.uint64(1)
_ACCEPTED = int(ActorFlag.ACCEPTED)
_IN_CLOSE_WAIT = 1 << TcpState.CLOSE_WAIT


def teardown_ns(closes: Records, reasons: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return first FIN or RST to CLOSE of those closes that had either."""
    received = _moments(closes["rst_received_ns"])
    # To data after close the kernel calls tcp_reset() on itself: no RST came from the peer.
    received[reasons == int(Reason.DATA_AFTER_CLOSE)] = _NEVER
    first = received
    for name in ("fin_received_ns", "fin_sent_ns", "rst_sent_ns"):
        np.minimum(first, _moments(closes[name]), out=first)
    known = first != _NEVER
    return _span(first[known] + _ONE, closes["closed_ns"][known])


def close_wait_ns(closes: Records) -> NDArray[np.uint64]:
    """Return how long those that were in CLOSE_WAIT kept the peer's FIN waiting."""
    start = closes["fin_received_ns"]
    waited = (closes["states_seen"] & _IN_CLOSE_WAIT) != 0
    waited |= closes["old_state"] == int(TcpState.CLOSE_WAIT)
    known = waited & (start != 0)
    sent = closes["fin_sent_ns"][known]
    return _span(start[known], np.where(sent == 0, closes["closed_ns"][known], sent))


def accept_wait_ns(closes: Records) -> NDArray[np.uint64]:
    """Return how long, or at least how long, those waited whose accept() a hook saw."""
    waited_us = closes["opener"]["uid"][accept_seen(closes)]
    waited_ns: NDArray[np.uint64] = waited_us.astype(np.uint64) * np.uint64(1_000)
    return waited_ns


def accept_seen(closes: Records) -> NDArray[np.bool_]:
    """Say of each close whether a hook saw its accept(): `opener.uid` is the wait in µs then.

    A wait of WAITED_MAX_US was at least so long.
    """
    seen: NDArray[np.bool_] = (closes["opener"]["flags"] & _ACCEPTED) != 0
    return seen


# Less one: 0, "never seen", becomes later than everything.
def _moments(times_ns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return times_ns - _ONE


# A RST may follow CLOSE by microseconds: never negative.
def _span(start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.where(end > start, end - start, np.uint64(0))
