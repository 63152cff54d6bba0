# SPDX-License-Identifier: Apache-2.0
"""Censuses as the kernel side makes them, a socket at a time.

Times are milliseconds; a census is of netns 1 unless told otherwise.
"""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.census import (
    OWNERS,
    PORTS,
    SOCKETS,
    STATES,
    USERS,
    Census,
    NetnsFacts,
    ProcessFacts,
    SocketFlag,
)
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.census import Rows

NS_PER_MS = 1_000_000
FACTS = NetnsFacts(
    entered_by="/proc/1/ns/net",
    port_range=(32_768, 60_999),
    tw_reuse=2,
    max_tw_buckets=16_384,
    somaxconn=4_096,
)
_serial = itertools.count(1)


def packed(text: str) -> list[int]:
    """Return an address as in the arrays, IPv4 mapped."""
    addr = ipaddress.ip_address(text)
    whole = addr.packed if addr.version == 6 else bytes(10) + b"\xff\xff" + addr.packed
    return list(whole)


def row(dtype: np.dtype[np.void], **fields: Any) -> Rows:
    """Return one row; addresses may be text."""
    made = np.zeros(1, dtype)
    for name, value in fields.items():
        made[name] = packed(value) if name in ("laddr", "raddr") else value
    return made


def close_wait(age_s: float, **fields: Any) -> Rows:
    """Return an accepted socket on port 80, read to the end, last heard of `age_s` ago."""
    number = next(_serial)
    base = {
        "cookie": number,
        "ino": number,
        "netns": 1,
        "state": TcpState.CLOSE_WAIT,
        "family": 4,
        "laddr": "10.0.0.1",
        "raddr": "10.0.0.9",
        "lport": 80,
        "rport": 50_000,
        "flags": SocketFlag.HAS_SOCKET,
        "age_received_ms": int(age_s * 1000),
        "age_data_received_ms": int(age_s * 1000),
        "age_sent_ms": int(age_s * 1000),
        "oldest_wait_ms": -1,
    }
    return row(SOCKETS, **(base | fields))


def outbound(age_s: float, **fields: Any) -> Rows:
    """Return a socket we connected to 10.0.0.9:5432, its end not read."""
    base = {"lport": 40_000, "rport": 5432, "unread": 1}
    return close_wait(age_s, **(base | fields))


def listener(lport: int = 80, **fields: Any) -> Rows:
    """Return a listening socket on the wildcard."""
    number = next(_serial)
    base = {
        "cookie": number,
        "ino": number,
        "netns": 1,
        "state": TcpState.LISTEN,
        "family": 4,
        "laddr": "0.0.0.0",  # noqa: S104 - a row, not a socket
        "raddr": "0.0.0.0",  # noqa: S104
        "flags": SocketFlag.HAS_SOCKET,
        "lport": lport,
        "accept_queue_limit": 128,
        "age_received_ms": -1,
        "age_data_received_ms": -1,
        "age_sent_ms": -1,
        "oldest_wait_ms": -1,
    }
    return row(SOCKETS, **(base | fields))


def older(rows: Rows, by_s: float) -> Rows:
    """Return the same sockets, so much later, if nothing happens to them."""
    later = rows.copy()
    for name in ("age_received_ms", "age_data_received_ms", "age_sent_ms"):
        later[name][later[name] >= 0] += int(by_s * 1000)
    return later


def held_by(rows: Rows, *pids: int, comm: bytes = b"server") -> Rows:
    """Return owners: each of the pids holds all of the sockets."""
    made = np.zeros(len(rows) * len(pids), OWNERS)
    made["ino"] = np.tile(rows["ino"], len(pids))
    made["tgid"] = np.repeat(pids, len(rows))
    made["fd"] = np.tile(np.arange(3, 3 + len(rows)), len(pids))
    made["start_ns"] = 7
    made["comm"] = comm
    return made


def user(count: int, pid: int, comm: bytes = b"server", **fields: Any) -> Rows:
    """Return a row of USERS: a process with so many connections to 10.0.0.9:5432."""
    base: dict[str, Any] = {"netns": 1, "family": 4, "laddr": "10.0.0.1", "raddr": "10.0.0.9"}
    base |= {"rport": 5432, "tgid": pid, "comm": comm, "count": count, "start_ns": 7}
    return row(USERS, **(base | fields))


def process(**fields: Any) -> ProcessFacts:
    """Return a process with 1024 descriptors in a unit."""
    base: dict[str, Any] = {
        "comm": "server",
        "nofile_soft": 1024,
        "open_fds": 100,
        "cgroup": "/system.slice/server.service",
    }
    return ProcessFacts(**(base | fields))


def ports(**fields: Any) -> Rows:
    """Return a row of PORTS towards 10.0.0.9:5432."""
    base = {
        "netns": 1,
        "family": 4,
        "laddr": "10.0.0.1",
        "raddr": "10.0.0.9",
        "rport": 5432,
    }
    made = row(PORTS, **(base | fields))
    if "in_range" not in fields:
        made["in_range"] = made["in_use"] + made["time_wait"] + made["fin_wait2"]
    return made


def census(
    at_s: float = 0,
    sockets: Iterable[Rows] = (),
    owners: Iterable[Rows] = (),
    ports: Iterable[Rows] = (),
    users: Iterable[Rows] = (),
    **fields: Any,
) -> Census:
    """Return a census taken `at_s` after the first."""
    base: dict[str, Any] = {
        "mono_ns": int(1e12 + at_s * 1e9),
        "took_ns": 1_000_000,
        "mechanism": "iterator",
        "states": np.zeros(0, STATES),
        "ports": np.concatenate([np.zeros(0, PORTS), *ports]),
        "sockets": np.concatenate([np.zeros(0, SOCKETS), *sockets]),
        "owners": np.concatenate([np.zeros(0, OWNERS), *owners]),
        "users": np.concatenate([np.zeros(0, USERS), *users]),
        "namespaces": {1: FACTS},
    }
    return Census(**(base | fields))
