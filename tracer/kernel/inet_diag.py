# SPDX-License-Identifier: Apache-2.0
"""Messages of sock_diag about TCP sockets: what is asked, and how an answer is read.

include/uapi/linux/sock_diag.h, inet_diag.h and netlink.h have the numbers and the structs.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = (
    "ACK",
    "BY_FAMILY",
    "DESTROY",
    "DONE",
    "DUMP",
    "ERROR",
    "channel",
    "error_of",
    "messages",
    "request",
)

BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
DESTROY: Final = 21  # SOCK_DESTROY
ERROR: Final = 2  # NLMSG_ERROR
DONE: Final = 3  # NLMSG_DONE
DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
ACK: Final = 0x5  # NLM_F_REQUEST | NLM_F_ACK

_NETLINK_SOCK_DIAG: Final = 4
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST: Final = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2
_ANSWER_S: Final = 5.0


def channel() -> socket.socket:
    """Return a socket of the calling thread's namespace. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    made.settimeout(_ANSWER_S)
    return made


def request(kind: int, flags: int, family: int, states: int, sockid: bytes = b"") -> bytes:
    """Return a message about TCP sockets of `family` in `states` (bits by number of the state).

    `sockid`: struct inet_diag_sockid, 48 bytes; empty: of all.
    """
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, sockid)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message in what was received at once."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        yield kind, answer[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def error_of(body: bytes) -> int:
    """Return the errno in a message of type ERROR, 0 where it acknowledges."""
    (code,) = struct.unpack_from("=i", body)
    return -int(code)
