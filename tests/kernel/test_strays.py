# SPDX-License-Identifier: Apache-2.0
"""RSTs without a connection are counted by port and cause, each once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import skip_or_fail
from tests.kernel.conftest import attached
from tests.truth.sockets import Flavour
from tests.truth.strays import knock, talk_to_mini_sockets
from tracer.aggregator import strays_of
from tracer.tcp import Stray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Net
    from tracer.aggregator import StrayReset
    from tracer.kernel.source import KernelSource

pytestmark = pytest.mark.kernel

COUNT = 23


@pytest.fixture(scope="module")
def source() -> Iterator[KernelSource]:
    """The programs, attached."""
    with attached() as loaded:
        if not loaded.host.rst_reasons:
            skip_or_fail("before v6.10 tcp_send_reset tells of RSTs of whole sockets only")
        yield loaded


def strays_at(source: KernelSource, netns: int, port: int) -> list[StrayReset]:
    """Return what is counted for one port of one namespace."""
    totals = json.loads(bytes(source.counters().data))
    assert totals["strays_lost"] == 0
    return [s for s in strays_of(totals["strays"]) if (s.netns, s.lport) == (netns, port)]


@pytest.mark.parametrize("flavour", [Flavour.V4, Flavour.V6])
@pytest.mark.parametrize("where", ["loopback_net", "veth_net"])
def test_closed_port(
    where: str, flavour: Flavour, source: KernelSource, request: pytest.FixtureRequest
) -> None:
    """23 SYNs to a port nobody listens on, 23 RSTs."""
    net: Net = request.getfixturevalue(where)
    port = knock(net, flavour, COUNT)
    (stray,) = strays_at(source, net.server.ns.inum, port)
    assert (stray.cause, stray.resets) == (Stray.NO_SOCKET, COUNT)
    assert source.host.rst_reasons[stray.reason] == "SK_RST_REASON_NO_SOCKET"


@pytest.mark.parametrize("flavour", [Flavour.V4, Flavour.V6])
def test_data_for_a_mini_socket(flavour: Flavour, source: KernelSource, veth_net: Net) -> None:
    """The closed end's mini-socket answers data with a RST: none of it is a connection's."""
    port = talk_to_mini_sockets(veth_net, flavour, COUNT)
    (stray,) = strays_at(source, veth_net.server.ns.inum, port)
    assert (stray.cause, stray.resets) == (Stray.TIME_WAIT, COUNT)
    assert source.host.rst_reasons[stray.reason] == "SK_RST_REASON_TCP_TIMEWAIT_SOCKET"
