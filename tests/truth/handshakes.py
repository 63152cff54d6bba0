# SPDX-License-Identifier: Apache-2.0
"""Connections that began in an unusual way, and how they end."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.truth.abortive import RESET, await_reset
from tests.truth.packets import RST, SYN, answer
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import (
    BACKLOG,
    TIMEOUT_S,
    Flavour,
    Pair,
    TcpState,
    close_at_eof,
    close_in_turn,
    read_exactly,
    wait_state,
)
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Net

IPPROTO_MPTCP = 262
# Clients send data without a cookie (4), servers take it (0x200): net.ipv4.tcp_fastopen.
FAST_OPEN_WITHOUT_COOKIE = 0x1 | 0x2 | 0x4 | 0x200
EARLY = b"early"


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
    mixable=False,
)
def syn_cookies(stage: Stage) -> None:
    """The server kept nothing of the SYN: net.ipv4.tcp_syncookies 2."""
    with stage.sysctl("tcp_syncookies", 2):
        pairs = stage.talked()
    close_in_turn(pairs)


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
    mixable=False,
)
def fast_open(stage: Stage) -> None:
    """Data in the SYN, and an orderly close."""
    with stage.sysctl("tcp_fastopen", FAST_OPEN_WITHOUT_COOKIE):
        pairs = list(fast_pairs(stage))
    for pair in pairs:
        read_exactly(pair.server, len(EARLY))
        pair.exchange()
    close_in_turn(pairs)


def fast_pairs(stage: Stage) -> Iterator[Pair]:
    """Yield connections whose SYN carried data."""
    opener = stage.opener
    opener.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, BACKLOG)
    for _ in range(stage.count):
        client = opener.client()
        client.sendto(EARLY, socket.MSG_FASTOPEN, opener.target)
        yield stage.adopt(client)


@scenario(
    first=Expect("passive", how="close"),
    second=Expect("active", how="close"),
    wired=True,
    both_ways=False,
)
def closed_in_syn_recv(stage: Stage) -> None:
    """TCP Fast Open: the server reads, answers and closes before the handshake is complete."""
    wire = stage.wire
    wire.set_mode(Mode.HOLD, wire.to_client)
    with stage.sysctl("tcp_fastopen", FAST_OPEN_WITHOUT_COOKIE):
        pairs = list(fast_pairs(stage))
        for pair in pairs:
            read_exactly(pair.server, len(EARLY))
            pair.server.sendall(b"answer")
            pair.server.close()
    wire.set_mode(Mode.PASS)
    for pair in pairs:
        close_at_eof(pair.client)


@scenario(
    first=RESET,
    second=Expect("attempt_failed", cause="peer"),
    wired=True,
    both_ways=False,
)
def reset_in_syn_recv(stage: Stage) -> None:
    """TCP Fast Open: the server has the data when a RST takes the SYN back."""
    wire = stage.wire
    wire.set_mode(Mode.HOLD, wire.to_client)
    with stage.sysctl("tcp_fastopen", FAST_OPEN_WITHOUT_COOKIE):
        pairs = list(fast_pairs(stage))
    wire.wait_held(wire.to_client, SYN, stage.count)
    for packet in wire.held(wire.to_client):
        wire.inject(wire.to_server, answer(packet, RST))
    for pair in pairs:
        wait_state(pair.server, TcpState.CLOSE)
    wire.set_mode(Mode.PASS)
    for pair in pairs:
        await_reset(pair.client)


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
    wired=True,
)
def simultaneous_open(stage: Stage) -> None:
    """The SYNs cross, nobody listens; the close is as any other."""
    wire, opener = stage.wire, stage.opener
    wire.set_mode(Mode.HOLD)
    for _ in range(stage.count):
        stage.join(*crossing(opener.net, opener.flavour))
    for way in (wire.to_server, wire.to_client):
        wire.wait_held(way, SYN, stage.count)
    wire.set_mode(Mode.PASS)
    pairs = stage.joined
    for pair in pairs:
        for end in (pair.client, pair.server):
            wait_state(end, TcpState.ESTABLISHED)
            end.settimeout(TIMEOUT_S)
        pair.exchange()
    close_in_turn(pairs)


def crossing(net: Net, flavour: Flavour) -> tuple[socket.socket, socket.socket]:
    """Return two sockets that connect to each other."""
    families = flavour.client_family, flavour.server_family
    sides = net.client, net.server
    ends = [side.ns.socket(family) for side, family in zip(sides, families, strict=True)]
    for end, side in zip(ends, sides, strict=True):
        end.setblocking(False)
        end.bind((side.address[flavour.family], 0))
    for end, other in (ends, ends[::-1]):
        end.connect_ex(other.getsockname())
    return ends[0], ends[1]


@scenario(
    first=Expect("active", None, None, "close"),
    second=Expect("passive", None, None, "close"),
    wired=True,
    both_ways=False,
)
def fin_completes_the_handshake(stage: Stage) -> None:
    """The last ACK of the handshake is lost: the FIN is what the server hears next."""
    wire, opener = stage.wire, stage.opener
    wire.set_mode(Mode.HOLD, wire.to_client)
    clients = [opener.client() for _ in range(stage.count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(opener.target)
    wire.wait_held(wire.to_client, SYN, stage.count)
    wire.set_mode(Mode.DROP, wire.to_server)
    lost = wire.to_server.dropped
    wire.set_mode(Mode.PASS, wire.to_client)
    wire.wait_dropped(wire.to_server, lost + stage.count)
    wire.set_mode(Mode.PASS)
    pairs = []
    for client in clients:
        client.close()
        pairs.append(stage.adopt(client))
    for pair in pairs:
        close_at_eof(pair.server)


@scenario(first=Expect("active"), second=Expect("passive"), mixable=False)
def multipath(stage: Stage) -> None:
    """MPTCP: what closes is a subflow, and a kernel worker closes it."""
    opener = stage.opener
    server_net, client_net = opener.net.server, opener.net.client
    try:
        listener = server_net.ns.socket(opener.flavour.server_family, protocol=IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"this kernel makes no MPTCP sockets: {error}")
    with listener:
        listener.settimeout(TIMEOUT_S)
        listener.bind((opener.listener.getsockname()[0], 0))
        listener.listen(BACKLOG)
        target = (opener.target[0], listener.getsockname()[1])
        pairs = []
        for _ in range(stage.count):
            client = client_net.ns.socket(opener.flavour.client_family, protocol=IPPROTO_MPTCP)
            client.settimeout(TIMEOUT_S)
            client.connect(target)
            pair = stage.adopt(client, listener)
            pair.exchange()
            pairs.append(pair)
        for pair in pairs:
            pair.first.close()
            close_at_eof(pair.second)
