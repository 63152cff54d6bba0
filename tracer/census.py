# SPDX-License-Identifier: Apache-2.0
"""The exact present of some network namespaces: what a census holds.

Arrays where there may be a million of something, objects where there are few. All arrays are
little endian, laid out as the kernel's programs write them (bpf/census.bpf.c, bpf/owners.bpf.c).
Addresses are 16 bytes in network order, IPv4 mapped (::ffff:a.b.c.d); ports in host order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

Rows: TypeAlias = npt.NDArray[np.void]
"""An array of one of the dtypes below."""

REMAINING_STEP_S: Final = 5
REMAINING_STEPS: Final = 12
"""TIME_WAIT lasts 60 s (TCP_TIMEWAIT_LEN): twelve steps of five seconds."""


def comm_alone(comms: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return names (rows of bytes) with zeros behind the first zero.

    Before v5.17 a process that renames itself leaves the rest of its longer name there.
    """
    if not ((comms[..., :-1] == 0) & (comms[..., 1:] != 0)).any():
        return comms
    ended = np.logical_or.accumulate(comms == 0, axis=-1)
    return np.where(ended, np.uint8(0), comms)


class SocketFlag(IntFlag):
    """SOCKETS.flags."""

    HAS_SOCKET = 1 << 0
    """A struct socket hangs on it: it was accepted (or connected) and not closed yet."""
    DEAD = 1 << 1
    """SOCK_DEAD: an orphan, closed by its process; the kernel goes on alone."""


STATES: Final = np.dtype(
    [
        ("cgroup_id", "<u8"),
        ("count", "<u8"),
        ("netns", "<u4"),
        ("state", "u1"),
        ("substate", "u1"),
        ("inbound", "u1"),
        ("pad", "u1"),
    ],
    align=True,
)
"""Sockets per network namespace, state, direction and cgroup.

`state` is TcpState; `substate` differs from it only for mini-sockets of TIME_WAIT that still wait
for the peer's FIN: FIN_WAIT2. `inbound`: the local port is one a socket of the same namespace
listens on. `cgroup_id` 0: TIME_WAIT and NEW_SYN_RECV have none.
"""

PORTS: Final = np.dtype(
    [
        ("laddr", "u1", (16,)),
        ("raddr", "u1", (16,)),
        ("netns", "<u4"),
        ("lport", "<u2"),
        ("rport", "<u2"),
        ("family", "u1"),
        ("inbound", "u1"),
        ("pad", "u1", (2,)),
        ("in_use", "<u4"),
        ("time_wait", "<u4"),
        ("fin_wait2", "<u4"),
        ("in_range", "<u4"),
        ("remaining", "<u4", (REMAINING_STEPS,)),
    ],
    align=True,
)
"""Local ports taken, per destination or service.

Outbound: one row per (netns, laddr, raddr, rport), `lport` 0. Inbound: one per (netns, family,
lport), both addresses zero, `rport` 0. `family` is 4 or 6 (an IPv4-mapped address is 4).
`in_use`: full sockets, LISTEN and NEW_SYN_RECV left out. `time_wait`: mini-sockets in TIME_WAIT.
`fin_wait2`: mini-sockets that still wait for the peer's FIN. `in_range`: how many of these three
have a local port within ip_local_port_range. `remaining[i]`: of `time_wait`, those that end in
[5 i, 5 (i + 1)) seconds; later ones are in the last step.
"""

SOCKETS: Final = np.dtype(
    [
        ("cookie", "<u8"),
        ("ino", "<u8"),
        ("cgroup_id", "<u8"),
        ("bytes_received", "<u8"),
        ("bytes_acked", "<u8"),
        ("drops", "<u8"),
        ("close_wait_ns", "<u8"),
        ("age_received_ms", "<i8"),
        ("age_data_received_ms", "<i8"),
        ("age_sent_ms", "<i8"),
        ("oldest_wait_ms", "<i8"),
        ("laddr", "u1", (16,)),
        ("raddr", "u1", (16,)),
        ("netns", "<u4"),
        ("uid", "<u4"),
        ("unread", "<u4"),
        ("unsent", "<u4"),
        ("unacked", "<u4"),
        ("accept_queue", "<u4"),
        ("accept_queue_limit", "<u4"),
        ("syn_queue", "<u4"),
        ("lport", "<u2"),
        ("rport", "<u2"),
        ("state", "u1"),
        ("family", "u1"),
        ("shutdown", "u1"),
        ("flags", "u1"),
    ],
    align=True,
)
"""Sockets worth a look, one by one: LISTEN, CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK
(full sockets).

`cookie` joins with the close records. `ino` is the socket's inode, as in OWNERS and ss; 0 when
never accepted, or orphaned. `shutdown`: RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. `flags`: SocketFlag.
`unread`: rcv_nxt - copied_seq, where an unread FIN counts one. `unsent`: queued, not sent yet.
`close_wait_ns`: CLOCK_MONOTONIC when CLOSE_WAIT began, 0 where nobody followed the connection.
Ages in ms, -1 when unknown: since anything was heard (ACK or data), since data was heard, since
data was sent. For LISTEN alone: `accept_queue`, `accept_queue_limit`, `syn_queue`, `drops`, and
`oldest_wait_ms`, how long the first in the accept queue has waited, -1: unknown.
"""

OWNERS: Final = np.dtype(
    [
        ("ino", "<u8"),
        ("start_ns", "<u8"),
        ("tgid", "<u4"),
        ("fd", "<u4"),
        ("comm", "S16"),
    ],
    align=True,
)
"""Who holds which of SOCKETS: one row per process and descriptor.

`start_ns`: when the process began, CLOCK_BOOTTIME; 0 when unknown. With it `tgid` is unambiguous.
"""

USERS: Final = np.dtype(
    [
        ("laddr", "u1", (16,)),
        ("raddr", "u1", (16,)),
        ("netns", "<u4"),
        ("tgid", "<u4"),
        ("rport", "<u2"),
        ("family", "u1"),
        ("pad", "u1", (5,)),
        ("start_ns", "<u8"),
        ("comm", "S16"),
        ("count", "<u4"),
        ("pad2", "u1", (4,)),
    ],
    align=True,
)
"""Who is connected where: descriptors per process and destination, of PORTS' outbound kind.

One shared by several processes counts for each. `start_ns` and `tgid` as in OWNERS.
"""

ARRAYS: Final = {
    "states": STATES,
    "ports": PORTS,
    "sockets": SOCKETS,
    "owners": OWNERS,
    "users": USERS,
}
"""The arrays of a Census in the order of its bytes."""

CENSUS_VERSION: Final = 3
"""Of the bytes: a new one for every change of a dtype or of a fact."""


@dataclass(frozen=True, slots=True)
class NetnsFacts:
    """One network namespace; None where the kernel does not say, or it could not be read."""

    entered_by: str
    """The path it was entered by: /proc/PID/ns/net, /run/netns/NAME, /proc/PID/fd/N."""
    name: str | None = None
    """The name `ip netns` knows it by."""
    port_range: tuple[int, int] | None = None
    """ip_local_port_range, both inclusive."""
    reserved_ports: tuple[tuple[int, int], ...] = ()
    """ip_local_reserved_ports as inclusive ranges."""
    tw_reuse: int | None = None
    """tcp_tw_reuse: 0 off, 1 on, 2 loopback only."""
    max_tw_buckets: int | None = None
    somaxconn: int | None = None
    max_orphans: int | None = None
    """tcp_max_orphans: one limit for the whole host."""
    tcp_ext: Mapping[str, int] = field(default_factory=dict)
    """TcpExt of /proc/net/netstat and Tcp of /proc/net/snmp: ListenOverflows, ListenDrops, …"""
    sockstat: Mapping[str, int] = field(default_factory=dict)
    """The TCP line of /proc/net/sockstat: inuse, orphan, tw, alloc, mem (all but inuse and tw are
    the whole host's), and tcp6_inuse."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process that holds a socket worth a look; None where it was gone or not readable."""

    comm: str
    exe: str | None = None
    uid: int | None = None
    nofile_soft: int | None = None
    """RLIMIT_NOFILE, soft; None also when unlimited."""
    open_fds: int | None = None
    cgroup: str | None = None
    """Path in the cgroup2 hierarchy."""


@dataclass(frozen=True, slots=True)
class Census:
    """What `mono_ns` to `mono_ns + took_ns` (CLOCK_MONOTONIC) looked like."""

    mono_ns: int
    took_ns: int
    mechanism: str
    """How it was taken: "iterator", or "sock_diag" where the kernel refuses iterators."""
    states: Rows
    ports: Rows
    sockets: Rows
    owners: Rows
    users: Rows = field(default_factory=lambda: np.zeros(0, USERS))
    namespaces: Mapping[int, NetnsFacts] = field(default_factory=dict)
    """By inode number, as in the arrays' `netns`."""
    processes: Mapping[int, ProcessFacts] = field(default_factory=dict)
    """By tgid."""
    cgroups: Mapping[int, str | None] = field(default_factory=dict)
    """Path by cgroup id, of those in `states`; None: gone."""
    truncated: Mapping[str, int] = field(default_factory=dict)
    """What was left out, by where: states, ports, users, processes, namespaces. Empty: nothing."""
    reason: str | None = None
    """Why `mechanism` is the second choice; None when it is the first."""
