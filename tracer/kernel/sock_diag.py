# SPDX-License-Identifier: Apache-2.0
"""The census's second choice, where the kernel refuses iterators: sock_diag and /proc/PID/fd.

The same sockets with the same definitions, a hundred times slower: one Python object per socket.
What sock_diag does not tell: cgroups, sockets in CLOSE, and SYN_RECV apart from NEW_SYN_RECV where
no process holds it.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroute2.netlink.diag import DiagSocket

from tracer.census import (
    PORTS,
    REMAINING_STEP_S,
    REMAINING_STEPS,
    SOCKETS,
    STATES,
    USERS,
    SocketFlag,
)
from tracer.kernel.descriptors import descriptors
from tracer.kernel.mechanism import Held, Walk
from tracer.kernel.walk import OWNER_ROW
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracer.census import Rows
    from tracer.kernel.mechanism import WalkRequest

__all__ = ("SockDiag",)

_QUEUED: Final = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)  # and no inode: not accepted yet
_ALL: Final = (1 << 13) - 1
# INET_DIAG_INFO, INET_DIAG_SKMEMINFO, INET_DIAG_SHUTDOWN: bit (number - 1)
_EXTENSIONS: Final = 1 << 1 | 1 << 6 | 1 << 7
_TIMER_TIME_WAIT: Final = 3
_SKMEMINFO_DROPS: Final = 8
_NO_COOKIE: Final = (1 << 64) - 1
_MAPPED: Final = bytes(10) + b"\xff\xff"


class SockDiag:
    """Looks at sockets as ss does."""

    name = "sock_diag"

    def __init__(self) -> None:
        self._inodes: dict[int, _Known] = {}  # what the last walks saw

    def walk(self, asked: WalkRequest) -> Walk:
        """Look at all sockets of the calling thread's namespace. Raises OSError."""
        wanted = frozenset(asked.rows)
        first, last = asked.ports or (1, 0)
        seen = _Seen(asked.netns, range(first, last + 1), asked.room)
        for message in _dump():
            seen.add(message, wanted)
        self._inodes.update(seen.inodes)
        return seen.walk()

    def owners(self, rows: Iterable[TcpState], users: Iterable[TcpState]) -> Held:
        """Return who holds the sockets of the walks since the last call.

        Sockets in CLOSE are not among them: sock_diag does not show them.
        """
        wanted, counted, inodes = frozenset(rows), frozenset(users), self._inodes
        self._inodes = {}
        owners, connected = [], Counter[tuple[Any, ...]]()
        for tgid, start_ns, comm, fd, ino in descriptors():
            known = inodes.get(ino)
            if known is None:
                continue
            if known.state in wanted:
                owners.append((ino, start_ns, tgid, fd, comm, known.netns, known.state, (0, 0, 0)))
            if known.state in counted and known.destination:
                connected[tgid, start_ns, comm, known.netns, known.destination] += 1
        return Held(np.array(owners, OWNER_ROW), _users(connected), {})

    def close(self) -> None:
        """Nothing is held."""


class _Known(NamedTuple):
    netns: int
    state: int
    destination: tuple[bytes, bytes, int, int] | None  # laddr, raddr, rport, family


def _users(connected: Counter[tuple[Any, ...]]) -> Rows:
    rows = np.zeros(len(connected), USERS)
    for row, (key, count) in zip(rows, connected.items(), strict=True):
        tgid, start_ns, comm, netns, (laddr, raddr, rport, family) = key
        row["tgid"], row["start_ns"], row["comm"], row["netns"] = tgid, start_ns, comm, netns
        row["laddr"], row["raddr"] = list(laddr), list(raddr)
        row["rport"], row["family"], row["count"] = rport, family, count
    return rows


class _Seen:
    def __init__(self, netns: int, port_range: range, room: int) -> None:
        self._netns = netns
        self._room = room
        self._rows_left_out = 0
        self._range = port_range
        self._states: Counter[tuple[int, int, bool]] = Counter()
        self._ports: dict[tuple[Any, ...], Rows] = {}
        self._sockets: list[Rows] = []
        self._listening: Counter[int] = Counter()
        self._requests: Counter[int] = Counter()
        self._oldest_wait_ms: dict[int, int] = {}
        self.inodes: dict[int, _Known] = {}

    # The kernel dumps listening sockets first, so that a service's port is known.
    def add(self, message: Any, wanted: frozenset[TcpState]) -> None:
        state, mini = message["idiag_state"], message["idiag_timer"] == _TIMER_TIME_WAIT
        port = message["idiag_sport"]
        if state == TcpState.LISTEN:
            self._listening[port] += 1
        inbound = port in self._listening
        if state == TcpState.SYN_RECV and not message["idiag_inode"]:
            self._requests[port] += 1
            self._states[TcpState.NEW_SYN_RECV, TcpState.NEW_SYN_RECV, inbound] += 1
            return
        self._states[TcpState.TIME_WAIT if mini else state, state, inbound] += 1
        if message["idiag_inode"]:
            self.inodes[message["idiag_inode"]] = _Known(
                self._netns, state, None if inbound else _destination(message)
            )
        elif inbound and state in _QUEUED and not mini:
            self._note_wait(port, message)
        if state != TcpState.LISTEN:
            self._count_port(message, state, mini=mini, inbound=inbound)
        if state in wanted and not mini:
            self._show(message, state)

    def _show(self, message: Any, state: int) -> None:
        if state != TcpState.LISTEN:
            if not self._room:
                self._rows_left_out += 1
                return
            self._room -= 1
        self._sockets.append(_socket(message, self._netns))

    def walk(self) -> Walk:
        states = np.zeros(len(self._states), STATES)
        for row, ((state, substate, inbound), count) in zip(
            states, self._states.items(), strict=True
        ):
            row["netns"], row["count"], row["inbound"] = self._netns, count, inbound
            row["state"], row["substate"] = state, substate
        sockets = np.array(self._sockets, SOCKETS) if self._sockets else np.zeros(0, SOCKETS)
        for row in sockets:
            if row["state"] == TcpState.LISTEN:
                self._tell_queue(row)
        ports = np.array(list(self._ports.values()), PORTS) if self._ports else np.zeros(0, PORTS)
        return Walk(states, ports, sockets.tobytes(), self._rows_left_out)

    # It sends no data before it is accepted: its stamp is the one it was made with.
    def _note_wait(self, port: int, message: Any) -> None:
        info = message.get_attr("INET_DIAG_INFO")
        if info:
            before = self._oldest_wait_ms.get(port, 0)
            self._oldest_wait_ms[port] = max(before, info["tcpi_last_data_sent"])

    # Which of several listeners of a port one waits at is not told.
    def _tell_queue(self, row: Any) -> None:
        port = int(row["lport"])
        row["syn_queue"] = self._requests[port]
        if self._listening[port] == 1:
            row["oldest_wait_ms"] = self._oldest_wait_ms.get(port, -1)

    def _count_port(self, message: Any, state: int, *, mini: bool, inbound: bool) -> None:
        laddr, raddr, family = _addresses(message)
        port = message["idiag_sport"]
        key = (family, port) if inbound else (family, laddr, raddr, message["idiag_dport"])
        row = self._ports.get(key)
        if row is None:
            row = self._ports[key] = np.zeros((), PORTS)
            row["netns"], row["family"], row["inbound"] = self._netns, family, inbound
            if inbound:
                row["lport"] = port
            else:
                row["rport"] = message["idiag_dport"]
                row["laddr"], row["raddr"] = list(laddr), list(raddr)
        kind = "in_use"
        if mini:
            kind = "time_wait" if state == TcpState.TIME_WAIT else "fin_wait2"
        row[kind] += 1
        row["in_range"] += port in self._range
        if kind == "time_wait":
            step = message["idiag_expires"] // (REMAINING_STEP_S * 1000)
            row["remaining"][min(step, REMAINING_STEPS - 1)] += 1


def _dump() -> Iterator[Any]:
    with DiagSocket() as diag:
        diag.bind()
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from diag.get_sock_stats(family=family, states=_ALL, extensions=_EXTENSIONS)


def _addresses(message: Any) -> tuple[bytes, bytes, int]:
    addresses = [_address(message[name]) for name in ("idiag_src", "idiag_dst")]
    mapped = any(address.startswith(_MAPPED) for address in addresses)
    return addresses[0], addresses[1], 4 if mapped else 6


def _destination(message: Any) -> tuple[bytes, bytes, int, int]:
    laddr, raddr, family = _addresses(message)
    return laddr, raddr, message["idiag_dport"], family


def _address(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _MAPPED + socket.inet_pton(socket.AF_INET, text)


def _socket(message: Any, netns: int) -> Rows:
    row = np.zeros((), SOCKETS)
    laddr, raddr, family = _addresses(message)
    cookie, ino = message["idiag_cookie"], message["idiag_inode"]
    row["cookie"], row["ino"] = 0 if cookie == _NO_COOKIE else cookie, ino
    row["netns"], row["uid"] = netns, message["idiag_uid"]
    row["lport"], row["rport"] = message["idiag_sport"], message["idiag_dport"]
    row["laddr"], row["raddr"], row["family"] = list(laddr), list(raddr), family
    row["state"] = message["idiag_state"]
    row["shutdown"] = message.get_attr("INET_DIAG_SHUTDOWN") or 0
    row["flags"] = SocketFlag.HAS_SOCKET if ino else 0
    row["age_received_ms"] = row["age_data_received_ms"] = row["age_sent_ms"] = -1
    row["oldest_wait_ms"] = -1
    if message["idiag_state"] == TcpState.LISTEN:
        row["accept_queue"] = message["idiag_rqueue"]
        row["accept_queue_limit"] = message["idiag_wqueue"]
        row["drops"] = _drops(message)
    else:
        _take_traffic(row, message)
    return row


def _take_traffic(row: Rows, message: Any) -> None:
    row["unread"] = message["idiag_rqueue"]
    info = message.get_attr("INET_DIAG_INFO")
    if not info:
        return
    row["unsent"] = info["tcpi_notsent_bytes"]
    row["unacked"] = message["idiag_wqueue"] - info["tcpi_notsent_bytes"]
    row["bytes_received"] = info["tcpi_bytes_received"]
    row["bytes_acked"] = info["tcpi_bytes_acked"]
    row["age_sent_ms"] = info["tcpi_last_data_sent"]
    row["age_data_received_ms"] = info["tcpi_last_data_recv"]
    row["age_received_ms"] = min(info["tcpi_last_data_recv"], info["tcpi_last_ack_recv"])


# "ab:cd:…": sk_get_meminfo(), of which the ninth word counts drops.
def _drops(message: Any) -> int:
    text = message.get_attr("INET_DIAG_SKMEMINFO")
    words = bytes.fromhex(text.replace(":", "")) if text else b""
    if len(words) < 4 * (_SKMEMINFO_DROPS + 1):
        return 0
    return int(struct.unpack_from("<I", words, 4 * _SKMEMINFO_DROPS)[0])
