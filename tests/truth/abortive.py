# SPDX-License-Identifier: Apache-2.0
"""Closes that a RST ends, attempts that never became a connection, and dead paths."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from tests.truth.packets import RST
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import (
    DELAYED_ACK_S,
    accept_queue,
    close_with_reset,
    disconnect,
    read_eof,
    set_linger_zero,
    wait_readable,
)
from tests.truth.wire import Mode, wait_until

if TYPE_CHECKING:
    from tests.truth.sockets import Pair

USER_TIMEOUT_MS = 300
RESET = Expect("reset", cause="peer")
RESET_ERRORS = (ConnectionResetError, BrokenPipeError)


def await_reset(sock: socket.socket) -> None:
    """Return once the peer's RST has arrived."""
    with contextlib.suppress(*RESET_ERRORS):
        read_eof(sock)


@scenario(first=Expect("abort", how="close", cause="unread_data"), second=RESET)
def unread_data(stage: Stage) -> None:
    """close() with bytes nobody read."""
    for pair in stage.talked():
        pair.second.sendall(b"never read")
        wait_readable(pair.first, len(b"never read"))
        pair.first.close()
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="unread_data"), second=RESET)
def unread_data_in_close_wait(stage: Stage) -> None:
    """The peer sent data and its FIN; the close() finds the data unread."""
    for pair in stage.talked():
        pair.second.sendall(b"never read")
        pair.second.shutdown(socket.SHUT_WR)
        wait_readable(pair.first, len(b"never read"))
        pair.first.close()
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="linger_zero"), second=RESET)
def linger_zero(stage: Stage) -> None:
    """SO_LINGER 0 after a conversation."""
    for pair in stage.talked():
        close_with_reset(pair.first)
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="linger_zero"), second=RESET)
def linger_zero_silent(stage: Stage) -> None:
    """SO_LINGER 0 on a connection that never carried a byte: a health check."""
    for pair in stage.pairs():
        close_with_reset(pair.first)
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="linger_zero"), second=RESET)
def linger_zero_in_close_wait(stage: Stage) -> None:
    """The second end has closed one direction; the first answers its FIN with a RST."""
    for pair in stage.talked():
        pair.second.shutdown(socket.SHUT_WR)
        read_eof(pair.first)
        close_with_reset(pair.first)
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="linger_zero"), second=RESET)
def linger_zero_after_shutdown(stage: Stage) -> None:
    """The FIN was sent and acknowledged, then SO_LINGER 0 takes it back."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        close_with_reset(pair.first)
        await_reset(pair.second)
        pair.second.close()


@scenario(first=Expect("abort", cause="disconnect"), second=RESET)
def disconnected(stage: Stage) -> None:
    """connect(AF_UNSPEC) on an established socket."""
    for pair in stage.talked():
        disconnect(pair.first)
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="data_after_close"), second=RESET)
def data_after_close(stage: Stage) -> None:
    """The segment that acknowledges the FIN carries data for a socket nobody holds."""
    for pair in stage.talked():
        pair.start_clock()
        pair.first.close()
        read_eof(pair.second)
        pair.second.sendall(b"too late")
        pair.stop_clock()
        await_reset(pair.second)


@scenario(first=Expect("active", how="close"), second=RESET)
def data_after_fin_wait2(stage: Stage) -> None:
    """Data for an orphaned FIN_WAIT2: the socket had left before, its mini-socket sends the RST."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.close()
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.second.sendall(b"too late")
        await_reset(pair.second)


@scenario(first=Expect("abort", how="close", cause="data_after_close"), second=RESET, wired=True)
def data_crosses_fin(stage: Stage) -> None:
    """Data that was under way when the FIN left arrives at a FIN_WAIT1 nobody holds."""
    pairs = stage.quiet()
    wire = stage.wire
    away = stage.from_first
    wire.set_mode(Mode.HOLD, away)
    for pair in pairs:
        pair.first.close()
        pair.second.sendall(b"crossing")
    wire.wait_held(away, RST, stage.count)
    wire.set_mode(Mode.PASS, away)
    for pair in pairs:
        await_reset(pair.second)


@scenario(first=RESET, second=Expect("abort", cause="no_listener"), both_ways=False)
def listener_closed(stage: Stage) -> None:
    """The listener goes with established children in its queue."""
    listener = stage.opener.listener
    clients = [stage.opener.connect() for _ in range(stage.count)]
    wait_until(lambda: accept_queue(listener) == stage.count, "the children to be queued")
    for client in clients:
        stage.note(client, client.getpeername(), ends=2)
    listener.close()
    for client in clients:
        await_reset(client)
        client.close()


@scenario(first=Expect("refused", cause="no_listener"), second=None, both_ways=False)
def refused(stage: Stage) -> None:
    """Nobody listens: the port is bound, so nobody else can."""
    opener = stage.opener
    with contextlib.closing(opener.net.server.ns.socket(opener.flavour.server_family)) as bound:
        bound.bind((opener.listener.getsockname()[0], 0))
        target = (opener.target[0], bound.getsockname()[1])
        for _ in range(stage.count):
            client = opener.client()
            client.bind((stage.client_address, 0))
            stage.note(client, target, ends=1)
            with contextlib.suppress(ConnectionRefusedError):
                client.connect(target)
            client.close()


@scenario(first=Expect("attempt_failed"), second=None, wired=True, both_ways=False)
def given_up(stage: Stage) -> None:
    """close() while the SYN is still unanswered."""
    wire = stage.wire
    wire.set_mode(Mode.DROP, wire.to_server)
    lost = wire.to_server.dropped
    clients = stage.unanswered()
    wire.wait_dropped(wire.to_server, lost + stage.count)
    for client in clients:
        client.close()
    wire.set_mode(Mode.PASS)


@scenario(
    first=Expect("timeout", cause="user_timeout"),
    second=Expect("abort", cause="linger_zero"),
    wired=True,
    waits=True,
)
def user_timeout(stage: Stage) -> None:
    """The path dies under unacknowledged data, TCP_USER_TIMEOUT gives up."""
    pairs = stage.quiet()
    stage.wire.set_mode(Mode.DROP)
    for pair in pairs:
        pair.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        pair.first.sendall(b"into the void")
    await_timeouts(stage, pairs)


@scenario(
    first=Expect("timeout", cause="keepalive"),
    second=Expect("abort", cause="linger_zero"),
    wired=True,
    waits=True,
)
def keepalive_timeout(stage: Stage) -> None:
    """The path dies under an idle connection, its keep-alive finds out."""
    pairs = stage.quiet()
    stage.wire.set_mode(Mode.DROP)
    for pair in pairs:
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            pair.first.setsockopt(socket.IPPROTO_TCP, option, 1)
        pair.first.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    await_timeouts(stage, pairs)


def await_timeouts(stage: Stage, pairs: list[Pair]) -> None:
    """Let the first ends time out, abort the second ones, open the path when all is lost."""
    for pair in pairs:
        with contextlib.suppress(OSError):
            read_eof(pair.first)
    back = stage.to_first
    lost = back.dropped
    for pair in pairs:
        set_linger_zero(pair.second)
        pair.close()
    stage.wire.wait_dropped(back, lost + stage.count)
    # A keep-alive's own RST went the other way; it may still be in the relay's hands.
    stage.wire.drain()
    stage.wire.set_mode(Mode.PASS)
