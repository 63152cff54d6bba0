# SPDX-License-Identifier: Apache-2.0
"""Sockets left over from connections whose one side has closed: which may be ended from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Collection

    from tracer.census import Census, Rows
    from tracer.detectors.census_filter import CensusFilter
    from tracer.detectors.rows import Numbers

STATES: Final = (TcpState.CLOSE_WAIT, TcpState.FIN_WAIT2)
"""The peer has closed and we have not; we have closed and the peer has not. Full sockets alone:
the kernel ends a mini-socket by itself."""


def stale(
    census: Census, chosen: CensusFilter, states: Collection[TcpState], older_ms: int
) -> Rows:
    """Return the sockets that are asked for and were not heard of for so long, oldest first.

    What is not known to be old is not: an unknown age is none.
    """
    sockets = census.sockets
    wanted = np.isin(sockets["state"], [int(state) for state in states])
    wanted &= chosen.mask(census) & (silent_ms(sockets) >= older_ms)
    found = sockets[wanted]
    ordered: Rows = found[np.argsort(-silent_ms(found), kind="stable")]
    return ordered


def silent_ms(sockets: Rows) -> Numbers:
    """Return for how long nothing was heard and nothing sent, -1 when that is not known."""
    received, sent = sockets["age_received_ms"], sockets["age_sent_ms"]
    quiet: Numbers = np.where(sent >= 0, np.minimum(received, sent), received)
    return quiet


def still(before: Rows, after: Rows) -> Rows:
    """Return those of `after` that were in `before`, in the same state; cookies are not reused."""
    if not len(before):
        return after[:0]
    known = before[np.argsort(before["cookie"])]
    place = np.searchsorted(known["cookie"], after["cookie"]).clip(max=len(known) - 1)
    same = (known["cookie"][place] == after["cookie"]) & (after["cookie"] != 0)
    kept: Rows = after[same & (known["state"][place] == after["state"])]
    return kept
