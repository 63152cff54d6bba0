# SPDX-License-Identifier: Apache-2.0
"""RSTs that lose data, and RSTs that lose nothing, made for real."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.truth.abortive import await_reset
from tests.truth.packets import ACK
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, set_linger_zero, wait_readable
from tests.truth.wire import Mode, wait_until
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel

COUNT = 7
CLOSE = bytes([TcpState.CLOSE])
WORDS = b"words on their way"


def await_close(sock: socket.socket) -> None:
    """Return once the RST has ended the socket, without asking it for anything."""
    wait_until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == CLOSE, "a RST")


def health_check(stage: Stage) -> None:
    """SO_LINGER 0 on a connection that never carried a byte."""
    for pair in stage.pairs():
        set_linger_zero(pair.first)
        pair.first.close()
        await_reset(pair.second)


def all_said(stage: Stage) -> None:
    """SO_LINGER 0 after both have finished."""
    for pair in stage.quiet():
        set_linger_zero(pair.first)
        pair.first.close()
        await_reset(pair.second)


def unread(stage: Stage) -> None:
    """close() with the peer's words unread."""
    for pair in stage.quiet():
        pair.second.sendall(WORDS)
        wait_readable(pair.first, len(WORDS))
        pair.first.close()
        await_reset(pair.second)


def on_their_way(stage: Stage) -> None:
    """SO_LINGER 0 while our words are on the wire."""
    pairs = stage.quiet()
    stage.wire.set_mode(Mode.HOLD, stage.from_first)
    for pair in pairs:
        pair.first.sendall(WORDS)
    stage.wire.wait_held(stage.from_first, ACK, COUNT)
    for pair in pairs:
        set_linger_zero(pair.first)
        pair.first.close()
    stage.wire.set_mode(Mode.PASS, stage.from_first)
    for pair in pairs:
        await_close(pair.second)
        assert pair.second.recv(100) == WORDS, "what came before the RST can be read after it"


def both_talk(stage: Stage) -> None:
    """The RST meets an end whose own words are on the wire."""
    pairs = stage.quiet()
    stage.wire.set_mode(Mode.HOLD, stage.to_first)
    for pair in pairs:
        pair.second.sendall(WORDS)
        set_linger_zero(pair.first)
        pair.first.close()
        await_reset(pair.second)
    stage.wire.set_mode(Mode.PASS, stage.to_first)


NOTHING = (False, 0, 0)


@pytest.mark.parametrize(
    ("act", "abort", "reset"),
    [
        (health_check, NOTHING, NOTHING),
        (all_said, NOTHING, NOTHING),
        (unread, (True, len(WORDS), 0), NOTHING),
        (on_their_way, (True, 0, len(WORDS)), (False, len(WORDS), 0)),
        (both_talk, NOTHING, (True, 0, len(WORDS))),
    ],
)
def test_lost(
    act: Callable[[Stage], None],
    abort: tuple[bool, int, int],
    reset: tuple[bool, int, int],
    wired_net: WiredNet,
    tracer_watch: Watch,
) -> None:
    """(data_lost, unread_bytes, unacked_bytes) at the end that sent the RST, and at the other."""
    since = tracer_watch.mark()
    with contextlib.closing(Stage(wired_net.net, Flavour.V4, COUNT, wire=wired_net.wire)) as stage:
        act(stage)
    records = tracer_watch.wait_records(wired_net.net.inums, since, 2 * COUNT)
    found: dict[str, list[tuple[bool, int, int]]] = {"abort": [], "reset": []}
    for record in records:
        evidence = (record["data_lost"], record["unread_bytes"], record["unacked_bytes"])
        found[record["kind"]].append(evidence)
    assert found == {"abort": [abort] * COUNT, "reset": [reset] * COUNT}
