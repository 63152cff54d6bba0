# SPDX-License-Identifier: Apache-2.0
"""An ACK of the handshake that comes twice at once: two sockets for one connection, one undone."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import skip_or_fail
from tests.truth.doubled import CPUS, deliver_twice
from tests.truth.packets import ACK, SYN
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, close_in_turn
from tests.truth.wire import Mode
from tracer.errors import HostError
from tracer.kernel.source import KernelSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.sockets import Pair
    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel

COUNT = 30
IN_NEED, ALWAYS = 1, 2
"""net.ipv4.tcp_syncookies: with cookies there is no request whose place could be taken."""
ROUNDS = 5
"""The two copies of an ACK nearly always meet; how near depends on what else runs."""


@pytest.fixture(scope="module")
def source() -> Iterator[KernelSource]:
    """The programs, attached once more: their totals are asked for at once."""
    try:
        loaded = KernelSource(KernelSource.load())
    except HostError as error:
        skip_or_fail(str(error))
        raise
    with loaded:
        yield loaded


def undone(source: KernelSource) -> int:
    """Return how many second children the kernel side has counted."""
    totals: dict[str, int] = json.loads(bytes(source.counters().data))
    return totals["second_children"]


def opened_twice(stage: Stage) -> list[Pair]:
    """Open connections whose handshakes end with an ACK that comes on both CPUs."""
    wire = stage.wire
    wire.set_mode(Mode.HOLD, wire.to_server)
    clients = [stage.opener.client() for _ in range(stage.count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(stage.opener.target)
    wire.wait_held(wire.to_server, SYN, stage.count)
    for syn in take_held(stage):
        wire.inject(wire.to_server, syn)
    wire.wait_held(wire.to_server, ACK, stage.count)
    deliver_twice(wire.to_server, take_held(stage))
    wire.set_mode(Mode.PASS, wire.to_server)
    for client in clients:
        client.settimeout(10)
    return [stage.adopt(client) for client in clients]


def take_held(stage: Stage) -> list[bytes]:
    """Take what is held on its way to the server."""
    packets = stage.wire.held(stage.wire.to_server)
    stage.wire.discard(stage.wire.to_server)
    return packets


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("cookies", [False, True])
@pytest.mark.parametrize("flavour", [Flavour.V4, Flavour.V6])
def test_the_second_socket_is_no_close(
    flavour: Flavour,
    cookies: bool,
    wired_net: WiredNet,
    tracer_watch: Watch,
    source: KernelSource,
) -> None:
    """One record for each end of each connection; what was undone is counted by itself."""
    net = wired_net.net
    for _ in range(ROUNDS):
        since, before = tracer_watch.mark(), undone(source)
        with contextlib.closing(Stage(net, flavour, COUNT, wire=wired_net.wire)) as stage:
            with stage.sysctl("tcp_syncookies", ALWAYS if cookies else IN_NEED):
                pairs = opened_twice(stage)
            close_in_turn(pairs)
        ports = {pair.made.client[1] for pair in pairs}
        found = tracer_watch.wait_records(net.inums, since, 2 * COUNT)
        mine = [record for record in found if ports & {record["lport"], record["rport"]}]
        assert sorted(record["kind"] for record in mine) == ["active"] * COUNT + ["passive"] * COUNT
        if undone(source) > before:
            return
    pytest.fail(f"no two of {ROUNDS * COUNT} pairs of ACKs came at once")
