# SPDX-License-Identifier: Apache-2.0
"""What the census makes of old kernels: names with a rest behind them, answers of sock_diag."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest

from tracer.census import comm_alone
from tracer.kernel import cookies
from tracer.tcp import TcpState


def test_a_name_ends_at_its_first_zero() -> None:
    """What a longer name left behind it is no part of it."""
    names = [b"python\0\0\0-init", b"virtme-ng-init", b"sixteen-letters!", b""]
    rows = np.frombuffer(b"".join(name.ljust(16, b"\0") for name in names), "u1").reshape(-1, 16)
    alone = comm_alone(rows).view("S16")[:, 0].tolist()
    assert alone == [b"python", b"virtme-ng-init", b"sixteen-letters!", b""]


def message(kind: int, body: bytes = b"") -> bytes:
    """Return a netlink message, padded as the kernel does."""
    length = 16 + len(body)
    return (struct.pack("=IHHII", length, kind, 0, 1, 0) + body).ljust(-(-length // 4) * 4, b"\0")


def test_a_dump_ends_with_its_last_message() -> None:
    """Many messages may come at once; only NLMSG_DONE ends them."""
    one = message(20, b"socket")
    assert not cookies._is_last(one + one)
    assert cookies._is_last(one + message(3, bytes(4)))
    with pytest.raises(OSError, match="sock_diag: No such file"):
        cookies._is_last(message(2, struct.pack("=i", -2)))


def test_a_dump_gives_every_socket_a_cookie() -> None:
    """A listener nobody has asked for has one afterwards: asking twice gives the same."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        cookies.give_cookies([TcpState.LISTEN])
        assert sock.getsockopt(socket.SOL_SOCKET, 57, 8) != bytes(8)
