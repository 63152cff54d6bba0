# SPDX-License-Identifier: Apache-2.0
"""A RST in every state: the wire makes it as the peer would, and the peer never knows.

The end that was reset says so; the other end throws its socket away without a word that counts.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.truth.abortive import RESET, await_reset
from tests.truth.packets import ACK, FIN, RST, answer
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import TcpState, close_at_eof, close_with_reset, wait_state
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from tests.truth.sockets import Pair
    from tests.truth.wire import Direction

THROWN_AWAY = Expect("abort", how="close", cause="linger_zero")


def hold(stage: Stage, way: Direction, flag: int, pairs: list[Pair]) -> list[bytes]:
    """Return the packets with `flag` that are held on `way`, one of each pair."""
    stage.wire.wait_held(way, flag, len(pairs))
    return stage.wire.held(way)


def throw_away(stage: Stage, ends: list[socket.socket]) -> None:
    """Close with SO_LINGER 0, nothing crosses; then open the wire again."""
    wire = stage.wire
    wire.set_mode(Mode.DROP)
    wire.discard()
    for end in ends:
        close_with_reset(end)
    wire.drain()
    wire.set_mode(Mode.PASS)


@scenario(first=RESET, second=THROWN_AWAY, wired=True)
def reset_in_fin_wait1(stage: Stage) -> None:
    """The FIN has left and is not acknowledged."""
    pairs, way = stage.quiet(), stage.from_first
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    for packet in hold(stage, way, FIN, pairs):
        stage.wire.inject(stage.to_first, answer(packet, RST))
    for pair in pairs:
        await_reset(pair.first)
    throw_away(stage, [pair.second for pair in pairs])


@scenario(first=RESET, second=THROWN_AWAY, wired=True)
def reset_in_fin_wait2(stage: Stage) -> None:
    """The FIN is acknowledged, the peer's is awaited."""
    pairs, way = stage.quiet(), stage.from_first
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    packets = hold(stage, way, FIN, pairs)
    stage.wire.set_mode(Mode.PASS, way)
    for pair in pairs:
        wait_state(pair.first, TcpState.FIN_WAIT2)
    for packet in packets:
        stage.wire.inject(stage.to_first, answer(packet, RST))
    for pair in pairs:
        await_reset(pair.first)
    throw_away(stage, [pair.second for pair in pairs])


@scenario(first=THROWN_AWAY, second=RESET, wired=True)
def reset_in_close_wait(stage: Stage) -> None:
    """The peer's FIN is taken, the application has not closed."""
    pairs, way = stage.quiet(), stage.to_first
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    for packet in hold(stage, way, ACK, pairs):
        stage.wire.inject(stage.from_first, answer(packet, RST))
    for pair in pairs:
        wait_state(pair.second, TcpState.CLOSE)
    throw_away(stage, [pair.first for pair in pairs])


@scenario(first=THROWN_AWAY, second=RESET, wired=True)
def reset_in_last_ack(stage: Stage) -> None:
    """Both FINs have left, the second is not acknowledged."""
    pairs, way = stage.quiet(), stage.to_first
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    for pair in pairs:
        wait_state(pair.first, TcpState.FIN_WAIT2)
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        close_at_eof(pair.second)
    for packet in hold(stage, way, FIN, pairs):
        stage.wire.inject(stage.from_first, answer(packet, RST))
    stage.wire.drain()
    throw_away(stage, [pair.first for pair in pairs])


@scenario(first=RESET, second=THROWN_AWAY, wired=True)
def reset_in_closing(stage: Stage) -> None:
    """The FINs crossed; the ACK of ours is awaited."""
    pairs, wire = stage.quiet(), stage.wire
    wire.set_mode(Mode.HOLD)
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
        pair.second.shutdown(socket.SHUT_WR)
    packets = hold(stage, stage.from_first, FIN, pairs)
    wire.wait_held(stage.to_first, FIN, stage.count)
    wire.set_mode(Mode.PASS, stage.to_first)
    for pair in pairs:
        wait_state(pair.first, TcpState.CLOSING)
    for packet in packets:
        wire.inject(stage.to_first, answer(packet, RST, seq_offset=1))
    for pair in pairs:
        await_reset(pair.first)
    throw_away(stage, [pair.second for pair in pairs])
