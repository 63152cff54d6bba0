# SPDX-License-Identifier: Apache-2.0
"""The iterators of a census: one walk over the sockets of a namespace, one over all files."""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracer.census import (
    OWNERS,
    PORTS,
    REMAINING_STEPS,
    SOCKETS,
    STATES,
    USERS,
    Rows,
    comm_alone,
)
from tracer.kernel import bpf
from tracer.kernel.cookies import give_cookies
from tracer.kernel.maps import take_all
from tracer.kernel.mechanism import OWNERS_MAX, Held, Walk
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator, Mapping

    from tracer.kernel.mechanism import WalkRequest

__all__ = ("OWNER_ROW", "WALK", "Walker")

WALK: Final = np.dtype(
    [
        ("netns", "<u4"),
        ("port_first", "<u4"),
        ("port_last", "<u4"),
        ("rows", "<u4"),
        ("there", "<u4"),
        ("listened", "<u4"),
        ("handshakes", "<u4"),
        ("ended", "<u4"),
        ("piece", "<u4"),
        ("shown", "<u4"),
        ("last", SOCKETS),
        ("room", "<u8"),
        ("rows_left_out", "<u8"),
        ("states_left_out", "<u8"),
        ("ports_left_out", "<u8"),
        ("minis", "<u8", (2, 2)),
        ("requests", "<u8", (2,)),
        ("listening", "u1", (8192,)),
    ],
    align=True,
)
"""struct walk of bpf/census.h."""

OWNER_ROW: Final = np.dtype(
    [
        *((name, OWNERS[name]) for name in OWNERS.names or ()),
        ("netns", "<u4"),
        ("state", "u1"),
        ("pad", "u1", (3,)),
    ],
    align=True,
)
"""struct owner_row."""

STATE_KEY: Final = np.dtype(
    [("cgroup_id", "<u8"), ("state", "u1"), ("inbound", "u1"), ("pad", "u1", (6,))], align=True
)
PORT_KEY: Final = np.dtype(
    [
        ("laddr", "u1", (16,)),
        ("raddr", "u1", (16,)),
        ("lport", "<u2"),
        ("rport", "<u2"),
        ("family", "u1"),
        ("inbound", "u1"),
        ("pad", "u1", (2,)),
    ],
    align=True,
)
PORT_TALLY: Final = np.dtype(
    [
        ("in_use", "<u4"),
        ("time_wait", "<u4"),
        ("fin_wait2", "<u4"),
        ("in_range", "<u4"),
        ("remaining", "<u4", (REMAINING_STEPS,)),
    ],
    align=True,
)
WANTED: Final = np.dtype(
    [
        ("rows", "<u4"),
        ("users", "<u4"),
        ("room", "<u8"),
        ("rows_left_out", "<u8"),
        ("users_left_out", "<u8"),
    ]
)
HOME: Final = np.dtype([("tgid", "<u4"), ("fd", "<u4")])
SERVICE_KEY: Final = np.dtype([("netns", "<u4"), ("lport", "<u4")])
USER_KEY: Final = np.dtype(
    [
        ("laddr", "u1", (16,)),
        ("raddr", "u1", (16,)),
        ("netns", "<u4"),
        ("tgid", "<u4"),
        ("rport", "<u2"),
        ("family", "u1"),
        ("pad", "u1"),
    ],
    align=True,
)
USER_TALLY: Final = np.dtype(
    [("start_ns", "<u8"), ("comm", "S16"), ("count", "<u4"), ("pad", "u1", (4,))], align=True
)
COUNT: Final = np.dtype("<u8")
FLAG: Final = np.dtype("<u4")

PIECE: Final = 4096
"""Sockets one read goes over: a millisecond or two."""

_READ_BYTES: Final = 1 << 15  # what the kernel buffers of an iterator: PAGE_SIZE << 3


class Walker:
    """The census programs with their maps. One walk at a time."""

    name = "iterator"

    def __init__(self, fds: dict[str, int]) -> None:
        """Map the programs' own words; `fds` are the loader's."""
        self._fds = fds
        self._walk_map = _map(fds["map:walks"], WALK.itemsize)
        self._walk = np.frombuffer(self._walk_map, WALK, 1)
        self._wanted_map = _map(fds["map:wanted"], WANTED.itemsize)
        self._wanted = np.frombuffer(self._wanted_map, WANTED, 1)
        self._gives_cookies = True

    def walk(self, asked: WalkRequest) -> Walk:
        """Walk the namespace the calling thread is in. Raises OSError.

        Before v5.12 the program can give a socket no cookie: the first row without one tells,
        and all is looked at again. A socket that has none even then is younger than the walk:
        the next one shows it.
        """
        if not self._gives_cookies:
            give_cookies(asked.rows)
        walk = self._once(asked)
        named = np.frombuffer(walk.sockets, SOCKETS)["cookie"] != 0
        if named.all():
            return walk
        if self._gives_cookies:
            self._gives_cookies = False
            return self.walk(asked)
        return walk._replace(sockets=np.frombuffer(walk.sockets, SOCKETS)[named].tobytes())

    def _once(self, asked: WalkRequest) -> Walk:
        words = self._walk[0]
        self._walk[:] = np.zeros(1, WALK)
        words["netns"], words["rows"] = asked.netns, _mask(asked.rows)
        words["port_first"], words["port_last"] = asked.ports or (1, 0)
        words["there"], words["room"], words["piece"] = asked.there or 0, asked.room, PIECE
        sockets = self._sockets()
        return Walk(
            self._states(asked.netns),
            self._ports(asked.netns),
            sockets,
            *(int(words[f"{what}_left_out"]) for what in ("rows", "states", "ports")),
        )

    def _sockets(self) -> bytearray:
        walk, rows = self._walk[0], bytearray()
        for chunk in _reads(self._fds["iter:sockets"]):
            rows += chunk
            if walk["ended"]:
                break
        return rows + walk["last"].tobytes() if walk["ended"] else rows

    def owners(self, rows: Iterable[TcpState], users: Iterable[TcpState]) -> Held:
        """Return every descriptor of a TCP socket in `rows`; count those in `users`.

        What listens where is known from the walks since the last call. Raises OSError.
        """
        self._wanted[0] = (_mask(rows), _mask(users), OWNERS_MAX, 0, 0)
        found = bytearray()
        for chunk in _reads(self._fds["iter:files"]):
            found += chunk  # it grows in place: pieces to be joined would be held twice
        owners = _named(np.frombuffer(found, OWNER_ROW))
        take_all(self._fds["map:services"], SERVICE_KEY, FLAG)
        left_out = (int(self._wanted[0][f"{what}_left_out"]) for what in ("rows", "users"))
        return Held(owners, self._users(), self._homes(), *left_out)

    def close(self) -> None:
        """Unmap."""
        del self._walk, self._wanted
        self._walk_map.close()
        self._wanted_map.close()

    def _states(self, netns: int) -> Rows:
        keys, counts = take_all(self._fds["map:states"], STATE_KEY, COUNT)
        full = np.zeros(len(keys), STATES)
        for name in ("cgroup_id", "state", "inbound"):
            full[name] = keys[name]
        full["substate"], full["count"] = full["state"], counts
        rows = np.concatenate([full, _without_cgroup(self._walk[0])])
        rows["netns"] = netns
        return rows

    def _ports(self, netns: int) -> Rows:
        rows = _joined(PORTS, *take_all(self._fds["map:ports"], PORT_KEY, PORT_TALLY))
        rows["netns"] = netns
        return rows

    def _homes(self) -> Mapping[int, str]:
        inums, homes = take_all(self._fds["map:homes"], FLAG, HOME)
        pairs = zip(inums.tolist(), homes.tolist(), strict=True)
        return {inum: f"/proc/{tgid}/fd/{fd}" for inum, (tgid, fd) in pairs}

    def _users(self) -> Rows:
        return _named(_joined(USERS, *take_all(self._fds["map:users"], USER_KEY, USER_TALLY)))


# In place: names without what a longer one left behind them.
def _named(rows: Rows) -> Rows:
    comms = rows["comm"].view(("u1", (16,)))
    rows["comm"] = comm_alone(comms).view("S16")[..., 0]
    return rows


# The columns of both, but for their padding.
def _joined(dtype: np.dtype[np.void], keys: Rows, tallies: Rows) -> Rows:
    rows = np.zeros(len(keys), dtype)
    for source in (keys, tallies):
        for name in source.dtype.names or ():
            if name != "pad":
                rows[name] = source[name]
    return rows


# Mini-sockets and requests have no cgroup: they are counted in the walk itself.
def _without_cgroup(walk: Any) -> Rows:
    minis, requests = walk["minis"], walk["requests"]
    kinds = (
        (TcpState.TIME_WAIT, TcpState.FIN_WAIT2, minis[0]),
        (TcpState.TIME_WAIT, TcpState.TIME_WAIT, minis[1]),
        (TcpState.NEW_SYN_RECV, TcpState.NEW_SYN_RECV, requests),
    )
    rows = [
        (0, int(count), 0, state, substate, inbound, 0)
        for state, substate, counts in kinds
        for inbound, count in enumerate(counts)
        if count
    ]
    return np.array(rows, STATES)


def _mask(states: Iterable[TcpState]) -> int:
    return sum(1 << state for state in set(states))


def _map(fd: int, size_bytes: int) -> mmap.mmap:
    return mmap.mmap(fd, -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)


# One walk; a read that was ended before its first row brings nothing, and another goes on. E2BIG:
# by the program (end_read()); EAGAIN, which file.read() returns as None: by the kernel, after a
# million silent objects.
def _reads(link_fd: int) -> Iterator[bytes]:
    with os.fdopen(bpf.create_iterator(link_fd), "rb", buffering=0) as file:
        while (chunk := _read(file)) != b"":
            yield chunk or b""


def _read(file: io.FileIO) -> bytes | None:
    try:
        return file.read(_READ_BYTES)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return None
