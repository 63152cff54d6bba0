# SPDX-License-Identifier: Apache-2.0
"""Let every socket of a namespace have its cookie, where a BPF program cannot give it one.

A socket has no cookie until somebody asks for it. sock_diag asks for each that it dumps; the dump
itself is thrown away.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from tracer.kernel import inet_diag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.tcp import TcpState

__all__ = ("give_cookies",)

_READ_BYTES: Final = 1 << 16


def give_cookies(states: Iterable[TcpState]) -> None:
    """Give one to each full socket in these states, in the calling thread's namespace.

    Raises OSError.
    """
    mask = sum(1 << state for state in set(states))
    for family in (socket.AF_INET, socket.AF_INET6):
        with inet_diag.channel() as channel:
            asked = inet_diag.request(inet_diag.BY_FAMILY, inet_diag.DUMP, family, mask)
            channel.sendto(asked, (0, 0))
            while not _is_last(channel.recv(_READ_BYTES)):
                pass


# Of several messages in one answer only the last can be the end. Raises OSError.
def _is_last(answer: bytes) -> bool:
    kind = 0
    for kind, body in inet_diag.messages(answer):
        if kind == inet_diag.ERROR:
            code = inet_diag.error_of(body)
            raise OSError(code, f"sock_diag: {os.strerror(code)}")
    return kind == inet_diag.DONE
