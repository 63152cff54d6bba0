# SPDX-License-Identifier: Apache-2.0
"""The numbers of TCP on Linux, of the wire records, and of the verdicts.

Small stable integers for arrays and recordings, labels for JSON and metrics.
The flag and reference values mirror bpf/records.h; the verdict labels are the
output contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class TcpState(IntEnum):
    """include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12

    @property
    def label(self) -> str:
        """Metric label: fin_wait1."""
        return self.name.lower()


class Labelled(IntEnum):
    """An enum of the output contract; the member NONE is null there."""

    @property
    def label(self) -> str | None:
        """JSON value: the lower case name, None for NONE."""
        return None if self.name == "NONE" else self.name.lower()


class Kind(Labelled):
    """How the connection ended, seen from this socket."""

    UNKNOWN = 0
    ACTIVE = 1
    PASSIVE = 2
    SIMULTANEOUS = 3
    ABORT = 4
    RESET = 5
    TIMEOUT = 6
    REFUSED = 7
    ATTEMPT_FAILED = 8


ENDED_EARLY: Final = (Kind.ABORT, Kind.RESET, Kind.TIMEOUT)
"""Connections that ended without two FINs, and so may have lost data."""


class Handshake(Labelled):
    """How many segments the two FINs and their ACKs took."""

    NONE = 0
    FOUR_WAY = 1
    THREE_WAY = 2
    SIMULTANEOUS = 3


class FinAck(Labelled):
    """What carried the ACK of the first FIN."""

    NONE = 0
    PURE = 1
    DATA = 2
    FIN = 3


class Evidence(Labelled):
    """What the handshake verdict rests on."""

    NONE = 0
    HOOK = 1
    COUNTERS = 2


class Cause(Labelled):
    """Why it ended, where it did not end by FINs alone."""

    NONE = 0
    UNREAD_DATA = 1
    LINGER_ZERO = 2
    DATA_AFTER_CLOSE = 3
    DISCONNECT = 4
    OUT_OF_MEMORY = 5
    RETRANSMIT_TIMEOUT = 6
    KEEPALIVE = 7
    USER_TIMEOUT = 8
    FIN_WAIT2_TIMEOUT = 9
    SOCK_DESTROY = 10
    NO_LISTENER = 11
    PEER = 12
    UNKNOWN = 13


class AckFate(Labelled):
    """How the ACK of the peer's FIN went, where the peer closed first."""

    NONE = 0
    UNKNOWN = 1
    MERGED = 2
    """Our FIN carried it."""
    DATA = 3
    """Data of ours carried it."""
    TIMER = 4
    """Alone, by the delayed-ACK timer."""
    TICK = 5
    """Alone, by a timer of one tick: no data had ever come, so ato was 0."""
    QUICK_ROUTE = 6
    """Alone and at once: the route says quickack 1."""
    REPEATED_FIN = 7
    """Alone and at once, when the peer repeated its FIN."""
    HOLE_FILLED = 8
    """Alone and at once: the FIN had waited for a segment before it (RFC 5681, 4.2)."""
    FULL_FRAME = 9
    """Alone and at once: more than one full-sized segment was unacknowledged."""
    AT_ONCE = 10
    """Alone and at once, for a reason not seen."""


class TimeWait(Labelled):
    """What became of a socket that was due for TIME_WAIT."""

    UNKNOWN = 0
    ENTERED = 1
    ORPHANED = 2
    """An orphan in FIN_WAIT2: a mini-socket awaits the peer's FIN, and then is in TIME_WAIT."""
    REFUSED = 3
    """No room for it (net.ipv4.tcp_max_tw_buckets, or no memory)."""


class TimeWaitChange(Labelled):
    """enum tw_change: what became of a mini-socket in TIME_WAIT, or in FIN_WAIT2 on the way."""

    PEER_FIN = 0
    """From FIN_WAIT2 to TIME_WAIT, by the peer's FIN."""
    RESTARTED_BY_FIN = 1
    """Its 60 s began again: the peer repeated its FIN."""
    RESTARTED_BY_OTHER = 2
    """By another segment."""
    ENDED_BY_RST = 3
    ENDED_BY_SYN = 4
    """A new connection took its place; in FIN_WAIT2 a RST answered."""
    ENDED_BY_DATA = 5
    """In FIN_WAIT2: data nobody can read any more, answered by a RST."""
    REUSED = 6
    """connect() took its ports."""
    DESTROYED = 7
    """ss -K, or its network namespace is gone."""


class Stray(IntEnum):
    """stray_key.cause: what a RST without a connection answered."""

    NONE = 0
    NO_SOCKET = 1
    TIME_WAIT = 2
    HANDSHAKE = 3


class How(Labelled):
    """What the closer did; SIGNAL is written signal:N."""

    NONE = 0
    CLOSE = 1
    SHUTDOWN = 2
    EXIT = 3
    SIGNAL = 4
    KERNEL = 5


class RecordType(IntEnum):
    """conn_record.type."""

    CLOSE = 1
    RESET = 2
    SIGPIPE = 3


class ConnFlag(IntFlag):
    """conn_record.flags."""

    OPENED_ACTIVE = 1 << 0
    OPENED_PASSIVE = 1 << 1
    GAP = 1 << 2
    MPTCP_SUBFLOW = 1 << 3
    CLOSE_OWNED = 1 << 4
    FIN_ACKED_OWNED = 1 << 5
    MAY_FOLLOW = 1 << 6
    RECLOSED = 1 << 7
    OLD_ANSWERED = 1 << 8
    DROPPED = 1 << 9
    SIGPIPE = 1 << 10
    REPAIR = 1 << 11


class FileRef(IntEnum):
    """What sk->sk_socket->file was when somebody acted on the socket."""

    NONE = 0
    ALIVE = 1
    DEAD = 2


class ActorFlag(IntFlag):
    """actor.flags."""

    VALID = 1 << 0
    EXITING = 1 << 1
    KTHREAD = 1 << 2
    IN_SOFTIRQ = 1 << 3
    ACCEPTED = 1 << 4


WAITED_MAX_US: Final = 0xFFFF_FFFF
"""Of a wait for accept(), accept.h: so long or longer."""


class RstFlag(IntFlag):
    """conn_record.rst_flags."""

    SENT_ACTIVE = 1 << 0
    SENT_REPLY = 1 << 1
    SENT_AFTER_CLOSE = 1 << 2
    RECEIVED = 1 << 3
    HAS_REASON = 1 << 4


# A plain integer: numpy takes it as it is, an enum's member costs a conversion.
RST_SENT: Final = int(RstFlag.SENT_ACTIVE | RstFlag.SENT_REPLY)


class SkFlag(IntFlag):
    """conn_record.sk_flags: enum sock_flags of include/net/sock.h as bits."""

    DEAD = 1 << 0
    DONE = 1 << 1
    KEEPOPEN = 1 << 3
    LINGER = 1 << 4


class AckFlag(IntFlag):
    """conn_record.ack_flags."""

    FILLS_HOLE = 1 << 0
    FULL_FRAME = 1 << 1
    DATA_UNREAD = 1 << 2
    ROUTE_QUICK = 1 << 3
    CLOCK_KNOWN = 1 << 4
    CLOCK_MOVED = 1 << 5


TW_NONE = 0
"""conn_record.tw_substate: the hash bucket was walked, no mini-socket."""
TW_NOT_LOOKED = 255
"""conn_record.tw_substate: not walked, or the walk could not end."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is constant for a recording and needed to read its records."""

    hz: int
    """CONFIG_HZ: jiffies per second."""
    rst_reasons: Mapping[int, str] = field(default_factory=dict)
    """enum sk_rst_reason of this kernel by value, the kernel's names; empty before v6.10."""
    page_size: int = 4096
    kernel_release: str = ""
    machine: str = ""
