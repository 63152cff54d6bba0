# SPDX-License-Identifier: Apache-2.0
"""Ends without a packet: only the socket can say that there was one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.truth.scenario import Stage
from tests.truth.sockets import (
    Flavour,
    TcpState,
    disconnect,
    read_eof,
    set_linger_zero,
    wait_readable,
    wait_state,
)
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.truth.compare import Record
    from tests.truth.netns import Net
    from tests.truth.sockets import Pair
    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_RECV_QUEUE, TCP_SEND_QUEUE = 1, 2
"""include/uapi/linux/tcp.h."""
COUNT = 5
WORDS = b"words"


def ends_at(ports: set[int], watch: Watch, net: Net, since: int) -> list[Record]:
    """Return the records of the ends with these ports: one of each pair, and no RST was seen."""
    found = watch.wait_records(net.inums, since, 2 * COUNT)
    mine = [record for record in found if record["lport"] in ports]
    assert len(mine) == COUNT
    assert not any("rst_sent" in one["timeline_us"] for one in mine)
    return mine


@pytest.mark.parametrize("unread", [False, True])
def test_closed_in_repair_mode(unread: bool, loopback_net: Net, tracer_watch: Watch) -> None:
    """Also with data unread, which is a reason for a RST otherwise: none is sent."""
    since = tracer_watch.mark()
    with contextlib.closing(Stage(loopback_net, Flavour.V4, COUNT)) as stage:
        pairs = stage.talked()
        for pair in pairs:
            if unread:
                pair.second.sendall(WORDS)
                wait_readable(pair.first, len(WORDS))
            pair.first.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            pair.first.close()
            set_linger_zero(pair.second)
            pair.second.close()
    ports = {pair.made.client[1] for pair in pairs}
    mine = ends_at(ports, tracer_watch, loopback_net, since)
    shown = {(one["kind"], one["cause"], one["rst_reason"], one["data_lost"]) for one in mine}
    assert shown == {("abort", "disconnect", None, None)}
    assert {one["closer"]["how"] for one in mine} == {"close"}


def taken_over(pair: Pair, net: Net) -> socket.socket:
    """Move the server's end into another socket, as CRIU does with a running program."""
    old = pair.server
    old.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    numbers = []
    for queue in (TCP_RECV_QUEUE, TCP_SEND_QUEUE):
        old.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        numbers.append((queue, old.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)))
    old.close()
    new = net.server.ns.socket()
    new.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    new.bind(pair.made.server)
    for queue, number in numbers:
        new.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        new.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, number)
    new.connect(pair.made.client)
    new.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    return new


def test_taken_over_in_repair_mode(loopback_net: Net, tracer_watch: Watch) -> None:
    """Who opened it is not who calls connect() in repair mode: no SYN leaves."""
    since = tracer_watch.mark()
    with contextlib.closing(Stage(loopback_net, Flavour.V4, COUNT)) as stage:
        pairs = stage.talked()
        for pair in pairs:
            with taken_over(pair, loopback_net) as new:
                pair.client.close()
                read_eof(new)
    found = tracer_watch.wait_records(loopback_net.inums, since, 3 * COUNT)
    ports = {pair.made.server[1] for pair in pairs}
    mine = [one for one in found if one["lport"] in ports]
    assert {one["opened"] for one in mine if one["cause"] == "disconnect"} == {"passive"}
    ended = [one for one in mine if one["cause"] is None]
    assert len(ended) == COUNT
    assert {(one["opened"], one["kind"], one["handshake"]) for one in ended} == {
        (None, "passive", "three_way")
    }


def thrown_away(pair: Pair, _net: Net) -> None:
    """SO_LINGER 0."""
    set_linger_zero(pair.server)
    pair.server.close()


def disconnected(pair: Pair, _net: Net) -> None:
    """connect(AF_UNSPEC)."""
    disconnect(pair.server)
    pair.server.close()


def destroyed(pair: Pair, net: Net) -> None:
    """`ss -K`."""
    ports = f"sport = :{pair.made.server[1]} and dport = :{pair.made.client[1]}"
    words = net.server.ns.command("ss", "-K", "-t", ports)
    subprocess.run(words, check=True, capture_output=True)
    pair.server.close()


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        (thrown_away, "linger_zero", "no RST was needed"),
        (disconnected, "disconnect", "no RST was needed"),
        (destroyed, "sock_destroy", "sends no RST there"),
    ],
)
def test_given_up_in_last_ack(
    end: Callable[[Pair, Net], None],
    cause: str,
    words: str,
    wired_net: WiredNet,
    tracer_watch: Watch,
) -> None:
    """All was sent, the FIN too: no RST is needed, and the FIN is not repeated any more."""
    net, wire, since = wired_net.net, wired_net.wire, tracer_watch.mark()
    with contextlib.closing(Stage(net, Flavour.V4, COUNT, wire=wire)) as stage:
        pairs = stage.quiet()
        for pair in pairs:
            pair.client.shutdown(socket.SHUT_WR)
            read_eof(pair.server)
            wait_state(pair.client, TcpState.FIN_WAIT2)
        wire.set_mode(Mode.DROP)
        for pair in pairs:
            pair.server.shutdown(socket.SHUT_WR)
            wait_state(pair.server, TcpState.LAST_ACK)
            end(pair, net)
            set_linger_zero(pair.client)
            pair.client.close()
        wire.drain()
        wire.set_mode(Mode.PASS)
    ports = {pair.made.server[1] for pair in pairs}
    mine = ends_at(ports, tracer_watch, net, since)
    shown = {(one["kind"], one["cause"], one["rst_reason"], one["data_lost"]) for one in mine}
    assert shown == {("abort", cause, None, False)}
    assert all(words in one["why"] for one in mine)
