# SPDX-License-Identifier: Apache-2.0
"""Which ports connect() may choose from, and which TIME_WAITs it may take again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.detectors.rows import in_state
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy.typing as npt

    from tracer.census import Census, NetnsFacts, Rows

    Reals = npt.NDArray[np.float64]

NEVER: Final = np.inf


def capacity_of(facts: NetnsFacts | None, listening: Collection[int] = ()) -> int | None:
    """Return how many ports connect() may choose from, None when it is not known.

    One that was bound it passes by, whatever the address (__inet_hash_connect()): of these the
    ones somebody listens on are known.
    """
    if facts is None or facts.port_range is None:
        return None
    low, high = facts.port_range
    reserved = sum(
        max(0, min(last, high) - max(first, low) + 1) for first, last in facts.reserved_ports
    )
    bound = [
        port
        for port in listening
        if low <= port <= high
        and not any(first <= port <= last for first, last in facts.reserved_ports)
    ]
    return max(0, high - low + 1 - reserved - len(bound))


def capacities(rows: Rows, census: Census) -> Reals:
    """Return how many there are for each row of PORTS; NEVER too few, where it is not known."""
    listening = in_state(census.sockets, TcpState.LISTEN)

    def capacity(netns: int) -> float:
        ports = np.unique(listening["lport"][listening["netns"] == netns]).tolist()
        known = capacity_of(census.namespaces.get(netns), ports)
        return NEVER if known is None else float(known)

    return _per_row(rows, capacity)


# One value per namespace, spread over the rows.
def _per_row(rows: Rows, ask: Callable[[int], float]) -> Reals:
    numbers, place = np.unique(rows["netns"], return_inverse=True)
    spread: Reals = np.array([ask(number) for number in numbers.tolist()])[place]
    return spread


def reused(rows: Rows, census: Census) -> npt.NDArray[np.bool_]:
    """Say of each row of PORTS whether tcp_tw_reuse lets connect() take its TIME_WAITs.

    net/ipv4/tcp_ipv4.c tcp_twsk_unique(): 2 means that one end is a loopback address.
    """
    facts = census.namespaces
    setting = _per_row(rows, lambda n: (facts[n].tw_reuse or 0) if n in facts else 0)
    local = _is_loopback(rows["laddr"]) | _is_loopback(rows["raddr"])
    allowed: npt.NDArray[np.bool_] = (setting == 1) | ((setting == 2) & local)
    return allowed


def _is_loopback(addrs: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    mapped = (addrs[:, :10] == 0).all(axis=1) & (addrs[:, 10:12] == 0xFF).all(axis=1)
    one = (addrs[:, :15] == 0).all(axis=1) & (addrs[:, 15] == 1)
    loopback: npt.NDArray[np.bool_] = (mapped & (addrs[:, 12] == 127)) | one
    return loopback
