# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that go: what is open keeps one alive, what it left behind does not.

A socket holds its namespace until it is freed, an orphan included; a mini-socket does not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.conftest import watch_of
from tests.truth.netns import (
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    Net,
    Side,
    configure,
    ip,
    loopback,
    namespace,
)
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, close_in_turn, read_eof
from tests.truth.wire import wait_until

if TYPE_CHECKING:
    from tests.truth.compare import Record
    from tests.truth.netns import Namespace
    from tests.truth.sockets import Pair
    from tests.truth.watch import Watch

pytestmark = pytest.mark.kernel

COUNT: Final = 5
DEVICE: Final = "veth0"
ONE_RETRY: Final = "1"
GIVEN_UP: Final = ("timeout", "retransmit_timeout")


def joined(client: Namespace, server: Namespace) -> Net:
    """Join two namespaces by veth. An orphan there is soon given up."""
    ip(
        *("link", "add", DEVICE, "netns", client.name, "type", "veth"),
        *("peer", "name", DEVICE, "netns", server.name),
    )
    for ns, address in ((client, CLIENT_ADDRESS), (server, SERVER_ADDRESS)):
        configure(ns, DEVICE, address)
        ns.sysctl("ipv4/tcp_orphan_retries", ONE_RETRY)
    ends = Side(client, CLIENT_ADDRESS, DEVICE), Side(server, SERVER_ADDRESS, DEVICE)
    return Net("goes", *ends)


def has_device(ns: Namespace) -> bool:
    """Say whether the veth is still there: it goes with its other end."""
    with ns.entered():
        return DEVICE in Path("/proc/thread-self/net/dev").read_text()


def begun(held: contextlib.ExitStack, net: Net) -> tuple[Watch, Stage, list[Pair]]:
    """Watch a network and let connections there say something; all is closed with `held`."""
    watch = held.enter_context(watch_of(net))
    stage = held.enter_context(contextlib.closing(Stage(net, Flavour.V4, COUNT)))
    return watch, stage, stage.talked()


def ends_of(watch: Watch, net: Net, stage: Stage, count: int) -> list[Record]:
    """Return the records of a stage's connections; the namespace's number may be another's by now.

    A port of one end is the other's remote port.
    """
    ports = {made.client[1] for made in stage.made}
    found = watch.wait_records(net.inums, 0, count)
    mine = [one for one in found if ports & {one["lport"], one["rport"]}]
    assert len(mine) == count
    return mine


def test_its_name_goes_while_connections_are_open() -> None:
    """A process outside holds both ends: they go on, and close as ever."""
    with contextlib.ExitStack() as held:
        with loopback("goes") as net:
            watch, stage, pairs = begun(held, net)
        for pair in pairs:
            pair.exchange()
        close_in_turn(pairs)
        found = ends_of(watch, net, stage, 2 * COUNT)
    assert sorted(one["kind"] for one in found) == ["active"] * COUNT + ["passive"] * COUNT
    assert {one["netns"] for one in found} == net.inums


def test_the_peers_namespace_goes() -> None:
    """All that is left in it are mini-sockets, gone without a word: our FIN is never answered."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(namespace("stays"))
        with namespace("goes") as client:
            net = joined(client, server)
            watch, stage, pairs = begun(held, net)
            for pair in pairs:
                pair.client.close()
                read_eof(pair.server)
            wait_until(lambda: client.waiting_sockets() == COUNT, "our FINs to be acknowledged")
        wait_until(lambda: not has_device(server), "the namespace to go")
        for pair in pairs:
            pair.server.close()
        found = ends_of(watch, net, stage, 2 * COUNT)
    told = {one["netns"]: set[tuple[str, str | None]]() for one in found}
    for one in found:
        told[one["netns"]].add((one["kind"], one["cause"]))
    assert told == {client.inum: {("active", None)}, server.inum: {GIVEN_UP}}
    given_up = [one["why"] for one in found if one["netns"] == server.inum]
    assert all("our FIN could not leave this host" in why for why in given_up)
    assert all(one["closer"]["how"] == "close" for one in found)


def test_an_orphan_outlives_its_name() -> None:
    """The path is dead, nobody holds socket or namespace: the kernel still gives up in order."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(namespace("stays"))
        with namespace("goes") as client:
            net = joined(client, server)
            watch, stage, pairs = begun(held, net)
            ip("-n", server.name, "link", "set", DEVICE, "down")
            for pair in pairs:
                pair.client.close()
        found = ends_of(watch, net, stage, COUNT)
    assert {(one["netns"], one["kind"], one["cause"]) for one in found} == {
        (client.inum, *GIVEN_UP)
    }
