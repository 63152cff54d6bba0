# SPDX-License-Identifier: Apache-2.0
"""Which of our ports are services, and which listening socket a connection came through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.census import SocketFlag
from tracer.detectors.rows import halves, in_state, number_groups, service_keys
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census, Rows
    from tracer.detectors.rows import Mask

ALIVE: Final = int(SocketFlag.HAS_SOCKET | SocketFlag.DEAD)
"""Neither flag: never accepted."""
WILDCARDS: Final = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))


def inbound(census: Census, sockets: Rows) -> Mask:
    """Say of each socket whether its local port is a service of its namespace."""
    listening = in_state(census.sockets, TcpState.LISTEN)
    served = service_keys(listening["netns"], listening["lport"])
    return np.isin(service_keys(sockets["netns"], sockets["lport"]), served)


def holding_inos(census: Census, sockets: Rows) -> npt.NDArray[np.uint64]:
    """Return the inode by which to find who is in charge of each socket.

    One in an accept queue is nobody's yet: its listener's holders are to take it. 0: nobody.
    """
    inos: npt.NDArray[np.uint64] = sockets["ino"].copy()
    queued = (sockets["flags"] & ALIVE) == 0
    inos[queued] = listener_inos(census, sockets[queued])
    return inos


def listener_inos(census: Census, sockets: Rows) -> npt.NDArray[np.uint64]:
    """Return the inode of the listening socket each came through, 0 where there is none now.

    Of several on one port the one bound to the very address is taken, else one on the wildcard.
    """
    listening = in_state(census.sockets, TcpState.LISTEN)
    exact: dict[tuple[int, int, bytes], int] = {}
    any_address: dict[tuple[int, int], int] = {}
    for row in listening:
        service, bound = (int(row["netns"]), int(row["lport"])), row["laddr"].tobytes()
        if bound in WILDCARDS:
            any_address.setdefault(service, int(row["ino"]))
        else:
            exact.setdefault((*service, bound), int(row["ino"]))
    ids, first = number_groups(sockets["netns"], sockets["lport"], *halves(sockets["laddr"]))
    inos = np.zeros(len(first), np.uint64)
    for group, row in enumerate(sockets[first]):
        service = (int(row["netns"]), int(row["lport"]))
        inos[group] = exact.get((*service, row["laddr"].tobytes()), any_address.get(service, 0))
    return inos[ids]
