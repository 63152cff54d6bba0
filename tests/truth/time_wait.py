# SPDX-License-Identifier: Apache-2.0
"""What becomes of TIME_WAIT: used again, ended by a SYN, asked again, never made."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import Pair, close_at_eof, close_in_turn, read_eof
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTIVE = Expect("active", how="close", time_wait=True)
PASSIVE = Expect("passive", how="close", time_wait=False)


def close_both(pairs: list[Pair]) -> None:
    """The first end closes, then the second."""
    for pair in pairs:
        pair.first.close()
        close_at_eof(pair.second)


def bound_pairs(stage: Stage, ports: list[int]) -> Iterator[Pair]:
    """Yield one connection from each of these client ports, 0 for any."""
    for port in ports:
        client = stage.opener.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((stage.client_address, port))
        client.connect(stage.opener.target)
        pair = stage.adopt(client)
        pair.exchange()
        yield pair


@scenario(first=ACTIVE, second=PASSIVE, mixable=False)
def same_ports_again(stage: Stage) -> None:
    """A connection between the ports of one in TIME_WAIT: connect() takes it over, a SYN ends it.

    The first by the client's end, the second where the server went to TIME_WAIT.
    """
    pairs = list(bound_pairs(stage, [0] * stage.count))
    ports = [pair.made.client[1] for pair in pairs]
    close_both(pairs)
    close_both(list(bound_pairs(stage, ports)))


@scenario(
    first=ACTIVE,
    second=Expect("passive", None, None, "close", time_wait=False),
    wired=True,
)
def last_ack_lost(stage: Stage) -> None:
    """The last ACK is lost: the second FIN is repeated, TIME_WAIT answers it and begins anew."""
    pairs, wire = stage.quiet(), stage.wire
    for pair in pairs:
        pair.first.close()
        read_eof(pair.second)
    wire.drain()
    way = stage.from_first
    lost = way.dropped
    wire.set_mode(Mode.DROP, way)
    for pair in pairs:
        pair.second.close()
    wire.wait_dropped(way, lost + stage.count)
    wire.set_mode(Mode.PASS, way)
    # The answer to the repeated FIN ends the second socket: that is what bench.settle() awaits.


@scenario(
    first=Expect("active", how="close", time_wait=False),
    second=PASSIVE,
    mixable=False,
    no_time_wait=True,
)
def no_room_for_time_wait(stage: Stage) -> None:
    """net.ipv4.tcp_max_tw_buckets is reached: the close is complete, nothing waits after it."""
    pairs = stage.talked()
    with stage.sysctl("tcp_max_tw_buckets", 0):
        close_in_turn(pairs)
