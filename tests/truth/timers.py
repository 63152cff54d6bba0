# SPDX-License-Identifier: Apache-2.0
"""Closes that a timer makes, and FIN_WAIT2 under its several limits. Sysctls shorten the waits."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from functools import partial

from tests.truth.abortive import RESET, await_reset, await_timeouts
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import (
    DELAYED_ACK_S,
    TIMEOUT_S,
    TcpState,
    close_at_eof,
    close_with_reset,
    unacked_bytes,
    unsent_bytes,
    wait_state,
)
from tests.truth.wire import Mode, wait_until

RETRIES = 2
THROWN_AWAY = Expect("abort", cause="linger_zero")
TWO_SEGMENTS_BYTES = 2_896
GIVEN_UP = Expect("timeout", cause="retransmit_timeout")
# More than one segment of a loopback: a smaller window would only ever open by probes.
BUFFER_BYTES = 100_000
# tcp_fin_time() above a minute leaves the rest to the keepalive timer of the full socket.
FIN_WAIT2_S = 61


@scenario(first=GIVEN_UP, second=THROWN_AWAY, wired=True, waits=True)
def retransmission_timeout(stage: Stage) -> None:
    """The path dies under unacknowledged data, net.ipv4.tcp_retries2 gives up."""
    pairs = stage.quiet()
    with stage.sysctl("tcp_retries2", RETRIES):
        stage.wire.set_mode(Mode.DROP)
        for pair in pairs:
            pair.first.sendall(b"into the void")
        await_timeouts(stage, pairs)


@scenario(first=GIVEN_UP, second=Expect("abort", cause="unread_data"), wired=True, waits=True)
def zero_window_timeout(stage: Stage) -> None:
    """The peer closed its window, then the path dies under the probes."""
    pairs = stage.pairs()
    with stage.sysctl("tcp_retries2", RETRIES):
        close_windows([pair.first for pair in pairs])
        stage.wire.set_mode(Mode.DROP)
        await_timeouts(stage, pairs)


def close_windows(senders: list[socket.socket]) -> None:
    """Send little by little until nothing is in flight and there is no room for more.

    What is in flight when the window closes may be refused, and is then retransmitted: another
    timer than that of the probes.
    """
    while senders := [sender for sender in senders if not unsent_bytes(sender)]:
        for sender in senders:
            sender.send(b"f" * TWO_SEGMENTS_BYTES)
        for sender in senders:
            wait_until(partial(is_path_empty, sender), "an empty path")


def is_path_empty(sender: socket.socket) -> bool:
    """Whether all that was sent is acknowledged."""
    return unsent_bytes(sender) == unacked_bytes(sender)


def fill(sender: socket.socket, receiver: socket.socket) -> None:
    """Send until the receiver, which does not read, has no room and bytes are left unsent."""
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BUFFER_BYTES)
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"f" * BUFFER_BYTES)
    sender.settimeout(TIMEOUT_S)
    wait_until(lambda: unsent_bytes(sender) > 0, "a closed window")


@scenario(first=Expect("active", how="close"), second=Expect("passive", how="close"))
def zero_window_at_close(stage: Stage) -> None:
    """close() with data the peer has no room for: the FIN leaves when the peer has read."""
    pairs = stage.pairs()
    for pair in pairs:
        fill(pair.first, pair.second)
        pair.first.close()
    for pair in pairs:
        close_at_eof(pair.second)


@scenario(first=GIVEN_UP, second=THROWN_AWAY, wired=True, waits=True)
def orphan_timeout(stage: Stage) -> None:
    """The path dies under the FIN of a closed socket: net.ipv4.tcp_orphan_retries."""
    pairs, wire = stage.quiet(), stage.wire
    with stage.sysctl("tcp_orphan_retries", 1):
        wire.set_mode(Mode.DROP)
        for pair in pairs:
            pair.first.close()
        first = stage.first_side.ns
        wait_until(lambda: not first.busy_sockets(), "the orphans to be given up", TIMEOUT_S)
        lost = stage.to_first.dropped
        for pair in pairs:
            close_with_reset(pair.second)
        wire.wait_dropped(stage.to_first, lost + stage.count)
        wire.set_mode(Mode.PASS)


@scenario(
    first=Expect("attempt_failed", cause="retransmit_timeout"),
    second=None,
    wired=True,
    both_ways=False,
    waits=True,
)
def connect_timeout(stage: Stage) -> None:
    """Nobody answers the SYN: net.ipv4.tcp_syn_retries."""
    wire = stage.wire
    with stage.sysctl("tcp_syn_retries", 1), stage.sysctl("tcp_syn_linear_timeouts", 0):
        wire.set_mode(Mode.DROP, wire.to_server)
        clients = stage.unanswered()
        ns = stage.opener.net.client.ns
        wait_until(lambda: not ns.busy_sockets(), "the SYNs to be given up", TIMEOUT_S)
        for client in clients:
            client.close()
        wire.set_mode(Mode.PASS)


@scenario(first=Expect("active", how="close"), second=RESET, mixable=False, waits=True)
def fin_wait2_timeout(stage: Stage) -> None:
    """The peer does not close in time: net.ipv4.tcp_fin_timeout. Its next words are answered."""
    pairs = stage.talked()
    with stage.sysctl("tcp_fin_timeout", 1):
        for pair in pairs:
            pair.first.close()
        time.sleep(DELAYED_ACK_S)
        first = stage.first_side.ns
        wait_until(lambda: not first.waiting_sockets(), "the mini-sockets to go", TIMEOUT_S)
    for pair in pairs:
        pair.second.sendall(b"still there?")
        await_reset(pair.second)


@scenario(
    first=Expect("active", "four_way", "pure", "close"),
    second=Expect("passive", "four_way", "pure", "close"),
    mixable=False,
    waits=True,
)
def fin_wait2_by_timer(stage: Stage) -> None:
    """TCP_LINGER2 of more than a minute: the full socket waits first, a timer hands it over."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, FIN_WAIT2_S)
        pair.first.close()
    first = stage.first_side.ns
    wait_until(
        lambda: first.waiting_sockets() >= len(pairs), "the timer to hand them over", TIMEOUT_S
    )
    for pair in pairs:
        close_at_eof(pair.second)


@scenario(first=Expect("abort", how="close", cause="fin_wait2_timeout"), second=RESET)
def linger2_negative(stage: Stage) -> None:
    """TCP_LINGER2 below zero: FIN_WAIT2 is not waited for, the ACK of the FIN meets a RST."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)
        pair.first.close()
    for pair in pairs:
        await_reset(pair.second)
    time.sleep(DELAYED_ACK_S)


@scenario(first=Expect("abort", cause="fin_wait2_timeout"), second=RESET)
def linger2_negative_in_fin_wait2(stage: Stage) -> None:
    """The same where the FIN was acknowledged before: close() itself sends the RST."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)
        pair.first.shutdown(socket.SHUT_WR)
        wait_state(pair.first, TcpState.FIN_WAIT2)
        pair.first.close()
        await_reset(pair.second)


@scenario(
    first=Expect("timeout", how="close", cause="fin_wait2_timeout"), second=RESET, mixable=False
)
def fin_wait2_timer_resets(stage: Stage) -> None:
    """As fin_wait2_by_timer, but net.ipv4.tcp_fin_timeout is lowered before the timer looks."""
    pairs = stage.talked()
    with stage.sysctl("tcp_fin_timeout", FIN_WAIT2_S):
        for pair in pairs:
            pair.first.close()
        time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        wait_state(pair.second, TcpState.CLOSE)


@scenario(first=Expect("abort", cause="sock_destroy"), second=RESET, mixable=False)
def destroyed(stage: Stage) -> None:
    """`ss -K` from outside."""
    for pair in stage.talked():
        local, remote = pair.first.getsockname()[1], pair.first.getpeername()[1]
        ports = f"sport = :{local} and dport = :{remote}"
        words = stage.first_side.ns.command("ss", "-K", "-t", ports)
        subprocess.run(words, check=True, capture_output=True)
        await_reset(pair.second)
