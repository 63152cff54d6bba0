# SPDX-License-Identifier: Apache-2.0
"""Segments a socket refuses for lack of memory: their data and FIN are dropped, their ACK counts.

What the receiver had not read yet fills a buffer that is made too small while they are under way.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.truth.packets import FIN
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import TcpState, read_eof, read_exactly, wait_readable, wait_state
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from tests.truth.sockets import Pair

UNREAD_BYTES = 20_000
NO_ROOM_BYTES = 1
LAST_WORDS = b"last words"


def leave_unread(pairs: list[Pair]) -> None:
    """Let the second ends send what the first ones do not read yet."""
    for pair in pairs:
        pair.second.sendall(b"u" * UNREAD_BYTES)
        wait_readable(pair.first, UNREAD_BYTES)


def take_room_away(sock: socket.socket) -> None:
    """Leave no memory for more than is in the buffer already."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NO_ROOM_BYTES)


def make_room(pairs: list[Pair]) -> None:
    """Read what fills the buffers, all of it before the refused segments come again."""
    for pair in pairs:
        read_exactly(pair.first, UNREAD_BYTES)
    for pair in pairs:
        read_eof(pair.first)
        pair.close()


@scenario(
    first=Expect("active", how="shutdown"),
    second=Expect("simultaneous", "simultaneous", how="shutdown"),
    wired=True,
    blurred=True,
)
def refused_fin_crosses(stage: Stage) -> None:
    """The FINs cross, and the first end has no memory for the data in front of the other's."""
    pairs, wire = stage.quiet(), stage.wire
    leave_unread(pairs)
    wire.drain()
    wire.set_mode(Mode.HOLD)
    for pair in pairs:
        pair.second.send(LAST_WORDS, socket.MSG_MORE)
        pair.second.shutdown(socket.SHUT_WR)
        pair.first.shutdown(socket.SHUT_WR)
        take_room_away(pair.first)
    for way in (stage.to_first, stage.from_first):
        wire.wait_held(way, FIN, stage.count)
    wire.set_mode(Mode.PASS, stage.to_first)
    wire.drain()
    wire.set_mode(Mode.PASS)
    make_room(pairs)


@scenario(
    first=Expect("active", "three_way", "fin", "shutdown"),
    second=Expect("passive", "three_way", "fin", "close"),
    wired=True,
    blurred=True,
)
def refused_fin_with_ack(stage: Stage) -> None:
    """The second FIN brings the ACK of the first and last words there is no memory for."""
    pairs = stage.quiet()
    leave_unread(pairs)
    for pair in pairs:
        take_room_away(pair.first)
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.send(LAST_WORDS, socket.MSG_MORE)
        pair.second.close()
        pair.stop_clock()
    for pair in pairs:
        wait_state(pair.first, TcpState.FIN_WAIT2)
    make_room(pairs)
