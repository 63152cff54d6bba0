# SPDX-License-Identifier: Apache-2.0
"""What becomes of TIME_WAIT is counted, each change once, where functions may be hooked.

The counts are of the whole host: these tests are meant for a machine of their own, such as the
guests of `make vm`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel.conftest import attached
from tests.pace import allowed_s
from tests.truth.mixed import SCENARIOS
from tests.truth.netns import loopback
from tests.truth.scenario import Stage
from tests.truth.sockets import DELAYED_ACK_S, Flavour, read_eof
from tests.truth.strays import talk_to_mini_sockets
from tests.truth.wire import wait_until
from tracer.aggregator import changes_of
from tracer.kernel import hooks
from tracer.tcp import TimeWaitChange as Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Net
    from tests.truth.wire import WiredNet
    from tracer.kernel.source import KernelSource

pytestmark = pytest.mark.kernel

COUNT = 12
SETTLE_S = allowed_s(20.0)
NOTHING_MORE_S = 0.3


@pytest.fixture(scope="module", params=["fentry", "kprobe"])
def source(request: pytest.FixtureRequest) -> Iterator[KernelSource]:
    """The programs, attached by one mechanism."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOURWAVE_HOOKS", request.param)
        loaded = attached()
    with loaded:
        (hook,) = (h for h in loaded.manifest["hooks"] if h["hook"] == hooks.TIME_WAIT.name)
        if hook["mechanism"] != request.param:
            pytest.skip(f"this kernel allows no {request.param}: {hook['reason']}")
        yield loaded


class Changes:
    """What was counted since this was made, `but` for what does not matter."""

    def __init__(self, source: KernelSource, *but: Change) -> None:
        self._source = source
        self._but = but
        self._before = self._now()

    def _now(self) -> dict[Change, int]:
        now = changes_of(json.loads(bytes(self._source.counters().data))["time_waits"])
        assert now is not None
        return now

    def since(self) -> dict[Change, int]:
        """Return what is not zero."""
        grown = {one: now - self._before[one] for one, now in self._now().items()}
        return {one: count for one, count in grown.items() if count and one not in self._but}

    def expect(self, **wanted: int) -> None:
        """Wait until these are counted, and a little for anything beyond them."""
        exactly = {Change[name]: count for name, count in wanted.items()}
        try:
            wait_until(lambda: self.since() == exactly, "the changes", SETTLE_S)
        except TimeoutError:
            assert self.since() == exactly
        time.sleep(NOTHING_MORE_S)
        assert self.since() == exactly


@pytest.mark.parametrize("flavour", [Flavour.V4, Flavour.V6])
def test_the_peers_fin_comes_late(
    source: KernelSource, loopback_net: Net, flavour: Flavour
) -> None:
    """An orphan's mini-socket in FIN_WAIT2 goes to TIME_WAIT when the peer closes."""
    stage = Stage(loopback_net, flavour, COUNT)
    changes = Changes(source)
    try:
        pairs = stage.talked()
        waiting = loopback_net.client.ns.waiting_sockets()
        for pair in pairs:
            pair.first.close()
            read_eof(pair.second)
        wait_until(
            lambda: loopback_net.client.ns.waiting_sockets() == waiting + COUNT, "mini-sockets"
        )
        assert changes.since() == {}
    finally:
        stage.close()
    changes.expect(PEER_FIN=COUNT)


# Where the peer closes at once its FIN may come with the ACK of ours, or after it.
EITHER_WAY = Change.PEER_FIN


@pytest.mark.parametrize(
    ("scenario", "change"),
    [("last_ack_lost", "RESTARTED_BY_FIN"), ("reset_of_time_wait", "ENDED_BY_RST")],
)
def test_a_segment_comes_for_it(
    source: KernelSource, wired_net: WiredNet, scenario: str, change: str
) -> None:
    """A FIN is repeated, as the last ACK was lost; a RST, which is RFC 1337's assassination."""
    changes = Changes(source, EITHER_WAY)
    entry = SCENARIOS[scenario]
    entry.run(wired_net.net, Flavour.V4, COUNT, wire=wired_net.wire)
    changes.expect(**{change: COUNT})


@pytest.mark.parametrize(("server_first", "change"), [(False, "REUSED"), (True, "ENDED_BY_SYN")])
def test_the_same_ports_again(
    source: KernelSource, veth_net: Net, server_first: bool, change: str
) -> None:
    """connect() takes over the client's TIME_WAIT, its SYN ends the server's."""
    changes = Changes(source, EITHER_WAY)
    entry = SCENARIOS["same_ports_again"]
    entry.run(veth_net, Flavour.V4, COUNT, server_first=server_first)
    changes.expect(**{change: COUNT})


def test_data_before_the_peers_fin(source: KernelSource, veth_net: Net) -> None:
    """Nobody can read it: a RST answers, and the mini-socket is gone."""
    changes = Changes(source)
    talk_to_mini_sockets(veth_net, Flavour.V4, COUNT)
    changes.expect(ENDED_BY_DATA=COUNT)


def test_a_namespace_goes(source: KernelSource) -> None:
    """What is in TIME_WAIT in it is destroyed."""
    changes = Changes(source)
    with loopback() as net:
        stage = Stage(net, Flavour.V4, COUNT)
        try:
            for pair in stage.talked():
                pair.first.close()
                read_eof(pair.second)
            time.sleep(DELAYED_ACK_S)
        finally:
            stage.close()
        wait_until(lambda: changes.since() == {Change.PEER_FIN: COUNT}, "FINs", SETTLE_S)
    changes.expect(PEER_FIN=COUNT, DESTROYED=COUNT)
