# SPDX-License-Identifier: Apache-2.0
"""Let every socket of a namespace have its cookie, where a BPF program cannot give it one.

A socket has no cookie until somebody asks for it. sock_diag asks for each that it dumps; the dump
itself is thrown away.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.tcp import TcpState

__all__ = ("give_cookies",)

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST: Final = struct.Struct("=BBBBI48x")  # struct inet_diag_req_v2
_READ_BYTES: Final = 1 << 16
_ANSWER_S: Final = 5.0


def give_cookies(states: Iterable[TcpState]) -> None:
    """Give one to each full socket in these states, in the calling thread's namespace.

    Raises OSError.
    """
    mask = sum(1 << state for state in set(states))
    kind = (socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, mask)
        length = _HEADER.size + len(body)
        with socket.socket(*kind) as channel:
            channel.settimeout(_ANSWER_S)
            head = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
            channel.sendto(head + body, (0, 0))
            while not _is_last(channel.recv(_READ_BYTES)):
                pass


# Of several messages in one answer only the last can be the end. Raises OSError.
def _is_last(answer: bytes) -> bool:
    at, kind = 0, 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, at + _HEADER.size)
            raise OSError(-code, f"sock_diag: {os.strerror(-code)}")
        at += (length + 3) & ~3
    return kind == _NLMSG_DONE
